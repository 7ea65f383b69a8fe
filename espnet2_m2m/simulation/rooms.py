"""Rooms: where the walls, the array, the talkers' mouths and their headsets are.

`RandomRoom` has the geometry of SMS-WSJ (Drude et al., arXiv:1910.13934) and of section V of the
M2M paper, `MeetingRoom` is the room of the demo recipe.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

Range = tuple[float, float]  # of a uniform draw
Point = tuple[float, float, float]  # x, y, z in metres

NUM_TALKERS = 2
WALL_MARGIN_M = 0.05  # no headset comes nearer to a wall


@dataclass(frozen=True)
class Geometry:
    """Where everything is in one example; positions are arrays (point, 3) in metres."""

    room_size_m: np.ndarray
    rt60_s: float
    mic_positions_m: np.ndarray
    talker_positions_m: np.ndarray


@dataclass(frozen=True)
class RandomRoom:
    """Another room for every example: the geometry of SMS-WSJ.

    Talkers stand at a random azimuth; their mouths are in the range of heights around the array's
    that SMS-WSJ has as well (its example has 1.56 m). `talker_distance_m` is measured in 3-D.
    """

    room_size_m: Point = (8.0, 6.0, 3.0)
    room_size_jitter_m: float = 0.2  # each dimension is drawn from +- this
    rt60_s: Range = (0.2, 0.5)
    array_center_m: Point = (4.0, 3.0, 1.5)
    array_center_jitter_m: float = 0.2
    num_mics: int = 6
    array_radius_m: float = 0.1
    array_max_tilt_rad: float = 0.01 * 2 * np.pi  # about x and about y
    talker_distance_m: Range = (1.0, 2.0)
    talker_height_m: Range = (1.4, 1.7)
    min_talker_angle_deg: float = 15.0

    def draw(self, rng: np.random.Generator) -> Geometry:
        """Walls, T60, mics and mouths of one example."""
        room_size = self.room_size_m + _jitter(rng, self.room_size_jitter_m)
        rt60 = rng.uniform(*self.rt60_s)
        center = self.array_center_m + _jitter(rng, self.array_center_jitter_m)
        rotation = rng.uniform(0, 2 * np.pi)
        tilt = rng.uniform(0, self.array_max_tilt_rad, size=2)
        mics = circular_array(center, self.num_mics, self.array_radius_m, rotation, tilt)

        azimuths = rng.uniform(0, 2 * np.pi, size=NUM_TALKERS)
        while _smallest_angle_deg(azimuths) < self.min_talker_angle_deg:
            azimuths = rng.uniform(0, 2 * np.pi, size=NUM_TALKERS)
        talkers = []
        for azimuth in azimuths:
            distance = rng.uniform(*self.talker_distance_m)
            rise = rng.uniform(*self.talker_height_m) - center[2]
            radius = np.sqrt(distance**2 - rise**2)  # on the floor plan
            talkers.append(center + [radius * np.cos(azimuth), radius * np.sin(azimuth), rise])
        return Geometry(room_size, rt60, mics, np.array(talkers))


@dataclass(frozen=True)
class MeetingRoom:
    """One room for all examples: the array on a table, two seats that are 100 degrees apart.

    Talker n, whoever that is, sits in seat n and wears headset n: so the far-field mics hear which
    headset is whose. The mouths move a little from one example to the next. The array has a
    distance of 1.4 m and 1.7 m to the seats.
    """

    room_size_m: Point = (8.0, 6.0, 3.0)
    rt60_s: float = 0.35
    array_center_m: Point = (3.7, 2.8, 0.8)
    array_rotation_rad: float = 0.2
    num_mics: int = 6
    array_radius_m: float = 0.1
    seat_azimuth_deg: tuple[float, ...] = (30.0, 130.0)
    seat_radius_m: tuple[float, ...] = (1.34, 1.65)  # on the floor plan
    seat_height_m: float = 1.2  # of the mouth of someone who sits
    seat_jitter_m: float = 0.05  # each coordinate is drawn from +- this

    def draw(self, rng: np.random.Generator) -> Geometry:
        """Mics and mouths of one example."""
        center = np.array(self.array_center_m)
        mics = circular_array(center, self.num_mics, self.array_radius_m, self.array_rotation_rad, (0.0, 0.0))
        azimuth, radius = np.deg2rad(self.seat_azimuth_deg), np.array(self.seat_radius_m)
        seats = np.stack(
            [
                center[0] + radius * np.cos(azimuth),
                center[1] + radius * np.sin(azimuth),
                np.full(NUM_TALKERS, self.seat_height_m),
            ],
            axis=1,
        )
        talkers = seats + _jitter(rng, self.seat_jitter_m, (NUM_TALKERS, 3))
        return Geometry(np.array(self.room_size_m), self.rt60_s, mics, talkers)


ROOMS = {"random": RandomRoom, "meeting": MeetingRoom}


def circular_array(
    center_m: ArrayLike, num_mics: int, radius_m: float, rotation_rad: float, tilt_rad: ArrayLike
) -> np.ndarray:
    """Mics evenly spaced on a circle, rotated about z and then tilted about x and y.

    Args:
        center_m: (3,) centre of the circle.
        num_mics: on the circle.
        radius_m: of the circle.
        rotation_rad: azimuth of mic 0.
        tilt_rad: (2,) angles about the x- and y-axis.
    Returns:
        (mic, 3) positions in metres.
    """
    angle = rotation_rad + 2 * np.pi * np.arange(num_mics) / num_mics
    circle = radius_m * np.stack([np.cos(angle), np.sin(angle), np.zeros(num_mics)])
    (sin_x, sin_y), (cos_x, cos_y) = np.sin(tilt_rad), np.cos(tilt_rad)
    about_x = np.array([[1, 0, 0], [0, cos_x, -sin_x], [0, sin_x, cos_x]])
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    return np.asarray(center_m) + (about_y @ about_x @ circle).T


def draw_closetalk_positions(rng: np.random.Generator, geometry: Geometry, distance_m: Range) -> np.ndarray:
    """(talker, 3) headset positions in metres: a uniform distance in a uniform direction from the mouth.

    Drawn again when outside the room, or nearer to someone else's mouth than `distance_m[0]`.
    """
    positions = []
    for k, mouth in enumerate(geometry.talker_positions_m):
        others = np.delete(geometry.talker_positions_m, k, axis=0)
        while True:
            direction = rng.standard_normal(3)
            direction /= np.linalg.norm(direction)
            position = mouth + rng.uniform(*distance_m) * direction
            inside = np.all(position > WALL_MARGIN_M) and np.all(position < geometry.room_size_m - WALL_MARGIN_M)
            if inside and np.linalg.norm(others - position, axis=1).min() >= distance_m[0]:
                break
        positions.append(position)
    return np.array(positions)


def _jitter(rng: np.random.Generator, half_width: float, shape: int | tuple[int, ...] = 3) -> np.ndarray:
    return rng.uniform(-half_width, half_width, size=shape)


def _smallest_angle_deg(azimuths_rad: np.ndarray) -> float:
    """Smallest angle between any two of the directions."""
    gaps = [abs(a - b) % (2 * np.pi) for a, b in combinations(azimuths_rad, 2)]
    return np.rad2deg(min(min(gap, 2 * np.pi - gap) for gap in gaps))
