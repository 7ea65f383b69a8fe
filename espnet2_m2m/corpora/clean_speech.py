"""Clean speech of many talkers in a Kaldi data dir: what the simulation is made of."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from espnet2_m2m.data_dir.audio import AudioError, audio_errors, audio_header, resample, segment_samples
from espnet2_m2m.data_dir.directory import spk2utt_from
from espnet2_m2m.data_dir.signals import find_utterances, read_signal
from espnet2_m2m.data_dir.tables import is_there, read_table, write_table


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

    def __init__(self, data_dir: Path | str, sample_rate_hz: int) -> None:
        self.data_dir = Path(data_dir)
        self.sample_rate_hz = sample_rate_hz
        self._signals = {u.utt_id: u.signals["wav"][1] for u in find_utterances(data_dir, ["wav"])}
        audio = "segments" if is_there(self.data_dir / "segments") else "wav.scp"

        utt2spk = read_table(self.data_dir / "utt2spk")
        self._check_same_utterances(audio, "utt2spk", utt2spk)
        self.utts_of_speaker = {}
        for utt_id in sorted(utt2spk):
            self.utts_of_speaker.setdefault(utt2spk[utt_id], []).append(utt_id)

        self.text = None
        if is_there(self.data_dir / "text"):
            self.text = read_table(self.data_dir / "text", allow_empty=True)
            self._check_same_utterances(audio, "text", self.text)

    def num_samples(self, utt_id: str) -> int:
        """Length of `load(utt_id)` in samples; of plain files only the header is read.

        Raises:
            ValueError: as `load`.
        """
        entry, segment = self._signals[utt_id]
        with audio_errors(f"{self.data_dir}: utterance '{utt_id}'"):
            num_samples, num_channels, sample_rate_hz = audio_header(entry)
            _check_mono(entry, num_channels)
            first, last = segment_samples(num_samples, sample_rate_hz, segment, entry)
        return (last - first) * self.sample_rate_hz // sample_rate_hz

    def load(self, utt_id: str) -> np.ndarray:
        """(sample,) float64 samples of an utterance at `sample_rate_hz`.

        Raises:
            ValueError: missing, unreadable, not mono or not finite; it names the utterance.
        """
        signal = self._signals[utt_id]
        with audio_errors(f"{self.data_dir}: utterance '{utt_id}'"):
            samples, sample_rate_hz = read_signal(signal)
            _check_mono(signal.entry, samples.shape[1])
        samples = samples[:, 0].astype(np.float64)
        if sample_rate_hz != self.sample_rate_hz:
            # soxr's length may differ by a sample from the one that `num_samples` promises.
            num_samples = len(samples) * self.sample_rate_hz // sample_rate_hz
            samples = resample(samples, sample_rate_hz, self.sample_rate_hz)[:num_samples]
            samples = np.pad(samples, (0, num_samples - len(samples)))
        return samples

    def _check_same_utterances(self, audio: str, name: str, table: dict[str, str]) -> None:
        ids, others = self._signals.keys(), table.keys()
        for missing, where, present in ((ids - others, name, audio), (others - ids, audio, name)):
            if missing:
                raise ValueError(
                    f"{self.data_dir}: utterance '{min(missing)}' is in {present} but not in"
                    f" {where} ({len(missing)} such)"
                )


def write_clean_speech(out_dir: Path | str, utterances: Mapping[str, tuple[Path | str, str, str | None]]) -> int:
    """Write a data dir that `CleanSpeech` reads: text where there is any, utt2spk, spk2utt and, last, wav.scp.

    Args:
        utterances: id -> (file, speaker, transcript or None).
    Returns:
        number of speakers.
    """
    out_dir = Path(out_dir)
    text = {utt_id: text for utt_id, (_, _, text) in utterances.items() if text is not None}
    utt2spk = {utt_id: speaker for utt_id, (_, speaker, _) in sorted(utterances.items())}
    spk2utt = spk2utt_from(utt2spk)
    if text:
        write_table(out_dir / "text", text)
    else:
        (out_dir / "text").unlink(missing_ok=True)  # of an earlier run
    write_table(out_dir / "utt2spk", utt2spk)
    write_table(out_dir / "spk2utt", spk2utt)
    write_table(out_dir / "wav.scp", {utt_id: path for utt_id, (path, _, _) in utterances.items()})
    return len(spk2utt)


def _check_mono(entry: str, num_channels: int) -> None:
    if num_channels != 1:
        raise AudioError(f"{entry}: expected mono speech, found {num_channels} channels")
