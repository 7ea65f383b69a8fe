"""Impulse responses of shoebox rooms by the image method, for all images of a source at once.

An image at distance d reaches a mic after n + f samples, n whole and 0 <= f < 1, as a pulse that a
fractional-delay filter h(f) shifts by f. Room simulators evaluate this filter for every image, which takes
nearly all of their time. Here h is tabulated at f = 0, 1/G ... 1 and interpolated linearly in between, so a
pulse of amplitude a at f = (p + x) / G is a pulse a (1 - x) through h(p / G) and another, a x, through h((p +
1) / G):

    rir = sum_p h(p / G) * train_p,      train_p(n) = sum of the pulses that fall on n and p

The G + 1 pulse trains of a mic are filled by counting, and each filter is applied once to all images.

Source: Allen, Berkley, "Image method for efficiently simulating small-room acoustics", JASA 65(4), 1979.
"""

import numpy as np
from numpy.typing import ArrayLike

SPEED_OF_SOUND_M_S = 343.0
BLOCK = 2**15  # images; their arrays stay in the processor's cache


def sabine_reflection(room_size_m: ArrayLike, rt60_s: float) -> float:
    """Reflection coefficient of sound pressure, equal for all walls, that Sabine's formula gives for a T60.

    Args:
        room_size_m: (3,) x, y, z.
        rt60_s: reverberation time.
    Returns:
        coefficient between 0 and 1.
    Raises:
        ValueError: T60 is too short for a room of this size, even with walls that absorb everything.
    """
    x, y, z = room_size_m
    sabine_s = 24 * np.log(10) * x * y * z / (SPEED_OF_SOUND_M_S * 2 * (x * y + y * z + x * z))
    if not rt60_s > sabine_s:
        raise ValueError(
            f"T60 = {rt60_s:g} s is impossible in a room of {x:g} x {y:g} x {z:g} m: by Sabine's formula it is"
            f" above {sabine_s:.3f} s"
        )
    return float(np.sqrt(1 - sabine_s / rt60_s))


def impulse_responses(
    room_size_m: ArrayLike,
    source_m: ArrayLike,
    mics_m: ArrayLike,
    reflection: float,
    sample_rate_hz: int,
    num_taps: int,
    delay_filters: np.ndarray,
) -> np.ndarray:
    """Responses from one source to several mics.

    Args:
        room_size_m: (3,) x, y, z; one corner of the room is the origin.
        source_m: (3,).
        mics_m: (mic, 3).
        reflection: coefficient of all walls, see `sabine_reflection`.
        sample_rate_hz: of the responses.
        num_taps: images that arrive at this sample or later are left out.
        delay_filters: (G + 1, tap) h(p / G), p = 0 ... G.
    Returns:
        (mic, num_taps + tap - 1) float64: an image at distance d, with k reflections, is
        reflection^k / (4 pi d) times h(f), which begins at sample n.
    Raises:
        ValueError: source or mic outside the room, or both at one place.
    """
    source, mics = _inside(room_size_m, [source_m], "source")[0], _inside(room_size_m, mics_m, "mic")
    if (mics == source).all(axis=1).any():
        raise ValueError(f"a mic stands where the source is: {source.tolist()} m")
    num_steps, filter_taps = len(delay_filters) - 1, delay_filters.shape[1]
    samples_per_m = sample_rate_hz / SPEED_OF_SOUND_M_S
    center = mics.mean(axis=0)
    radius = num_taps / samples_per_m + np.linalg.norm(mics - center, axis=1).max()
    axes = [_images_on_axis(*sizes, radius) for sizes in zip(room_size_m, source, center)]
    # Of all images those that are near enough, as index of (x, y) and index of z.
    xy, z = np.nonzero(_grid([(at - middle) ** 2 for (at, _), middle in zip(axes, center)]) <= radius**2)
    reflections = (axes[0][1][:, None] + axes[1][1]).ravel()[xy] + axes[2][1][z]
    amplitude = (reflection ** np.arange(reflections.max() + 1) * samples_per_m / (4 * np.pi))[reflections]

    rirs = np.zeros((len(mics), num_taps + filter_taps - 1))
    for rir, mic in zip(rirs, mics):
        squares = [((at - along) * samples_per_m) ** 2 for (at, _), along in zip(axes, mic)]
        trains = _pulse_trains(squares, xy, z, amplitude, num_taps, num_steps)
        for tap, filtered in enumerate((trains @ delay_filters).T):
            rir[tap : tap + num_taps] += filtered
    return rirs


def _pulse_trains(
    squares: list[np.ndarray], xy: np.ndarray, z: np.ndarray, amplitude: np.ndarray, num_taps: int, num_steps: int
) -> np.ndarray:
    """(sample, filter) pulse trains of one mic, see the module's docstring.

    Args:
        squares: for each axis the squared distances (position,) to the mic, in samples.
        xy, z: (image,) indices, see `_grid`.
        amplitude: (image,) at a distance of one sample.
    """
    squared_xy, squared_z = _grid(squares[:2]).ravel(), squares[2]
    size = num_taps * (num_steps + 1)
    place = np.empty(len(xy), dtype=np.int64)
    lower, upper = np.empty(len(xy)), np.empty(len(xy))
    for start in range(0, len(xy), BLOCK):
        block = slice(start, start + BLOCK)
        delay = squared_xy[xy[block]]
        delay += squared_z[z[block]]
        np.sqrt(delay, out=delay)
        both = amplitude[block] / delay
        delay *= num_steps
        step = delay.astype(np.int64)
        delay -= step
        np.multiply(both, delay, out=upper[block])
        np.subtract(both, upper[block], out=lower[block])
        step += step // num_steps  # a sample has one filter more than steps
        np.minimum(step, size, out=place[block])  # what comes too late goes into one more place
    trains = np.bincount(place, lower, size + 1)[:size]
    trains[1:] += np.bincount(place, upper, size + 1)[: size - 1]
    return trains.reshape(num_taps, num_steps + 1)


def _grid(axes: list[np.ndarray]) -> np.ndarray:
    """(x, y) -> (x, y) or (x, y, z) -> (x * y, z): all sums of one number of each axis."""
    xy = axes[0][:, None] + axes[1]
    return xy if len(axes) == 2 else xy.reshape(-1, 1) + axes[2]


def _images_on_axis(length: float, source: float, center: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (image,) of a source mirrored in two walls again and again, and the number of reflections."""
    first, last = np.floor((center - radius) / length), np.ceil((center + radius) / length)
    number = np.arange(first - 1, last + 1).astype(int)
    positions = number * length + np.where(number % 2 == 0, source, length - source)
    near = np.abs(positions - center) <= radius
    return positions[near], np.abs(number[near])


def _inside(room_size_m: ArrayLike, positions_m: ArrayLike, name: str) -> np.ndarray:
    positions = np.array(positions_m, dtype=float).reshape(-1, 3)
    for position in positions:
        if not ((position > 0) & (position < room_size_m)).all():
            raise ValueError(f"{name} at {position.tolist()} m is not inside the room of {list(room_size_m)} m")
    return positions
