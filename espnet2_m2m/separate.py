"""Separate recordings with a trained model: arrays or files of any length, memory bounded.

from espnet2_m2m import SeparateRecording

separate = SeparateRecording.from_pretrained("exp/X")      # or a packed zip, or a Hugging Face tag
separate.file("meeting.wav", "out")                        # -> out/meeting_spk1.wav, ...
speech = separate(mixture, sample_rate)                    # (sample, mic) -> (source, sample)
"""

import hashlib
import json
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_m2m.data_dir.audio import AudioError, audio_header, is_plain_file, open_audio, truncated
from espnet2_m2m.data_dir.tables import atomic_path
from espnet2_m2m.model_files import model_files
from espnet2_m2m.stitching import Stitcher

SEGMENT_S, HOP_S = 10.0, 7.5
OPTIONS = "--ref_mic", "--mics"
SHORTEST_S = 0.5  # on less, FCP's filters fit anything
BLOCK = 1 << 16  # samples of all mics that are read at once
RIFF_BYTES = 0xFFFFF000  # what a wav file may hold; RF64 is its form for more


class SeparatedFile(NamedTuple):
    """What `SeparateRecording.file` did.

    Attributes:
        paths: the files, one a talker.
        duration_s: of the recording.
        uncertain_s: times in seconds where talkers may have been exchanged; None if `existed`.
        existed: the files were there before, and nothing was done.
    """

    paths: list
    duration_s: float
    uncertain_s: list
    existed: bool


class SeparateRecording:
    """A trained model, for recordings of any length.

    A recording up to a segment is separated as a whole, as bin/enh_inference does it. In a longer one
    segments overlap, every talker stays in one stream (stitching.py), and the streams are faded into each
    other. The network and FCP see one segment at a time, so talkers may move slowly.

    Args:
        model: enh.separate_speech.SeparateSpeech.
        mics: channels of the recording that the model gets, from 0, in its order; None for all.
        ref_mic: channel of the recording at which the talkers are to sound, from 0; None for the one that
            the model was trained for.
        segment_size, hop_size: length of segments and distance of their beginnings in seconds.
        fingerprint: names the model in the files that are written.
    Attributes:
        sample_rate: Hz that the model works at.
        num_speakers: number of streams.
    Raises:
        ValueError: mics or segments that cannot be.
    Example:
        >>> separate = SeparateRecording.from_pretrained("exp/m2m")  # a training's folder; two talkers, three mics
        >>> separate.sample_rate, separate.num_speakers
        (8000, 2)
        >>> separate(np.zeros((16000, 3)), sample_rate=8000).shape
        (2, 16000)
    """

    def __init__(self, model, mics=None, ref_mic=None, segment_size=SEGMENT_S, hop_size=HOP_S, fingerprint=""):
        from espnet2_m2m.enh.separator.m2m_separator import check_mics

        self.model = model
        self.sample_rate = getattr(model.enh_train_args, "sample_rate", None)
        if not isinstance(self.sample_rate, int) or self.sample_rate <= 0:
            raise ValueError(
                "the model's config must say its sample_rate in Hz, found "
                f"{self.sample_rate}; add e.g. `sample_rate: 8000` to it"
            )
        self.num_speakers = model.num_spk
        self.fingerprint = fingerprint
        check_mics("mics", mics)
        self.mics = mics
        separator = model.enh_model.separator
        self.ref_channel = separator.trained_ref_channel  # of what the model gets
        if ref_mic is not None:
            check_mics("ref_mic", [ref_mic])
            if mics is not None and ref_mic not in mics:
                raise ValueError(f"ref_mic {ref_mic} must be one of the mics {mics}")
            self.ref_channel = ref_mic if mics is None else mics.index(ref_mic)
        if mics is not None:
            separator.check_array(f"mics {mics}", len(mics), self.ref_channel, OPTIONS)
        if ref_mic is not None and not separator.fcp_output:
            trained = separator.trained_ref_channel if mics is None else mics[separator.trained_ref_channel]
            if ref_mic != trained:
                raise ValueError(
                    f"this model gives the speech at mic {trained} only, as it was trained, found "
                    f"ref_mic {ref_mic}; models trained by the mixture-constraint loss take any"
                )
        self.segment = round(segment_size * self.sample_rate)
        self.overlap = self.segment - round(hop_size * self.sample_rate)
        if segment_size < 2 * SHORTEST_S or not 1 <= self.overlap <= self.segment // 2:
            raise ValueError(
                f"segments must last {2 * SHORTEST_S} s at least and begin half a segment to "
                f"a whole one apart, found segment_size {segment_size} s, hop_size {hop_size} s"
            )

    @classmethod
    def from_pretrained(cls, model, device="cpu", **options):
        """Load a model without running anything that it brings along.

        Args:
            model: a training's folder, a .pth file, a packed zip, or a Hugging Face tag (`model_files`).
            device: "cpu" or "cuda".
            options: of the constructor.
        Raises:
            ValueError, OSError: no such model, not one of this package, or a config that does not fit the
                weights; or no such device.
        """
        import torch

        if str(device).startswith("cuda") and not torch.cuda.is_available():
            raise ValueError("no GPU is to be used by this torch; work on the CPU (device cpu, --ngpu 0)")
        from espnet2_m2m.tasks.separate_speech import SeparateSpeech  # imports ESPnet: seconds

        with model_files(model) as paths:
            digest = hashlib.sha256()
            for path in paths:
                digest.update(path.read_bytes())
        return cls(SeparateSpeech.from_pretrained(str(model), device=device), **options, fingerprint=digest.hexdigest())

    def __call__(self, mixture, sample_rate):
        """Separate an array.

        Args:
            mixture: (sample, mic), or (sample,) of one mic; full scale = 1.
            sample_rate: Hz, that of the model.
        Returns:
            (source, sample) float32, the talkers at the reference mic at the level they have there.
        Raises:
            ValueError: another rate or number of mics, too short, or not finite.
        """
        mixture = np.asarray(mixture, dtype=np.float32)
        if mixture.ndim not in (1, 2):
            raise ValueError(f"expected a recording (sample, mic) or (sample,), found {mixture.shape}")
        mixture = mixture.reshape(len(mixture), -1)
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"the recording has {sample_rate} Hz, the model works at {self.sample_rate} Hz; resample it"
            )
        self._check_form("the recording", *mixture.shape, sample_rate)
        if not np.isfinite(mixture).all():
            raise ValueError("the recording has NaN or infinite samples")
        mixture = mixture if self.mics is None else mixture[:, self.mics]
        blocks = self._stitcher(lambda first, last: mixture[first:last], len(mixture))
        return np.concatenate(list(blocks), axis=1)

    def file(self, recording, out_dir, resample=False, overwrite=False, progress=False):
        """Separate a file; writes OUT_DIR/NAME_spk1.wav, ... as 32-bit float, all whole or none.

        Args:
            recording: path of a wav, flac ... with all mics as channels.
            out_dir: folder; made where it is missing.
            resample: convert a recording of a higher rate to the model's, which its output then has.
            overwrite: replace files that were made in another way.
            progress: show a progress bar on stderr.
        Returns:
            SeparatedFile. Files that the same model and options made of the same recording are kept.
        Raises:
            ValueError, OSError: a recording that is missing, broken, of a wrong rate or number of mics, too
                short or not finite, or files that exist.
        """
        import soundfile
        from tqdm import tqdm

        num_samples, _, rate = self.check_file(recording, resample)
        recording, out_dir = Path(recording), Path(out_dir)
        paths = [out_dir / f"{recording.stem}_spk{n}.wav" for n in range(1, self.num_speakers + 1)]
        comment = self._comment(recording)
        if not overwrite and self._exist(paths, comment):
            return SeparatedFile(paths, num_samples / rate, None, True)
        _check_samples(recording)
        out_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            source = stack.enter_context(soundfile.SoundFile(recording))
            if rate != self.sample_rate:
                source = stack.enter_context(_resampled(source, self.sample_rate, out_dir))

            def read(first, last):
                source.seek(first)
                try:
                    samples = source.read(last - first, dtype="float32", always_2d=True)
                except soundfile.SoundFileError as error:
                    raise AudioError(f"{recording}: cannot be read ({error})", "copy it again") from error
                if len(samples) < last - first:
                    raise truncated(recording, f"{num_samples} samples", first + len(samples))
                return samples if self.mics is None else samples[:, self.mics]

            outputs = [stack.enter_context(_output(path, self.sample_rate, source.frames, comment)) for path in paths]
            blocks = self._stitcher(read, source.frames)
            seconds = round(num_samples / rate)
            with tqdm(total=seconds, unit="s", desc=recording.name, disable=not progress) as bar:
                written = 0
                for block in blocks:
                    for output, wave in zip(outputs, block):
                        output.write(wave)
                    written += block.shape[1]
                    bar.update(round(written / self.sample_rate) - bar.n)
        return SeparatedFile(paths, num_samples / rate, [n / self.sample_rate for n in blocks.uncertain], False)

    def check_file(self, recording, resample=False):
        """(samples, mics, rate in Hz) of a file, as its header says, that `file` will separate.

        Raises:
            ValueError: it will not; says why and what to do.
        """
        num_samples, num_mics, rate = read_header(recording)
        if rate < self.sample_rate:
            raise ValueError(
                f"{recording}: has {rate} Hz, the model was trained at {self.sample_rate} Hz, "
                "whose upper frequencies this recording lacks; take a model of a lower rate"
            )
        if rate != self.sample_rate and not resample:
            raise ValueError(
                f"{recording}: has {rate} Hz, the model works at {self.sample_rate} Hz; with "
                f"--resample the recording is converted to that and so is its output"
            )
        self._check_form(recording, num_samples, num_mics, rate)
        return num_samples, num_mics, rate

    def _check_form(self, name, num_samples, num_mics, rate):
        if num_samples < SHORTEST_S * rate:
            raise ValueError(
                f"{name}: lasts {num_samples / rate:.3f} s; {SHORTEST_S} s is the shortest that can be separated"
            )
        if self.mics is None:
            self.model.enh_model.separator.check_array(name, num_mics, self.ref_channel, OPTIONS)
        elif max(self.mics) >= num_mics:
            raise ValueError(
                f"{name}: has {num_mics} channel(s), but --mics asks for channel {max(self.mics)}, counted from 0"
            )

    def _stitcher(self, read, num_samples):
        return Stitcher(self._separate, read, num_samples, self.segment, self.overlap)

    def _separate(self, mixture):
        """A segment (sample, mic) -> (source, sample)."""
        # Set for every segment, as others may share the model.
        self.model.enh_model.separator.ref_channel = self.model.ref_channel = self.ref_channel
        mixture = np.ascontiguousarray(mixture)
        mixture = mixture[:, 0] if mixture.shape[1] == 1 else mixture  # as ESPnet reads it
        est = np.concatenate(self.model(mixture[None], fs=self.sample_rate))
        if not np.isfinite(est).all():
            raise ValueError(
                "the model's output has NaN or infinite samples; its weights may be those of a training that diverged"
            )
        return est

    def _comment(self, recording):
        """What a file was made from and how, for its header."""
        stamp = Path(recording).stat()
        return json.dumps(
            {
                "made_by": "espnet2_m2m separate",
                "model_sha256": self.fingerprint,
                "mics": self.mics,
                "ref_mic": self.ref_channel,
                "segment": self.segment,
                "overlap": self.overlap,
                "recording": [Path(recording).name, stamp.st_size, stamp.st_mtime_ns],
            },
            sort_keys=True,
        )

    @staticmethod
    def _exist(paths, comment):
        """Whether all files exist that would be written.

        Raises:
            FileExistsError: some exist and were made in another way.
        """
        import soundfile

        for path in paths:
            if path.exists():
                try:
                    with soundfile.SoundFile(path) as file:
                        same = file.comment == comment
                except soundfile.SoundFileError:
                    same = False
                if not same:
                    raise FileExistsError(
                        f"{path}: exists, and was not made from this recording with this "
                        "model and these options; remove it or give --overwrite"
                    )
        return all(path.exists() for path in paths)


def read_header(recording):
    """(samples, mics, rate in Hz) of an audio file, as its header says.

    Raises:
        AudioError: (a ValueError) no such file, unreadable or truncated.
    """
    if not is_plain_file(str(recording)):  # Kaldi's pipes are commands
        raise AudioError(f"{recording}: expected the path of an audio file")
    return audio_header(recording)


def _check_samples(recording):
    """Read a file once, because what is wrong at its end must not show after an hour of work."""
    with open_audio(recording) as file:
        present = 0
        for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                first = (present + int(bad.argmax())) / file.samplerate
                raise AudioError(
                    f"{recording}: has NaN or infinite samples, the first at {first:.3f} s",
                    "export it again, or cut that part out",
                )
            present += len(block)
        if present < file.frames:
            raise truncated(recording, f"{file.frames} samples", present)


@contextmanager
def _resampled(source, sample_rate, folder):
    """The recording at another rate, as a file that vanishes; soxr, quality HQ, block by block."""
    import soundfile
    import soxr

    resampler = soxr.ResampleStream(source.samplerate, sample_rate, source.channels, quality="HQ")
    num_bytes = 4 * source.channels * source.frames * sample_rate / source.samplerate
    with (
        tempfile.TemporaryFile(dir=folder) as temporary,
        _sound_errors(folder),
        soundfile.SoundFile(temporary, "w+", sample_rate, source.channels, "FLOAT", format=_format(num_bytes)) as file,
    ):
        while len(block := source.read(BLOCK, dtype="float32", always_2d=True)):
            file.write(resampler.resample_chunk(block))
        file.write(resampler.resample_chunk(np.zeros((0, source.channels), np.float32), last=True))
        yield file


@contextmanager
def _output(path, sample_rate, num_samples, comment):
    """A mono file to write to, which gets its name when it is complete."""
    import soundfile

    with (
        atomic_path(path) as temporary,
        _sound_errors(path),
        soundfile.SoundFile(temporary, "w", sample_rate, 1, "FLOAT", format=_format(4 * num_samples)) as file,
    ):
        file.comment = comment
        yield file


def _format(num_bytes):
    return "WAV" if num_bytes < RIFF_BYTES else "RF64"


@contextmanager
def _sound_errors(path):
    import soundfile

    try:
        yield
    except soundfile.SoundFileError as error:
        raise OSError(f"{path}: cannot be written ({error})") from error
