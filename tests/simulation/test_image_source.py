"""The image method against its definition, image by image, and against the generator that made SMS-WSJ."""

from itertools import product

import numpy as np
import pytest
import rir_generator

from espnet2_m2m.simulation.image_source import impulse_responses, sabine_reflection

ROOM_M, SOURCE_M = (5.0, 4.1, 2.9), (1.2, 3.0, 1.6)
MICS_M = [(1.3, 2.95, 1.65), (4.0, 1.0, 1.2)]
C = 343.0
# Linear interpolation between G filters: the sinc's curvature, pi^2 / 3 at most, gives 1 / (8 G^2) * pi^2 / 3.
STEPS = 64
INTERPOLATION_ERROR = np.pi**2 / 3 / 8 / STEPS**2


def sincs(steps, half_width):
    taps = np.arange(-half_width, half_width + 1)
    return np.sinc(taps - np.arange(steps + 1)[:, None] / steps)


def image_by_image(mic, reflection, num_taps, half_width, rate, order):
    """A sum over rooms mirrored at x, y, z, nothing shared between images; tap 0 is `half_width` early."""
    rir = np.zeros(num_taps + 2 * half_width)
    axes = [range(-order, order + 1)] * 3
    for rooms in product(*axes):
        image = [
            room * length + (position if room % 2 == 0 else length - position)
            for room, length, position in zip(rooms, ROOM_M, SOURCE_M)
        ]
        distance = np.linalg.norm(np.subtract(image, mic))
        delay = distance / C * rate
        if delay >= num_taps:
            continue
        whole = int(delay)
        amplitude = reflection ** sum(map(abs, rooms)) / (4 * np.pi * distance)
        taps = np.arange(whole, whole + 2 * half_width + 1)
        rir[taps] += amplitude * np.sinc(taps - half_width - delay)
    return rir


def test_sum_over_images():
    half_width, num_taps, rate = 6, 250, 8000  # 10.7 m
    actual = impulse_responses(ROOM_M, SOURCE_M, MICS_M, 0.8, rate, num_taps, sincs(STEPS, half_width))
    for mic, rir in zip(MICS_M, actual, strict=True):
        desired = image_by_image(mic, 0.8, num_taps, half_width, rate, 4)
        assert rir.shape == desired.shape
        assert np.abs(rir - desired).max() < 3 * INTERPOLATION_ERROR * np.abs(desired).max()


def test_mics_do_not_depend_on_each_other():
    both = impulse_responses(ROOM_M, SOURCE_M, MICS_M, 0.8, 8000, 900, sincs(20, 8))
    for mic, rir in zip(MICS_M, both, strict=True):
        alone = impulse_responses(ROOM_M, SOURCE_M, [mic], 0.8, 8000, 900, sincs(20, 8))[0]
        np.testing.assert_allclose(alone, rir, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rt60_s", [0.2, 0.3])
def test_reflection_is_that_of_the_generator(rt60_s):
    """Whose only way to tell is the response of walls that are given instead of a T60."""
    beta = sabine_reflection(ROOM_M, rt60_s)
    options = dict(c=C, fs=8000, r=[MICS_M[1]], s=SOURCE_M, L=ROOM_M, nsample=400)
    desired = rir_generator.generate(reverberation_time=rt60_s, **options)
    np.testing.assert_allclose(rir_generator.generate(beta=[beta] * 6, **options), desired, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rt60_s", [0, 0.05, float("nan")])
def test_impossible_rt60(rt60_s):
    with pytest.raises(ValueError, match="is impossible in a room of 5 x 4.1 x 2.9 m: .* above 0.1"):
        sabine_reflection(ROOM_M, rt60_s)


@pytest.mark.parametrize(
    "source, mic, message",
    [
        (SOURCE_M, (5.0, 1, 1), "mic at .* is not inside the room"),
        ((1, -0.1, 1), MICS_M[0], "source at .* is not inside the room"),
        (SOURCE_M, (np.nan, 1, 1), "mic at .* is not inside the room"),
        (SOURCE_M, SOURCE_M, "a mic stands where the source is"),
    ],
)
def test_impossible_places(source, mic, message):
    with pytest.raises(ValueError, match=message):
        impulse_responses(ROOM_M, source, [MICS_M[0], mic], 0.8, 8000, 100, sincs(20, 8))
