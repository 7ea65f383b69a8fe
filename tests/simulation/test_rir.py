"""Room impulse responses against what physics says."""

import numpy as np
import pytest

from espnet2_m2m.simulation.rir import DELAY_SAMPLES, room_impulse_responses

ROOM_M = (8.0, 6.0, 3.0)
SOURCE_M = (5.2, 3.5, 1.6)


def rirs_at(rt60_s, mics_m, source_m=SOURCE_M, sample_rate=8000):
    return room_impulse_responses(ROOM_M, rt60_s, [source_m], mics_m, sample_rate)[0]


def measured_rt60_s(rir, sample_rate):
    """Schroeder's backward integral; the slope between -5 and -25 dB, extrapolated to 60 dB."""
    energy = np.cumsum(rir[::-1] ** 2)[::-1]
    decay_db = 10 * np.log10(energy / energy[0] + 1e-12)
    return 3 * (np.argmax(decay_db < -25) - np.argmax(decay_db < -5)) / sample_rate


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_direct_path_takes_distance_over_c(sample_rate):
    mics = np.array(SOURCE_M) + [[0.1, 0, 0], [-0.2, 0.1, 0.1], [-1.0, 0.3, 0], [-1.5, -1.0, 0.1]]
    for mic, rir in zip(mics, rirs_at(0.2, mics, sample_rate=sample_rate), strict=True):
        desired = np.linalg.norm(mic - SOURCE_M) / 343.0 * sample_rate
        # Reflections come after 1 m at the earliest here; what is before is the direct path, a
        # windowed sinc. Its maximum on a fine grid is its place to a fraction of a sample.
        direct = rir[: DELAY_SAMPLES + round(desired) + 12]
        fine = np.arange(-1, 1, 0.01) + round(desired) + DELAY_SAMPLES
        values = [direct @ np.sinc(time - np.arange(len(direct))) for time in fine]
        actual = fine[np.argmax(values)] - DELAY_SAMPLES
        assert abs(actual - desired) < 0.2, (actual, desired)


def test_direct_path_falls_with_distance():
    near, far = rirs_at(0.2, np.array(SOURCE_M) + [[0.1, 0, 0], [0.2, 0, 0]])
    ratio_db = 10 * np.log10((near**2).sum() / (far**2).sum())
    assert abs(ratio_db - 6.0) < 0.5  # 6 dB per doubling; the reverberation adds a little to both


@pytest.mark.parametrize("rt60_s", [0.2, 0.35, 0.5])
def test_measured_rt60_is_near_the_asked_one(rt60_s):
    """Within 25 %: see `room_impulse_responses` about Sabine's formula in a shoebox."""
    mics = [[4.1, 3.0, 1.5], [2.0, 2.0, 1.2], [6.5, 1.5, 1.7], [3.0, 4.5, 1.4]]
    # Far enough from the source for the reverberation, not the direct path, to rule the decay.
    actual = np.median([measured_rt60_s(rir, 8000) for rir in rirs_at(rt60_s, mics)])
    assert abs(actual / rt60_s - 1) < 0.25


def test_cut_at_rt60_loses_next_to_nothing():
    """Against pyroomacoustics' own complete response."""
    import pyroomacoustics as pra

    absorption, max_order = pra.inverse_sabine(0.35, ROOM_M, c=343.0)
    room = pra.ShoeBox(ROOM_M, fs=8000, materials=pra.Material(absorption), max_order=max_order)
    room.add_source(SOURCE_M)
    room.add_microphone([4.1, 3.0, 1.5])
    room.compute_rir()
    desired = room.rir[0][0]
    actual = rirs_at(0.35, [[4.1, 3.0, 1.5]])[0]
    assert len(actual) < 0.4 * len(desired)
    difference = desired.copy()
    difference[: len(actual)] -= actual
    assert (difference**2).sum() < 1e-4 * (desired**2).sum()


def test_responses_are_the_same_to_the_bit():
    mics = [[4.1, 3.0, 1.5], [4.0, 3.1, 1.5]]
    both = room_impulse_responses(ROOM_M, 0.3, [SOURCE_M, (3.0, 4.0, 1.5)], mics, 8000)
    again = room_impulse_responses(ROOM_M, 0.3, [SOURCE_M, (3.0, 4.0, 1.5)], mics, 8000)
    np.testing.assert_array_equal(again, both)


def test_impossible_rt60_is_refused():
    with pytest.raises(ValueError):
        rirs_at(0.01, [[4.1, 3.0, 1.5]])
