"""The mixtures of an existing SMS-WSJ: its sms_wsj.json as scenes with headsets, and its audio files.

SMS-WSJ (Drude et al., arXiv:1910.13934; github.com/fgnt/sms_wsj) has rooms, arrays and talkers in
its json, but no headsets: these are drawn here. sms_wsj_headsets.py makes their signals.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_m2m.data_dir.audio import AudioError, audio_header, read_audio
from espnet2_m2m.data_dir.scenes import Scene
from espnet2_m2m.simulation.render import REF_MIC
from espnet2_m2m.simulation.rooms import Geometry, draw_closetalk_positions
from espnet2_m2m.simulation.scene import check_order_of_pairs, check_speaker_ids
from espnet2_m2m.simulation.seeds import generator_of

DATASETS = {"train": "train_si284", "valid": "cv_dev93", "test": "test_eval92"}
CLOSETALK_DISTANCE_M = (0.1, 0.3)  # M2M paper, section V

Example = dict[str, Any]  # one mixture of sms_wsj.json, `_sms_wsj_scene` shows the keys that are read


@dataclass(frozen=True)
class ExampleAudio:
    """Files of one mixture.

    Attributes:
        observation: far-field mixture, one channel a mic.
        images: for each talker the files whose sum is the far-field image: (image,) or
            (early, tail).
        sources: possible places of the dry speech, in order of preference: of each, one file for
            each talker.
    """

    observation: Path
    images: tuple[tuple[Path, ...], ...]
    sources: tuple[tuple[Path, ...], ...]


Mixture = tuple[Scene, ExampleAudio]  # a mixture, and the files of SMS-WSJ that it is made from


def read_database(path: Path | str) -> dict[str, dict[str, Example]]:
    """The datasets of an sms_wsj.json: dataset -> example id -> example.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON or not a database of SMS-WSJ.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --sms_wsj is the json of SMS-WSJ or its folder")
    try:
        datasets = json.loads(path.read_text(encoding="utf-8"))["datasets"]
        sizes = {name: len(examples.keys()) for name, examples in datasets.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected {{"datasets": {{dataset: {{example_id: example}}}}}} as SMS-WSJ writes'
            f" it, found something else ({error!r})"
        ) from error
    if not any(sizes.values()):
        raise ValueError(f"{path}: holds no examples")
    return datasets


def sms_wsj_scenes(examples: dict[str, Example], sample_rate_hz: int, closetalk_gain_db: float) -> list[Scene]:
    """Scenes (see scene.py) of SMS-WSJ's examples with a headset for each talker.

    A headset and its noise come from the example id and from nothing else.

    Args:
        examples: example id -> example.
        sample_rate_hz: of the audio; the json does not tell.
        closetalk_gain_db: gain of the headsets relative to the far-field mics.
    Returns:
        scenes that JSON can hold, sorted by utt_id, which is `speaker1-speaker2-example_id`.
    Raises:
        ValueError: an example lacks something or makes no sense; names it.
    """
    scenes = [
        _sms_wsj_scene(example_id, example, sample_rate_hz, closetalk_gain_db)
        for example_id, example in examples.items()
    ]
    check_speaker_ids({speaker["speaker_id"] for scene in scenes for speaker in scene["speakers"]})
    scenes.sort(key=lambda scene: scene["utt_id"].encode())
    check_order_of_pairs(scenes)
    return scenes


def example_audio(
    example_id: str, example: Example, folder: Path, reroot: Sequence[Sequence[str]] = ()
) -> ExampleAudio:
    """Where the files of one example are.

    Args:
        example_id: for messages.
        example: of sms_wsj.json.
        folder: relative paths start here: the folder of the json.
        reroot: (old, new) pairs of folders; a path below `old` is looked for below `new`.
    Returns:
        the paths; whether the files exist is not looked at.
    Raises:
        ValueError: a signal that is needed is not listed.
    """

    def place(path: str) -> Path:
        for old, new in reroot:
            if Path(path).is_relative_to(old):
                path = Path(new, Path(path).relative_to(old))
                break
        return Path(folder, path)

    listed = example.get("audio_path", {})
    for names in (("speech_image",), ("speech_reverberation_early", "speech_reverberation_tail")):
        if all(name in listed for name in names):
            images = tuple(zip(*(map(place, listed[name]) for name in names), strict=True))
            break
    else:
        names = ()
    sources = [name for name in ("original_source", "speech_source") if name in listed]
    if "observation" not in listed or not names or not sources:
        raise ValueError(
            f"example '{example_id}': audio_path must list observation, speech_image or"
            " speech_reverberation_early and _tail, and original_source or speech_source; found"
            f" {sorted(listed)}. Use the json that SMS-WSJ wrote together with all audio files"
            " (write_all)"
        )
    return ExampleAudio(
        observation=place(listed["observation"]),
        images=images,
        sources=tuple(tuple(map(place, listed[name])) for name in sources),
    )


def load_dry(scene: Scene, audio: ExampleAudio) -> np.ndarray:
    """(talker, sample) dry speech at its place in the mixture.

    A file as long as the mixture begins with it (SMS-WSJ's padded speech_source), another one
    begins at the talker's offset (original_source).

    Raises:
        AudioError: (a ValueError) no such file, or it does not fit.
    """
    dry = np.zeros((len(scene["speakers"]), scene["num_samples"]))
    complete = [files for files in audio.sources if all(path.is_file() for path in files)]
    files = complete[0] if complete else audio.sources[0]
    for samples, path, speaker in zip(dry, files, scene["speakers"], strict=True):
        source, sample_rate = _read(scene, path)
        _check_format(scene, path, (*source.shape, sample_rate), (len(source), 1))
        start = 0 if len(source) == len(samples) else speaker["offset_samples"]
        if start + len(source) > len(samples):
            raise AudioError(
                f"example '{scene['example_id']}': {path}: {len(source)} samples from sample {start}"
                f" on do not fit into a mixture of {len(samples)}",
                "json and audio are not of the same database",
            )
        samples[start : start + len(source)] = source[:, 0]
    return dry


def load_images(scene: Scene, audio: ExampleAudio) -> np.ndarray:
    """(talker, sample) far-field images at the reference mic; also checks the observation's format.

    Raises:
        AudioError: (a ValueError) no such file, or it does not fit.
    """
    expected = scene["num_samples"], len(scene["mic_positions_m"])
    _require_file(scene, audio.observation)
    _check_format(scene, audio.observation, audio_header(audio.observation), expected)
    images = np.zeros((len(scene["speakers"]), scene["num_samples"]))
    for image, files in zip(images, audio.images, strict=True):
        for path in files:
            samples, sample_rate = _read(scene, path)
            _check_format(scene, path, (*samples.shape, sample_rate), expected)
            image += samples[:, REF_MIC]
    return images


def _sms_wsj_scene(example_id: str, example: Example, sample_rate_hz: int, closetalk_gain_db: float) -> Scene:
    try:
        num_talkers = len(example["speaker_id"])
        room_size = np.array(example["room_dimensions"], dtype=float).reshape(3)
        mics = np.array(example["sensor_position"], dtype=float).reshape(3, -1).T
        talkers = np.array(example["source_position"], dtype=float).reshape(3, -1).T[:num_talkers]
        rt60_s = float(example["sound_decay_time"])
        num_samples = int(example["num_samples"]["observation"])
        lengths = example["num_samples"]
        lengths = lengths.get("original_source", lengths.get("speech_source"))
        of_talker = [
            {
                "level_db": float(example["log_weights"][k]),
                "offset_samples": int(example["offset"][k]),
                "text": str(example["kaldi_transcription"][k]),
                "utterances": [
                    {"utt_id": str(example["source_id"][k]), "start_sample": 0, "num_samples": int(lengths[k])}
                ],
            }
            for k in range(num_talkers)
        ]
        snr_db = float(example["snr"])
        speaker_ids = [str(speaker_id) for speaker_id in example["speaker_id"]]
        for positions in (mics, talkers):
            if not np.all((positions > 0) & (positions < room_size)):
                raise ValueError(f"{positions.tolist()} is not inside the room {room_size.tolist()}")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"example '{example_id}': not as SMS-WSJ writes it ({error!r}); use the json that it wrote"
            " together with the audio files"
        ) from error
    rng = generator_of("close-talk", example_id)
    geometry = Geometry(room_size, rt60_s, mics, talkers)
    headsets = draw_closetalk_positions(rng, geometry, CLOSETALK_DISTANCE_M)
    return {
        "utt_id": "-".join([*speaker_ids, example_id]),
        "example_id": example_id,
        "sample_rate_hz": sample_rate_hz,
        "num_samples": num_samples,
        "room_size_m": room_size.tolist(),
        "rt60_s": rt60_s,
        "mic_positions_m": mics.tolist(),
        "speakers": [
            {
                "speaker_id": speaker_ids[k],
                "position_m": talkers[k].tolist(),
                "closetalk_position_m": np.round(headsets[k], 4).tolist(),
                **of_talker[k],
            }
            for k in range(num_talkers)
        ],
        "closetalk_gain_db": closetalk_gain_db,
        "snr_db": snr_db,
        "noise_seed": int(rng.integers(2**31)),
    }


def _read(scene: Scene, path: Path) -> tuple[np.ndarray, int]:
    _require_file(scene, path)
    return read_audio(path)


def _require_file(scene: Scene, path: Path) -> None:
    if not path.is_file():
        raise AudioError(
            f"example '{scene['example_id']}': {path}: no such file", "if the database moved, give --reroot OLD=NEW"
        )


def _check_format(scene: Scene, path: Path, found: tuple[int, int, int], expected: tuple[int, int]) -> None:
    """`found` is (samples, channels, Hz) of a file, `expected` the first two of them."""
    expected = (*expected, scene["sample_rate_hz"])
    if tuple(found) != expected:
        raise AudioError(
            f"example '{scene['example_id']}': {path}: expected %d samples, %d channels, %d Hz,"
            " found %d, %d, %d" % (*expected, *found),
            "json and audio are not of the same database, or --sample_rate is wrong",
        )
