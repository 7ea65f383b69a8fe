"""Talkers stay in their streams across the seams, whatever order the network gives them in."""

import itertools

import numpy as np
import pytest

from espnet2_m2m.stitching import Stitcher, segment_starts

RATE = 1000  # samples a second: the stitcher knows no rate
SEGMENT, OVERLAP = 10 * RATE, 2 * RATE


def talkers(num_talkers, activity, seed=0):
    """(source, sample) noise of the level that `activity` (source, second) says."""
    random = np.random.default_rng(seed)
    speech = random.normal(size=(num_talkers, len(activity[0]) * RATE))
    return (speech * np.repeat(np.asarray(activity), RATE, axis=1)).astype(np.float32)


class Network:
    """Gives the true talkers in an order of its own each time, with leakage, new noise and a level error.

    It finds the segment in the recording by the mixture's samples, as a reminder may stand before it.
    """

    def __init__(self, speech, leakage=0.2, noise=0.05, seed=1):
        self.random = np.random.default_rng(seed)
        self.mixture = speech.sum(axis=0)
        self.speech = speech + leakage * (self.mixture - speech)
        self.position = {value: n for n, value in enumerate(self.mixture.tolist())}
        self.noise = noise
        self.lengths = []

    def __call__(self, segment):
        self.lengths.append(len(segment))
        where = [self.position[value] for value in segment[:, 0].tolist()]
        order = self.random.permutation(len(self.speech))
        level = self.random.uniform(0.8, 1.2, size=(len(order), 1))
        est = level * self.speech[order][:, where]
        return (est + self.noise * self.random.normal(size=est.shape)).astype(np.float32)


def separate(speech, network, segment=SEGMENT, overlap=OVERLAP):
    mixture = network.mixture[:, None]
    stitcher = Stitcher(network, lambda first, last: mixture[first:last], len(mixture), segment, overlap)
    return np.concatenate(list(stitcher), axis=1), stitcher


def streams_of(est, speech):
    """(talker, second): the stream that a talker is in, -1 where the talker is silent."""
    num_seconds = est.shape[1] // RATE
    found = np.full((len(speech), num_seconds), -1)
    for talker, second in itertools.product(range(len(speech)), range(num_seconds)):
        now = slice(second * RATE, (second + 1) * RATE)
        if np.abs(speech[talker, now]).max() > 0.1:
            found[talker, second] = np.abs(est[:, now] @ speech[talker, now]).argmax()
    return found


def assert_consistent(est, speech):
    for streams in streams_of(est, speech):
        assert len(set(streams[streams >= 0])) == 1, streams_of(est, speech)


@pytest.mark.parametrize("num_talkers", [1, 2, 3])
def test_talkers_stay_in_their_streams(num_talkers):
    speech = talkers(num_talkers, np.ones((num_talkers, 95)))
    est, stitcher = separate(speech, Network(speech))
    assert est.shape == speech.shape and not stitcher.uncertain
    assert_consistent(est, speech)


def test_without_an_assignment_this_network_does_exchange_talkers():
    """The check of the checks: the streams of one segment after the other."""
    speech = talkers(2, np.ones((2, 95)))
    network = Network(speech)
    blocks = [network(network.mixture[first : first + SEGMENT, None]) for first in range(0, 90 * RATE, SEGMENT)]
    with pytest.raises(AssertionError):
        assert_consistent(np.concatenate(blocks, axis=1), speech)


def test_one_talker_in_an_overlap_is_enough():
    """Leakage puts the talker into both streams, where correlation coefficients would tell nothing."""
    activity = np.array([[1] * 70, ([1] * 5 + [0] * 5) * 7])  # silent in nearly every overlap
    speech = talkers(2, activity) + 1e-4 * talkers(2, np.ones((2, 70)), seed=5)
    est, stitcher = separate(speech, Network(speech))
    assert_consistent(est, speech)
    assert not stitcher.uncertain


@pytest.mark.parametrize("pause", [12, 40])
def test_after_a_pause_the_talkers_are_who_they_were(pause):
    """Nobody speaks in the overlaps of the pause, whose noise says nothing."""
    for seed in range(6):
        activity = np.array([[1] * 21 + [0.02] * pause + [1] * 20] * 2)
        speech = talkers(2, activity, seed)
        network = Network(speech, seed=seed)
        est, _ = separate(speech, network)
        assert_consistent(est, speech)
        assert set(network.lengths) == {SEGMENT, SEGMENT + OVERLAP}, "with a reminder where needed"


def test_seams_that_cannot_be_decided_are_reported():
    speech = talkers(2, np.ones((2, 30)))

    def same_in_both(segment):
        return np.repeat(segment.T / 2, 2, axis=0)

    mixture = speech.sum(axis=0)[:, None]
    stitcher = Stitcher(same_in_both, lambda a, b: mixture[a:b], len(mixture), SEGMENT, OVERLAP)
    est = np.concatenate(list(stitcher), axis=1)
    starts = segment_starts(len(mixture), SEGMENT, OVERLAP)
    assert stitcher.uncertain == [(start + before + SEGMENT) // 2 for before, start in zip(starts, starts[1:])]
    np.testing.assert_allclose(est.sum(axis=0), mixture[:, 0], atol=1e-5)


def test_estimates_that_agree_come_out_unchanged():
    """Weights of a cross-fade add up to one; digital silence and a late talker are no obstacle."""
    speech = talkers(2, np.array([[0] * 15 + [1] * 30, [0] * 33 + [1] * 12]))
    mixture = speech.sum(axis=0)
    calls = iter(range(1000))

    def network(segment):
        first = next(calls)
        assert first < len(starts) and len(segment) == SEGMENT  # silence needs no reminder at first
        est = speech[:, starts[first] : starts[first] + SEGMENT]
        return est[::-1] if first % 2 else est.copy()

    starts = segment_starts(len(mixture), SEGMENT, OVERLAP)
    stitcher = Stitcher(network, lambda a, b: mixture[a:b, None], len(mixture), SEGMENT, OVERLAP)
    est = np.concatenate(list(stitcher), axis=1)
    assert min(np.abs(est - speech).max(), np.abs(est - speech[::-1]).max()) < 1e-6


@pytest.mark.parametrize("num_samples", [1, 9999, 10000, 10001, 10500, 18000, 18001, 54321])
def test_every_sample_comes_once_whatever_the_length(num_samples):
    speech = talkers(2, np.ones((2, 55)))[:, :num_samples]
    est, stitcher = separate(speech, network := Network(speech, leakage=0))
    assert est.shape == speech.shape
    assert network.lengths[0] == min(num_samples, SEGMENT) and set(network.lengths[1:]) <= {SEGMENT}
    starts = segment_starts(num_samples, SEGMENT, OVERLAP)
    assert all(a < b <= a + SEGMENT - OVERLAP for a, b in zip(starts, starts[1:]))
    if len(starts) == 1:
        np.testing.assert_array_equal(network.lengths, [num_samples])


def test_an_overlap_of_more_than_half_a_segment_is_refused():
    with pytest.raises(ValueError, match="overlap by 1 to 5000, found 6000"):
        Stitcher(None, None, 10, 10000, 6000)
