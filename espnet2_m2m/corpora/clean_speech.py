"""Clean speech of many talkers in a Kaldi data dir: what the simulation is made of."""

from pathlib import Path

import numpy as np

from espnet2_m2m.data_dir.audio import audio_header, read_audio, segment_samples
from espnet2_m2m.data_dir.directory import read_segments
from espnet2_m2m.data_dir.format import resample
from espnet2_m2m.data_dir.tables import read_table


class CleanSpeech:
    """Mono utterances of a Kaldi data dir at one sample rate.

    Reads wav.scp (paths, pipes, ark offsets), utt2spk and, where they exist, segments and text.
    Audio is resampled (by soxr) when it is asked for, and not before.

    Args:
        data_dir: folder with wav.scp and utt2spk.
        sample_rate_hz: rate of what `load` returns.
    Raises:
        FileNotFoundError: no such folder, wav.scp or utt2spk.
        ValueError: wav.scp is empty, or the tables do not name the same utterances.
    Attributes:
        utts_of_speaker: dict speaker id -> sorted list of its utterance ids.
        text: dict utterance id -> transcript, or None where the folder has no text.
    """

    def __init__(self, data_dir, sample_rate_hz):
        self.data_dir = Path(data_dir)
        self.sample_rate_hz = sample_rate_hz
        if not self.data_dir.is_dir():
            raise FileNotFoundError(f"{data_dir}: no such folder; expected a Kaldi data dir")
        self._wav = read_table(self.data_dir / "wav.scp")
        if not self._wav:
            raise ValueError(f"{self.data_dir / 'wav.scp'}: empty; expected lines `id path`")
        self._segments = None
        if (self.data_dir / "segments").exists():
            self._segments = read_segments(self.data_dir / "segments")
        utt_ids = set(self._wav if self._segments is None else self._segments)

        utt2spk = read_table(self.data_dir / "utt2spk")
        self._check_same_utterances("utt2spk", utt2spk, utt_ids)
        self.utts_of_speaker = {}
        for utt_id in sorted(utt2spk):
            self.utts_of_speaker.setdefault(utt2spk[utt_id], []).append(utt_id)

        self.text = None
        if (self.data_dir / "text").exists():
            self.text = read_table(self.data_dir / "text", allow_empty=True)
            self._check_same_utterances("text", self.text, utt_ids)

    def num_samples(self, utt_id):
        """Length of `load(utt_id)` in samples; of plain files only the header is read.

        Raises:
            ValueError: as `load`.
        """
        entry, segment = self._locate(utt_id)
        try:
            num_samples, num_channels, sample_rate_hz = audio_header(entry)
            first, last = segment_samples(num_samples, sample_rate_hz, segment, entry)
        except (ValueError, OSError) as error:
            raise self._error(utt_id, error) from error
        self._check_mono(utt_id, num_channels)
        return (last - first) * self.sample_rate_hz // sample_rate_hz

    def load(self, utt_id):
        """(sample,) float64 samples of an utterance at `sample_rate_hz`.

        Raises:
            ValueError: missing, unreadable, not mono or not finite; it names the utterance.
        """
        entry, segment = self._locate(utt_id)
        try:
            samples, sample_rate_hz = read_audio(entry, segment)
        except (ValueError, OSError) as error:
            raise self._error(utt_id, error) from error
        self._check_mono(utt_id, samples.shape[1])
        if not np.isfinite(samples).all():
            raise self._error(utt_id, "expected finite samples, found NaN or Inf; remove it")
        samples = samples[:, 0].astype(np.float64)
        if sample_rate_hz != self.sample_rate_hz:
            # soxr's length may differ by a sample from the one that `num_samples` promises.
            num_samples = len(samples) * self.sample_rate_hz // sample_rate_hz
            samples = resample(samples, sample_rate_hz, self.sample_rate_hz)[:num_samples]
            samples = np.pad(samples, (0, num_samples - len(samples)))
        return samples

    def _locate(self, utt_id):
        """(scp value, (start_s, end_s) or None) of an utterance."""
        if self._segments is None:
            return self._wav[utt_id], None
        recording, start_s, end_s = self._segments[utt_id]
        if recording not in self._wav:
            raise self._error(utt_id, f"its recording '{recording}' is not in wav.scp")
        return self._wav[recording], (start_s, end_s)

    def _error(self, utt_id, problem):
        return ValueError(f"{self.data_dir}: utterance '{utt_id}': {problem}")

    def _check_mono(self, utt_id, num_channels):
        if num_channels != 1:
            raise self._error(utt_id, f"expected mono speech, found {num_channels} channels")

    def _check_same_utterances(self, name, table, utt_ids):
        audio = "wav.scp" if self._segments is None else "segments"
        for missing, where, present in ((utt_ids - table.keys(), name, audio), (table.keys() - utt_ids, audio, name)):
            if missing:
                raise ValueError(
                    f"{self.data_dir}: utterance '{min(missing)}' is in {present} but not in"
                    f" {where} ({len(missing)} such)"
                )
