"""The audio part of `inspect_data_dir`: it opens, is whole, sane and not dead, and fits."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from espnet2_m2m.data_dir.audio import (
    ARK_OFFSET,
    AudioError,
    audio_blocks,
    open_audio,
    read_audio,
    require_sane,
    segment_samples,
)
from espnet2_m2m.data_dir.directory import audio_scps, name_some, parse_segment
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.rules import value_problem
from espnet2_m2m.data_dir.signals import compare_files
from espnet2_m2m.data_dir.validate_tables import Summary, TableChecker

MONO = ("closetalk", "spk", "closetalk_spk")
RECORDED = "recorded"  # kind of what microphones hear, array or headsets
BLOCK_SAMPLES = 2**18  # so that hours of many channels do not have to fit into memory
UTT2DUR_TOLERANCE_S = 0.05  # Kaldi derives utt2dur from 10-ms frames where there are features
AudioProblem = tuple[str, str]  # (message, remedy)


@dataclass(frozen=True)
class AudioScan:
    """What one audio entry holds; `digest` is the same for the same samples, None where they are no signal."""

    num_samples: int
    num_channels: int
    sample_rate: int
    problems: tuple[AudioProblem, ...]
    digest: bytes | None


Scans = dict[str, tuple[int, AudioScan]]  # id -> (line, what the audio holds), of one scp


def scan_audio(entry: str) -> AudioScan:
    """Read all samples of one scp value: AudioScan, or AudioError when it cannot be read."""
    if ARK_OFFSET.search(entry) and not entry.endswith("|"):
        samples, sample_rate = read_audio(entry)
        return _scan_blocks(entry, [samples], samples.shape[1], sample_rate)
    with open_audio(entry) as file:
        blocks = audio_blocks(file, entry, BLOCK_SAMPLES)
        return _scan_blocks(entry, blocks, file.channels, file.samplerate)


def _scan_blocks(entry: str, blocks: Iterable[np.ndarray], num_channels: int, sample_rate: int) -> AudioScan:
    num_samples, problems, digest = 0, [], hashlib.blake2b(digest_size=16)
    low, high = np.full(num_channels, np.inf), np.full(num_channels, -np.inf)
    for block in blocks:
        num_samples += len(block)
        digest.update(np.ascontiguousarray(block))
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    try:
        require_sane(np.stack([low, high]) if num_samples else low[:0], entry)
    except AudioError as error:
        problems.append((error.problem, error.remedy))
    dead = [str(channel) for channel in np.flatnonzero(low == high)]
    if num_samples == 0:
        problems.append((f"{entry}: holds no samples", "make or copy the file again"))
    elif len(dead) == num_channels:
        problems.append((f"{entry}: silent or constant, its samples do not vary", "remove the utterance"))
    elif dead:
        problems.append(
            (
                f"{entry}: channel {', '.join(dead)} (counted from 0) is silent or constant, its samples do not vary",
                "leave the microphone out (format_data_dir --channels) or remove the utterance",
            )
        )
    is_signal = num_samples and len(dead) < num_channels
    return AudioScan(num_samples, num_channels, sample_rate, tuple(problems), digest.digest() if is_signal else None)


def check_audio_files(
    checker: TableChecker,
    summary: Summary,
    sample_rate: int | None,
    num_channels: int | None,
    num_workers: int,
    progress: bool,
) -> None:
    """Add the problems of all audio of a data dir to `checker` and fill `summary`.

    Args:
        checker: a TableChecker whose tables are read.
        summary: a Summary.
        sample_rate, num_channels, num_workers, progress: as for `inspect_data_dir`.
    """
    scans: dict[str, Scans] = defaultdict(dict)  # by scp name
    what = "recording" if "segments" in checker.tables else "utterance"
    names = [name for name in audio_scps(checker.data_dir) if name in checker.tables]
    tasks = [
        (name, entry)
        for name in names
        for entry in checker.tables[name]
        if value_problem(name, entry.key, entry.value) is None
    ]
    bar = {"desc": str(checker.data_dir), "unit": "file", "disable": not progress}
    results = parallel_map(_scan_task, [entry.value for _, entry in tasks], num_workers, progress=bar)
    for (name, entry), result in zip(tasks, results, strict=True):
        if isinstance(result, AudioScan):
            scans[name][entry.key] = entry.line, result
            problems = result.problems
        else:
            problems = [result]
        for message, remedy in problems:
            checker.report(name, entry.line, f"{what} '{entry.key}': {message}", remedy)

    every = [scan for by_id in scans.values() for _, scan in by_id.values()]
    if not every:
        return
    summary.sample_rate = sample_rate or _most_common(scan.sample_rate for scan in every)
    mixtures = scans.get("wav.scp", {})
    if mixtures:
        channels = (scan.num_channels for _, scan in mixtures.values())
        summary.num_channels = num_channels or _most_common(channels)
    for name in names:
        _check_format(checker, name, scans[name], what, summary)
    _check_recordings(checker, scans, what)
    _check_copies(checker, scans, what)
    durations = _check_durations(checker, scans)
    summary.hours = sum(durations.values()) / 3600


def _scan_task(entry: str) -> AudioScan | AudioProblem:
    """AudioScan of one scp value, or (message, remedy) when the audio cannot be read."""
    try:
        return scan_audio(entry)
    except AudioError as error:
        return error.problem, error.remedy or "make or copy the file again"


def _most_common(values: Iterable[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def _check_format(checker: TableChecker, name: str, scans: Scans, what: str, summary: Summary) -> None:
    """All files of one scp have the dir's sample rate and the scp's number of channels."""
    num_channels, channel_remedy = None, None
    if name == "wav.scp":
        num_channels = summary.num_channels
        channel_remedy = "choose them with format_data_dir --channels"
    elif name[: -len(".scp")].rstrip("0123456789") in MONO:
        num_channels, channel_remedy = 1, "keep one channel of the file"
    rate_remedy = f"format_data_dir --sample_rate {summary.sample_rate}"
    for attribute, expected, unit, remedy in (
        ("sample_rate", summary.sample_rate, "Hz", rate_remedy),
        ("num_channels", num_channels, "channels", channel_remedy),
    ):
        if expected is None:
            continue
        wrong = defaultdict(list)
        for key, (line, scan) in scans.items():
            found = getattr(scan, attribute)
            if found != expected:
                wrong[found].append((line, key))
        for found, where in wrong.items():
            ids = name_some([key for _, key in where])
            checker.report(name, where[0][0], f"{what} {ids}: expected {expected} {unit}, found {found}", remedy)


def _check_recordings(checker: TableChecker, scans: dict[str, Scans], what: str) -> None:
    """The files of one id, of all scps, belong together by rate and length."""
    cut = "segments" in checker.tables
    for key, files in _by_id(scans).items():
        headers = {name: (scan.num_samples, scan.sample_rate) for name, scan in files.items()}
        for name, message, remedy in compare_files(headers, cut):
            checker.report(name, scans[name][key][0], f"{what} '{key}': {message}", remedy)


def _check_copies(checker: TableChecker, scans: dict[str, Scans], what: str) -> None:
    """No microphone's samples stand under two names, nor those of two references.

    Several ids may have the same recordings throughout: an utterance may be used twice, and where talkers have lines
    of their own, they share the mixture.
    """
    seen = {}  # (kind, samples) -> (scp name, id) where they stand first
    files_of = _by_id(scans)
    recorded = {
        key: {name: scan.digest for name, scan in files.items() if _kind(name) == RECORDED}
        for key, files in files_of.items()
    }
    for key, files in files_of.items():
        for name, scan in files.items():
            kind = _kind(name)
            if scan.digest is None or kind is None:
                continue
            # References may be the same in several mixtures, what microphones hear may not.
            place = (kind, scan.digest) if kind == RECORDED else (kind, scan.digest, key)
            first_name, first_key = seen.setdefault(place, (name, key))
            if (first_name, first_key) == (name, key) or first_name == name and recorded[key] == recorded[first_key]:
                continue
            checker.report(
                name,
                scans[name][key][0],
                f"{what} '{key}': the same samples as those of '{first_key}' in {first_name}",
                "give each of them its own file",
            )


def _kind(name: str) -> str | None:
    """What an scp holds, as far as two of a kind cannot be the same."""
    family = name[: -len(".scp")].rstrip("0123456789")
    return RECORDED if family in ("wav", "closetalk") else family if family in MONO else None


def _by_id(scans: dict[str, Scans]) -> dict[str, dict[str, AudioScan]]:
    """Id -> scp name -> scan, wav.scp first."""
    files = defaultdict(dict)
    for name in sorted(scans, key=lambda name: name != "wav.scp"):
        for key, (_, scan) in scans[name].items():
            files[key][name] = scan
    return files


def _check_durations(checker: TableChecker, scans: dict[str, Scans]) -> dict[str, float]:
    """Compare segments, utt2dur and utt2num_samples with the audio; id -> duration in seconds."""
    mixtures = scans.get("wav.scp", {})
    durations = {key: scan.num_samples / scan.sample_rate for key, (_, scan) in mixtures.items()}
    if "segments" in checker.tables:
        durations, files_of = {}, _by_id(scans)
        for entry in checker.tables["segments"]:
            segment = parse_segment(entry.value)
            if segment is None or segment[0] not in mixtures:
                continue
            recording_id, start, end = segment
            files = files_of[recording_id]
            name = min(files, key=lambda name: files[name].num_samples / files[name].sample_rate)
            num_samples, sample_rate = files[name].num_samples, files[name].sample_rate
            recorded = num_samples / sample_rate
            durations[entry.key] = max(0.0, min(end, recorded) - start)
            try:
                segment_samples(num_samples, sample_rate, (start, end), name)
            except AudioError:
                checker.report(
                    "segments",
                    entry.line,
                    f"expected times within recording '{recording_id}' of {recorded:.3f} s, found {start} to {end}"
                    f" ({name})",
                    "correct the line, or give the recording its own files",
                )
    tables = [("utt2dur", durations, UTT2DUR_TOLERANCE_S, "{:.3f} s", "make utt2dur again")]
    if "segments" not in checker.tables:
        num_samples = {key: scan.num_samples for key, (_, scan) in mixtures.items()}
        tables.append(("utt2num_samples", num_samples, 0, "{} samples", "run format_data_dir (stage 3) again"))
    for name, expected, tolerance, form, remedy in tables:
        for entry in checker.tables.get(name, ()):
            if entry.key not in expected or value_problem(name, entry.key, entry.value):
                continue
            if abs(float(entry.value) - expected[entry.key]) > tolerance:
                has = form.format(expected[entry.key])
                message = f"utterance '{entry.key}': expected {has} as the audio has, found {entry.value}"
                checker.report(name, entry.line, message, remedy)
    return durations
