"""scenes.jsonl: a JSON object a line that says who spoke where in a simulated mixture."""

import json
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espnet2_m2m.data_dir.ids import id_problem
from espnet2_m2m.data_dir.tables import TableError, is_there, split_lines

Scene = dict[str, Any]  # simulation/scene.py draws them
MAX_METRES = 1e6  # what is larger is no place in a room; NaN and infinity, which Python's JSON knows, are not smaller


def read_scenes(path: Path | str) -> dict[str, Scene]:
    """The scenes of a scenes.jsonl by utt_id; empty where there is no such file, as for recordings.

    Raises:
        TableError: (a ValueError) a line is no scene; the message names file and line.
    """
    scenes = {}
    for number, line in enumerate(split_lines(path) if is_there(path) else (), start=1):
        try:
            scene = parse_scene(line)
            problem = scene_problem(scene)
        except ValueError as error:
            problem = str(error)
        if not problem and scene["utt_id"] in scenes:
            problem = f"expected each utt_id once, found '{scene['utt_id']}' again"
        if problem:
            raise TableError(f"{path}:{number}: {problem}; simulate the set again or remove the file")
        scenes[scene["utt_id"]] = scene
    return scenes


def parse_scene(line: str) -> Scene:
    """The object of a line, of which only the "utt_id" is looked at.

    Raises:
        ValueError: no object with an id, or half a character (a lone surrogate) in it.
    """
    try:
        scene = json.loads(line)
        if "\\u" in line:  # only escapes can be half a character
            json.dumps(scene, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(error.object[error.start])
        raise ValueError(f"expected whole characters, found the lone surrogate {found}") from error
    except (ValueError, RecursionError):  # no JSON, 5,000 digits; thousands of brackets
        scene = None
    if not isinstance(scene, dict) or not isinstance(scene.get("utt_id"), str):
        raise ValueError('expected a JSON object with a string "utt_id", found none')
    return scene


def scene_problem(scene: Scene) -> str | None:
    """What a scene lacks to be drawn: "expected ..., found ..."; None if nothing."""
    problem = _field_problem(scene, SCENE_FIELDS)
    for number, speaker in enumerate(() if problem else scene["speakers"], start=1):
        wrong = _field_problem(speaker, SPEAKER_FIELDS)
        problem = problem or (wrong and f"speaker {number}: {wrong}")
    if not problem:
        ids = [speaker["speaker_id"] for speaker in scene["speakers"] if speaker.get("speaker_id") is not None]
        twice = sorted({speaker_id for speaker_id in ids if ids.count(speaker_id) > 1})
        problem = f"expected each speaker once, found '{twice[0]}' twice" if twice else None
    return problem


def _field_problem(owner: dict[str, Any], fields: tuple) -> str | None:
    for name, expected, accepts, optional in fields:
        value = owner.get(name)
        if not accepts(value) and not (optional and value is None):
            return f"expected {name} to be {expected}, found {reprlib.repr(value)}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_METRES


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_room(value: Any) -> bool:
    return _is_point(value) and min(value) > 0


def _is_list(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(accepts, value))


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and id_problem(value) is None


SCENE_FIELDS = (  # (name, what it must be, test, whether it may be missing)
    ("room_size_m", "three numbers > 0", _is_room, False),
    ("mic_positions_m", "a list of points [x, y, z]", lambda value: _is_list(value, _is_point), False),
    ("speakers", "a list of objects", lambda value: _is_list(value, lambda one: isinstance(one, dict)), False),
    ("rt60_s", "a number", _is_number, True),
    ("snr_db", "a number", _is_number, True),
)
SPEAKER_FIELDS = (
    ("position_m", "a point [x, y, z]", _is_point, False),
    ("closetalk_position_m", "a point [x, y, z]", _is_point, True),
    ("speaker_id", "an id of one word, which can be part of a file's name", _is_id, True),
    ("text", "a string", lambda value: isinstance(value, str), True),
)
