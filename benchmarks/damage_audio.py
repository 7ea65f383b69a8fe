"""Kinds of damage to audio: files, files that do not go together, pipes and arks."""

import functools
import gzip
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from damage_case import (
    FORMATS,
    GAP,
    HEADSETS,
    LOSSY,
    RATE,
    SIGNALS,
    UTTERANCES,
    Case,
    Spot,
    kind,
    quantised,
    write_audio,
)
from damage_tables import BREAKS, break_file
from scipy.signal import resample_poly

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
