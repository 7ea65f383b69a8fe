"""Scenes to signals to files.

A source image is the complete reverberant signal of one talker at one mic, and

    observation = sum of the images + noise

at every mic, far-field and headset, in samples of the same scale.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.audio import PCM16_STEP, fits_pcm16, write_wav
from espnet2_m2m.data_dir.ids import id_path
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.scenes import Scene
from espnet2_m2m.simulation.rir import DELAY_SAMPLES, room_impulse_responses

REF_MIC = 0  # the far-field mic whose images are written: the paper's reference mic


@dataclass(frozen=True)
class Rendering:
    """Signals of one mixture; talker d wears headset d."""

    farfield_images: np.ndarray  # (talker, mic, sample)
    farfield_noise: np.ndarray  # (mic, sample)
    closetalk_images: np.ndarray  # (talker, headset, sample)
    closetalk_noise: np.ndarray  # (headset, sample)

    @property
    def farfield(self) -> np.ndarray:
        """(mic, sample) far-field mixture."""
        return self.farfield_images.sum(axis=0) + self.farfield_noise

    @property
    def closetalk(self) -> np.ndarray:
        """(headset, sample) close-talk mixtures."""
        return self.closetalk_images.sum(axis=0) + self.closetalk_noise


def dry_signals(scene: Scene, speech: CleanSpeech) -> np.ndarray:
    """What each talker says, without a room, at its place in the mixture.

    Args:
        scene: as scene.draw_scenes makes it.
        speech: the one the scene was drawn from.
    Returns:
        (talker, sample) float64.
    Raises:
        ValueError: audio that cannot be read, is silent or has changed since the scene was drawn.
    """
    signals = np.zeros((len(scene["speakers"]), scene["num_samples"]))
    for dry, speaker in zip(signals, scene["speakers"], strict=True):
        for utterance in speaker["utterances"]:
            samples = speech.load(utterance["utt_id"])
            if len(samples) != utterance["num_samples"]:
                raise ValueError(
                    f"{scene['utt_id']}: source utterance '{utterance['utt_id']}' has"
                    f" {len(samples)} samples, but {utterance['num_samples']} when the scene was"
                    " drawn; the source data has changed, choose another --out_dir (--datadir of"
                    " run.sh)"
                )
            if not samples.any():
                raise ValueError(f"{speech.data_dir}: utterance '{utterance['utt_id']}' is silent; remove it")
            start = speaker["offset_samples"] + utterance["start_sample"]
            dry[start : start + len(samples)] = samples
    return signals


def render(scene: Scene, dry: np.ndarray) -> Rendering:
    """All signals of one mixture.

    A talker has one loudness: its dry signal gets the gain that makes the standard deviation of
    its far-field images (all mics and samples) 10^((farfield_level_dbfs + level_db) / 20), and the
    same gain at the headsets, whose preamplifier then adds closetalk_gain_db. The white noise is
    `snr_db` below the sum of the images, over all far-field mics together and at every headset.

    Args:
        scene: as scene.draw_scenes makes it.
        dry: (talker, sample), see `dry_signals`.
    """
    images = convolve(dry, _impulse_responses(scene), DELAY_SAMPLES)
    num_mics = len(scene["mic_positions_m"])
    levels_db = [speaker["level_db"] for speaker in scene["speakers"]]
    target = _from_db(scene["farfield_level_dbfs"] + np.array(levels_db))
    images *= (target / images[:, :num_mics].std(axis=(1, 2)))[:, None, None]
    images[:, num_mics:] *= _from_db(scene["closetalk_gain_db"])

    farfield, closetalk = images[:, :num_mics], images[:, num_mics:]
    return Rendering(
        farfield_images=farfield,
        farfield_noise=white_noise(farfield.sum(axis=0), scene["snr_db"], [scene["noise_seed"], 0]),
        closetalk_images=closetalk,
        closetalk_noise=headset_noise(scene, closetalk),
    )


def render_set(scenes: list[Scene], set_dir: Path | str, speech: CleanSpeech, nj: int = 1) -> None:
    """Render scenes to wav files under `set_dir`/wav; what is there already is kept.

    Every file is written whole or not at all and depends on its scene alone, so that the result is
    the same however often the work was interrupted and however many processes did it; others may
    render other scenes to the same folder meanwhile.

    Args:
        scenes: as scene.draw_scenes makes them.
        set_dir: folder of the set.
        speech: the one the scenes were drawn from.
        nj: number of processes.
    Raises:
        ValueError: audio that cannot be read, or that would clip; names the utterance.
    """
    todo = missing_scenes(scenes, set_dir)
    bar = {"initial": len(scenes) - len(todo), "desc": str(set_dir), "unit": "mix"}
    if min(nj, len(todo)) > 1:
        # Workers open the corpus themselves: sent with each scene, its tables take longer than
        # the rendering.
        source = (speech.data_dir, speech.sample_rate_hz)
        job = partial(_render_in_worker, set_dir=set_dir, source=source)
    else:
        job = partial(render_to_files, set_dir=set_dir, speech=speech)
    for _ in parallel_map(job, todo, min(nj, len(todo)), in_order=False, progress=bar):
        pass


def wav_paths(scene: Scene, set_dir: Path | str) -> dict[str, Path]:
    """Files of one mixture: `farfield` and those of `talker_paths`."""
    return {"farfield": _wav_path(scene, set_dir, "farfield"), **talker_paths(scene, set_dir)}


def talker_paths(scene: Scene, set_dir: Path | str) -> dict[str, Path]:
    """Files of the talkers of one mixture: `closetalk{n}`, `spk{n}` and `closetalk_spk{n}` of each of them."""
    numbers = range(1, len(scene["speakers"]) + 1)
    names = [f"{family}{n}" for n in numbers for family in ("closetalk", "spk", "closetalk_spk")]
    return {name: _wav_path(scene, set_dir, name) for name in names}


def _wav_path(scene: Scene, set_dir: Path | str, name: str) -> Path:
    return id_path(Path(set_dir, "wav", name), scene["utt_id"], ".wav")


def missing_scenes(
    scenes: list[Scene],
    set_dir: Path | str,
    paths_of: Callable[[Scene, Path | str], dict[str, Path]] = wav_paths,
) -> list[Scene]:
    """Those of the scenes that lack one of their wav files, `paths_of(scene, set_dir)`.

    Folders are listed, since asking for each of 200,000 files takes minutes on a network's disk.
    """
    folders = Path(set_dir, "wav").glob("*")
    present = {path.name: set(os.listdir(path)) for path in folders if path.is_dir()}
    return [
        scene
        for scene in scenes
        if not all(path.name in present.get(name, ()) for name, path in paths_of(scene, set_dir).items())
    ]


_open_speech = lru_cache(maxsize=1)(CleanSpeech)


def _render_in_worker(scene: Scene, set_dir: Path | str, source: tuple[Path, int]) -> None:
    render_to_files(scene, set_dir, _open_speech(*source))


def render_to_files(scene: Scene, set_dir: Path | str, speech: CleanSpeech) -> None:
    """Render one scene and write its wav files.

    They are PCM_16 where the noise of every mic is at least a step of it, so that rounding stays 11 dB below the
    noise, else FLOAT.

    Raises:
        ValueError: a signal reaches full scale.
    """
    rendering = render(scene, dry_signals(scene, speech))
    signals = {"farfield": rendering.farfield.T}
    for n in range(len(scene["speakers"])):
        signals[f"closetalk{n + 1}"] = rendering.closetalk[n]
        signals[f"spk{n + 1}"] = rendering.farfield_images[n, REF_MIC]
        signals[f"closetalk_spk{n + 1}"] = rendering.closetalk_images[n, n]
    for name, samples in signals.items():
        if not fits_pcm16(samples):
            option = "--closetalk_gain_db" if "closetalk" in name else "--farfield_level_dbfs"
            level = scene[option.removeprefix("--")]
            raise ValueError(
                f"{scene['utt_id']}: {name} clips, its peak is {np.abs(samples).max():.2f} of full"
                f" scale; choose another --out_dir (--datadir of run.sh) and {option} below"
                f" {level:g}"
            )
    noise = min(part.std(axis=-1).min() for part in (rendering.farfield_noise, rendering.closetalk_noise))
    for name, path in wav_paths(scene, set_dir).items():
        write_wav(path, signals[name], scene["sample_rate_hz"], "PCM_16" if noise >= PCM16_STEP else "FLOAT")


def _impulse_responses(scene: Scene) -> np.ndarray:
    """(talker, far-field mic then headset, tap)."""
    headsets = [speaker["closetalk_position_m"] for speaker in scene["speakers"]]
    return room_impulse_responses(
        scene["room_size_m"],
        scene["rt60_s"],
        [speaker["position_m"] for speaker in scene["speakers"]],
        scene["mic_positions_m"] + headsets,
        scene["sample_rate_hz"],
    )


def convolve(dry: np.ndarray, rirs: np.ndarray, delay_samples: int) -> np.ndarray:
    """Images of talkers, as long as their dry signals.

    Args:
        dry: (talker, sample) dry signals.
        rirs: (talker, mic, tap) room impulse responses.
        delay_samples: left out at the beginning of the images.
    Returns:
        (talker, mic, sample)
    """
    from scipy.signal import fftconvolve  # 0.5 s

    return fftconvolve(dry[:, None], rirs, axes=-1)[..., delay_samples : delay_samples + dry.shape[-1]]


def headset_noise(scene: Scene, images: np.ndarray) -> np.ndarray:
    """(headset, sample) white noise of each headset, `snr_db` below its images (talker, headset, sample)."""
    noise = [
        white_noise(speech[None], scene["snr_db"], [scene["noise_seed"], 1 + headset])[0]
        for headset, speech in enumerate(images.sum(axis=0))
    ]
    return np.array(noise)


def white_noise(speech: np.ndarray, snr_db: float, seed: int | list[int]) -> np.ndarray:
    """Gaussian noise, exactly `snr_db` below the power of `speech`.

    Args:
        speech: (mic, sample), whose mics are taken together.
        snr_db: in dB.
        seed: of numpy's default_rng.
    Returns:
        (mic, sample)
    """
    noise = np.random.default_rng(seed).standard_normal(speech.shape)
    return noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * _from_db(-snr_db)


def _from_db(level_db: float | np.ndarray) -> float | np.ndarray:
    return 10 ** (level_db / 20)
