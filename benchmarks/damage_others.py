"""Kinds of damage to separated speech that is scored, clean speech, and recordings to separate."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from damage_audio import AUDIO, CONTENT, HEADER
from damage_case import FORMATS, UTTERANCES, Case, Spot, kind, quantised, speech, write_audio, write_lines
from damage_tables import BREAKS, LINES, WHOLE, break_file

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
