"""The last look at an utterance before it reaches the model."""

from collections.abc import Callable

import numpy as np


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
