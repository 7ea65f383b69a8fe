"""Which separated stream is whose, by the headsets: no references, no scoring."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from espnet2_m2m.fcp import fcp_weight, forward_convolutive_prediction
from espnet2_m2m.loss.assignment import best_assignment
from espnet2_m2m.loss.ri_mag import ri_mag_l1
from espnet2_m2m.stft import STFT


def streams_of_headsets(streams: ArrayLike, closetalk: ArrayLike, sample_rate: int) -> list[int]:
    """The stream of each headset's wearer: the anchor's free order, eq. (7) with L_anchor as cost.

    Every stream is filtered to every headset by FCP; of all assignments of streams to headsets the one
    is taken whose images differ least from the close-talk mixtures.

    Args:
        streams: (stream, sample) real, the separated speech.
        closetalk: (headset, sample) real, the close-talk mixtures; not more than streams.
        sample_rate: Hz.
    Returns:
        list of int, for each headset the number of its stream, from 0.
    Raises:
        ValueError: more headsets than streams, or other lengths.
    Silence: a silent headset gets a stream that is left over.
    Example:
        >>> talkers = np.random.default_rng(0).standard_normal((2, 8000))
        >>> streams_of_headsets(streams=talkers[::-1], closetalk=talkers + 0.1 * talkers[::-1], sample_rate=8000)
        [1, 0]
    """
    streams, closetalk = (np.asarray(waves, dtype=np.float32) for waves in (streams, closetalk))
    if len(closetalk) > len(streams) or streams.shape[1] != closetalk.shape[1]:
        raise ValueError(
            f"expected equally long signals and a stream for every headset, found streams {streams.shape}"
            f" and headsets {closetalk.shape}"
        )
    stft = STFT.of_rate(sample_rate)
    with torch.no_grad():
        est, mix = stft(torch.from_numpy(streams)[None]), stft(torch.from_numpy(closetalk)[None])
        images, _ = forward_convolutive_prediction(est, mix, fcp_weight(mix))
        return best_assignment(ri_mag_l1(images, mix[:, :, None]))[0].tolist()
