"""Scenes: limits of the geometry, fair use of the corpus, independence of order."""

from collections import Counter

import numpy as np
import pytest

from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.simulation.rooms import MeetingRoom, RandomRoom, circular_array
from espnet2_m2m.simulation.scene import SceneSettings, draw_scenes, scenes_to_text

ROUNDING_M = 2e-4  # positions are rounded to 0.1 mm


@pytest.fixture(scope="module")
def speech(source):
    return CleanSpeech(source, 8000)


def draw(speech, room, num_scenes=300, seed=0, name="train", settings=None):
    settings = settings or SceneSettings()
    return draw_scenes(name, num_scenes, speech, speech.utts_of_speaker, room, settings, seed)


def arrays(scene):
    """mics (mic, 3), mouths (talker, 3), headsets (talker, 3), array's centre (3,)."""
    mics = np.array(scene["mic_positions_m"])
    mouths = np.array([speaker["position_m"] for speaker in scene["speakers"]])
    headsets = np.array([speaker["closetalk_position_m"] for speaker in scene["speakers"]])
    return mics, mouths, headsets, mics.mean(axis=0)


def within(values, low, high, tolerance=0.0):
    """Whether all values are in the range, give or take the tolerance."""
    low, high = np.asarray(low) - tolerance, np.asarray(high) + tolerance
    return np.all(values >= low) and np.all(values <= high)


def test_random_rooms_have_the_geometry_of_the_paper(speech):
    rt60s, angles_deg, distances_m, headset_distances_m = [], [], [], []
    for scene in draw(speech, RandomRoom()):
        mics, mouths, headsets, center = arrays(scene)
        assert within(np.array(scene["room_size_m"]) - (8, 6, 3), -0.2, 0.2, ROUNDING_M)
        assert within(center - (4, 3, 1.5), -0.2, 0.2, ROUNDING_M)
        assert within(np.linalg.norm(mics - center, axis=1), 0.1, 0.1, ROUNDING_M)
        # six mics evenly on a circle: neighbours are a radius apart, opposites a diameter
        neighbours = np.linalg.norm(mics - np.roll(mics, 1, axis=0), axis=1)
        assert within(neighbours, 0.1, 0.1, ROUNDING_M)
        assert np.abs(mics[:, 2] - center[2]).max() <= 0.1 * 2 * np.sin(0.02 * np.pi) + ROUNDING_M
        assert within(mouths[:, 2], 1.4, 1.7, ROUNDING_M)
        direction = (mouths - center)[:, :2]
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        angles_deg.append(np.rad2deg(np.arccos(np.clip(direction[0] @ direction[1], -1, 1))))
        distances_m += list(np.linalg.norm(mouths - center, axis=1))
        headset_distances_m += list(np.linalg.norm(mouths - headsets, axis=1))
        rt60s.append(scene["rt60_s"])
        for point in (*mics, *mouths, *headsets):
            assert within(point, 0, scene["room_size_m"])
        crossed = np.linalg.norm(mouths - headsets[::-1], axis=1)
        assert crossed.min() >= 0.1 - ROUNDING_M
    assert within(distances_m, 1, 2, ROUNDING_M) and np.ptp(distances_m) > 0.95
    assert within(headset_distances_m, 0.1, 0.3, ROUNDING_M) and np.ptp(headset_distances_m) > 0.19
    assert within(rt60s, 0.2, 0.5, 1e-4) and np.ptp(rt60s) > 0.28
    assert min(angles_deg) >= 15 - 0.02 and max(angles_deg) > 170


def test_meeting_room_is_one_room_with_two_seats(speech):
    scenes = draw(speech, MeetingRoom())
    mics, _, _, center = arrays(scenes[0])
    seats = np.array([arrays(scene)[1] for scene in scenes])  # (scene, talker, 3)
    assert np.linalg.norm(seats[:, 0] - seats[:, 1], axis=1).min() > 1  # two seats
    for taken in (seats[:, 0], seats[:, 1]):  # speaker n always sits in seat n
        movement = taken - taken.mean(axis=0)
        assert within(movement, -0.06, 0.06)
        assert np.all(np.ptp(taken, axis=0) > 0.08)
        assert within(np.linalg.norm(taken - center, axis=1), 1.0, 2.0)
    for scene in scenes:
        assert scene["mic_positions_m"] == scenes[0]["mic_positions_m"]
        assert scene["room_size_m"] == [8.0, 6.0, 3.0] and scene["rt60_s"] == 0.35


def test_levels_snr_and_time(speech):
    settings = SceneSettings()
    scenes = draw(speech, RandomRoom(), settings=settings)
    levels_db = np.array([[s["level_db"] for s in scene["speakers"]] for scene in scenes])
    assert np.allclose(levels_db.sum(axis=1), 0, atol=2e-4)
    assert within(levels_db, -2.5, 2.5) and np.ptp(levels_db) > 4
    assert within([scene["snr_db"] for scene in scenes], 20, 30)
    for scene in scenes:
        ends = []
        for speaker in scene["speakers"]:
            last = 0
            for utterance in speaker["utterances"]:
                pause_s = (utterance["start_sample"] - last) / 8000
                assert last == 0 or 0.1 - 1e-3 <= pause_s <= 0.3 + 1e-3
                assert utterance["num_samples"] == speech.num_samples(utterance["utt_id"])
                last = utterance["start_sample"] + utterance["num_samples"]
            assert last >= settings.min_duration_s * 8000
            ends.append(last)
            assert 0 <= speaker["offset_samples"] <= scene["num_samples"] - last
            spoken = [speech.text[utterance["utt_id"]] for utterance in speaker["utterances"]]
            assert speaker["text"] == " ".join(spoken)
        assert scene["num_samples"] == max(ends)
        assert scene["speakers"][0]["speaker_id"] != scene["speakers"][1]["speaker_id"]


def test_speakers_and_utterances_are_used_equally_often(speech):
    speakers, utterances = Counter(), Counter()
    for scene in draw(speech, MeetingRoom(), num_scenes=60):
        for speaker in scene["speakers"]:
            speakers[speaker["speaker_id"]] += 1
            utterances.update(utterance["utt_id"] for utterance in speaker["utterances"])
    assert max(speakers.values()) - min(speakers.values()) <= 2
    # the speakers' own counts differ by two turns of a few utterances each
    assert len(utterances) == 24 and max(utterances.values()) - min(utterances.values()) <= 5


def test_one_utterance_of_each_talker(speech):
    """SMS-WSJ's rules: as long as the longer utterance, the other one whole at a random place."""
    settings = SceneSettings(min_duration_s=0)
    scenes = draw(speech, RandomRoom(), 60, settings=settings)
    used, places = Counter(), []
    for scene in scenes:
        lengths = []
        for speaker in scene["speakers"]:
            (utterance,) = speaker["utterances"]
            used[utterance["utt_id"]] += 1
            assert utterance["start_sample"] == 0
            assert utterance["num_samples"] == speech.num_samples(utterance["utt_id"])
            assert speaker["text"] == speech.text[utterance["utt_id"]]
            lengths.append(utterance["num_samples"])
        assert scene["num_samples"] == max(lengths)
        shorter = scene["speakers"][int(np.argmin(lengths))]
        if min(lengths) < max(lengths):
            places.append(shorter["offset_samples"] / (max(lengths) - min(lengths)))
    assert within(places, 0, 1) and np.ptp(places) > 0.8
    assert set(used.values()) == {5} and len(used) == 24  # 60 mixtures of two of 24 utterances
    fewer = {scene["example_id"]: scene for scene in draw(speech, RandomRoom(), 7, settings=settings)}
    assert all(scene == fewer.get(scene["example_id"], scene) for scene in scenes)


def test_scene_depends_on_seed_and_id_only(speech):
    desired = draw(speech, RandomRoom(), 12)
    assert draw(speech, RandomRoom(), 12) == desired
    assert draw(speech, RandomRoom(), 12, seed=1) != desired
    fewer = {scene["example_id"]: scene for scene in draw(speech, RandomRoom(), 5)}
    more = {scene["example_id"]: scene for scene in desired}
    assert all(more[example_id] == scene for example_id, scene in fewer.items())
    valid = draw(speech, RandomRoom(), 12, name="valid")
    noise_seeds = [scene["noise_seed"] for scene in desired + valid]
    assert len(set(noise_seeds)) == len(noise_seeds)


def test_scenes_survive_json_and_are_sorted(speech, tmp_path):
    scenes = draw(speech, RandomRoom(), 20)
    (tmp_path / "scenes.jsonl").write_text(scenes_to_text(scenes))
    assert list(read_scenes(tmp_path / "scenes.jsonl").values()) == scenes
    utt_ids = [scene["utt_id"] for scene in scenes]
    assert utt_ids == sorted(utt_ids)
    first = scenes[0]
    pair = "-".join(speaker["speaker_id"] for speaker in first["speakers"])
    assert first["utt_id"] == f"{pair}-{first['example_id']}"


@pytest.mark.parametrize("speaker", ["s/1", "s 1", ""])
def test_speaker_ids_become_file_names(speech, speaker):
    """All of them are checked, also those that no mixture or only the last one uses."""
    corpus = {**speech.utts_of_speaker, speaker: ["s0-u0"]}
    with pytest.raises(ValueError, match=f"speaker '{speaker}': expected an id .* rename the speaker"):
        draw_scenes("test", 1, speech, corpus, MeetingRoom(), SceneSettings(), 0)


def test_tilted_array_is_rigid():
    mics = circular_array((1, 2, 3), 6, 0.1, 0.7, (0.4, 0.3))
    distances = np.linalg.norm(mics - mics[0], axis=1)
    desired = 0.1 * np.array([0, 1, np.sqrt(3), 2, np.sqrt(3), 1])
    np.testing.assert_allclose(distances, desired, atol=1e-12)
    np.testing.assert_allclose(mics.mean(axis=0), (1, 2, 3), atol=1e-12)
