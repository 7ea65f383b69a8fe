"""Separate a recording of any length in overlapping segments, each talker in one stream throughout.

A network may give the talkers in another order in every segment. Where two segments overlap, both hold the
same speech at the same level, so that order is right which makes them differ least. An overlap in which the
talkers cannot be told apart, because nobody speaks, decides nothing; then the last stretch in which they could
is put before the segment and separated once more together with it. Knows nothing about networks.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

TELLING = 0.1  # difference between talkers, relative to its mean up to there, in power: 10 dB below it
UNCERTAIN = 0.1  # advantage of the best order over an exchange of two talkers, relative to their power


class Stitcher:
    """Iterate over the separated speech of a recording: (source, sample) blocks, one after the other.

    Memory depends on the segments alone.

    Args:
        separate: function, (sample, mic) -> (source, sample); called for segments of `segment` samples, or
            `segment` + `overlap` where it needs a reminder of the talkers.
        read: function, (first, last) -> (sample, mic), these samples of the recording.
        num_samples: of the recording. It is one segment if it is no longer than that.
        segment: samples.
        overlap: samples that consecutive segments share at least; at most half a segment.
    Attributes:
        uncertain: samples, centres of the overlaps where talkers may have been exchanged.
    Raises:
        ValueError: an overlap that cannot be.
    """

    def __init__(
        self,
        separate: Callable[[np.ndarray], np.ndarray],
        read: Callable[[int, int], np.ndarray],
        num_samples: int,
        segment: int,
        overlap: int,
    ) -> None:
        if not 1 <= overlap <= segment // 2:
            raise ValueError(f"segments of {segment} samples may overlap by 1 to {segment // 2}, found {overlap}")
        self.separate = separate
        self.read = read
        self.num_samples = num_samples
        self.segment = segment
        self.overlap = overlap
        self.uncertain = []
        self._reminder = None  # (mixture (sample, mic), estimates (source, sample)), `overlap` samples
        self._difference = 0  # (source, source), energy of the difference of every two talkers up to now
        self._length = 0  # samples that it is of

    def __iter__(self) -> Iterator[np.ndarray]:
        starts = segment_starts(self.num_samples, self.segment, self.overlap)
        tail = None  # what the segments before say about the beginning of this one
        for start, end in zip(starts, [*starts[1:], self.num_samples]):
            mixture = self.read(start, min(start + self.segment, self.num_samples))
            if tail is None:
                est = self.separate(mixture)
            else:
                est = self._continue(mixture, tail, start)
            num_ready = end - start
            self._remember(mixture[:num_ready], est[:, :num_ready])
            yield est[:, :num_ready]
            tail = est[:, num_ready:]

    def _continue(self, mixture: np.ndarray, tail: np.ndarray, start: int) -> np.ndarray:
        """Estimates of a segment in the order of `tail`, and faded into it."""
        shared = tail.shape[1]
        if self._reminder is None or self._is_telling(tail):
            est = self.separate(mixture)
            before, after = tail, est[:, :shared]
        else:
            heard, known = self._reminder
            est = self.separate(np.concatenate([heard, mixture]))
            before = np.concatenate([known, tail], axis=1)
            after = est[:, : known.shape[1] + shared]
            est = est[:, known.shape[1] :]
        # The sum of squared differences is least where that of the products is greatest. Correlation
        # coefficients would not do: whoever is silent is represented by remains of the others.
        products = before.astype(float) @ after.astype(float).T
        _, order = linear_sum_assignment(products, maximize=True)
        power = np.square(before, dtype=float).sum(axis=1) + np.square(after[order], dtype=float).sum(axis=1)
        if not _is_certain(products[:, order], power):
            self.uncertain.append(start + shared // 2)
        est = est[order]
        fade = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / shared).astype(est.dtype) ** 2
        est[:, :shared] = fade * est[:, :shared] + (1 - fade) * tail
        return est

    def _is_telling(self, est: np.ndarray) -> bool:
        """Whether every two talkers differ here about as much as they do on average."""
        if not self._length:
            return True
        mean = _least(self._difference) / self._length
        return _least(_differences(est)) / est.shape[1] >= TELLING * mean

    def _remember(self, mixture: np.ndarray, est: np.ndarray) -> None:
        self._difference = self._difference + _differences(est)
        self._length += est.shape[1]
        for end in range(est.shape[1], self.overlap - 1, -max(1, self.overlap // 2)):
            stretch = slice(end - self.overlap, end)
            if self._is_telling(est[:, stretch]):
                self._reminder = mixture[stretch].copy(), est[:, stretch].copy()
                break


def segment_starts(num_samples: int, segment: int, overlap: int) -> list[int]:
    """First samples of segments that cover a recording and overlap equally, at least by `overlap`.

    Example:
        >>> segment_starts(100, 40, 10)
        [0, 30, 60]
        >>> segment_starts(101, 40, 10)     # one more, so that the last is as long as the others
        [0, 20, 41, 61]
    """
    excess = max(0, num_samples - segment)
    num_hops = math.ceil(excess / (segment - overlap))
    return [0] + [round(n * excess / num_hops) for n in range(1, num_hops + 1)]


def _differences(est: np.ndarray) -> np.ndarray:
    """(source, sample) -> (source, source), energy of every difference."""
    products = est.astype(float) @ est.astype(float).T
    power = np.diag(products)
    return power[:, None] + power[None, :] - 2 * products


def _least(values: np.ndarray) -> float:
    """The least of all pairs (source, source); infinite for one source."""
    return values[np.triu_indices(len(values), k=1)].min(initial=np.inf)


def _is_certain(products: np.ndarray, power: np.ndarray) -> bool:
    """Whether exchanging any two talkers would be clearly worse.

    Args:
        products: (source, source), of estimates before and after the seam in the chosen order.
        power: (source,), of both together.
    """
    kept = np.diag(products)
    advantage = kept[:, None] + kept[None, :] - products - products.T
    scale = power[:, None] + power[None, :]
    return bool(_least(advantage - UNCERTAIN * scale) >= 0)
