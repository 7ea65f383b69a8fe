"""Small data sets, and every kind of damage that damage.py does to them.

A `Case` is a set on disk with the truth that it was written from. A kind of damage alters the files, at random places
that its seed decides on, and returns the `Spot` that a good message must name. Where what it did is legitimate, or
cannot but be taken for legitimate, it alters the truth as well: that is the independent rule by which the result is
right.
"""

import functools
import gzip
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import yaml
from scipy.signal import resample_poly

RATE, MICS, TALKERS = 8000, 2, 2
UTTERANCES = {"f03-m01-test00000": 6400, "f03-m01-test00001": 7200, "f04-m02-test00002": 8000}  # -> samples
RECORDINGS = {"day1": list(UTTERANCES)[:2], "day2": list(UTTERANCES)[2:]}  # where `segments` cut the utterances
GAP = 800  # samples between the utterances of a recording
HEADSETS = [f"{family}{n}" for family in ("closetalk", "closetalk_spk", "spk") for n in range(1, TALKERS + 1)]
SIGNALS = ["wav", *HEADSETS]
FORMS = ("utterances", "segments", "formatted")
FORMATS = {  # name -> suffix and what libsndfile calls it
    "wav": (".wav", "WAV", "PCM_16"),
    "24-bit wav": (".wav", "WAV", "PCM_24"),
    "float wav": (".wav", "WAV", "FLOAT"),
    "wav extensible": (".wav", "WAVEX", "PCM_16"),
    "RF64": (".wav", "RF64", "PCM_16"),
    "FLAC": (".flac", "FLAC", "PCM_16"),
    "Vorbis": (".ogg", "OGG", "VORBIS"),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III"),
    "AIFF": (".aiff", "AIFF", "PCM_16"),
    "W64": (".w64", "W64", "PCM_16"),
    "AU": (".au", "AU", "PCM_16"),
    "CAF": (".caf", "CAF", "PCM_16"),
    "NIST": (".sph", "NIST", "PCM_16"),
    "VOC": (".voc", "VOC", "PCM_16"),
    "IRCAM": (".sf", "IRCAM", "PCM_16"),
}
LOSSY = ("Vorbis", "mp3")


class Spot(NamedTuple):
    """What is damaged: a message that names one of the files and one of the places says enough.

    Attributes:
        files: names of the table, or paths of the audio.
        places: the line (as `table:line`) and ids; empty where the file as a whole is wrong.
    """

    files: tuple[str, ...]
    places: tuple[str, ...] = ()


@dataclass
class Case:
    """A set in `root`, and what it was written from.

    Attributes:
        form: "utterances"; "segments": recordings that `segments` cuts; "formatted": as format_data_dir leaves it.
        signals: name of the scp file, without .scp -> utterance -> (sample, channel) float.
        streams: number of the separated stream, from 1 -> utterance -> (sample,).
        tables: name -> utterance -> value, of utt2spk, text_spk{n} and scenes.jsonl (parsed).
        tolerances: (signal, utterance) -> largest difference of samples that the result may have; 0 for others.
        similar: those signals whose samples need to be similar only, because they are resampled.
    """

    root: Path
    rng: np.random.Generator
    form: str
    signals: dict = field(default_factory=dict)
    streams: dict = field(default_factory=dict)
    tables: dict = field(default_factory=dict)
    tolerances: dict = field(default_factory=dict)
    similar: set = field(default_factory=set)

    @property
    def data(self) -> Path:
        return self.root / "data" / "test"

    @property
    def enhanced(self) -> Path:
        return self.root / "exp" / "enhanced_test"

    def choose(self, *options: object) -> object:
        return options[self.rng.integers(len(options))]

    def table(self, *names: str) -> str:
        """One of the tables, of those with these names; of all without names."""
        there = sorted(path.name for path in self.data.iterdir() if path.is_file() and path.suffix != ".jsonl")
        return self.choose(*(name for name in there if not names or name in names))

    def lines(self, name: str) -> list[bytes]:
        return (self.data / name).read_bytes().splitlines()

    def write(self, name: str, lines: Sequence[bytes]) -> None:
        (self.data / name).write_bytes(b"".join(line + b"\n" for line in lines))

    def line(self, name: str) -> tuple[int, bytes, bytes]:
        """Number of a line, from 0; its id; the rest."""
        lines = self.lines(name)
        number = int(self.rng.integers(len(lines)))
        return number, *lines[number].split(b" ", 1)

    def entry(self, *signals: str) -> tuple[str, str, Path]:
        """A signal, the key of one of its lines, and the path that stands there."""
        signal = self.choose(*(signals or SIGNALS))
        _, key, path = self.line(f"{signal}.scp")
        return signal, key.decode(), Path(path.decode())

    def set_entry(self, signal: str, key: str, value: str) -> None:
        lines = self.lines(f"{signal}.scp")
        for number, line in enumerate(lines):
            if line.split(b" ")[0] == key.encode():
                lines[number] = f"{key} {value}".encode()
        self.write(f"{signal}.scp", lines)

    def spot(self, signal: str, key: str, *paths: Path | str) -> Spot:
        """Where the audio of a line is wrong: its table and id, or its own path.

        Of a recording also the utterances that `segments` cut: by them it is known after stage 3, and where it is
        shorter than the others, by times that are too late.
        """
        keys = [line.split(b" ")[0].decode() for line in self.lines(f"{signal}.scp")]
        place = f"{signal}.scp:{keys.index(key) + 1}"
        spot = Spot((f"{signal}.scp", *map(str, paths)), (place, key, *map(str, paths)))
        if self.form != "segments":
            return spot
        return Spot((*spot.files, "segments", "utt2dur"), (*spot.places, *RECORDINGS[key]))

    def content(self, signal: str, key: str) -> np.ndarray:
        """(sample, channel) of a line of an scp file: of an utterance, or of a recording."""
        if self.form != "segments":
            return self.signals[signal][key]
        waves = [self.signals[signal][utt] for utt in RECORDINGS[key]]
        gap = 1e-2 * np.sign(np.sin(1.0 + np.arange(GAP)))[:, None] * np.ones(waves[0].shape[1])
        return np.concatenate([piece for wave in waves for piece in (wave, quantised(gap))])

    def set_content(self, signal: str, key: str, samples: np.ndarray) -> None:
        """The line's audio is rightly this one."""
        if self.form != "segments":
            self.signals[signal][key] = samples
            return
        first = 0
        for utt in RECORDINGS[key]:
            self.signals[signal][utt] = samples[first : first + UTTERANCES[utt]]
            first += UTTERANCES[utt] + GAP

    def utterances_of(self, key: str) -> list[str]:
        return RECORDINGS[key] if self.form == "segments" else [key]


def quantised(samples: np.ndarray) -> np.ndarray:
    """Samples that 16 bits can hold."""
    return (np.rint(samples * 32768) / 32768).astype(np.float32)


@functools.lru_cache
def speech(seed: int, num_samples: int) -> np.ndarray:
    """(sample,) harmonics and noise in syllables, peak 0.3."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / RATE
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 220) * (1 + 0.1 * np.sin(4.4 * time_s))) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) + 0.3 * rng.standard_normal(num_samples)
    voice *= np.clip(np.sin(np.pi * rng.uniform(4, 6) * time_s + rng.uniform(0, 3)), 0, 1) + 0.02
    return 0.3 * voice / np.abs(voice).max()


@functools.lru_cache
def utterance_signals(number: int, num_samples: int) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
    """All signals of a mixture, and two separated streams."""
    rng = np.random.default_rng(number)
    talkers = [speech(10 * number + n, num_samples) for n in range(TALKERS)]
    noise = 0.003 * rng.standard_normal((num_samples, MICS + TALKERS))
    delayed = [np.roll(talker, 3) for talker in talkers]
    signals = {"wav": np.stack([sum(talkers), sum(delayed)], axis=1) + noise[:, :MICS]}
    for n, talker in enumerate(talkers, start=1):
        other = sum(talkers) - talker
        signals[f"spk{n}"] = talker[:, None]
        signals[f"closetalk_spk{n}"] = 0.8 * talker[:, None]
        signals[f"closetalk{n}"] = (0.8 * talker + 0.1 * other + noise[:, -n])[:, None]
    streams = {n: (t + 0.1 * talkers[1 - n] + noise[:, 0]).astype(np.float32) for n, t in enumerate(talkers)}
    return {name: quantised(samples) for name, samples in signals.items()}, {n + 1: s for n, s in streams.items()}


def make_case(root: Path, seed: int, form: str) -> Case:
    """Write a valid set: 3 mixtures of 2 talkers, and separated speech."""
    case = Case(root, np.random.default_rng(seed), form)
    for number, (utt, num_samples) in enumerate(UTTERANCES.items()):
        signals, streams = utterance_signals(number, num_samples)
        for name, samples in signals.items():
            case.signals.setdefault(name, {})[utt] = samples
        for n, samples in streams.items():
            case.streams.setdefault(n, {})[utt] = samples
    speakers = {utt: utt[:7] for utt in UTTERANCES}
    case.tables = {"utt2spk": speakers, "scenes.jsonl": {utt: scene(utt) for utt in UTTERANCES}}
    for n in range(1, TALKERS + 1):
        case.tables[f"text_spk{n}"] = {utt: f"WORDS OF TALKER {n} IN {utt[-1]}" for utt in UTTERANCES}
    case.data.mkdir(parents=True)
    keys = RECORDINGS if form == "segments" else UTTERANCES
    for name in SIGNALS:
        table = {}
        for key in keys:
            table[key] = root / "audio" / name / f"{key}.wav"
            write_audio(table[key], case.content(name, key))
        write_lines(case.data / f"{name}.scp", table)
    tables = {name: dict(table) for name, table in case.tables.items() if name != "scenes.jsonl"}
    by_speaker = {}
    for utt, speaker in speakers.items():
        by_speaker.setdefault(speaker, []).append(utt)
    tables["spk2utt"] = {speaker: " ".join(utts) for speaker, utts in by_speaker.items()}
    tables["utt2dur"] = {utt: num_samples / RATE for utt, num_samples in UTTERANCES.items()}
    if form == "formatted":
        tables["utt2num_samples"] = UTTERANCES
    if form == "segments":
        tables["segments"] = {}
        for recording, utts in RECORDINGS.items():
            start = 0.0
            for utt in utts:
                end = start + UTTERANCES[utt] / RATE
                tables["segments"][utt] = f"{recording} {start:.3f} {end:.3f}"
                start = end + GAP / RATE
    for name, table in tables.items():
        write_lines(case.data / name, table)
    (case.data / "scenes.jsonl").write_text(
        "".join(json.dumps(scene) + "\n" for scene in case.tables["scenes.jsonl"].values())
    )
    for n, waves in case.streams.items():
        table = {utt: case.enhanced / "wavs" / str(n) / f"{utt}.wav" for utt in waves}
        for utt, path in table.items():
            write_audio(path, waves[utt], "FLOAT")
        write_lines(case.enhanced / f"spk{n}.scp", table)
    return case


def scene(utt: str) -> dict:
    return {
        "utt_id": utt,
        "sample_rate_hz": RATE,
        "room_size_m": [8.0, 6.0, 3.0],
        "rt60_s": 0.32,
        "mic_positions_m": [[4.0, 3.0, 1.2], [4.1, 3.0, 1.2]],
        "speakers": [
            {
                "speaker_id": utt.split("-")[n],
                "position_m": [2.0 + n, 2.5, 1.6],
                "closetalk_position_m": [2.1 + n, 2.5, 1.5],
                "text": f"WORDS OF TALKER {n + 1} IN {utt[-1]}",
            }
            for n in range(TALKERS)
        ],
        "snr_db": 25.0,
    }


def write_audio(path: Path, samples: np.ndarray, subtype: str = "PCM_16", rate: int = RATE, form: str = "WAV") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype, format=form)


def write_lines(path: Path, table: dict[str, object]) -> None:
    path.write_bytes("".join(f"{key} {value}\n" for key, value in sorted(table.items())).encode())


# ---- The kinds -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of damage.

    Attributes:
        name, group: of the table.
        do: function of a Case, which returns a Spot.
        forms: of the sets that it can be done to.
        route: what is done with the set: "set", "score" (the separated speech), "simulate", "separate" or "model".
    """

    name: str
    group: str
    do: Callable[[Case], Spot]
    forms: tuple[str, ...] = FORMS
    route: str = "set"


KINDS: list[Kind] = []


def kind(group: str, name: str, forms: tuple[str, ...] = FORMS, route: str = "set") -> Callable:
    """Adds a function to KINDS."""

    def add(do: Callable) -> Callable:
        KINDS.append(Kind(name, group, do, forms, route))
        return do

    return add


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


# ---- Audio: a function of a Case, the path of a wav file and (sample, channel) samples damages the file. It returns
# the samples, with a tolerance, where they are as good as before, and None where they are not.

AUDIO: dict[str, Callable] = {}


def audio(name: str) -> Callable:
    def add(function: Callable) -> Callable:
        AUDIO[name] = function
        return function

    return add


def cut_file(case: Case, path: Path, samples: np.ndarray, name: str) -> None:
    _, form, subtype = FORMATS[name]
    write_audio(path, samples, subtype, form=form)
    size = path.stat().st_size
    os.truncate(path, int(case.rng.integers(1, size - 4)))


for format_name in FORMATS:
    AUDIO[f"{format_name}, cut anywhere"] = functools.partial(cut_file, name=format_name)

CONTENT = {  # name -> samples
    "a sample nan": lambda case, x: put(case, x, math.nan),
    "a sample infinite": lambda case, x: put(case, x, -math.inf),
    "a sample 1e30": lambda case, x: put(case, x, 1e30),
    "all nan": lambda case, x: x * math.nan,
    "a channel silent": lambda case, x: x * (np.arange(x.shape[1]) > 0),
    "a channel constant": lambda case, x: np.where(np.arange(x.shape[1]) > 0, x, 0.25),
    "all silent": lambda case, x: 0 * x,
    "all constant": lambda case, x: 0 * x + 0.1,
    "no samples": lambda case, x: x[:0],
    "one sample": lambda case, x: x[:1],
    "a sample more": lambda case, x: np.concatenate([x, x[-1:]]),
    "a sample less": lambda case, x: x[:-1],
    "half as long": lambda case, x: x[: len(x) // 2],
    "twice as long": lambda case, x: np.concatenate([x, x]),
    "a channel more": lambda case, x: np.concatenate([x, x[:, :1] / 2], axis=1),
    "transposed": lambda case, x: x.T[:, :16],
}


def put(case: Case, samples: np.ndarray, value: float) -> np.ndarray:
    samples = samples.copy()
    samples[case.rng.integers(len(samples) // 2), case.rng.integers(samples.shape[1])] = value
    return samples


def damage_content(case: Case, path: Path, samples: np.ndarray, change: Callable) -> None:
    write_audio(path, change(case, samples).astype(np.float32), "FLOAT")


for content_name, content_change in CONTENT.items():
    AUDIO[content_name] = functools.partial(damage_content, change=content_change)

HEADER = {  # name -> place and form of a field of a 16-bit wav's header, and its value
    "header promises more": (40, "<I", lambda case, size: size + int(case.rng.integers(2, 10**6))),
    "header promises 2 GB": (40, "<I", lambda case, size: 0x7FFFFFFF - 36),
    "header promises less": (40, "<I", lambda case, size: size // 2),
    "header promises nothing": (40, "<I", lambda case, size: 0),
    "channels 0": (22, "<H", lambda case, size: 0),
    "channels 3": (22, "<H", lambda case, size: 3),
    "channels 65535": (22, "<H", lambda case, size: 65535),
    "rate 0": (24, "<I", lambda case, size: 0),
    "rate 8001": (24, "<I", lambda case, size: 8001),
    "rate 16000": (24, "<I", lambda case, size: 16000),
    "rate 2**32 - 1": (24, "<I", lambda case, size: 2**32 - 1),
    "block align 0": (32, "<H", lambda case, size: 0),
    "8 bits": (34, "<H", lambda case, size: 8),
    "13 bits": (34, "<H", lambda case, size: 13),
    "32 bits": (34, "<H", lambda case, size: 32),
    "format float": (20, "<H", lambda case, size: 3),
    "format mu-law": (20, "<H", lambda case, size: 7),
    "format unknown": (20, "<H", lambda case, size: 0x4242),
    "format chunk long": (16, "<I", lambda case, size: 0xFFFFFFF0),
    "no RIFF": (0, "<4s", lambda case, size: b"FFIR"),
    "no data chunk": (36, "<4s", lambda case, size: b"date"),
}


def damage_header(case: Case, path: Path, samples: np.ndarray, where: int, form: str, value: Callable) -> None:
    write_audio(path, samples)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, where, value(case, len(content) - 44))
    path.write_bytes(content)


for header_name, (header_place, header_form, header_value) in HEADER.items():
    AUDIO[header_name] = functools.partial(damage_header, where=header_place, form=header_form, value=header_value)


@audio("any byte of the header")
def any_header_byte(case: Case, path: Path, samples: np.ndarray) -> tuple | None:
    write_audio(path, samples)
    content = bytearray(path.read_bytes())
    place = int(case.rng.integers(44))
    content[place] = int(case.rng.integers(256))
    path.write_bytes(content)
    # Nobody needs the whole file's size (bytes 4 to 7), bytes a second, nor, where it is one, the block's size.
    return (samples, 0) if 4 <= place < 8 or 28 <= place < 34 else None


@audio("size of the whole 0")
def riff_size(case: Case, path: Path, samples: np.ndarray) -> tuple:
    damage_header(case, path, samples, 4, "<I", lambda case, size: case.choose(0, 0xFFFFFFFF))
    return samples, 0


@audio("streamed: length unknown")
def streamed(case: Case, path: Path, samples: np.ndarray) -> tuple:
    damage_header(case, path, samples, 40, "<I", lambda case, size: case.choose(0xFFFFFFFF, 0x7FFFFFFF - 36))
    return samples, 0


@audio("bytes behind the samples")
def trailing(case: Case, path: Path, samples: np.ndarray) -> tuple:
    write_audio(path, samples)
    path.write_bytes(path.read_bytes() + bytes(int(case.rng.integers(1, 999))))
    return samples, 0


@audio("another chunk before the samples")
def other_chunk(case: Case, path: Path, samples: np.ndarray) -> tuple:
    write_audio(path, samples)
    content = path.read_bytes()
    path.write_bytes(content[:36] + b"junk\x03\0\0\0abc\0" + content[36:])
    return samples, 0


@audio("FLAC, a byte changed")
def flac_byte(case: Case, path: Path, samples: np.ndarray) -> None:
    write_audio(path, samples, form="FLAC")
    content = bytearray(path.read_bytes())
    content[case.rng.integers(len(content) // 2, len(content))] ^= 0x10
    path.write_bytes(content)


@audio("FLAC, a block zero")
def flac_block(case: Case, path: Path, samples: np.ndarray) -> None:
    write_audio(path, samples, form="FLAC")
    content = bytearray(path.read_bytes())
    first = int(case.rng.integers(len(content) // 2, len(content) - 600))
    content[first : first + 512] = bytes(512)
    path.write_bytes(content)


for format_name, (_, format_form, format_subtype) in FORMATS.items():
    if format_name in LOSSY:
        continue

    def as_format(
        case: Case, path: Path, samples: np.ndarray, form: str = format_form, subtype: str = format_subtype
    ) -> tuple:
        write_audio(path, samples, subtype, form=form)
        return samples, 0

    AUDIO[f"{format_name} named .wav"] = as_format


@audio("24 bit, faint")
def faint(case: Case, path: Path, samples: np.ndarray) -> tuple:
    """At -80 dB: 16 bits would hold nothing of it."""
    samples = (np.rint(samples * 1e-4 * 2**23) / 2**23).astype(np.float32)
    write_audio(path, samples, "PCM_24")
    return samples, 0


@audio("double")
def double(case: Case, path: Path, samples: np.ndarray) -> tuple:
    write_audio(path, samples, "DOUBLE")
    return samples, 0


@audio("float beyond full scale")
def loud(case: Case, path: Path, samples: np.ndarray) -> tuple:
    samples = 4 * samples
    write_audio(path, samples, "FLOAT")
    return samples, 0


@audio("clipped")
def clipped(case: Case, path: Path, samples: np.ndarray) -> tuple:
    samples = quantised(np.clip(20 * samples, -1, 32767 / 32768))
    write_audio(path, samples)
    return samples, 0


@audio("raw samples")
def raw(case: Case, path: Path, samples: np.ndarray) -> None:
    path.write_bytes((samples * 32768).astype("<i2").tobytes())


@audio("text")
def text(case: Case, path: Path, samples: np.ndarray) -> None:
    path.write_text(case.choose("not audio\n", "<html>404</html>\n", "version https://git-lfs.github.com/spec/v1\n"))


@audio("gzip")
def gzipped(case: Case, path: Path, samples: np.ndarray) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


@audio("empty file")
def empty(case: Case, path: Path, samples: np.ndarray) -> None:
    path.write_bytes(b"")


@audio("random bytes")
def random_bytes(case: Case, path: Path, samples: np.ndarray) -> None:
    path.write_bytes(case.rng.bytes(4096))


for break_name in BREAKS:
    AUDIO[break_name] = functools.partial(lambda case, path, samples, how: break_file(path, how), how=break_name)


def damage_audio(case: Case, damage: Callable) -> Spot:
    signal, key, path = case.entry()
    intact = damage(case, path, case.content(signal, key))
    if intact is not None:
        case.set_content(signal, key, intact[0])
        case.tolerances |= {(signal, utt): intact[1] for utt in case.utterances_of(key)}
    return case.spot(signal, key, path)


for audio_name, audio_damage in AUDIO.items():
    kind("audio: files", audio_name)(functools.partial(damage_audio, damage=audio_damage))


@kind("audio: files", "lossy format", ("utterances", "segments"))
def lossy(case: Case) -> Spot:
    signal, key, path = case.entry()
    _, form, subtype = FORMATS[case.choose(*LOSSY)]
    write_audio(path, case.content(signal, key), subtype, form=form)
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    case.set_content(signal, key, samples)
    # Where it is written anew it may be with 16 bits; what is above full scale is as float.
    case.tolerances |= {(signal, utt): 1 / 32768 for utt in case.utterances_of(key)}
    return case.spot(signal, key, path)


# ---- Audio that does not go with the other


@kind("audio: sets", "a file of another rate", ("utterances", "segments"))
def other_rate(case: Case) -> Spot:
    """A true one of a true recording: stage 3 resamples it."""
    signal, key, path = case.entry()
    write_audio(path, resample_poly(case.content(signal, key), 2, 1), rate=2 * RATE)
    case.similar |= {(signal, utt) for utt in case.utterances_of(key)}
    return case.spot(signal, key, path)


@kind("audio: sets", "all files of another rate", ("utterances", "segments"))
def all_of_other_rate(case: Case) -> Spot:
    for signal in SIGNALS:
        for line in case.lines(f"{signal}.scp"):
            key, path = line.decode().split()
            write_audio(Path(path), resample_poly(case.content(signal, key), 2, 1), rate=2 * RATE)
    case.similar |= {(signal, utt) for signal in SIGNALS for utt in UTTERANCES}
    return Spot(tuple(f"{signal}.scp" for signal in SIGNALS))


@kind("audio: sets", "one headset's file under two headsets")
def one_file_twice(case: Case) -> Spot:
    family = case.choose("closetalk", "spk")
    _, key, path = case.entry(f"{family}1")
    case.set_entry(f"{family}2", key, str(path))
    return Spot((f"{family}1.scp", f"{family}2.scp", str(path)), (key, str(path), *case.utterances_of(key)))


@kind("audio: sets", "one headset's samples under two headsets")
def same_samples_twice(case: Case) -> Spot:
    family = case.choose("closetalk", "spk")
    _, key, path = case.entry(f"{family}1")
    second = case.root / "audio" / f"{family}2" / f"{key}.wav"
    second.write_bytes(path.read_bytes())
    return Spot((f"{family}1.scp", f"{family}2.scp", str(path)), (key, str(path), *case.utterances_of(key)))


@kind("audio: sets", "the mixture under a headset")
def mixture_as_headset(case: Case) -> Spot:
    signal, key, _ = case.entry(*HEADSETS)
    mixture = case.root / "audio" / "wav" / f"{key}.wav"
    case.set_entry(signal, key, str(mixture))
    return case.spot(signal, key, mixture)


@kind("audio: sets", "file of another utterance")
def other_utterance(case: Case) -> Spot:
    signal, key, path = case.entry()
    others = [line.decode().split()[1] for line in case.lines(f"{signal}.scp")]
    other = case.choose(*(other for other in others if other != str(path)))
    case.set_entry(signal, key, other)
    return case.spot(signal, key, other)


@kind("audio: sets", "headset that stops early", ("segments",))
def stops_early(case: Case) -> Spot:
    signal, key, path = case.entry(*HEADSETS)
    samples = case.content(signal, key)
    write_audio(path, samples[: len(samples) // 4])
    return case.spot(signal, key, path)


@kind("audio: sets", "devices that stop at different times", ("segments",))
def devices_differ(case: Case) -> Spot:
    """After the last utterance: legitimate."""
    signal, key, path = case.entry(*HEADSETS)
    write_audio(path, case.content(signal, key)[: -int(case.rng.integers(1, GAP))])
    return case.spot(signal, key, path)


VALUES = {  # name -> what stands in place of a path
    "path with ~": "~/audio/x.wav",
    "path with $HOME": "$HOME/x.wav",
    "relative path of nothing": "audio/x.wav",
    "path with a bar within": "/a|b.wav",
    "an address": "https://example.org/x.wav",
    "path in quotes": '"{path}"',
    "path with a NUL": "{path}\0",
    "path of 5,000 letters": "/" + "x" * 5000,
    "only a bar": "|",
    "path of the folder": "{path.parent}",
    "path of the table": "{table}",
}


def damage_value(case: Case, value: str) -> Spot:
    signal, key, path = case.entry()
    value = value.format(path=path, table=case.data / f"{signal}.scp")
    case.set_entry(signal, key, value)
    return case.spot(signal, key, value)


for value_name, value_text in VALUES.items():
    kind("audio: sets", value_name)(functools.partial(damage_value, value=value_text))


@kind("audio: sets", "path with blanks")
def path_with_blanks(case: Case) -> Spot:
    signal, key, path = case.entry()
    path = path.rename(path.with_name("a  file (1).wav"))
    case.set_entry(signal, key, str(path))
    return case.spot(signal, key, path)


# ---- Pipes and arks

PIPED = {  # command -> whether it gives what it should
    "cat {path} |": True,
    "cat {path} | cat |": True,
    "cat {path}; echo loud >&2 |": True,
    "cat {path}; exit 3 |": False,
    "cat {path}.gone |": False,
    "head -c 999 {path} |": False,
    "head -c 30 {path} |": False,
    "true |": False,
    "no_such_command {path} |": False,
    "echo not audio |": False,
    "kill -9 $$ |": False,
    "cat {path} {path} |": True,  # what stands behind a file counts for nothing
    "cat /dev/zero | head -c 100000 |": False,
    "cat '{path} |": False,
    "tail -c +100 {path} |": False,
    "yes >&2 & sleep 0.1; kill $!; exit 1 |": False,
}


def damage_pipe(case: Case, command: str) -> Spot:
    signal, key, path = case.entry()
    command = command.replace("{path}", str(path))
    case.set_entry(signal, key, command)
    return case.spot(signal, key, command)


for pipe_command in PIPED:
    kind("audio: pipes and arks", pipe_command.replace("{path}", "x.wav"), ("utterances", "segments"))(
        functools.partial(damage_pipe, command=pipe_command)
    )


@kind("audio: pipes and arks", "streamed wav, cut", ("utterances", "segments"))
def streamed_and_cut(case: Case) -> Spot:
    """SoX says 2 GB; only the last frame shows that something is missing, if it is not whole."""
    signal, key, path = case.entry("wav")
    damage_header(case, path, case.content(signal, key), 40, "<I", lambda case, size: 0x7FFFFFFF - 36)
    command = f"head -c {44 + 4 * int(case.rng.integers(1, 3000)) + 1} {path} |"
    case.set_entry(signal, key, command)
    return case.spot(signal, key, command)


@kind("audio: pipes and arks", "streamed 24-bit wav of three channels", ("utterances",))
def streamed_three(case: Case) -> Spot:
    """What SoX writes to a pipe: 0x7ffff000 bytes, whatever a frame has."""
    signal, key, path = case.entry("closetalk1", "closetalk2")
    write_audio(path, case.content(signal, key), "PCM_24")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    struct.pack_into("<I", content, place, (0x7FFFFFFF - place - 4) // 3 * 3)
    path.write_bytes(content)
    case.set_entry(signal, key, f"cat {path} |")
    return case.spot(signal, key, path)


ARK_ENTRIES = {  # name -> entry; {first} is the right offset, {size} that of the ark
    "right": "{ark}:{first}",
    "without an offset": "{ark}",
    "offset behind the end": "{ark}:999999999",
    "offset at the end": "{ark}:{size}",
    "offset within": "{ark}:{within}",
    "offset of 30 digits": "{ark}:" + "9" * 30,
    "offset of 5,000 digits": "{ark}:" + "9" * 5000,
    "negative offset": "{ark}:-5",
    "empty range": "{ark}:{first}[0:0]",
    "range behind the end": "{ark}:{first}[0:99999999]",
    "range backwards": "{ark}:{first}[900:100]",
    "range of 30 digits": "{ark}:{first}[0:" + "9" * 30 + "]",
    "range without numbers": "{ark}:{first}[:,]",
    "range of two dimensions": "{ark}:{first}[0:10,0:10]",
    "no such ark": "{ark}.gone:{first}",
    "ark is a folder": "/tmp:{first}",
    "ark is /dev/zero": "/dev/zero:{first}",
}


def damage_ark(case: Case, entry: str) -> Spot:
    signal, key, path = case.entry()
    ark = case.root / "audio" / "all.ark"
    begin = f"{key} ".encode()
    ark.write_bytes(begin + path.read_bytes() + b"next " + path.read_bytes())
    size = ark.stat().st_size
    within = int(case.rng.integers(len(begin) + 1, size - 1))
    entry = entry.format(ark=ark, first=len(begin), size=size, within=within)
    case.set_entry(signal, key, entry)
    return case.spot(signal, key, entry)


for ark_name, ark_entry in ARK_ENTRIES.items():
    kind("audio: pipes and arks", f"ark: {ark_name}", ("utterances", "segments"))(
        functools.partial(damage_ark, entry=ark_entry)
    )


@kind("audio: pipes and arks", "ark: cut", ("utterances", "segments"))
def cut_ark(case: Case) -> Spot:
    signal, key, path = case.entry()
    ark = case.root / "audio" / "all.ark"
    content = b"key " + path.read_bytes()
    ark.write_bytes(content[: case.rng.integers(1, len(content))])
    case.set_entry(signal, key, f"{ark}:4")
    return case.spot(signal, key, f"{ark}:4")


@kind("audio: pipes and arks", "ark: of features", ("utterances", "segments"))
def feature_ark(case: Case) -> Spot:
    signal, key, _ = case.entry()
    ark = case.root / "audio" / "feats.ark"
    values = case.rng.standard_normal((50, 1)).astype("<f4")
    ark.write_bytes(b"key \0BFM \4" + struct.pack("<i", 50) + b"\4" + struct.pack("<i", 1) + values.tobytes())
    case.set_entry(signal, key, f"{ark}:4")
    return case.spot(signal, key, f"{ark}:4")


@kind("audio: pipes and arks", "ark: NaN in a float wav", ("utterances", "segments"))
def nan_in_ark(case: Case) -> Spot:
    signal, key, path = case.entry()
    damage_content(case, path, case.content(signal, key), CONTENT["a sample nan"])
    ark = case.root / "audio" / "all.ark"
    ark.write_bytes(b"key " + path.read_bytes())
    case.set_entry(signal, key, f"{ark}:4")
    return case.spot(signal, key, f"{ark}:4")


# ---- Separated speech that is scored

STREAM_DAMAGE = [
    *CONTENT,
    *HEADER,
    "raw samples",
    "text",
    "empty file",
    "random bytes",
    *BREAKS,
    *(f"{n}, cut anywhere" for n in FORMATS),
]
STREAM_DAMAGE = [
    name
    for name in STREAM_DAMAGE
    if name not in ("all silent", "all constant", "a channel constant", "a channel silent", "a sample 1e30")
]


@kind("separated speech", "a file", route="score")
def damage_stream_file(case: Case) -> Spot:
    n, utt = case.choose(1, 2), case.choose(*UTTERANCES)
    path = case.enhanced / "wavs" / str(n) / f"{utt}.wav"
    samples = case.streams[n][utt]
    intact = AUDIO[case.choose(*STREAM_DAMAGE)](case, path, samples[:, None])
    if intact is not None:
        case.streams[n][utt] = intact[0][:, 0]
    return Spot((str(path), f"spk{n}.scp"), (utt, str(path)))


STREAM_CONTENT = {
    "silent": lambda x: 0 * x,
    "constant": lambda x: 0 * x + 0.1,
    "denormal": lambda x: x * 1e-38,
    "at 1e-30": lambda x: x * 1e-30,
    "at 1e30": lambda x: x * 1e30,
    "one click": lambda x: (np.arange(len(x)) == 100) * 1.0,
    "the reference itself": None,
}


def damage_stream_content(case: Case, name: str) -> Spot:
    """Legitimate: bad streams get bad scores."""
    n, utt = case.choose(1, 2), case.choose(*UTTERANCES)
    change = STREAM_CONTENT[name]
    samples = case.signals[f"spk{n}"][utt][:, 0] if change is None else change(case.streams[n][utt])
    case.streams[n][utt] = samples.astype(np.float32)
    path = case.enhanced / "wavs" / str(n) / f"{utt}.wav"
    write_audio(path, case.streams[n][utt], "FLOAT")
    return Spot((str(path), f"spk{n}.scp"), (utt, str(path)))


for stream_name in STREAM_CONTENT:
    kind("separated speech", stream_name, route="score")(functools.partial(damage_stream_content, name=stream_name))


@kind("separated speech", "a line of a list", route="score")
def damage_stream_line(case: Case) -> Spot:
    name = case.choose("spk1.scp", "spk2.scp")
    change, _ = LINES[case.choose(*(name for name in LINES if name not in ("of another id", "a megabyte")))]
    path = case.enhanced / name
    lines = path.read_bytes().splitlines()
    number = int(case.rng.integers(len(lines)))
    after = change(case, lines[number])
    path.write_bytes(b"\n".join([*lines[:number], *after, *lines[number + 1 :], b""]))
    places = [f"{name}:{number + n}" for n in (1, 2)]
    key, entry = lines[number].decode().split()
    return Spot((name, entry), (*places, key))


@kind("separated speech", "a list", route="score")
def damage_stream_list(case: Case) -> Spot:
    name = case.choose("spk1.scp", "spk2.scp")
    path = case.enhanced / name
    how = case.choose(*BREAKS, *WHOLE)
    if how in WHOLE:
        path.write_bytes(WHOLE[how](path.read_bytes()))
    else:
        break_file(path, how)
    return Spot((name, str(case.enhanced)))


@kind("separated speech", "one list twice", route="score")
def one_list_twice(case: Case) -> Spot:
    """A model that gives the same to both: legitimate, if bad."""
    (case.enhanced / "spk2.scp").write_bytes((case.enhanced / "spk1.scp").read_bytes())
    case.streams[2] = case.streams[1]
    return Spot(("spk2.scp",))


@kind("separated speech", "settings.json broken", route="score")
def broken_settings(case: Case) -> Spot:
    content = case.choose(
        "", "{", "[]", "17", '{"options": 3}', "{}", '{"options": {"ref_channel": "two"}}', "\0", "[" * 10**5
    )
    (case.enhanced / "settings.json").write_text(content)
    return Spot(("settings.json", str(case.enhanced)))


@kind("separated speech", "kept scores broken", route="score")
def broken_cache(case: Case) -> Spot:
    utt = case.choose(*UTTERANCES)
    content = case.choose(
        b"\xff\xfe{\n",
        b"{}\n[]\n17\n",
        b"[" * 10**5 + b"\n",
        f'{{"utt_id": "{utt}", "key": null, "result": 3}}\n'.encode(),
        f'{{"utt_id": ["{utt}"], "key": 1, "result": {{}}}}\n'.encode(),
        bytes(4096),
        b'{"utt_id": 3, "key": [], "result": {}}\n',
        b'{"utt_id": ' + b"9" * 5000 + b"}\n",
    )
    path = case.enhanced / "scoring" / "utterances.jsonl"
    path.parent.mkdir()
    path.write_bytes(content)
    return Spot((path.name,))


# ---- Clean speech that is simulated from


def clean_speech(case: Case) -> Path:
    """Write a data dir of clean speech: 6 speakers with two utterances."""
    folder = case.root / "clean"
    table, speakers, texts = {}, {}, {}
    for number in range(12):
        utt = f"s{number // 2}-u{number % 2}"
        table[utt], speakers[utt], texts[utt] = folder / f"{utt}.wav", utt[:2], f"UTTERANCE {number}"
        write_audio(table[utt], quantised(speech(100 + number, 4000)))
    for name, content in (("wav.scp", table), ("utt2spk", speakers), ("text", texts)):
        write_lines(folder / name, content)
    return folder


@kind("clean speech", "a line", route="simulate")
def damage_clean_line(case: Case) -> Spot:
    folder = case.root / "clean"
    name = case.choose("wav.scp", "utt2spk")
    change, _ = LINES[case.choose(*(name for name in LINES if name not in ("a megabyte", "id in other letters")))]
    lines = (folder / name).read_bytes().splitlines()
    number = int(case.rng.integers(len(lines)))
    after = change(case, lines[number])
    (folder / name).write_bytes(b"\n".join([*lines[:number], *after, *lines[number + 1 :], b""]))
    ids = [line.split(b" ")[0].decode("utf-8", "replace") for line in [lines[number], *after] if line]
    return Spot((name,), (*(f"{name}:{number + n}" for n in (1, 2)), *ids))


@kind("clean speech", "a table", route="simulate")
def damage_clean_table(case: Case) -> Spot:
    name = case.choose("wav.scp", "utt2spk")
    path = case.root / "clean" / name
    how = case.choose(*BREAKS, *WHOLE)
    if how in WHOLE:
        path.write_bytes(WHOLE[how](path.read_bytes()))
    else:
        break_file(path, how)
    return Spot((name,))


CLEAN_AUDIO = [
    name for name in AUDIO if name not in ("float beyond full scale", "clipped", "24 bit, faint", "rate 8001")
]
CLEAN_AUDIO = [
    name
    for name in CLEAN_AUDIO
    if name not in CONTENT
    or "nan" in name
    or name in ("a sample infinite", "all silent", "no samples", "a channel more")
]


@kind("clean speech", "a file", route="simulate")
def damage_clean_audio(case: Case) -> Spot:
    utt = f"s{case.rng.integers(6)}-u{case.rng.integers(2)}"
    path = case.root / "clean" / f"{utt}.wav"
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    how = case.choose(*CLEAN_AUDIO)
    AUDIO[how](case, path, samples)
    return Spot((str(path), "wav.scp"), (utt, str(path)))


# ---- Recordings that are separated by themselves

# A recording may be so, as nothing is there to compare it with: its content, its length, another form of its samples,
# or formats that do not say how long they are.
CONSISTENT = (
    "a channel silent|a channel constant|all silent|all constant|a sample 1e30|a sample more|a sample less|"
    "half as long|twice as long|header promises less|8 bits|32 bits|format mu-law|any byte of the header|"
    "IRCAM, cut anywhere"
).split("|")
for audio_name, audio_damage in AUDIO.items():
    if audio_name in CONSISTENT:
        continue

    def damage_recording(case: Case, damage: Callable = audio_damage) -> Spot:
        path = case.root / "audio" / "wav" / f"{list(UTTERANCES)[-1]}.wav"
        intact = damage(case, path, case.signals["wav"][path.stem])
        if intact is not None:
            case.signals["wav"][path.stem] = intact[0]
        return Spot((str(path),))

    kind("recordings to separate", audio_name, ("utterances",), route="separate")(damage_recording)


# ---- Models

CONFIG = {
    "sample_rate": RATE,
    "encoder": "stft",
    "separator": "tfgridnetv2",
    "criterions": [{"name": "mixture_constraint", "conf": {"alpha": 1.0}, "wrapper": "mixture"}],
}
CONFIGS = {  # name -> content of config.yaml
    "not YAML": lambda case, content: content + b"\n\t{: ]\n",
    "latin-1": lambda case, content: content + b"note: \xe9\n",
    "zeros": lambda case, content: bytes(len(content)),
    "a list": lambda case, content: b"- a\n- b\n",
    "nested 10,000 deep": lambda case, content: content + b"x: " + b"[" * 10_000 + b"]" * 10_000,
    "aliases without end": lambda case, content: (
        content
        + b"a0: &a0 [x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10))
    ),
    "an alias of itself": lambda case, content: content + b"x: &x [*x]\n",
    "runs code": lambda case, content: (
        content + f"x: !!python/object/apply:os.system ['touch {case.root}/ran']\n".encode()
    ),
    "criterions a text": lambda case, content: yaml.safe_dump({**CONFIG, "criterions": "all"}).encode(),
    "criterions without names": lambda case, content: yaml.safe_dump({**CONFIG, "criterions": [{"conf": {}}]}).encode(),
    "integer of 10,000 digits": lambda case, content: content + b"x: " + b"9" * 10_000 + b"\n",
    "option twice": lambda case, content: content + b"sample_rate: 8000\n",
    "byte order mark": lambda case, content: b"\xef\xbb\xbf" + content,
}


def damage_config(case: Case, change: Callable) -> Spot:
    path = case.root / "model" / "config.yaml"
    path.write_bytes(change(case, path.read_bytes()))
    return Spot((str(path),))


for config_name, config_change in CONFIGS.items():
    kind("models", f"config: {config_name}", ("utterances",), "model")(
        functools.partial(damage_config, change=config_change)
    )


class RunsCode:
    """What a pickle may hold."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def make_model(case: Case) -> Path:
    """A training's folder with weights and checkpoint."""
    import torch

    folder = case.root / "model"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    torch.save(weights, folder / "valid.loss.best.pth")
    stats = {1: {"train": {"loss": 1.0}, "valid": {"loss": 2.0}}}
    torch.save({"model": weights, "reporter": {"stats": stats, "epoch": 1}}, folder / "checkpoint.pth")
    return folder


WEIGHTS = {
    "cut": lambda case, content: content[: case.rng.integers(1, len(content))],
    "empty": lambda case, content: b"",
    "text": lambda case, content: b"not weights\n",
    "random bytes": lambda case, content: case.rng.bytes(2000),
    "a byte of the first half changed": lambda case, content: flipped(case, content, 0, len(content) // 2),
    "zeros": lambda case, content: bytes(len(content)),
}


def flipped(case: Case, content: bytes, first: int, last: int) -> bytes:
    content = bytearray(content)
    content[case.rng.integers(first, last)] ^= 0xFF
    return bytes(content)


def damage_weights(case: Case, change: Callable, name: str) -> Spot:
    path = case.root / "model" / name
    path.write_bytes(change(case, path.read_bytes()))
    return Spot((str(path),))


for weights_name, weights_change in WEIGHTS.items():
    for weights_file in ("valid.loss.best.pth", "checkpoint.pth"):
        if weights_name.startswith("a byte"):
            continue  # numbers may be others: nobody can know
        kind("models", f"{weights_file}: {weights_name}", ("utterances",), "model")(
            functools.partial(damage_weights, change=weights_change, name=weights_file)
        )


def damage_objects(case: Case, content: Callable, name: str) -> Spot:
    import torch

    path = case.root / "model" / name
    torch.save(content(case), path)
    return Spot((str(path),))


OBJECTS = {
    "runs code": lambda case: {"weight": RunsCode(f"touch {case.root}/ran"), "reporter": {"stats": {}}},
    "a number": lambda case: 3,
    "a list": lambda case: [1, 2],
    "other names": lambda case: {"other": 1},
    "statistics a text": lambda case: {"model": {}, "reporter": {"stats": "many"}},
    "statistics of numbers": lambda case: {"model": {}, "reporter": {"stats": {1: 2}}},
}
for objects_name, objects_content in OBJECTS.items():
    for objects_file in ("valid.loss.best.pth", "checkpoint.pth"):
        kind("models", f"{objects_file}: {objects_name}", ("utterances",), "model")(
            functools.partial(damage_objects, content=objects_content, name=objects_file)
        )

MODEL_FILES = ("config.yaml", "valid.loss.best.pth")


def break_model(case: Case, how: str) -> Spot:
    path = case.root / "model" / case.choose(*MODEL_FILES)
    break_file(path, how)
    return Spot((str(path), str(path.parent)))


for break_name in BREAKS:
    kind("models", f"a file: {break_name}", ("utterances",), "model")(functools.partial(break_model, how=break_name))


def pack(case: Case, **members: bytes | None) -> Path:
    """A packed model, with other members or without."""
    folder, archive = case.root / "model", case.root / "packed.zip"
    meta = {"yaml_files": {"train_config": "config.yaml"}, "files": {"model_file": "model.pth"}}
    content = {
        "meta.yaml": yaml.safe_dump(meta).encode(),
        "config.yaml": (folder / "config.yaml").read_bytes(),
        "model.pth": (folder / MODEL_FILES[1]).read_bytes(),
    } | members
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            if data is not None:
                packed.writestr(name, data)
    return archive


ZIPS = {  # name -> members that are others
    "right": lambda case: {},
    "without meta.yaml": lambda case: {"meta.yaml": None},
    "without weights": lambda case: {"model.pth": None},
    "meta.yaml a list": lambda case: {"meta.yaml": b"- a\n"},
    "meta.yaml nested deep": lambda case: {"meta.yaml": b"[" * 10_000},
    "meta.yaml names a file outside": lambda case: {
        "meta.yaml": b"yaml_files: {train_config: ../../config.yaml}\nfiles: {model_file: model.pth}\n"
    },
    "meta.yaml names numbers": lambda case: {"meta.yaml": b"yaml_files: {train_config: 1}\nfiles: {model_file: 2}\n"},
    "member outside": lambda case: {"../evil": b"x"},
    "absolute member": lambda case: {f"{case.root}/evil": b"x"},
    "bomb of a config": lambda case: {"config.yaml": bytes(400_000_000)},
    "bomb of weights": lambda case: {"model.pth": bytes(400_000_000)},
    "bomb of meta.yaml": lambda case: {"meta.yaml": bytes(400_000_000)},
}


def damage_zip(case: Case, members: Callable) -> Spot:
    return Spot((str(pack(case, **members(case))),))


for zip_name, zip_members in ZIPS.items():
    kind("models", f"zip: {zip_name}", ("utterances",), "model")(functools.partial(damage_zip, members=zip_members))

ZIP_BYTES = {
    "cut": WEIGHTS["cut"],
    "a byte changed": lambda case, content: flipped(case, content, 30, len(content)),
    "bytes before": lambda case, content: b"#!/bin/sh\n" + content,
    "empty": WEIGHTS["empty"],
    "zeros at the end": lambda case, content: content + bytes(70_000),
}


def damage_zip_bytes(case: Case, change: Callable) -> Spot:
    archive = pack(case)
    archive.write_bytes(change(case, archive.read_bytes()))
    return Spot((str(archive),))


for zip_name, zip_change in ZIP_BYTES.items():
    kind("models", f"zip: {zip_name}", ("utterances",), "model")(functools.partial(damage_zip_bytes, change=zip_change))
