"""Scenes: everything random about a simulated mixture, drawn first and kept as readable JSON.

A scene says who speaks what, when, where and how loud, in which room and with how much noise.
Rendering (render.py) only reads it. All that is drawn for an example comes from its id and the
seed, except who speaks which utterances: these are dealt out over a set (turns.py). Numbers are
rounded (positions to 0.1 mm), so that a scene does not depend on the last bit of a processor's
arithmetic.

Levels, noise and timing follow SMS-WSJ (Drude et al., arXiv:1910.13934) and section V of the M2M
paper: a mixture is as long as its longer talker's speech, and the other's begins at a random place
where it fits in whole, so that the transcripts of both are complete.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.ids import id_problem
from espnet2_m2m.data_dir.scenes import Scene
from espnet2_m2m.simulation.rooms import MeetingRoom, RandomRoom, Range, draw_closetalk_positions
from espnet2_m2m.simulation.seeds import generator_of
from espnet2_m2m.simulation.turns import Turn, single_turns, strung_turns


@dataclass(frozen=True)
class SceneSettings:
    """What is common to all rooms."""

    sample_rate_hz: int = 8000
    # Utterances of a talker are strung together until they last so long (training cuts segments of
    # 4 s); 0: every talker says one utterance, as in SMS-WSJ.
    min_duration_s: float = 4.5
    pause_s: Range = (0.1, 0.3)  # between two utterances of a talker
    level_range_db: float = 5.0  # talkers' levels are drawn from a range this wide
    # RMS of an image at the far-field mics at level 0 dB: the loudest of 600 mixtures then peaks
    # at 0.55 of full scale. The headsets' preamplifier is relative to that of the far-field mics.
    farfield_level_dbfs: float = -33.0
    closetalk_gain_db: float = -22.0
    snr_db: Range = (20.0, 30.0)  # all reverberant speech over white noise
    closetalk_distance_m: Range = (0.1, 0.3)  # mouth to headset


def draw_scenes(
    set_name: str,
    num_scenes: int,
    speech: CleanSpeech,
    utts_of_speaker: dict[str, list[str]],
    room: RandomRoom | MeetingRoom,
    settings: SceneSettings,
    seed: int,
) -> list[Scene]:
    """Draw the scenes of one set.

    Args:
        set_name: for the ids, "train" gives train00000, train00001 ...
        num_scenes: the first n scenes of a larger set are those of a set of n.
        speech: gives lengths and transcripts, at the sample rate of the settings.
        utts_of_speaker: speaker id -> utterance ids that this set may use.
        room: RandomRoom, MeetingRoom or anything else with `draw(rng) -> Geometry`.
        settings: what is common to all rooms.
        seed: of everything that is drawn.
    Returns:
        scenes that JSON can hold, sorted by utt_id.
    Raises:
        ValueError: speaker ids that cannot be parts of utterance ids; utterances that cannot be
            used equally often.
    """
    check_speaker_ids(utts_of_speaker)
    if settings.min_duration_s > 0:
        duration_s, pause_s = settings.min_duration_s, settings.pause_s
        draw_turns = strung_turns(set_name, speech, utts_of_speaker, seed, duration_s, pause_s)
    else:
        draw_turns = single_turns(set_name, speech, utts_of_speaker, seed)
    scenes = []
    for k in range(num_scenes):
        example_id = f"{set_name}{k:05d}"
        rng = generator_of(seed, example_id)
        scenes.append(_draw_scene(rng, example_id, draw_turns(rng), room, settings))
    scenes.sort(key=lambda scene: scene["utt_id"].encode())
    check_order_of_pairs(scenes)
    return scenes


def scenes_to_text(scenes: Iterable[Scene]) -> str:
    """The content of scenes.jsonl: one JSON object a line."""
    return "".join(json.dumps(scene, ensure_ascii=False) + "\n" for scene in scenes)


def _draw_scene(
    rng: np.random.Generator,
    example_id: str,
    turns: list[Turn],
    room: RandomRoom | MeetingRoom,
    settings: SceneSettings,
) -> Scene:
    geometry = room.draw(rng)
    headsets = draw_closetalk_positions(rng, geometry, settings.closetalk_distance_m)
    levels = rng.uniform(0, settings.level_range_db, size=len(turns))
    levels -= levels.mean()
    num_samples = max(turn["num_samples"] for turn in turns)
    speakers = [
        {
            "speaker_id": turn["speaker_id"],
            "position_m": _rounded(geometry.talker_positions_m[k]),
            "closetalk_position_m": _rounded(headsets[k]),
            "level_db": _rounded(levels[k]),
            "offset_samples": int(rng.integers(num_samples - turn["num_samples"] + 1)),
            "text": turn["text"],
            "utterances": turn["utterances"],
        }
        for k, turn in enumerate(turns)
    ]
    pair = "-".join(turn["speaker_id"] for turn in turns)
    return {
        "utt_id": f"{pair}-{example_id}",
        "example_id": example_id,
        "sample_rate_hz": settings.sample_rate_hz,
        "num_samples": num_samples,
        "room_size_m": _rounded(geometry.room_size_m),
        "rt60_s": _rounded(geometry.rt60_s),
        "mic_positions_m": _rounded(geometry.mic_positions_m),
        "speakers": speakers,
        "farfield_level_dbfs": settings.farfield_level_dbfs,
        "closetalk_gain_db": settings.closetalk_gain_db,
        "snr_db": _rounded(rng.uniform(*settings.snr_db)),
        "noise_seed": int(rng.integers(2**31)),
    }


def _rounded(values: ArrayLike, decimals: int = 4) -> Any:
    return np.round(values, decimals).tolist()


def check_speaker_ids(speakers: Iterable[str]) -> None:
    """Speaker ids become parts of utterance ids, and these become file names.

    Raises:
        ValueError: an id that cannot.
    """
    for speaker in sorted(speakers):
        problem = id_problem(speaker)
        if problem:
            raise ValueError(f"speaker '{speaker}': {problem}; rename the speaker in utt2spk")


def check_order_of_pairs(scenes: list[Scene]) -> None:
    """Kaldi wants utt2spk sorted by utterance and by speaker (here the pair) at the same time.

    Args:
        scenes: sorted by utt_id.
    Raises:
        ValueError: these speaker ids do not allow it.
    """
    pairs = [scene["utt_id"].removesuffix(f"-{scene['example_id']}") for scene in scenes]
    for pair, following in zip(pairs, pairs[1:], strict=False):
        if pair.encode() > following.encode():
            raise ValueError(
                f"the speaker pairs '{pair}' and '{following}' break Kaldi's sorting rules; give"
                " all speaker ids the same length, of letters, digits, '_' and '-'"
            )
