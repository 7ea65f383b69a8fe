"""The last look at utterances before they reach the model."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

Sample = tuple[list[str], dict]  # utterance ids, and name -> (batch, sample[, mic]) tensor


class CheckedPreprocessor:
    """Runs a preprocessor, then checks that the utterance's signals fit each other.

    ESPnet's iterators find unequal lengths too, but do not say in which utterance.

    Args:
        preprocess: ESPnet's preprocessor, or None.
    """

    def __init__(self, preprocess: Callable | None = None) -> None:
        self.preprocess = preprocess

    def __call__(self, utt_id: str, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the preprocessed data: name -> (sample[, mic]) array.

        Raises:
            ValueError: unequal lengths, non-finite values or a multi-channel headset; names the
                utterance, the data and, for lengths, both values.
        """
        if self.preprocess is not None:
            data = self.preprocess(utt_id, data)
        signals = {name: value for name, value in data.items() if name.startswith(("speech_", "closetalk_mix"))}
        mix = signals["speech_mix"]
        for name, signal in signals.items():
            if len(signal) != len(mix):
                raise ValueError(
                    f"{utt_id}: {name} has {len(signal)} samples, speech_mix has {len(mix)}; is a "
                    "file truncated? espnet2_m2m validate_data_dir finds the file"
                )
            if not np.isfinite(signal).all():
                raise ValueError(f"{utt_id}: {name} has NaN or infinite samples")
            if name.startswith("closetalk_mix") and signal.ndim != 1:
                raise ValueError(f"{utt_id}: {name} must be mono, found {signal.shape[1]} channels")
        return data


class CheckedCollate:
    """Runs ESPnet's function that makes a batch, once all its utterances have the same mics.

    Args:
        collate: that function, of a list of (utterance id, name -> (sample[, mic]) array).
    """

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, utterances: list[tuple[str, dict[str, np.ndarray]]]) -> Sample:
        """Return the batch.

        Raises:
            ValueError: different numbers of mics; names two utterances.
        """
        first = {}
        for utt_id, data in utterances:
            _require_mics_of_first(first, utt_id, {name: np.shape(value)[1:] for name, value in data.items()})
        return self.collate(utterances)


def with_equal_mics(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Pass on batches of one utterance each, whose chunks will be batches, while all have the same mics.

    Raises:
        ValueError: different numbers of mics; names two utterances.
    """
    first = {}
    for utt_ids, batch in samples:
        _require_mics_of_first(first, utt_ids[0], {name: tuple(value.shape[2:]) for name, value in batch.items()})
        yield utt_ids, batch


def _require_mics_of_first(first: dict, utt_id: str, mics: dict[str, tuple[int, ...]]) -> None:
    for name, found in mics.items():
        expected, whose = first.setdefault(name, (found, utt_id))
        if found != expected:
            expected, found = (shape[0] if shape else 1 for shape in (expected, found))
            raise ValueError(
                f"{utt_id}: {name} has {found} channel(s), that of {whose} has {expected}; utterances of a batch need "
                "the same, espnet2_m2m validate_data_dir finds those that differ"
            )
