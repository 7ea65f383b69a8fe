"""Give all audio of a data dir one sample rate and form: stage 3, as format_wav_scp.sh does.

Wav and flac files that already fit stay where they are; pipes, arks, segments and files of another
rate or with channels to leave out are written as wav.
"""

import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet2_m2m.data_dir.audio import (
    AudioError,
    Segment,
    audio_errors,
    audio_header,
    is_plain_file,
    open_audio,
    read_audio,
    require_sane,
    resample,
    segment_samples,
    source_stamp,
    write_wav,
)
from espnet2_m2m.data_dir.directory import (
    audio_scps,
    begin_data_dir,
    data_files,
    finish_data_dir,
    read_segments,
    table_key,
)
from espnet2_m2m.data_dir.ids import id_path
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.signals import Signal, common_segment, compare_files, scp_signals
from espnet2_m2m.data_dir.tables import read_table, write_bytes, write_table
from espnet2_m2m.data_dir.validate_tables import require_valid_tables

if TYPE_CHECKING:
    import soundfile

FORM = 2  # to be raised when the same source is written in another way


@dataclass(frozen=True)
class FormatTask:
    """One utterance of one scp: where its audio comes from and where it would be written."""

    utt_id: str
    scp: str
    signal: Signal
    out_path: str
    sample_rate: int | None
    channels: tuple[int, ...] | None


def format_data_dir(
    data_dir: Path | str,
    out_dir: Path | str,
    sample_rate: int | None = None,
    channels: Sequence[int] | None = None,
    num_workers: int = 1,
    progress: bool = False,
) -> tuple[int, int]:
    """Write a data dir whose audio is plain wav or flac of one sample rate, one file an utterance.

    The audio goes to out_dir/wav/<scp stem>/<utterance>.wav, as PCM_16 where that loses nothing, else as FLOAT
    (`write_wav`). Before, the files of every recording are compared in rate and length (`compare_files`), and a
    segment that reaches beyond the end of one of them ends there in all. A rerun keeps the files that were made
    from the same source with the same options and makes the others; pipes are always run, since their output
    may change without a trace. Tables of an earlier run that the source does not have are removed.
    utt2spk, without which a dir is not valid, is removed first and written last.

    Args:
        data_dir, out_dir: two different folders; paths in scp files start at the working directory.
        sample_rate: Hz to resample to (soxr, HQ); None keeps the rates.
        channels: microphones of wav.scp to keep, counted from 0, in this order; None keeps all.
        num_workers: processes.
        progress: show a progress bar on stderr.
    Returns:
        (number of audio files kept as they are, number of wav files in out_dir).
    Raises:
        AudioError: (a ValueError) audio that cannot be read, or files of one recording that do not belong together;
            the message names the utterance.
        ValueError: out_dir is data_dir, or a table is wrong.
        FileNotFoundError: no such directory or no wav.scp in it.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    names = data_files(data_dir)
    if out_dir.resolve() == data_dir.resolve():
        raise ValueError(f"{out_dir}: the formatted data dir must not replace its source")
    for name in ("wav.scp", "utt2spk"):
        if name not in names:
            raise FileNotFoundError(f"{data_dir}/{name}: no such file; create it (stage 1)")
    require_valid_tables(data_dir)
    tasks = _tasks(data_dir, out_dir, sample_rate, tuple(channels) if channels else None)
    tasks = _compared(tasks, data_dir, read_segments(data_dir), num_workers, progress)
    entries = {name: {} for name in audio_scps(data_dir)}
    # The audio is keyed by utterance now, so segments and recordings have no meaning any more.
    names = [name for name in names if name != "segments" and table_key(name) != "reco"]
    begin_data_dir(out_dir, {*names, "utt2num_samples"})
    _load_whole.cache_clear()
    num_samples, num_written = {}, 0
    bar = {"desc": str(out_dir), "unit": "file", "disable": not progress}
    results = parallel_map(format_one, tasks, num_workers, progress=bar)
    for task, result in zip(tasks, results, strict=True):
        entries[task.scp][task.utt_id], samples = result
        num_written += result[0] == task.out_path
        if task.scp == "wav.scp":
            num_samples[task.utt_id] = samples

    for name, table in entries.items():
        write_table(out_dir / name, table)
    write_table(out_dir / "utt2num_samples", num_samples)
    for name in names:
        if name not in entries and name not in ("utt2num_samples", "utt2spk"):
            write_bytes(out_dir / name, (data_dir / name).read_bytes())
    finish_data_dir(out_dir, (data_dir / "utt2spk").read_bytes())
    return len(tasks) - num_written, num_written


def format_one(task: FormatTask) -> tuple[str, int]:
    """(scp value, number of samples) of one utterance, writing its wav where that is needed."""
    entry, segment = task.signal
    with audio_errors(f"utterance '{task.utt_id}' of {task.scp}"):
        if segment is None and is_plain_file(entry):
            with open_audio(entry) as file:
                if _fits(file, task):
                    return entry, file.frames
        stamp = source_stamp(entry)
        audio = None
        if stamp is None:  # a pipe: only its samples tell whether it is as before
            audio = _load(entry, segment)
            stamp = [hashlib.sha256(audio[0].tobytes()).hexdigest(), audio[1]]
        fingerprint = _fingerprint(task, stamp)
        num_samples = _finished(task.out_path, fingerprint)
        if num_samples is None:
            num_samples = _write(task, audio or _load(entry, segment), fingerprint)
        return task.out_path, num_samples


def _tasks(data_dir: Path, out_dir: Path, sample_rate: int | None, channels: tuple[int, ...] | None) -> list:
    segments, tasks = read_segments(data_dir), []
    for name in audio_scps(data_dir):
        path = data_dir / name
        for utt_id, signal in scp_signals(path, segments or read_table(path), segments, data_dir).items():
            tasks.append(
                FormatTask(
                    utt_id=utt_id,
                    scp=name,
                    signal=signal,
                    out_path=str(id_path(out_dir / "wav" / name[: -len(".scp")], utt_id, ".wav")),
                    sample_rate=sample_rate,
                    channels=channels if name == "wav.scp" else None,
                )
            )
    return tasks


def _compared(
    tasks: list[FormatTask],
    data_dir: Path,
    segments: dict[str, tuple[str, float, float]],
    num_workers: int,
    progress: bool,
) -> list[FormatTask]:
    """The tasks, once the files of every recording belong together, with segments that end alike in all of them."""
    what = "recording" if segments else "utterance"
    recording_of = {task.utt_id: segments[task.utt_id][0] if segments else task.utt_id for task in tasks}
    entries = {(recording_of[task.utt_id], task.scp): task.signal.entry for task in tasks}
    several = Counter(recording for recording, _ in entries)
    places = [place for place in entries if several[place[0]] > 1]
    named = [(f"{what} '{recording}' of {scp}", entries[recording, scp]) for recording, scp in places]
    bar = {"desc": f"{data_dir}: headers", "unit": "file", "disable": not progress}
    files = defaultdict(dict)  # recording -> scp -> (samples, rate)
    for (recording, scp), header in zip(places, parallel_map(_header, named, num_workers, progress=bar), strict=True):
        files[recording][scp] = header
    for recording, by_scp in files.items():
        for scp, message, remedy in compare_files(by_scp, cut=bool(segments)):
            raise AudioError(f"{data_dir / scp}: {what} '{recording}': {message}", remedy)
    if not segments:
        return tasks
    by_entry = {name: {entries[name, scp]: has for scp, has in by_scp.items()} for name, by_scp in files.items()}
    alike = []
    for task in tasks:
        with audio_errors(f"utterance '{task.utt_id}'"):
            segment = common_segment(task.signal.segment, by_entry.get(recording_of[task.utt_id], {}))
        alike.append(replace(task, signal=Signal(task.signal.entry, segment)))
    return alike


def _header(named: tuple[str, str]) -> tuple[int, int]:
    """(samples, rate in Hz) of what messages call by a name."""
    where, entry = named
    with audio_errors(where):
        num_samples, _, sample_rate = audio_header(entry)
    return num_samples, sample_rate


def _fits(file: "soundfile.SoundFile", task: FormatTask) -> bool:
    """True when an open file needs no rewriting."""
    return (
        file.format in ("WAV", "WAVEX", "RF64", "FLAC")
        and task.sample_rate in (None, file.samplerate)
        and task.channels in (None, tuple(range(file.channels)))
    )


def _fingerprint(task: FormatTask, stamp: list) -> str:
    """What a written wav was made from, kept in its header, so that a rerun knows its own files."""
    recipe = [FORM, task.signal.entry, stamp, task.signal.segment, task.sample_rate, task.channels]
    return "espnet2_m2m " + hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:32]


def _finished(path: str, fingerprint: str) -> int | None:
    """Samples in the wav of an earlier run if it was made in the same way, else None."""
    with suppress(AudioError), open_audio(path) as file:  # it is missing, or broken
        if file.comment == fingerprint:
            return file.frames
    return None


def _write(task: FormatTask, audio: tuple[np.ndarray, int], fingerprint: str) -> int:
    samples, sample_rate = audio
    if task.channels is not None:
        if max(task.channels) >= samples.shape[1]:
            raise AudioError(
                f"{task.signal.entry}: expected channel {max(task.channels)} (counted from 0),"
                f" found {samples.shape[1]} channels",
                "choose others with --channels",
            )
        samples = samples[:, list(task.channels)]
    target_rate = task.sample_rate or sample_rate
    require_sane(samples, task.signal.entry)
    if target_rate != sample_rate:
        samples = resample(samples, sample_rate, target_rate)
    write_wav(task.out_path, samples, target_rate, comment=fingerprint)
    return len(samples)


def _load(entry: str, segment: Segment | None) -> tuple[np.ndarray, int]:
    """`read_audio`, without running a pipe or an ark again for the next segment of a recording."""
    if segment is None or is_plain_file(entry):
        return read_audio(entry, segment)
    samples, sample_rate = _load_whole(entry)
    first, last = segment_samples(len(samples), sample_rate, segment, entry)
    return samples[first:last], sample_rate


@functools.lru_cache(maxsize=1)
def _load_whole(entry: str) -> tuple[np.ndarray, int]:
    return read_audio(entry)
