"""Separate recordings with a trained model: arrays or files of any length, memory bounded.

from espnet2_m2m import SeparateRecording

separate = SeparateRecording.from_pretrained("exp/X")      # or a packed zip, or a Hugging Face tag
separate.file("meeting.wav", "out")                        # -> out/meeting_spk1.wav, ...
speech = separate(mixture, sample_rate)                    # (sample, mic) -> (source, sample)
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from espnet2_m2m.model_files import model_files
from espnet2_m2m.separate_file import StreamFiles, check_samples, read_header, reader
from espnet2_m2m.stitching import Stitcher

if TYPE_CHECKING:
    from espnet2_m2m.tasks.separate_speech import SeparateSpeech

SEGMENT_S, HOP_S = 10.0, 7.5
OPTIONS = "--ref_mic", "--mics"
SHORTEST_S = 0.5  # on less, FCP's filters fit anything


class SeparatedFile(NamedTuple):
    """What `SeparateRecording.file` did.

    Attributes:
        paths: the files, one a talker.
        duration_s: of the recording.
        uncertain_s: times in seconds where talkers may have been exchanged; None if `existed`.
        existed: the files were there before, and nothing was done.
    """

    paths: list[Path]
    duration_s: float
    uncertain_s: list[float] | None
    existed: bool


class SeparateRecording:
    """A trained model, for recordings of any length: arrays, or files (separate_file.py).

    A recording up to a segment is separated as a whole, as bin/enh_inference does it. In a longer one
    segments overlap, every talker stays in one stream (stitching.py), and the streams are faded into each
    other. The network and FCP see one segment at a time, so talkers may move slowly.

    Args:
        model: tasks.separate_speech.SeparateSpeech.
        mics: channels of the recording that the model gets, from 0, in its order; None for all.
        ref_mic: channel of the recording at which the talkers are to sound, from 0; None for the one that
            the model was trained for.
        segment_size, hop_size: length of segments and distance of their beginnings in seconds.
        mixture_consistency: the streams get what they leave of the mixture, or not; None leaves it to the model.
        fingerprint: names the model in the files that are written.
    Attributes:
        sample_rate: Hz that the model works at.
        precision: in which the network works, that of `model`, "float32" or "bfloat16".
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

    def __init__(
        self,
        model: "SeparateSpeech",
        mics: list[int] | None = None,
        ref_mic: int | None = None,
        segment_size: float = SEGMENT_S,
        hop_size: float = HOP_S,
        mixture_consistency: bool | None = None,
        fingerprint: str = "",
    ) -> None:
        from espnet2_m2m.enh.mics import check_mics

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
        self.ref_channel = separator.array.ref_mic  # of what the model gets
        if ref_mic is not None:
            check_mics("ref_mic", [ref_mic])
            if mics is not None and ref_mic not in mics:
                raise ValueError(f"ref_mic {ref_mic} must be one of the mics {mics}")
            self.ref_channel = ref_mic if mics is None else mics.index(ref_mic)
        if mics is not None:
            separator.array.check(f"mics {mics}", len(mics), self.ref_channel, OPTIONS)
        if self.ref_channel != separator.array.ref_mic and not separator.fcp_output:
            trained = separator.array.ref_mic if mics is None else mics[separator.array.ref_mic]
            raise ValueError(
                f"this model gives the speech at mic {trained} only, as it was trained, found "
                f"ref_mic {ref_mic}; models trained by the mixture-constraint loss take any"
            )
        self.mixture_consistency = separator.mixture_consistency if mixture_consistency is None else mixture_consistency
        self.precision = separator.precision
        self.segment = round(segment_size * self.sample_rate)
        self.overlap = self.segment - round(hop_size * self.sample_rate)
        if segment_size < 2 * SHORTEST_S or not 1 <= self.overlap <= self.segment // 2:
            raise ValueError(
                f"segments must last {2 * SHORTEST_S} s at least and begin half a segment to "
                f"a whole one apart, found segment_size {segment_size} s, hop_size {hop_size} s"
            )

    @classmethod
    def from_pretrained(
        cls, model: str | Path, device: str = "cpu", precision: str = "auto", **options: Any
    ) -> "SeparateRecording":
        """Load a model without running anything that it brings along.

        Args:
            model: a training's folder, a .pth file, a packed zip, or a Hugging Face tag (`model_files`).
            device: "cpu" or "cuda".
            precision: of the network, "auto", "float32" or "bfloat16" (enh/precision.py).
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
        model = SeparateSpeech.from_pretrained(str(model), device=device, precision=precision)
        return cls(model, **options, fingerprint=digest.hexdigest())

    def __call__(self, mixture: np.ndarray, sample_rate: int) -> np.ndarray:
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
        blocks = self._stitcher(lambda first, last: mixture[first:last], len(mixture))
        return np.concatenate(list(blocks), axis=1)

    def file(
        self,
        recording: str | Path,
        out_dir: str | Path,
        resample: bool = False,
        overwrite: bool = False,
        progress: bool = False,
    ) -> SeparatedFile:
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
        from tqdm import tqdm

        recording, out_dir = Path(recording), Path(out_dir)
        streams, duration_s, existed = self.check_file(recording, out_dir, resample, overwrite)
        if existed:
            return SeparatedFile(streams.paths, duration_s, None, True)
        out_dir.mkdir(parents=True, exist_ok=True)
        with (
            reader(recording, self.sample_rate, out_dir) as (read, num_samples),
            streams.written(self.sample_rate, num_samples) as write,
            tqdm(total=round(duration_s), unit="s", desc=recording.name, disable=not progress) as bar,
        ):
            blocks = self._stitcher(read, num_samples)
            done = 0
            for block in blocks:
                write(block)
                done += block.shape[1]
                bar.update(round(done / self.sample_rate) - bar.n)
        return SeparatedFile(streams.paths, duration_s, [n / self.sample_rate for n in blocks.uncertain], False)

    def check_file(
        self, recording: str | Path, out_dir: str | Path, resample: bool = False, overwrite: bool = False
    ) -> tuple[StreamFiles, float, bool]:
        """All that can be wrong with a recording and its files, found in a small part of the time of `file`.

        Args: as `file`.
        Returns:
            its files, its duration in seconds, and whether the files are there already.
        Raises:
            ValueError, OSError: `file` would not separate it; says why and what to do.
        """
        recording = Path(recording)
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
        settings = {
            "model_sha256": self.fingerprint,
            "mics": self.mics,
            "ref_mic": self.ref_channel,
            "segment": self.segment,
            "overlap": self.overlap,
            "mixture_consistency": self.mixture_consistency,
            "precision": self.precision,
        }
        streams = StreamFiles(recording, Path(out_dir), self.num_speakers, settings)
        existed = not overwrite and streams.exist()
        if not existed:
            check_samples(recording)
        return streams, num_samples / rate, existed

    def _check_form(self, name: str | Path, num_samples: int, num_mics: int, rate: int) -> None:
        if num_samples < SHORTEST_S * rate:
            raise ValueError(
                f"{name}: lasts {num_samples / rate:.3f} s; {SHORTEST_S} s is the shortest that can be separated"
            )
        if self.mics is None:
            self.model.enh_model.separator.array.check(name, num_mics, self.ref_channel, OPTIONS)
        elif max(self.mics) >= num_mics:
            raise ValueError(
                f"{name}: has {num_mics} channel(s), but --mics asks for channel {max(self.mics)}, counted from 0"
            )

    def _stitcher(self, read: Callable[[int, int], np.ndarray], num_samples: int) -> Stitcher:
        chosen = read if self.mics is None else lambda first, last: read(first, last)[:, self.mics]
        return Stitcher(self._separate, chosen, num_samples, self.segment, self.overlap)

    def _separate(self, mixture: np.ndarray) -> np.ndarray:
        """A segment (sample, mic) -> (source, sample)."""
        # Set for every segment, as others may share the model.
        separator = self.model.enh_model.separator
        separator.ref_channel = self.model.ref_channel = self.ref_channel
        separator.mixture_consistency = self.mixture_consistency
        separator.precision = self.precision
        mixture = np.ascontiguousarray(mixture)
        mixture = mixture[:, 0] if mixture.shape[1] == 1 else mixture  # as ESPnet reads it
        est = np.concatenate(self.model(mixture[None], fs=self.sample_rate))
        if not np.isfinite(est).all():
            raise ValueError(
                "the model's output has NaN or infinite samples; its weights may be those of a training that diverged"
            )
        return est
