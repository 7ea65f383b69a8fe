"""Scenes: everything random about a simulated mixture, drawn first and kept as readable JSON.

A scene says who speaks what, when, where and how loud, in which room and with how much noise.
Rendering (render.py) only reads it. All that is drawn for an example comes from its id and the
seed, except who speaks which utterances: these are dealt out over a set. With one utterance of each
talker, as in SMS-WSJ, the numbers of times that any two utterances are used differ by at most one;
where utterances are strung together, speakers are used equally often, and each speaker's
utterances. Numbers are rounded (positions to 0.1 mm), so that a scene does not depend on the last
bit of a processor's arithmetic.

Levels, noise and timing follow SMS-WSJ (Drude et al., arXiv:1910.13934) and section V of the M2M
paper: a mixture is as long as its longer talker's speech, and the other's begins at a random place
where it fits in whole, so that the transcripts of both are complete.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from espnet2_m2m.simulation.rooms import NUM_SPEAKERS, draw_closetalk_positions

SETS = ("train", "valid", "test")


@dataclass(frozen=True)
class SceneSettings:
    """What is common to all rooms. A pair of numbers is the range of a uniform draw."""

    sample_rate_hz: int = 8000
    # Utterances of a talker are strung together until they last so long (training cuts segments of
    # 4 s); 0: every talker says one utterance, as in SMS-WSJ.
    min_duration_s: float = 4.5
    pause_s: tuple = (0.1, 0.3)  # between two utterances of a talker
    level_range_db: float = 5.0  # talkers' levels are drawn from a range this wide
    # RMS of an image at the far-field mics at level 0 dB: the loudest of 600 mixtures then peaks
    # at 0.55 of full scale. The headsets' preamplifier is relative to that of the far-field mics.
    farfield_level_dbfs: float = -33.0
    closetalk_gain_db: float = -22.0
    snr_db: tuple = (20.0, 30.0)  # all reverberant speech over white noise
    closetalk_distance_m: tuple = (0.1, 0.3)  # mouth to headset


def split_speech(utts_of_speaker, split_by, seed):
    """Share out a corpus among train, valid and test.

    By speaker, valid and test get a sixth of the speakers each (at least two); by utterance, every
    speaker is in all three sets, with 70 %, 10 % and 20 % of his utterances (at least one). The
    split depends on nothing but the corpus and the seed, so that sets made at different times with
    different sizes stay disjoint.

    Args:
        utts_of_speaker: dict speaker -> list of utterance ids.
        split_by: "speaker" or "utterance".
        seed: int.
    Returns:
        dict set name -> dict speaker -> list of utterance ids.
    Raises:
        ValueError: too few speakers or utterances.
    """
    speakers = sorted(utts_of_speaker)
    parts = {name: {} for name in SETS}
    if split_by == "speaker":
        if len(speakers) < 3 * NUM_SPEAKERS:
            raise ValueError(
                f"{len(speakers)} speakers cannot be split into three sets of at least"
                f" {NUM_SPEAKERS}; give more speakers or --split_by utterance"
            )
        held_out = max(NUM_SPEAKERS, round(len(speakers) / 6))
        names = ["valid"] * held_out + ["test"] * held_out
        names += ["train"] * (len(speakers) - len(names))
        order = _generator(seed, "split").permutation(len(speakers))
        for name, k in zip(names, order, strict=True):
            parts[name][speakers[k]] = list(utts_of_speaker[speakers[k]])
    elif split_by == "utterance":
        if len(speakers) < NUM_SPEAKERS:
            raise ValueError(f"a mixture needs {NUM_SPEAKERS} speakers, found {len(speakers)}")
        for speaker in speakers:
            utts = sorted(utts_of_speaker[speaker])
            if len(utts) < len(SETS):
                raise ValueError(
                    f"speaker '{speaker}' has {len(utts)} utterances; --split_by utterance needs at"
                    f" least {len(SETS)} of every speaker: add some or leave the speaker out"
                )
            utts = [utts[k] for k in _generator(seed, "split", speaker).permutation(len(utts))]
            num_valid = max(1, round(0.1 * len(utts)))
            num_test = max(1, round(0.2 * len(utts)))
            parts["valid"][speaker] = utts[:num_valid]
            parts["test"][speaker] = utts[num_valid : num_valid + num_test]
            parts["train"][speaker] = utts[num_valid + num_test :]
    else:
        raise ValueError(f"split_by must be speaker or utterance, found '{split_by}'")
    return parts


def draw_scenes(set_name, num_scenes, speech, utts_of_speaker, room, settings, seed):
    """Draw the scenes of one set.

    Args:
        set_name: for the ids, "train" gives train00000, train00001 ...
        num_scenes: the first n scenes of a larger set are those of a set of n.
        speech: CleanSpeech; gives lengths and transcripts.
        utts_of_speaker: dict speaker -> utterance ids that this set may use.
        room: RandomRoom, MeetingRoom or anything else with `draw(rng) -> Geometry`.
        settings: SceneSettings.
        seed: int.
    Returns:
        list of scenes (dicts that JSON can hold; `_draw_scene` shows them), sorted by utt_id.
    Raises:
        ValueError: speaker ids that cannot be parts of utterance ids; utterances that cannot be
            used equally often.
    """
    check_speaker_ids(utts_of_speaker)
    if settings.min_duration_s > 0:
        draw_turns = _strung_turns(set_name, speech, utts_of_speaker, settings, seed)
    else:
        draw_turns = _single_turns(set_name, speech, utts_of_speaker, seed)
    scenes = []
    for k in range(num_scenes):
        example_id = f"{set_name}{k:05d}"
        rng = _generator(seed, example_id)
        scenes.append(_draw_scene(rng, example_id, draw_turns(rng), room, settings))
    scenes.sort(key=lambda scene: scene["utt_id"].encode())
    check_order_of_pairs(scenes)
    return scenes


class BalancedDraw:
    """Endless draw from `items`: all of them in random order before any comes again.

    Example:
        >>> draw = BalancedDraw("abc", np.random.default_rng(0))
        >>> sorted([draw.next(), draw.next(), draw.next()])
        ['a', 'b', 'c']
    """

    def __init__(self, items, rng):
        self._items, self._rng, self._queue = list(items), rng, []

    def next(self, exclude=None):
        """The next item that is not `exclude`; what is passed over comes as soon as it may."""
        while True:
            for k, item in enumerate(self._queue):
                if item != exclude:
                    return self._queue.pop(k)
            self._queue += [self._items[k] for k in self._rng.permutation(len(self._items))]


def balanced_pairs(utts_of_speaker, rng):
    """Endless draw of two utterances of different speakers, each utterance equally often.

    One after the other, the utterances are a sequence of random permutations of all; so the numbers
    of times that any two of them were drawn never differ by more than one.

    Args:
        utts_of_speaker: dict speaker -> list of utterance ids.
        rng: numpy Generator.
    Yields:
        ((speaker, utterance id), (speaker, utterance id))
    Raises:
        ValueError: a speaker has more than half of the utterances, or there is but one speaker.
    Example:
        >>> pairs = balanced_pairs({"x": ["x1", "x2"], "y": ["y1"], "z": ["z1"]},
        ...                        np.random.default_rng(0))
        >>> sorted(utt_id for _ in range(2) for _, utt_id in next(pairs))
        ['x1', 'x2', 'y1', 'z1']
    """
    utts = [(spk, utt) for spk in sorted(utts_of_speaker) for utt in sorted(utts_of_speaker[spk])]
    _check_equal_use(utts_of_speaker, len(utts))
    left_over = None  # of an odd number of utterances, until the next permutation
    while True:
        order = [utts[k] for k in rng.permutation(len(utts))]
        if left_over is not None:
            match = next(k for k, (speaker, _) in enumerate(order) if speaker != left_over[0])
            yield left_over, order.pop(match)
        left_over = order.pop() if len(order) % 2 else None
        _separate_speakers(order, rng)
        yield from zip(order[0::2], order[1::2], strict=True)


def _separate_speakers(order, rng):
    """Exchange, in place, until items 2k and 2k + 1 of `order` are of different speakers.

    A partner for the exchange exists: as long as a speaker has no more than half of the items,
    there are at least as many pairs without him as there are pairs of himself.
    """
    for k in range(0, len(order), 2):
        speaker = order[k][0]
        while order[k + 1][0] == speaker:
            other = 2 * int(rng.integers(len(order) // 2))
            if speaker not in (order[other][0], order[other + 1][0]):
                order[k + 1], order[other] = order[other], order[k + 1]


def _check_equal_use(utts_of_speaker, num_utts):
    speaker = max(sorted(utts_of_speaker), key=lambda spk: len(utts_of_speaker[spk]))
    most = len(utts_of_speaker[speaker])
    if 2 * most > num_utts:
        raise ValueError(
            f"speaker '{speaker}' has {most} of {num_utts} utterances: with one utterance of each"
            " talker, all can be used equally often only if no speaker has more than half of them;"
            " add speakers, leave some utterances out or give --min_duration"
        )


def scenes_to_text(scenes):
    """The content of scenes.jsonl: one JSON object a line."""
    return "".join(json.dumps(scene, ensure_ascii=False) + "\n" for scene in scenes)


def read_scenes(path):
    """The scenes of a scenes.jsonl: dict utt_id -> scene.

    Raises:
        ValueError: a line is no JSON object with "utt_id"; the message names file and line.
    """
    scenes = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                scene = json.loads(line)
                scenes[scene["utt_id"]] = scene
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}:{number}: not a scene with an utt_id ({error!r}); simulate the set"
                    " again or remove the file"
                ) from error
    return scenes


def _strung_turns(set_name, speech, utts_of_speaker, settings, seed):
    """Function of an example's generator: the turns of two speakers, strung from utterances."""
    speakers = BalancedDraw(sorted(utts_of_speaker), _generator(seed, set_name, "speakers"))
    utterances = {
        speaker: BalancedDraw(sorted(utts), _generator(seed, set_name, "utterances", speaker))
        for speaker, utts in utts_of_speaker.items()
    }

    def draw_turn(rng, speaker):
        spoken, end = [], 0
        while end < settings.min_duration_s * settings.sample_rate_hz:
            if spoken:
                end += round(rng.uniform(*settings.pause_s) * settings.sample_rate_hz)
            spoken.append(_spoken(speech, utterances[speaker].next(), end))
            end += spoken[-1]["num_samples"]
        return _turn(speech, speaker, spoken)

    def draw_turns(rng):
        first = speakers.next()
        return [draw_turn(rng, speaker) for speaker in (first, speakers.next(exclude=first))]

    return draw_turns


def _single_turns(set_name, speech, utts_of_speaker, seed):
    """As `_strung_turns`, but one utterance of each speaker."""
    pairs = balanced_pairs(utts_of_speaker, _generator(seed, set_name, "pairs"))
    spoken = cache(partial(_spoken, speech, start_sample=0))  # opens a file for its length

    def draw_turns(_rng):
        return [_turn(speech, speaker, [dict(spoken(utt_id))]) for speaker, utt_id in next(pairs)]

    return draw_turns


def _spoken(speech, utt_id, start_sample):
    """One utterance of a turn; `start_sample` counts from the first sample of the turn."""
    num_samples = speech.num_samples(utt_id)
    if num_samples < 1:
        raise ValueError(f"{speech.data_dir}: utterance '{utt_id}' has no samples")
    return {"utt_id": utt_id, "start_sample": start_sample, "num_samples": num_samples}


def _turn(speech, speaker, spoken):
    """What one speaker says: a list of `_spoken`, its length and its transcript."""
    text = None
    if speech.text is not None:
        text = " ".join(filter(None, (speech.text[utterance["utt_id"]] for utterance in spoken)))
    num_samples = spoken[-1]["start_sample"] + spoken[-1]["num_samples"]
    return {"speaker_id": speaker, "num_samples": num_samples, "text": text, "utterances": spoken}


def _draw_scene(rng, example_id, turns, room, settings):
    geometry = room.draw(rng)
    headsets = draw_closetalk_positions(rng, geometry, settings.closetalk_distance_m)
    levels = rng.uniform(0, settings.level_range_db, size=len(turns))
    levels -= levels.mean()
    num_samples = max(turn["num_samples"] for turn in turns)
    speakers = []
    for k, turn in enumerate(turns):
        speakers.append(
            {
                "speaker_id": turn["speaker_id"],
                "position_m": _rounded(geometry.talker_positions_m[k]),
                "closetalk_position_m": _rounded(headsets[k]),
                "level_db": _rounded(levels[k]),
                "offset_samples": int(rng.integers(num_samples - turn["num_samples"] + 1)),
                "text": turn["text"],
                "utterances": turn["utterances"],
            }
        )
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


def _generator(seed, *names):
    """Random generator that depends on the seed and the names and on nothing else."""
    key = "/".join([str(seed), *names]).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "little"))


def _rounded(values, decimals=4):
    return np.round(values, decimals).tolist()


def check_speaker_ids(speakers):
    """Speaker ids become parts of utterance ids, and these become file names.

    Raises:
        ValueError: an id that cannot.
    """
    for speaker in sorted(speakers):
        if "/" in speaker or speaker.split() != [speaker]:
            raise ValueError(
                f"speaker id '{speaker}': it becomes a part of file names and must not hold '/' or"
                " white space; rename the speaker in utt2spk"
            )


def check_order_of_pairs(scenes):
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
