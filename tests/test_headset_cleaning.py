"""Cleaned headsets: the formula against literal FCP, what is gained, who is silent."""

import numpy as np
import oracle
import pytest
import torch

from espnet2_m2m.headset_cleaning import clean_headsets


def scene(num_talkers=2, frames=600, seed=0):
    """(speech, cross-talk), (headset, freq, frame): talkers with pauses, who reach others' headsets in 3 frames."""
    rng = np.random.default_rng(seed)
    speaks = rng.random((num_talkers, 1, frames // 20)).repeat(20, -1) < 0.6
    speech = oracle.noise(seed, num_talkers, 4, frames) * np.where(speaks, 1, 0.01)
    crosstalk = np.zeros_like(speech)
    for d in range(num_talkers):
        for c in range(num_talkers):
            if c != d:
                for delay, gain in enumerate(0.15 * oracle.noise(seed + 1 + c + 9 * d, 3)):
                    crosstalk[d, :, delay:] += gain * speech[c, :, : frames - delay]
    return speech, crosstalk


def clean(headsets, **options):
    return clean_headsets(torch.from_numpy(headsets)[None], past_taps=3, **options)[0].numpy()


def db(signal, of):
    return 10 * np.log10((np.abs(signal) ** 2).sum() / (np.abs(of) ** 2).sum())


def test_as_literal_fcp():
    speech, crosstalk = scene(frames=60)
    Y = cleaned = speech + crosstalk
    for _ in range(2):
        power = [
            [[np.mean(np.abs(Y_df[max(t - 1, 0) : t + 2]) ** 2) for t in range(60)] for Y_df in Y_d] for Y_d in cleaned
        ]
        lam = np.array(power)
        lam += 1e-5 * lam.max(axis=(1, 2), keepdims=True)
        X, _ = oracle.fcp(cleaned, Y, lam, 3, 1, 1e-5)  # (headset, headset of the source, freq, frame)
        for f in range(4):
            for d, c in ((0, 1), (1, 0)):
                if (np.abs(X[d, c, f]) ** 2).sum() >= (np.abs(cleaned[c, f]) ** 2).sum():
                    X[d, c, f] = 0
        cleaned = np.stack([Y[0] - X[0, 1], Y[1] - X[1, 0]])
    np.testing.assert_allclose(clean(Y, passes=2), cleaned, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("num_talkers", [2, 3, 5])
def test_crosstalk_goes_and_the_wearers_stay(num_talkers):
    speech, crosstalk = scene(num_talkers, frames=2000)
    for own, other, result in zip(speech, crosstalk, clean(speech + crosstalk)):
        assert db(result - own, own) < db(other, own) - 7


def test_passes_help():
    speech, crosstalk = scene(frames=2000)
    left = [db(clean(speech + crosstalk, passes=passes) - speech, speech) for passes in (1, 3)]
    assert left[1] < left[0]


def test_a_silent_wearers_headset_takes_nothing_from_the_others():
    """It hears the other talker alone and could explain all that he says."""
    speech, crosstalk = scene(frames=2000)
    crosstalk[0] = 0
    headsets = np.stack([speech[0], crosstalk[1] + 0.01 * oracle.noise(30, 4, 2000)])
    cleaned = clean(headsets)
    assert db(cleaned[0] - speech[0], speech[0]) < -20
    assert db(cleaned[1], headsets[1]) < -10, "and its own cross-talk goes"


def test_dead_headsets_and_one_alone_stay():
    speech, crosstalk = scene()
    headsets = np.stack([speech[0], np.zeros_like(speech[1])])
    np.testing.assert_array_equal(clean(headsets), headsets)
    np.testing.assert_array_equal(clean(headsets[:1]), headsets[:1])


@pytest.mark.parametrize("level", [1e-6, 1e6])
def test_level_does_not_matter(level):
    headsets = sum(scene()).astype(np.complex64)
    np.testing.assert_allclose(clean(level * headsets) / level, clean(headsets), rtol=1e-2, atol=1e-3)


def test_options_that_cannot_be():
    for options in ({"passes": 0}, {"floor": 0.0}):
        with pytest.raises(ValueError, match="must be > 0"):
            clean(sum(scene()), **options)
