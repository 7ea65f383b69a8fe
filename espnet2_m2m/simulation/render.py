"""Scenes to signals to files.

A source image is the complete reverberant signal of one talker at one mic, and

    observation = sum of the images + noise

at every mic, far-field and headset, in samples of the same scale.
"""

import os
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.audio import fits_pcm16, write_wav
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.tables import TEMPORARY
from espnet2_m2m.simulation.rir import DELAY_SAMPLES, room_impulse_responses

REF_MIC = 0  # the far-field mic whose images are written: the paper's reference mic


@dataclass(frozen=True)
class Rendering:
    """Signals of one mixture; speaker d wears headset d."""

    farfield_images: np.ndarray  # (speaker, mic, sample)
    farfield_noise: np.ndarray  # (mic, sample)
    closetalk_images: np.ndarray  # (speaker, headset, sample)
    closetalk_noise: np.ndarray  # (headset, sample)

    @property
    def farfield(self):
        """(mic, sample) far-field mixture."""
        return self.farfield_images.sum(axis=0) + self.farfield_noise

    @property
    def closetalk(self):
        """(headset, sample) close-talk mixtures."""
        return self.closetalk_images.sum(axis=0) + self.closetalk_noise


def dry_signals(scene, speech):
    """What each talker says, without a room, at its place in the mixture.

    Args:
        scene: dict, as scene.draw_scenes makes it.
        speech: CleanSpeech, the one the scene was drawn from.
    Returns:
        (speaker, sample) float64.
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


def render(scene, dry):
    """All signals of one mixture.

    A talker has one loudness: its dry signal gets the gain that makes the standard deviation of
    its far-field images (all mics and samples) 10^((farfield_level_dbfs + level_db) / 20), and the
    same gain at the headsets, whose preamplifier then adds closetalk_gain_db. The white noise is
    `snr_db` below the sum of the images, over all far-field mics together and at every headset.

    Args:
        scene: dict, as scene.draw_scenes makes it.
        dry: (speaker, sample) talkers' dry signals.
    Returns:
        Rendering
    """
    images = _convolve(dry, _impulse_responses(scene))
    num_mics = len(scene["mic_positions_m"])
    levels_db = [speaker["level_db"] for speaker in scene["speakers"]]
    target = _from_db(scene["farfield_level_dbfs"] + np.array(levels_db))
    images *= (target / images[:, :num_mics].std(axis=(1, 2)))[:, None, None]
    images[:, num_mics:] *= _from_db(scene["closetalk_gain_db"])

    farfield, closetalk = images[:, :num_mics], images[:, num_mics:]
    closetalk_noise = [
        white_noise(mixture[None], scene["snr_db"], [scene["noise_seed"], 1 + headset])[0]
        for headset, mixture in enumerate(closetalk.sum(axis=0))
    ]
    return Rendering(
        farfield_images=farfield,
        farfield_noise=white_noise(farfield.sum(axis=0), scene["snr_db"], [scene["noise_seed"], 0]),
        closetalk_images=closetalk,
        closetalk_noise=np.array(closetalk_noise),
    )


def render_set(scenes, set_dir, speech, nj=1):
    """Render scenes to wav files under `set_dir`/wav; what is there already is kept.

    Every file is written whole or not at all and depends on its scene alone, so that the result is
    the same however often the work was interrupted and however many processes did it; others may
    render other scenes to the same folder meanwhile.

    Args:
        scenes: list of dicts, as scene.draw_scenes makes them.
        set_dir: folder of the set.
        speech: CleanSpeech.
        nj: number of processes.
    Raises:
        ValueError: audio that cannot be read, or that would clip; names the utterance.
    """
    remove_temporaries_of(scenes, set_dir)
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


def wav_paths(scene, set_dir):
    """Files of one mixture: dict of `farfield`, `closetalk{n}`, `spk{n}`, `closetalk_spk{n}`."""
    names = ["farfield"]
    for n in range(1, len(scene["speakers"]) + 1):
        names += [f"closetalk{n}", f"spk{n}", f"closetalk_spk{n}"]
    return {name: Path(set_dir, "wav", name, f"{scene['utt_id']}.wav") for name in names}


def missing_scenes(scenes, set_dir, paths_of=wav_paths):
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


def remove_temporaries_of(scenes, set_dir):
    """Remove what a killed run left of these scenes; other jobs may just be writing theirs."""
    utt_ids = {scene["utt_id"] for scene in scenes}
    for path in Path(set_dir, "wav").glob("*/.*"):
        if TEMPORARY.fullmatch(path.name) and path.name[1:].rsplit(".", 2)[0] in utt_ids:
            path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _open_speech(data_dir, sample_rate_hz):
    return CleanSpeech(data_dir, sample_rate_hz)


def _render_in_worker(scene, set_dir, source):
    render_to_files(scene, set_dir, _open_speech(*source))


def render_to_files(scene, set_dir, speech):
    """Render one scene and write its wav files (PCM_16).

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
    for name, path in wav_paths(scene, set_dir).items():
        write_wav(path, signals[name], scene["sample_rate_hz"])


def _impulse_responses(scene):
    """(speaker, far-field mic then headset, tap)."""
    headsets = [speaker["closetalk_position_m"] for speaker in scene["speakers"]]
    return room_impulse_responses(
        scene["room_size_m"],
        scene["rt60_s"],
        [speaker["position_m"] for speaker in scene["speakers"]],
        scene["mic_positions_m"] + headsets,
        scene["sample_rate_hz"],
    )


def _convolve(dry, rirs):
    """(speaker, sample) * (speaker, mic, tap) -> (speaker, mic, sample) as long as `dry`."""
    from scipy.signal import fftconvolve

    images = fftconvolve(dry[:, None], rirs, axes=-1)
    return images[..., DELAY_SAMPLES : DELAY_SAMPLES + dry.shape[-1]]


def white_noise(speech, snr_db, seed):
    """Gaussian noise, exactly `snr_db` below the power of `speech`.

    Args:
        speech: (mic, sample), whose mics are taken together.
        snr_db: in dB.
        seed: of numpy's default_rng, an int or a list of them.
    Returns:
        (mic, sample)
    """
    noise = np.random.default_rng(seed).standard_normal(speech.shape)
    return noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * _from_db(-snr_db)


def _from_db(level_db):
    return 10 ** (level_db / 20)
