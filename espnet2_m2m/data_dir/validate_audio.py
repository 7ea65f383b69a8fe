"""The audio part of `inspect_data_dir`: it opens, is whole, finite and not silent, and fits."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from espnet2_m2m.data_dir.audio import (
    ARK_OFFSET,
    MAX_OVERSHOOT_S,
    AudioError,
    not_finite,
    open_audio,
    read_audio,
    truncated,
)
from espnet2_m2m.data_dir.directory import audio_scps, name_some, parse_segment
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.rules import value_problem
from espnet2_m2m.data_dir.validate_tables import Summary, TableChecker

MONO = ("closetalk", "spk", "closetalk_spk")
BLOCK_SAMPLES = 2**18  # so that hours of many channels do not have to fit into memory
UTT2DUR_TOLERANCE_S = 0.05  # Kaldi derives utt2dur from 10-ms frames where there are features
AudioProblem = tuple[str, str]  # (message, remedy)


@dataclass(frozen=True)
class AudioScan:
    """What one audio entry holds."""

    num_samples: int
    num_channels: int
    sample_rate: int
    problems: tuple[AudioProblem, ...]


Scans = dict[str, tuple[int, AudioScan]]  # id -> (line, what the audio holds), of one scp


def scan_audio(entry: str) -> AudioScan:
    """Read all samples of one scp value: AudioScan, or AudioError when it cannot be read."""
    if ARK_OFFSET.search(entry) and not entry.endswith("|"):
        samples, sample_rate = read_audio(entry)
        return _scan_blocks(entry, [samples], samples.shape[1], sample_rate)
    with open_audio(entry) as file:
        blocks = file.blocks(BLOCK_SAMPLES, dtype="float32", always_2d=True)
        scan = _scan_blocks(entry, blocks, file.channels, file.samplerate)
        if scan.num_samples < file.frames:
            raise truncated(entry, f"{file.frames} samples", scan.num_samples)
        return scan


def _scan_blocks(entry: str, blocks: Iterable[np.ndarray], num_channels: int, sample_rate: int) -> AudioScan:
    num_samples, finite, active = 0, True, np.zeros(num_channels, dtype=bool)
    for block in blocks:
        num_samples += len(block)
        finite = finite and bool(np.isfinite(block).all())
        active |= (block != 0).any(axis=0)
    problems = []
    if not finite:
        error = not_finite(entry)
        problems.append((error.problem, error.remedy))
    silent = [str(channel) for channel in np.flatnonzero(~active)]
    if num_samples == 0:
        problems.append((f"{entry}: holds no samples", "make or copy the file again"))
    elif not active.any():
        problems.append((f"{entry}: silent, all samples are zero", "remove the utterance"))
    elif silent:
        problems.append(
            (
                f"{entry}: channel {', '.join(silent)} (counted from 0) is silent, all its samples are zero",
                "leave the microphone out (format_data_dir --channels) or remove the utterance",
            )
        )
    return AudioScan(num_samples, num_channels, sample_rate, tuple(problems))


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
        if entry.value and not entry.value.startswith("~")
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
        if name != "wav.scp":
            _check_lengths(checker, name, scans[name], mixtures, what)
    durations = _check_durations(checker, mixtures)
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


def _check_lengths(checker: TableChecker, name: str, scans: Scans, mixtures: Scans, what: str) -> None:
    """Every file is as long as the mixture of the same id (unless the rates differ anyway)."""
    for key, (line, scan) in scans.items():
        if key not in mixtures or mixtures[key][1].sample_rate != scan.sample_rate:
            continue
        expected = mixtures[key][1].num_samples
        if scan.num_samples != expected:
            checker.report(
                name,
                line,
                f"{what} '{key}': expected {expected} samples as in wav.scp, found {scan.num_samples}",
                "align the files and cut them to one length",
            )


def _check_durations(checker: TableChecker, mixtures: Scans) -> dict[str, float]:
    """Compare segments, utt2dur and utt2num_samples with the audio; id -> duration in seconds."""
    durations = {key: scan.num_samples / scan.sample_rate for key, (_, scan) in mixtures.items()}
    if "segments" in checker.tables:
        recordings, durations = durations, {}
        for entry in checker.tables["segments"]:
            segment = parse_segment(entry.value)
            if segment is None or segment[0] not in recordings:
                continue
            recording_id, start, end = segment
            recorded = recordings[recording_id]
            durations[entry.key] = min(end, recorded) - start
            if end > recorded + MAX_OVERSHOOT_S or start >= recorded:
                checker.report(
                    "segments",
                    entry.line,
                    f"expected times within recording '{recording_id}' of {recorded:.3f} s, found {start} to {end}",
                    "correct the line",
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
