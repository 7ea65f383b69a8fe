"""Small data sets for damage.py, and the list of what can be done to them.

A `Case` is a set on disk with the truth that it was written from. A kind of damage alters the files, at random places
that its seed decides on, and returns the `Spot` that a good message must name. Where what it did is legitimate, or
cannot but be taken for legitimate, it alters the truth as well: that is the independent rule by which the result is
right. damage_kinds.py has all kinds.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

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
