"""The signals of an utterance: where they lie, and reading them so that they fit each other.

Families are called as their scp files: "wav" (the far-field mixture), "spk", "closetalk" and "closetalk_spk";
"stream" is spk{n}.scp of a folder with separated speech, "cleaned" closetalk{n}.scp of one with cleaned headsets.
Signals are numbered as the files are, wav.scp as 1. There may be gaps: talkers, streams and headsets are different
numbers, and a talker may have no headset.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_m2m.data_dir.audio import AudioError, Segment, audio_errors, read_audio, require_sane, segment_samples
from espnet2_m2m.data_dir.directory import name_some, numbered_file, numbered_files, read_segments
from espnet2_m2m.data_dir.tables import TableError, c_locale_key, read_table

NAMES = {  # what messages call a signal of each family
    "wav": "the mixture",
    "spk": "the reference of speaker {}",
    "closetalk": "the close-talk mixture of speaker {}",
    "closetalk_spk": "the close-talk speech of speaker {}",
    "stream": "output {}",
    "cleaned": "the cleaned headset of speaker {}",
}


class Signal(NamedTuple):
    """Where a signal lies: the value of an scp file, and what `segments` cuts out of it."""

    entry: str
    segment: Segment | None = None


@dataclass(frozen=True)
class Utterance:
    """The signals that belong together."""

    utt_id: str
    signals: dict[str, dict[int, Signal]]  # family -> number -> signal

    def __iter__(self) -> Iterator[tuple[str, int, Signal]]:
        for family, numbered in self.signals.items():
            for number, signal in numbered.items():
                yield family, number, signal

    def name(self, family: str, number: int) -> str:
        """What messages call one of its signals."""
        return f"utterance '{self.utt_id}': {NAMES[family].format(number)}"

    def read(
        self, mic: int = 0, sample_rate: int | None = None, all_mics: bool = False
    ) -> tuple[dict[str, dict[int, np.ndarray]], int]:
        """All signals, which must be equally long; those that `segments` cuts end with the shortest of them.

        Args:
            mic: far-field mic to take, from 0. References and streams may be of all mics or of this one alone;
                headsets have one channel.
            sample_rate: Hz that a model asks for; None: any, but of all signals the same.
            all_mics: read the far-field mixture as (sample, mic).
        Returns:
            family -> number -> (sample,) float32; sample rate in Hz.
        Raises:
            AudioError: (a ValueError) unreadable, not finite, another rate or length, no such mic; the message
                names utterance, signal and file.
        """
        waves, loaded = {family: {} for family in self.signals}, []
        expected, whose = (sample_rate, None), "the model"
        for family, number, signal in self:
            with audio_errors(self.name(family, number)):
                loaded.append(read_signal(signal))
        # Devices stop at different times, and the last segment may reach beyond the first that does.
        shortest = min((len(samples) for (*_, signal), (samples, _) in zip(self, loaded) if signal.segment), default=0)
        for (family, number, signal), (samples, rate) in zip(self, loaded, strict=True):
            with audio_errors(self.name(family, number)):
                if signal.segment:
                    samples = samples[:shortest]
                require_same(signal.entry, (rate, len(samples)), expected, whose)
                if family != "wav" or not all_mics:
                    headset = family in ("closetalk", "closetalk_spk", "cleaned")
                    alone = headset or family != "wav" and samples.shape[1] == 1
                    samples = channel_of(samples, 0 if alone else mic, signal.entry)
            waves[family][number] = samples
            if expected[1] is None:
                expected, whose = (rate, len(samples)), f"{NAMES[family].format(number)} ({signal.entry})"
        return waves, rate


def find_utterances(
    data_dir: Path | str,
    families: Iterable[str],
    enhanced_dir: Path | str | None = None,
    cleaned_dir: Path | str | None = None,
) -> list[Utterance]:
    """The utterances of a set with those signals of some families that the set has.

    Args:
        data_dir: the set. Its `segments`, if it has any, cut the recordings that its scp files are keyed by.
        families: of its signals. Of "wav" there must be one, of the others there may be any number.
        enhanced_dir: its separated speech, the family "stream"; always keyed by utterance.
        cleaned_dir: its headsets without cross-talk, the family "cleaned", likewise.
    Returns:
        list of Utterance in C-locale order, each with the same numbers of signals.
    Raises:
        FileNotFoundError: no such folder, or no wav.scp.
        TableError: (a ValueError) no utterances, or a file that lacks some of them.
    """
    for folder in filter(None, (data_dir, enhanced_dir, cleaned_dir)):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such directory")
    segments = read_segments(data_dir)
    utt_ids = sorted(segments or read_table(Path(data_dir, "wav.scp")), key=c_locale_key)
    if not utt_ids:
        raise TableError(f"{data_dir}/wav.scp: expected at least one line, found none")
    sources = dict.fromkeys(families, (data_dir, segments))
    if enhanced_dir is not None:
        sources["stream"] = enhanced_dir, {}
    if cleaned_dir is not None:
        sources["cleaned"] = cleaned_dir, {}
    found = {utt_id: {family: {} for family in sources} for utt_id in utt_ids}
    for family, (folder, cuts) in sources.items():
        for number, path in scp_files(folder, {"stream": "spk", "cleaned": "closetalk"}.get(family, family)).items():
            for utt_id, signal in scp_signals(path, utt_ids, cuts, data_dir).items():
                found[utt_id][family][number] = signal
    return [Utterance(utt_id, signals) for utt_id, signals in found.items()]


def scp_files(folder: Path | str, family: str) -> dict[int, Path]:
    """Number -> scp file, of a family; wav.scp is number 1 of its own."""
    if family == "wav":
        return {1: Path(folder, "wav.scp")}
    return {number: Path(folder, numbered_file(family, number)) for number in numbered_files(folder, family)}


def scp_signals(
    path: Path | str, utt_ids: Iterable[str], segments: dict[str, tuple[str, float, float]], data_dir: Path | str
) -> dict[str, Signal]:
    """Utterance -> its signal in an scp file.

    Args:
        path: keyed by utterance, or by recording where there are segments.
        utt_ids: the utterances of `data_dir`.
        segments: of `read_segments`, or empty.
        data_dir: for the message.
    Raises:
        TableError: utterances are missing.
    """
    table, utt_ids = read_table(path), list(utt_ids)
    sources = {utt_id: segments.get(utt_id, (utt_id,)) for utt_id in utt_ids}
    missing = [utt_id for utt_id in utt_ids if sources[utt_id][0] not in table]
    if missing:
        recording = f" (no recording '{sources[missing[0]][0]}')" if segments else ""
        raise TableError(
            f"{path}: {len(missing)} of the {len(utt_ids)} utterances of {data_dir} are missing:"
            f" {name_some(missing)}{recording}; give both the same ids, or run the stage that wrote the file again"
        )
    return {utt_id: Signal(table[recording], tuple(cut) or None) for utt_id, (recording, *cut) in sources.items()}


def read_signal(signal: Signal) -> tuple[np.ndarray, int]:
    """(sample, channel) float32 samples of a signal and its sample rate in Hz.

    Raises:
        AudioError: unreadable, not finite, or beyond any sane range.
    """
    samples, sample_rate = read_audio(*signal)
    require_sane(samples, signal.entry)
    return samples, sample_rate


def channel_of(samples: np.ndarray, mic: int, entry: str) -> np.ndarray:
    """(sample,) at one of the mics, from 0, of (sample, mic).

    Raises:
        AudioError: no such mic.
    """
    if not 0 <= mic < samples.shape[1]:
        raise AudioError(
            f"{entry}: has {samples.shape[1]} channels, so no mic {mic} (mics count from 0)", "choose another mic"
        )
    return samples[:, mic]


def require_same(entry: str, found: tuple[int, int], expected: tuple[int | None, int | None], whose: str) -> None:
    """Refuse a signal that does not fit the one before it, `whose` rate (Hz) and length (samples) are `expected`.

    Raises:
        AudioError: another rate or length; None in `expected` fits any.
    """
    remedies = {
        "Hz": "resample one of them (stage 3 of the recipe)",
        "samples": "make the signals of an utterance equally long (espnet2_m2m validate_data_dir finds the others)",
    }
    for has, wanted, (unit, remedy) in zip(found, expected, remedies.items()):
        if wanted not in (None, has):
            raise AudioError(f"{entry}: expected {wanted} {unit} like {whose}, found {has}", remedy)


def compare_files(files: Mapping[str, tuple[int, int]], cut: bool) -> Iterator[tuple[str, str, str]]:
    """Which files of one recording, of all its devices, cannot belong together by their headers.

    Devices stop at different times, so files that `segments` cut may be of any length (`segment_samples` tells
    whether a segment lies within a file); all others are equally long. Files of different rates fit if they last
    equally long, in both cases: a rate that the header has wrong would show in nothing else.

    Args:
        files: scp name -> (samples per channel, sample rate in Hz) of one id; the others are compared with the first.
        cut: True when the data dir has `segments`.
    Yields:
        (scp name, message, remedy) of each that does not fit.
    """
    first, *others = files
    expected, rate = files[first]
    for name in others:
        found, other_rate = files[name]
        if other_rate == rate:
            if found != expected and not cut:
                message = f"expected {expected} samples as in {first}, found {found}"
                yield name, message, "align the files and cut them to one length"
        elif round(found * rate / other_rate) != expected:
            yield (
                name,
                f"expected {expected / rate:.3f} s as in {first} ({rate} Hz), found {found / other_rate:.3f} s"
                f" at {other_rate} Hz",
                f"correct the sample rate in the header, or align the files and give both {rate} Hz",
            )


def common_segment(segment: Segment, files: Mapping[str, tuple[int, int]]) -> Segment:
    """A segment of a recording, ended where the first of its devices stops.

    Args:
        segment: (start, end) in seconds.
        files: entry -> (samples per channel, sample rate in Hz), of all devices.
    Raises:
        AudioError: it does not lie within one of the files.
    """
    start_s, end_s = segment
    for entry, (num_samples, sample_rate) in files.items():
        segment_samples(num_samples, sample_rate, segment, entry)
        end_s = min(end_s, num_samples / sample_rate)
    return start_s, end_s
