"""Audio as Kaldi's scp files name it: a path, a pipe (`sox a.sph -t wav - |`) or an ark offset.

Samples are (sample, channel) float32 everywhere, full scale = 1.
"""

import io
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from espnet2_m2m.data_dir.containers import FORMATS, missing_samples
from espnet2_m2m.data_dir.tables import atomic_path

if TYPE_CHECKING:
    import soundfile

Segment = tuple[float, float]  # (start, end) in seconds

# Kaldi's extract-segments cuts a segment that ends at most this much after the recording.
MAX_OVERSHOOT_S = 0.5
# Full scale is 1. Floats in the units of integers occur, of 32 bits at most; twice as much leaves room for what
# resampling adds. Beyond, squares of squares overflow in float32, and no microphone gives it.
MAX_SAMPLE = 2.0**32
UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile says of a FLAC stream without a length
BLOCK_SAMPLES = 2**16
PCM16_STEP = 2.0**-15
ARK_OFFSET = re.compile(r":(\d+)(\[[\d:, ]*\])?$")


class AudioError(ValueError):
    """Audio that is missing, cannot be read or does not fit; the message names the entry.

    Attributes:
        problem, remedy: the two halves of the message, "problem; remedy".
    """

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem if remedy is None else f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


@contextmanager
def audio_errors(where: str) -> Iterator[None]:
    """AudioErrors of the block begin with `where`: the utterance, the signal."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{where}: {error.problem}", error.remedy) from error


def require_sane(samples: np.ndarray, where: Path | str, remedy: str = "make it again or remove the utterance") -> None:
    """Refuse samples that are NaN, infinite or beyond +-MAX_SAMPLE.

    Raises:
        AudioError: there are such; the message begins with `where`.
    """
    if samples.size == 0:
        return
    low, high = samples.min(), samples.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise AudioError(f"{where}: expected finite samples, found NaN or Inf", remedy)
    peak = max(-low, high)
    if peak > MAX_SAMPLE:
        raise AudioError(
            f"{where}: expected samples of at most {MAX_SAMPLE:.3g} (full scale is 1), found {peak:.3g}", remedy
        )


def truncated(entry: Path | str, promised: str, present: int | str) -> AudioError:
    """The AudioError of a file that ends too early."""
    return AudioError(
        f"{entry}: truncated: the header promises {promised}, the file holds {present}", "make or copy the file again"
    )


def is_plain_file(entry: str) -> bool:
    """True when an scp value is a path, not a pipe (`cmd |`) nor an ark offset (`x.ark:123`)."""
    return not entry.strip().endswith("|") and not ARK_OFFSET.search(entry.strip())


def source_stamp(entry: Path | str) -> list[int] | None:
    """[bytes, time of the last change in ns] of the file behind an scp value; None for a pipe.

    It tells whether kept results are still valid; the output of a pipe may change without a trace.

    Raises:
        AudioError: no such file, or it cannot be asked.
    """
    entry = str(entry).strip()
    if entry.endswith("|"):
        return None
    path = ARK_OFFSET.sub("", entry)
    with _os_errors(entry):
        _require_file(path)
        status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def read_audio(entry: Path | str, segment: Segment | None = None) -> tuple[np.ndarray, int]:
    """Samples and sample rate of one scp value.

    Args:
        entry: path of an audio file, "command |", or "file.ark:offset" (read by kaldiio or omniio).
        segment: (start, end) in seconds to cut out, as in Kaldi's `segments`; None is everything.
    Returns:
        (sample, channel) float32 samples, sample rate in Hz. float32 holds 24 bits of each sample, whatever its level.
    Raises:
        AudioError: (a ValueError) missing, unreadable, truncated (the header promises more samples
            than there are) or shorter than the segment; the message names the entry.
    """
    entry = str(entry).strip()
    ark = ARK_OFFSET.search(entry)
    if ark and not entry.endswith("|"):
        samples, sample_rate = _load_ark(entry, ark)
        first, last = segment_samples(len(samples), sample_rate, segment, entry)
        return samples[first:last], sample_rate
    with open_audio(entry) as file:
        first, last = segment_samples(file.frames, file.samplerate, segment, entry)
        if first:  # some codecs can only be read from the beginning
            file.seek(first)
        samples = file.read(last - first, dtype="float32", always_2d=True)
        if len(samples) < last - first:
            raise truncated(entry, f"{file.frames} samples", first + len(samples))
        return samples, file.samplerate


def audio_blocks(
    file: "soundfile.SoundFile", entry: Path | str, num_samples: int = BLOCK_SAMPLES
) -> Iterator[np.ndarray]:
    """All samples of an open file, (sample, channel) float32 in blocks.

    Not by soundfile's `blocks`: where a file ends early, it gives out memory that was never written.

    Raises:
        AudioError: the file is truncated.
    """
    present = 0
    while len(block := file.read(num_samples, dtype="float32", always_2d=True)):
        present += len(block)
        yield block
    if present < file.frames != UNKNOWN_FRAMES:
        raise truncated(entry, f"{file.frames} samples", present)


def audio_header(entry: Path | str) -> tuple[int, int, int]:
    """(samples per channel, channels, sample rate in Hz) of one scp value; AudioError as above."""
    entry = str(entry).strip()
    if ARK_OFFSET.search(entry) and not entry.endswith("|"):
        samples, sample_rate = read_audio(entry)
        return len(samples), samples.shape[1], sample_rate
    with open_audio(entry) as file:
        return file.frames, file.channels, file.samplerate


@contextmanager
def open_audio(entry: Path | str) -> Iterator["soundfile.SoundFile"]:
    """soundfile.SoundFile of a path or a pipe; AudioError when missing, broken, truncated or of an unknown kind."""
    import soundfile

    entry, file = str(entry).strip(), None
    try:
        with _os_errors(entry):
            if entry.endswith("|"):
                source = io.BytesIO(_run_pipe(entry))
                _require_complete(source, entry)
            else:
                _require_file(entry)
                with open(entry, "rb") as source:
                    _require_complete(source, entry)
                source = entry
            with soundfile.SoundFile(source) as file:
                if file.format not in FORMATS:
                    raise AudioError(
                        f"{entry}: expected one of {', '.join(FORMATS)}, found {file.format}",
                        "convert it to wav or flac, of which it can be told whether they are whole",
                    )
                if file.frames != UNKNOWN_FRAMES:
                    yield file
                else:
                    with _with_length(file, entry) as whole:
                        yield whole
    except TypeError as error:  # a file called .raw
        if file is not None:
            raise
        raise AudioError(
            f"{entry}: a raw file, whose rate and channels no header tells",
            "convert it to wav: sox -t raw -r RATE -e signed -b 16 -c CHANNELS FILE.raw FILE.wav",
        ) from error
    except soundfile.SoundFileError as error:
        promise = (
            "" if file is None or file.frames == UNKNOWN_FRAMES else f"; its header promises {file.frames} samples"
        )
        reason = getattr(error, "error_string", error)  # without the address of what a pipe gave
        raise AudioError(f"{entry}: not readable as audio ({reason}){promise}") from error


@contextmanager
def _with_length(file: "soundfile.SoundFile", entry: str) -> Iterator["soundfile.SoundFile"]:
    """A stream whose header does not tell its length, as one that does."""
    import soundfile

    file.seekable = lambda: False  # soundfile would seek to where it is after each read, which fails at the end
    with soundfile.SoundFile(io.BytesIO(), "w+", file.samplerate, file.channels, "FLOAT", format="W64") as whole:
        for block in audio_blocks(file, entry):
            whole.write(block)
        whole.seek(0)
        yield whole


def write_wav(
    path: Path | str, samples: np.ndarray, sample_rate: int, subtype: str | None = None, comment: str | None = None
) -> None:
    """Write a wav file atomically.

    Args:
        path: the file; missing parent folders are made.
        samples: (sample,) or (sample, channel) float samples.
        sample_rate: Hz.
        subtype: "FLOAT" (32 bits), "PCM_16" (rounded, never clipped) or None: PCM_16 if all samples are 16-bit
            integers / 2^15 already, else FLOAT. So nothing is lost of recordings with more than 16 bits, or of what
            was computed from others, however faint it is.
        comment: text for the comment field of the header.
    Raises:
        AudioError: (a ValueError) empty, not finite, beyond +-MAX_SAMPLE, or PCM_16 and outside -1 <= sample < 1.
        OSError: as `new_sound_file`.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise AudioError(f"{path}: expected samples (sample,) or (sample, channel), found {samples.shape}")
    require_sane(samples, path, "nothing was written")
    if subtype is None:
        subtype = "PCM_16" if _is_pcm16(samples) else "FLOAT"
    if subtype == "PCM_16":
        if not fits_pcm16(samples):
            peak = np.abs(samples).max()
            raise AudioError(f"{path}: peak {peak:.4g} would clip as PCM_16", "scale the signal below 1 or write FLOAT")
        # libsndfile truncates instead of rounding, hence by hand.
        samples = np.rint(samples * 32768.0).clip(-32768, 32767).astype(np.int16)
    elif subtype == "FLOAT":
        samples = samples.astype(np.float32, copy=False)
    else:
        raise ValueError(f"{path}: subtype must be PCM_16, FLOAT or None, found {subtype!r}")
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    with new_sound_file(path, int(sample_rate), num_channels, subtype, "WAV", comment) as file:
        file.write(samples)


def _is_pcm16(samples: np.ndarray) -> bool:
    steps = samples * 32768.0
    return fits_pcm16(samples) and bool((steps == np.rint(steps)).all())


def comment_of(path: Path | str) -> str | None:
    """The comment in an audio file's header; None if there is no such file, or a broken one."""
    try:
        with open_audio(path) as file:
            return file.comment
    except AudioError:
        return None


@contextmanager
def new_sound_file(
    path: Path | str,
    sample_rate: int,
    num_channels: int,
    subtype: str | None,
    format: str = "WAV",
    comment: str | None = None,
) -> Iterator["soundfile.SoundFile"]:
    """Open a sound file to write to; it gets its name when the block ends. The same input makes the same bytes.

    Args:
        path: the file; missing parent folders are made.
        sample_rate: Hz.
        subtype, format: of soundfile; None is the format's usual one.
        comment: text for the comment field of the header.
    Raises:
        OSError: it cannot be written, perhaps because the disk is full.
    """
    import soundfile

    with atomic_path(path) as temporary:
        try:
            with soundfile.SoundFile(temporary, "w", sample_rate, num_channels, subtype, format=format) as file:
                if comment is not None:
                    file.comment = comment
                yield file
        except soundfile.SoundFileError as error:
            raise OSError(f"{path}: cannot be written ({error}); is the disk full?") from error
        _clear_time_of_writing(temporary)


def _clear_time_of_writing(path: Path) -> None:
    """In a wav of floats, libsndfile's chunk PEAK says when it was written; programs read its peaks at most."""
    with open(path, "r+b") as file:
        if file.read(4) != b"RIFF":
            return
        file.seek(12)
        while len(header := file.read(8)) == 8 and header[:4] != b"data":
            name, num_bytes = struct.unpack("<4sI", header)
            if name == b"PEAK":
                file.seek(4, 1)  # after its version
                file.write(bytes(4))
                return
            file.seek(num_bytes + num_bytes % 2, 1)


def resample(samples: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """(sample,) or (sample, channel) at another sample rate, by soxr (quality HQ); the phase stays linear."""
    import soxr

    return soxr.resample(samples, sample_rate, target_rate, quality="HQ")


def fits_pcm16(samples: np.ndarray) -> bool:
    """True when no sample clips as PCM_16: -1 <= sample < 1."""
    return bool(samples.min() >= -1.0 and samples.max() < 1.0)


def segment_samples(num_samples: int, sample_rate: int, segment: Segment | None, entry: Path | str) -> tuple[int, int]:
    """(first, last) sample of a segment in seconds; `last` is not part of it."""
    if num_samples == 0:
        raise AudioError(f"{entry}: holds no samples", "make or copy the file again")
    if segment is None:
        return 0, num_samples
    start_s, end_s = segment
    first, last = round(start_s * sample_rate), round(end_s * sample_rate)
    if last > num_samples + MAX_OVERSHOOT_S * sample_rate:
        raise AudioError(
            f"{entry}: the segment ends at {end_s} s, the recording at {num_samples / sample_rate:.3f} s",
            "correct `segments`",
        )
    last = min(last, num_samples)
    if not 0 <= first < last:
        raise AudioError(
            f"{entry}: the segment from {start_s} s to {end_s} s holds no samples of a recording"
            f" of {num_samples / sample_rate:.3f} s",
            "correct `segments`",
        )
    return first, last


@contextmanager
def _os_errors(entry: str) -> Iterator[None]:
    """What the system refuses (no permission, a broken disk) becomes an AudioError."""
    try:
        yield
    except OSError as error:
        raise AudioError(
            f"{entry}: cannot be read ({error.strerror or error})", "check its permissions and the disk"
        ) from error


def _require_file(path: str) -> None:
    if not Path(path).is_file():
        raise AudioError(
            f"{path}: no such audio file", "correct the path (a relative one starts at the working directory)"
        )


def _run_pipe(entry: str) -> bytes:
    # Not kaldiio: it ignores the exit status of the command and knows no float wav.
    process = subprocess.run(entry[:-1], shell=True, stdin=subprocess.DEVNULL, capture_output=True)
    if process.returncode != 0:
        message = process.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise AudioError(f"{entry}: the command ended with status {process.returncode} ({message[-1]})")
    return process.stdout


def _require_complete(file: BinaryIO, entry: str) -> None:
    try:
        missing = missing_samples(file)
    except ValueError as error:
        raise AudioError(f"{entry}: {error}", "make or copy the file again") from error
    if missing:
        raise truncated(entry, *missing)


def kaldi_io() -> ModuleType:
    """What reads and writes arks: kaldiio, which espnet 202511 brings, or its like in omniio, which 202611 brings."""
    try:
        import kaldiio
    except ImportError:
        from omniio import kaldi as kaldiio
    return kaldiio


def _load_ark(entry: str, ark: re.Match) -> tuple[np.ndarray, int]:
    path, offset = entry[: ark.start()], ark.group(1)
    with _os_errors(entry):
        _require_file(path)
        with open(path, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            if len(offset) > len(str(size)) or int(offset) >= size:
                raise AudioError(f"{entry}: expected an offset below the {size} bytes of the file", "correct the entry")
            file.seek(int(offset))
            _require_complete(file, entry)
    try:
        loaded = kaldi_io().load_mat(f"{path}:{offset}")
    except ImportError as error:
        raise AudioError(f"{entry}: reading an ark needs omniio or kaldiio", "pip install omniio") from error
    except Exception as error:  # wave, struct, assertion and EOF errors come through
        raise AudioError(f"{entry}: not readable as audio ({error!r})") from error
    if not isinstance(loaded, tuple):
        raise AudioError(f"{entry}: expected audio, found a matrix without a sample rate")
    sample_rate, samples = loaded if np.ndim(loaded[1]) else loaded[::-1]
    samples = samples.reshape(len(samples), -1)[_kaldi_range(ark.group(2) or "[]", entry)]
    if samples.size == 0:
        raise AudioError(f"{entry}: holds no samples", "correct its range or make the file again")
    if samples.dtype == np.uint8:  # 8-bit wav is unsigned
        samples = (samples - 128.0) / 128.0
    elif not np.issubdtype(samples.dtype, np.floating):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32, copy=False), int(sample_rate)


def _kaldi_range(text: str, entry: str) -> tuple[slice, ...]:
    """ "[0:99]" or "[0:99,1:2]", Kaldi's samples and channels, of which the last is included; omniio knows none."""
    bounds = [re.fullmatch(r" *(?:(\d{1,18}) *(?:: *(\d{1,18}))?|:?) *", part) for part in text[1:-1].split(",")]
    if len(bounds) > 2 or not all(bounds):
        raise AudioError(
            f"{entry}: expected a range of samples, and perhaps of channels, as in [0:99,1:2], found {text}"
        )
    first_last = [(part[1], part[2] or part[1]) for part in bounds]
    return tuple(slice(None) if first is None else slice(int(first), int(last) + 1) for first, last in first_last)
