"""A recording as a file, and its talkers as files: read in pieces, written whole or not at all, kept if still valid.

What is wrong with a recording must not show after hours of work on others. So all are read once before the first is
separated (bin/separate), and each again when its turn comes, as it may have changed by then.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet2_m2m.data_dir.audio import (
    AudioError,
    audio_blocks,
    audio_header,
    comment_of,
    is_plain_file,
    new_sound_file,
    open_audio,
    require_sane,
    truncated,
)

if TYPE_CHECKING:
    import soundfile

BLOCK = 1 << 16  # samples of all mics that are read at once
RIFF_BYTES = 0xFFFFF000  # what a wav file may hold; RF64 is its form for more


def read_header(recording: str | Path) -> tuple[int, int, int]:
    """(samples, mics, rate in Hz) of an audio file, as its header says.

    Raises:
        AudioError: (a ValueError) no such file, unreadable or truncated.
    """
    if not is_plain_file(str(recording)):  # Kaldi's pipes are commands
        raise AudioError(f"{recording}: expected the path of an audio file")
    return audio_header(recording)


def check_samples(recording: str | Path) -> None:
    """Read a file once.

    Raises:
        AudioError: it is truncated, or has samples that are not finite or beyond any sane range; says where.
    """
    with open_audio(recording) as file:
        present = 0
        for block in audio_blocks(file, recording):
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                first = (present + int(bad.argmax())) / file.samplerate
                raise AudioError(
                    f"{recording}: has NaN or infinite samples, the first at {first:.3f} s",
                    "export it again, or cut that part out",
                )
            require_sane(block, recording, "export it again, or cut that part out")
            present += len(block)


@contextmanager
def reader(
    recording: str | Path, sample_rate: int, folder: Path
) -> Iterator[tuple[Callable[[int, int], np.ndarray], int]]:
    """Open a recording, at another rate than its own if need be.

    Args:
        sample_rate: Hz.
        folder: has room for the recording at that rate, as long as the context lasts.
    Yields:
        read: function, (first, last) -> (sample, mic) float32, these samples of the recording.
        num_samples: of the recording at that rate.
    """
    import soundfile

    with ExitStack() as stack:
        source = stack.enter_context(open_audio(recording))
        if source.samplerate != sample_rate:
            source = stack.enter_context(_resampled(source, sample_rate, folder))

        def read(first: int, last: int) -> np.ndarray:
            source.seek(first)
            try:
                samples = source.read(last - first, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise AudioError(f"{recording}: cannot be read ({error})", "copy it again") from error
            if len(samples) < last - first:
                raise truncated(recording, f"{source.frames} samples", first + len(samples))
            return samples

        yield read, source.frames


class StreamFiles:
    """The files of a recording's streams, OUT_DIR/NAME_spk1.wav, ..., as 32-bit float.

    Args:
        recording: path of what is separated.
        out_dir: folder; made where it is missing.
        num_streams: how many files there are.
        settings: name -> value, what decides on their content besides the recording; stands in their headers.
    Attributes:
        paths: of the files.
    """

    def __init__(self, recording: Path, out_dir: Path, num_streams: int, settings: dict[str, Any]) -> None:
        stamp = recording.stat()
        self.paths = [out_dir / f"{recording.stem}_spk{n}.wav" for n in range(1, num_streams + 1)]
        source = {"recording": [recording.name, stamp.st_size, stamp.st_mtime_ns]}
        self.comment = json.dumps({"made_by": "espnet2_m2m separate", **settings, **source}, sort_keys=True)

    def exist(self) -> bool:
        """Whether all have been made from this recording in this way.

        Raises:
            FileExistsError: some exist and were made in another way.
        """
        for path in self.paths:
            if path.exists() and comment_of(path) != self.comment:
                raise FileExistsError(
                    f"{path}: exists, and was not made from this recording with this "
                    "model and these options; remove it or give --overwrite"
                )
        return all(path.exists() for path in self.paths)

    @contextmanager
    def written(self, sample_rate: int, num_samples: int) -> Iterator[Callable[[np.ndarray], None]]:
        """Yield the function that writes a block (stream, sample); the files get their names at the end, all or none.

        Args:
            sample_rate: Hz.
            num_samples: that will be written.
        Raises:
            OSError: they cannot be written.
        """
        form = "FLOAT", _format(4 * num_samples), self.comment
        with ExitStack() as stack:
            files = [stack.enter_context(new_sound_file(path, sample_rate, 1, *form)) for path in self.paths]

            def write(block: np.ndarray) -> None:
                for file, wave in zip(files, block):
                    file.write(wave)

            yield write


@contextmanager
def _resampled(source: "soundfile.SoundFile", sample_rate: int, folder: Path) -> "Iterator[soundfile.SoundFile]":
    """The recording at another rate, as a file that vanishes; soxr, quality HQ, block by block."""
    import soundfile
    import soxr

    resampler = soxr.ResampleStream(source.samplerate, sample_rate, source.channels, quality="HQ")
    num_bytes = 4 * source.channels * source.frames * sample_rate / source.samplerate
    with (
        tempfile.TemporaryFile(dir=folder) as temporary,
        _sound_errors(folder),
        # By its number: with the file itself, soundfile would print what a full disk makes Python raise.
        soundfile.SoundFile(
            temporary.fileno(),
            "w+",
            sample_rate,
            source.channels,
            "FLOAT",
            format=_format(num_bytes),
            closefd=False,
        ) as file,
    ):
        while len(block := source.read(BLOCK, dtype="float32", always_2d=True)):
            file.write(resampler.resample_chunk(block))
        file.write(resampler.resample_chunk(np.zeros((0, source.channels), np.float32), last=True))
        yield file


def _format(num_bytes: float) -> str:
    return "WAV" if num_bytes < RIFF_BYTES else "RF64"


@contextmanager
def _sound_errors(path: Path) -> Iterator[None]:
    import soundfile

    try:
        yield
    except soundfile.SoundFileError as error:
        raise OSError(f"{path}: cannot be written ({error}); is the disk full?") from error
