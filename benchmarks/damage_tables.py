"""Kinds of damage to the tables of a data dir, and to its scenes."""

import functools
import gzip
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from damage_case import FORMS, SIGNALS, UTTERANCES, Case, Spot, kind, write_lines

# ---- Lines of tables

WITHOUT_TEXT = [f"{name}.scp" for name in SIGNALS] + "utt2spk spk2utt segments utt2dur utt2num_samples".split()
IDS = [*WITHOUT_TEXT, "text_spk1", "text_spk2"]
LINES = {  # name -> what becomes of a line, and the tables in which that is damage
    "missing": (lambda case, line: [], IDS),
    "twice": (lambda case, line: [line, line], IDS),
    "twice, with other values": (lambda case, line: [line, line + b"x"], IDS),
    "blank line": (lambda case, line: [line, b""], IDS),
    "line of blanks": (lambda case, line: [b" \t ", line], IDS),
    "of another id": (lambda case, line: [line, b"z99-new " + line.split(b" ", 1)[1]], IDS),
    "id in other letters": (lambda case, line: [line[:1].swapcase() + line[1:]], IDS),
    "id misspelt": (lambda case, line: [line.replace(line.split(b" ")[0], line.split(b" ")[0] + b"0", 1)], IDS),
    "id only": (lambda case, line: line.split(b" ")[:1], WITHOUT_TEXT),
    "a column more": (lambda case, line: [line + b" more"], WITHOUT_TEXT),
    "columns exchanged": (lambda case, line: [b" ".join(line.split(b" ", 1)[::-1])], WITHOUT_TEXT),
    "cut": (lambda case, line: [line[: case.rng.integers(1, len(line))]], WITHOUT_TEXT),
    "blanks around": (lambda case, line: [b" \t" + line.replace(b" ", b"\t ", 1) + b"  "], IDS),
    "carriage return": (lambda case, line: [line + b"\r"], IDS),
    "carriage return within": (lambda case, line: [line.replace(b" ", b" \r", 1)], IDS),
    "NUL byte": (lambda case, line: [insert(case, line, b"\0")], IDS),
    "control character": (lambda case, line: [insert(case, line, b"\x1b[1m")], IDS),
    "latin-1": (lambda case, line: [insert(case, line, "é".encode("latin-1"))], IDS),
    "surrogate": (lambda case, line: [insert(case, line, b"\xed\xa0\x80")], IDS),
    "overlong UTF-8": (lambda case, line: [insert(case, line, b"\xc0\xaf")], IDS),
    "zero-width blank in the id": (lambda case, line: [b"\xe2\x80\x8b" + line], IDS),
    "no-break space for the blank": (lambda case, line: [line.replace(b" ", b"\xc2\xa0")], IDS),
    "U+2028 in the value": (lambda case, line: [line + b"\xe2\x80\xa8x"], IDS),
    "a megabyte": (lambda case, line: [line + b"x" * 1_000_000], WITHOUT_TEXT),
}


def insert(case: Case, line: bytes, what: bytes) -> bytes:
    place = int(case.rng.integers(1, len(line)))
    return line[:place] + what + line[place:]


def damage_line(case: Case, change: Callable, tables: Sequence[str]) -> Spot:
    name = case.table(*tables)
    number, key, _ = case.line(name)
    lines = case.lines(name)
    after = change(case, lines[number])
    case.write(name, lines[:number] + after + lines[number + 1 :])
    spots = [f"{name}:{number + place + 1}" for place in range(max(1, len(after)))]
    others = [line.split(b" ")[0].decode("utf-8", "replace") for line in after if line]
    others += [ascii(other).strip("'") for other in others]
    return Spot((name,), (*spots, key.decode(), *others))


for line_name, (line_change, line_tables) in LINES.items():
    kind("tables: a line", line_name)(functools.partial(damage_line, change=line_change, tables=line_tables))


# ---- Tables as a whole


@kind("tables: a file", "two lines exchanged")
def unsorted(case: Case) -> Spot:
    name = case.table(*IDS)
    lines = case.lines(name)
    number = int(case.rng.integers(len(lines) - 1))
    lines[number : number + 2] = lines[number : number + 2][::-1]
    case.write(name, lines)
    return Spot((name,), (f"{name}:{number + 1}", f"{name}:{number + 2}"))


@kind("tables: a file", "two lines in one")
def joined(case: Case) -> Spot:
    name = case.table(*WITHOUT_TEXT)
    lines = case.lines(name)
    number = int(case.rng.integers(len(lines) - 1))
    second = lines[number + 1].split(b" ")[0].decode()
    lines[number : number + 2] = [b" ".join(lines[number : number + 2])]
    case.write(name, lines)
    return Spot((name,), (f"{name}:{number + 1}", second))


@kind("tables: a file", "cut anywhere")
def cut_table(case: Case) -> Spot:
    name = case.table(*WITHOUT_TEXT)
    content = (case.data / name).read_bytes()
    content = content[: case.rng.integers(len(content))]
    (case.data / name).write_bytes(content)
    return Spot((name,))


@kind("tables: a file", "values exchanged between lines")
def exchanged(case: Case) -> Spot:
    name = case.table(*(f"{signal}.scp" for signal in SIGNALS))
    rows = [line.split(b" ", 1) for line in case.lines(name)]
    rows[0][1], rows[-1][1] = rows[-1][1], rows[0][1]
    case.write(name, [b" ".join(row) for row in rows])
    keys = [row[0].decode() for row in (rows[0], rows[-1])]
    paths = [row[1].decode() for row in (rows[0], rows[-1])]
    return Spot((name, *paths), (*keys, *(utt for key in keys for utt in case.utterances_of(key))))


WHOLE = {  # name -> content
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-32": lambda content: content.decode().encode("utf-32"),
    "carriage returns": lambda content: content.replace(b"\n", b"\r\n"),
    "old Mac's line ends": lambda content: content.replace(b"\n", b"\r"),
    "no newline at the end": lambda content: content[:-1],
    "gzip": gzip.compress,
    "empty": lambda content: b"",
    "newlines only": lambda content: b"\n\n",
    "zeros in place of bytes": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content + bytes(512),
    "commas in place of blanks": lambda content: content.replace(b" ", b","),
    "a header line": lambda content: b"id value\n" + content,
    "everything twice": lambda content: content + content,
    "a merge's marks": lambda content: b"<<<<<<< HEAD\n" + content + b"=======\n>>>>>>> other\n",
}


def damage_whole(case: Case, change: Callable) -> Spot:
    name = case.table(*WITHOUT_TEXT)
    path = case.data / name
    path.write_bytes(change(path.read_bytes()))
    return Spot((name,))


for whole_name, whole_change in WHOLE.items():
    kind("tables: a file", whole_name)(functools.partial(damage_whole, change=whole_change))

NEEDED = ["utt2spk", "spk2utt", "segments", *(f"{name}.scp" for name in SIGNALS), "text_spk1", "text_spk2"]


def break_file(path: Path, how: str) -> None:
    """Put something else in place of a file."""
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "socket":
        os.mknod(path, 0o140644)
    elif how == "loop of links":
        path.symlink_to(path.name)
    elif how == "unreadable":
        path.touch(0)
    elif how != "missing":
        path.symlink_to({"link to nothing": "nowhere", "link to a folder": "/"}.get(how, how))


BREAKS = "missing|folder|fifo|socket|loop of links|link to nothing|link to a folder|/dev/zero|/dev/null".split("|")
if os.geteuid() != 0:  # root may read all
    BREAKS.append("unreadable")


def break_table(case: Case, how: str) -> Spot:
    name = case.table(*NEEDED)
    if name == "text_spk2" and how == "missing":  # of numbered files the last: the others are fewer talkers
        name = "text_spk1"
    break_file(case.data / name, how)
    names = {name}
    if name == "segments":  # the others are then keyed by what utt2spk does not know
        names |= {f"{signal}.scp" for signal in SIGNALS} if how == "missing" else set()
    return Spot(tuple(names))


for break_name in BREAKS:
    kind("tables: in place of a file", break_name)(functools.partial(break_table, how=break_name))


@kind("tables: in place of a file", "link to the file elsewhere")
def moved(case: Case) -> Spot:
    name = case.table(*NEEDED)
    (case.data / name).rename(case.root / name)
    (case.data / name).symlink_to(case.root / name)
    return Spot((name,))


@kind("tables: in place of a file", "another table of the set")
def another_table(case: Case) -> Spot:
    name, other = case.choose(("closetalk2.scp", "closetalk1.scp"), ("utt2spk", "utt2dur"), ("spk2utt", "utt2spk"))
    (case.data / name).write_bytes((case.data / other).read_bytes())
    return Spot((name,))


@kind("tables: in place of a file", "a number too many")
def number_too_many(case: Case) -> Spot:
    first, second = case.choose(("closetalk1.scp", "closetalk3.scp"), ("spk2.scp", "spk4.scp"))
    (case.data / second).write_bytes((case.data / first).read_bytes())
    return Spot((second, "spk3.scp"))


@kind("tables: in place of a file", "misspelt name")
def misspelt_name(case: Case) -> Spot:
    name, other = case.choose(
        ("closetalk1.scp", "closetalk01.scp"),
        ("utt2spk", "Utt2spk"),
        ("wav.scp", "wav.scp.txt"),
        ("spk1.scp", "spk0.scp"),
    )
    (case.data / name).rename(case.data / other)
    return Spot((name, other))


# ---- Numbers

TIMES = {
    "end before start": ("0.5", "0.2"),
    "start = end": ("0.2", "0.2"),
    "negative": ("-0.1", "0.5"),
    "nan": ("0.0", "nan"),
    "start nan": ("nan", "0.5"),
    "infinite": ("0.0", "inf"),
    "1e400": ("0.0", "1e400"),
    "1e300": ("0.0", "1e300"),
    "400 digits": ("0.0", "9" * 400),
    "5000 digits": ("0.0", "9" * 5000),
    "far too late": ("100.0", "101.0"),
    "end too late": ("0.0", "9.0"),
    "no number": ("zero", "0.5"),
    "decimal comma": ("0,1", "0,5"),
    "hexadecimal": ("0x0", "0x1"),
    "digits of another script": ("٠.٠", "٠.٥"),
    "underscore": ("0_0", "0_1"),
    "milliseconds": ("0", "800"),
    "a column less": ("0.0", ""),
    "a column more": ("0.0 0.0", "0.5"),
    "shorter than a sample": ("0.10000", "0.10001"),
}


def damage_times(case: Case, times: tuple[str, str]) -> Spot:
    number, key, value = case.line("segments")
    lines = case.lines("segments")
    recording = value.decode().split()[0]
    lines[number] = f"{key.decode()} {recording} {times[0]} {times[1]}".rstrip().encode()
    case.write("segments", lines)
    return Spot(("segments",), (f"segments:{number + 1}", key.decode()))


for times_name, times_values in TIMES.items():
    kind("tables: numbers", f"segments: {times_name}", ("segments",))(
        functools.partial(damage_times, times=times_values)
    )


@kind("tables: numbers", "segments: of an unknown recording", ("segments",))
def unknown_recording(case: Case) -> Spot:
    number, key, value = case.line("segments")
    lines = case.lines("segments")
    lines[number] = key + b" day9 " + value.split(b" ", 1)[1]
    case.write("segments", lines)
    return Spot(("segments",), (f"segments:{number + 1}", key.decode()))


@kind("tables: numbers", "segments: of the other recording", ("segments",))
def other_recording(case: Case) -> Spot:
    """Within that recording: what utterance it is cannot be told, only that utt2dur is no more right."""
    lines = case.lines("segments")
    key, _, start, end = lines[1].split()
    lines[1] = b" ".join([key, b"day2", start, end])
    case.write("segments", lines)
    return Spot(("segments", "utt2dur"), ("segments:2", "utt2dur:2", key.decode()))


NUMBERS = "0 -1 nan inf 1e999 x 0x10 ٣ 1_0 1.5.2".split() + ["9" * 5000, "9" * 40, ""]


def damage_number(case: Case, name: str) -> Spot:
    number, key, _ = case.line(name)
    lines = case.lines(name)
    lines[number] = key + b" " + case.choose(*NUMBERS).encode()
    case.write(name, lines)
    return Spot((name,), (f"{name}:{number + 1}", key.decode()))


for number_table, number_forms in (("utt2dur", FORMS), ("utt2num_samples", ("formatted",))):
    kind("tables: numbers", f"{number_table}: any", number_forms)(functools.partial(damage_number, name=number_table))


@kind("tables: numbers", "utt2num_samples: one more", ("formatted",))
def one_more(case: Case) -> Spot:
    number, key, value = case.line("utt2num_samples")
    lines = case.lines("utt2num_samples")
    lines[number] = key + b" %d" % (int(value) + case.choose(1, -1))
    case.write("utt2num_samples", lines)
    return Spot(("utt2num_samples",), (f"utt2num_samples:{number + 1}", key.decode()))


# ---- Ids: the same in all tables

ID_PARTS = {
    "slash": "/",
    "leaves the folder": "/../../../../x",
    "ends with a slash": "/..",
    "no-break space": "\u00a0",
    "U+2028": "\u2028",
    "ideographic space": "\u3000",
    "zero-width blank": "\u200b",
    "next line (U+0085)": "\u0085",
    "control character": "\x07",
    "NUL": "\0",
    "line end of old (U+000B)": "\x0b",
    "right to left": "\u202e",
    "300 letters": "x" * 300,
    "backslash": "\\",
    "quotes": "\"'",
    "dollar and backtick": "$(true)`",
    "star": "*",
    "percent": "%s%(x)s{}",
    "bar": "|",
    "colon and digits": ":12",
    "letter é": "é",
    "letter é in two": "e\u0301",
    "emoji": "🎤",
}


def rename(case: Case, part: str) -> Spot:
    """One utterance gets another id, the same everywhere: legitimate, if it is an id at all."""
    old = case.choose(*UTTERANCES)
    new = f"{old}{part}x".removesuffix("..x")
    for folder in (case.data, case.enhanced):
        for path in folder.iterdir():
            if path.is_file():
                lines = path.read_bytes().split(b"\n")
                for number, line in enumerate(lines):
                    if path.name == "scenes.jsonl":
                        lines[number] = line.replace(json.dumps(old).encode(), json.dumps(new).encode())
                        continue
                    words = line.split(b" ")
                    whole = len(words) if path.name == "spk2utt" else 1
                    lines[number] = b" ".join(
                        new.encode() if word == old.encode() and place < whole else word
                        for place, word in enumerate(words)
                    )
                path.write_bytes(b"\n".join(lines))
    for of_utt in (*case.signals.values(), *case.streams.values(), *case.tables.values()):
        of_utt[new] = of_utt.pop(old)
    case.tables["scenes.jsonl"][new] = {**case.tables["scenes.jsonl"][new], "utt_id": new}
    tables = [path.name for path in case.data.iterdir()]
    numbers = [f"{name}:{n}" for name in tables for n in range(1, 4)]
    return Spot(tuple(tables), (*numbers, new, repr(new)))


for id_name, id_part in ID_PARTS.items():
    kind("tables: ids", id_name)(functools.partial(rename, part=id_part))


@kind("tables: ids", "an utterance of which one table knows nothing")
def gone_elsewhere(case: Case) -> Spot:
    """Also from the tables that are compared first."""
    utt = case.choose(*UTTERANCES)
    names = ("utt2spk", "spk2utt")
    for name in names:
        case.write(name, [line for line in case.lines(name) if utt.encode() not in line.split(b" ")[:1]])
    return Spot((*names, *IDS), (utt,))


@kind("tables: ids", "speakers not sorted as utterances")
def speaker_order(case: Case) -> Spot:
    utts = list(UTTERANCES)
    speakers = ["z", "z", "a"]
    write_lines(case.data / "utt2spk", dict(zip(utts, speakers)))
    write_lines(case.data / "spk2utt", {"z": " ".join(utts[:2]), "a": utts[2]})
    case.tables["utt2spk"] = dict(zip(utts, speakers))
    return Spot(("utt2spk",), ("utt2spk:2", "utt2spk:3", *utts))


@kind("tables: ids", "speakers of two utterances exchanged in spk2utt")
def speakers_exchanged(case: Case) -> Spot:
    rows = [line.split(b" ", 1) for line in case.lines("spk2utt")]
    rows[0][1], rows[1][1] = rows[1][1], rows[0][1]
    case.write("spk2utt", [b" ".join(row) for row in rows])
    return Spot(("spk2utt",), ("spk2utt:1", "spk2utt:2"))


# ---- Scenes


def damage_scene(case: Case, change: Callable) -> Spot:
    lines = case.lines("scenes.jsonl")
    number = int(case.rng.integers(len(lines)))
    utt = json.loads(lines[number])["utt_id"]
    changed = change(case, lines[number])
    if isinstance(changed, dict):
        changed = json.dumps(changed).encode()
    lines[number : number + 1] = changed if isinstance(changed, list) else [changed]
    case.write("scenes.jsonl", lines)
    return Spot(("scenes.jsonl",), (f"scenes.jsonl:{number + 1}", f"scenes.jsonl:{number + 2}", utt))


def with_value(*path: str | int, value: object) -> Callable:
    """The scene with another value somewhere; `...`: without it."""

    def change(case: Case, line: bytes) -> dict:
        scene = json.loads(line)
        holder = scene
        for step in path[:-1]:
            holder = holder[step]
        if value is ...:
            del holder[path[-1]]
        else:
            holder[path[-1]] = value
        return scene

    return change


SCENES = {
    "cut": lambda case, line: line[: case.rng.integers(len(line))],
    "missing": lambda case, line: [],
    "twice": lambda case, line: [line, line],
    "blank line": lambda case, line: [line, b""],
    "no JSON": lambda case, line: b"utt_id: " + line,
    "a list": lambda case, line: b"[" + line + b"]",
    "a number": lambda case, line: b"17",
    "nested 100,000 deep": lambda case, line: line[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "integer of 10,000 digits": lambda case, line: line.replace(b"0.32", b"9" * 10_000),
    "single quotes": lambda case, line: line.replace(b'"', b"'"),
    "byte order mark": lambda case, line: b"\xef\xbb\xbf" + line,
    "latin-1": lambda case, line: line.replace(b"WORDS", b"W\xf6rter"),
    "only the id": lambda case, line: {"utt_id": json.loads(line)["utt_id"]},
    "id missing": with_value("utt_id", value=...),
    "id a number": with_value("utt_id", value=7),
    "id a lone surrogate": with_value("utt_id", value="\ud800"),
    "T60 nan": with_value("rt60_s", value=math.nan),
    "T60 a text": with_value("rt60_s", value="long"),
    "T60 a list": with_value("rt60_s", value=[0.3]),
    "SNR infinite": with_value("snr_db", value=math.inf),
    "room size missing": with_value("room_size_m", value=...),
    "room of two sides": with_value("room_size_m", value=[8.0, 6.0]),
    "room of texts": with_value("room_size_m", value=["8", "6", "3"]),
    "room without an end": with_value("room_size_m", value=[math.inf, 6.0, 3.0]),
    "mics missing": with_value("mic_positions_m", value=...),
    "no mics": with_value("mic_positions_m", value=[]),
    "a mic of two coordinates": with_value("mic_positions_m", 0, value=[1.0, 2.0]),
    "mic at nan": with_value("mic_positions_m", 0, 0, value=math.nan),
    "speakers missing": with_value("speakers", value=...),
    "no speakers": with_value("speakers", value=[]),
    "speakers a text": with_value("speakers", value="two"),
    "a speaker less": with_value("speakers", 1, value=...),
    "a speaker a text": with_value("speakers", 0, value="f03"),
    "a speaker without position": with_value("speakers", 0, "position_m", value=...),
    "position null": with_value("speakers", 0, "position_m", value=None),
    "position of four": with_value("speakers", 0, "position_m", value=[1.0, 2.0, 3.0, 4.0]),
    "headset's position a text": with_value("speakers", 1, "closetalk_position_m", value="near"),
    "speaker id with a slash": with_value("speakers", 0, "speaker_id", value="a/../b"),
    "speaker id with a blank": with_value("speakers", 0, "speaker_id", value="a b"),
    "speaker id empty": with_value("speakers", 0, "speaker_id", value=""),
    "speaker id a number": with_value("speakers", 0, "speaker_id", value=3),
    "speaker id a lone surrogate": with_value("speakers", 0, "speaker_id", value="\udcff"),
    "text a number": with_value("speakers", 0, "text", value=5),
}
for scene_name, scene_change in SCENES.items():
    kind("scenes", scene_name)(functools.partial(damage_scene, change=scene_change))


@kind("scenes", "both speakers of one id")
def one_speaker_twice(case: Case) -> Spot:
    def change(case: Case, line: bytes) -> dict:
        first = json.loads(line)["speakers"][0]["speaker_id"]
        return with_value("speakers", 1, "speaker_id", value=first)(case, line)

    return damage_scene(case, change)


def break_scenes(case: Case, how: str) -> Spot:
    break_file(case.data / "scenes.jsonl", how)
    return Spot(("scenes.jsonl",))


for break_name in BREAKS[1:-1]:  # nobody misses scenes, nor an empty file of them
    kind("scenes", break_name)(functools.partial(break_scenes, how=break_name))
