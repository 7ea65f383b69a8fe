"""SMS-WSJ-FF-CT: close-talk mics added to the rooms of an existing SMS-WSJ.

SMS-WSJ (Drude et al., arXiv:1910.13934; github.com/fgnt/sms_wsj) has for each mixture a room, a
six-mic array and a position for each talker, all kept in sms_wsj.json, and makes

    image_k(mic) = scale_k * (dry_k * rir_k(mic)), from sample `time_of_flight_k` of the result on
    observation  = sum_k image_k + noise,                 image_k = early_k + tail_k

dry_k is the utterance, silent before its offset. The time of flight is estimated on the RIRs of all
mics, and scale_k gives the image of all mics the talker's level. So every talker has a shift and
a scale of his own, and a headset fits to the far-field files when its images have the same two.
They are found without making the far-field images again:

- the time of flight needs the direct path at every mic, which the first 0.13 s of a RIR hold: of the far-field
  RIRs nothing else is needed but that of the reference mic;
- the scale is the least-squares factor between the image at the reference mic as it is on disk and
  the same image made here without scale. What is left over shows how well the two agree: all
  mixtures are checked in this way, and one below `MIN_AGREEMENT_DB` is an error.
"""

from collections.abc import Iterable
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from espnet2_m2m.data_dir.audio import write_wav
from espnet2_m2m.data_dir.scenes import Scene
from espnet2_m2m.simulation.image_source import impulse_responses, sabine_reflection
from espnet2_m2m.simulation.render import REF_MIC, convolve, headset_noise, talker_paths
from espnet2_m2m.simulation.sms_wsj_database import ExampleAudio, Mixture, load_dry, load_images

SMS_WSJ_TAPS = 8192  # of SMS-WSJ's own RIRs
# The number of images grows with the cube of the number of taps. What comes later than 2 * T60 is at
# least 81 dB below the whole RIR (21 rooms of SMS-WSJ's geometry, T60 0.2 to 0.5 s, at the array; still
# less at a headset), and with speech 73 dB below the image. 1.8 * T60 would leave 65 dB: too near to
# `MIN_AGREEMENT_DB`.
RIR_LENGTH_T60 = 2.0
# A reflection may exceed the direct path when floor and ceiling or two walls add up: 6 in 400 rooms
# x 6 mics, at most 6 ms after it. After 44 m, 20 such paths would have to come in one sample.
TIME_OF_FLIGHT_WINDOW_S = 0.128
MIN_AGREEMENT_DB = 60.0

# The generator's fractional-delay filter lasts 8 ms. It is evaluated for every image there and tabulated here
# (see image_source.py): with so many steps to a sample the RIRs agree with the generator's to 85 dB
# or more.
DELAY_FILTER_S = 0.008
DELAY_STEPS = 128
HIGHPASS_HZ = 100.0


def render_headsets(mixture: Mixture, set_dir: Path | str) -> float:
    """Render the headsets of one mixture and write its wav files (FLOAT, as SMS-WSJ's are).

    Args:
        mixture: a scene of `sms_wsj_scenes` and its files.
        set_dir: folder of the set.
    Returns:
        Agreement with the far-field files in dB, the worst of the talkers.
    Raises:
        ValueError: audio that does not fit, or an agreement below `MIN_AGREEMENT_DB`.
    """
    scene, audio = mixture
    farfield = load_images(scene, audio)
    images, agreement_db = closetalk_images(scene, load_dry(scene, audio), farfield, audio)
    closetalk = images.sum(axis=0) + headset_noise(scene, images)
    paths = talker_paths(scene, set_dir)
    for n in range(len(scene["speakers"])):
        for name, samples in (
            (f"closetalk{n + 1}", closetalk[n]),
            (f"closetalk_spk{n + 1}", images[n, n]),
            (f"spk{n + 1}", farfield[n]),
        ):
            write_wav(paths[name], samples, scene["sample_rate_hz"], "FLOAT")
    return agreement_db


def check_farfield(mixture: Mixture) -> float:
    """As `render_headsets`, but only makes the far-field images at the reference mic.

    Returns:
        Agreement with the files in dB, the worst of the talkers.
    Raises:
        ValueError: as there.
    """
    scene, audio = mixture
    signals = zip(load_dry(scene, audio), load_images(scene, audio), strict=True)
    return min(_talker_images(scene, k, [], *pair, audio)[1] for k, pair in enumerate(signals))


def closetalk_images(
    scene: Scene, dry: np.ndarray, farfield: np.ndarray, audio: ExampleAudio
) -> tuple[np.ndarray, float]:
    """What the headsets hear of each talker.

    Args:
        scene: as `sms_wsj_scenes` makes it.
        dry: (talker, sample), see `load_dry`.
        farfield: (talker, sample) images at the reference mic on disk, see `load_images`.
        audio: for messages.
    Returns:
        (talker, headset, sample) images, agreement in dB (the worst of the talkers).
    Raises:
        ValueError: impossible room, silent audio, or an agreement below `MIN_AGREEMENT_DB`.
    """
    headsets = [speaker["closetalk_position_m"] for speaker in scene["speakers"]]
    made = [
        _talker_images(scene, k, headsets, samples, image, audio)
        for k, (samples, image) in enumerate(zip(dry, farfield, strict=True))
    ]
    gain = 10 ** (scene["closetalk_gain_db"] / 20)
    return gain * np.array([images for images, _ in made]), min(agreement_db for _, agreement_db in made)


def generator_rirs(scene: Scene, talker: int, mic_positions_m: ArrayLike, num_taps: int) -> np.ndarray:
    """RIRs as the generator that made SMS-WSJ (E. Habets' image method) computes them with SMS-WSJ's settings.

    All reflections, omnidirectional mics, high-pass. `num_taps` only cuts: the taps that are there
    do not depend on it, except for the last 32 (half the fractional-delay filter).

    Args:
        scene: as `sms_wsj_scenes` makes it.
        talker: index of the source.
        mic_positions_m: (mic, 3).
        num_taps: length.
    Returns:
        (mic, tap) float64; the direct path from a distance d is at tap d / c * sample rate.
    Raises:
        ValueError: impossible room, e.g. a T60 too short for its size.
    Source: Habets, "Room impulse response generator", TU Eindhoven, 2010.
    """
    from scipy.signal import lfilter

    sample_rate_hz = scene["sample_rate_hz"]
    filter_taps = round(DELAY_FILTER_S * sample_rate_hz)
    before = filter_taps // 2 - 1  # of a filter's taps; those before the emission get lost
    shifted = np.arange(filter_taps) - before - np.linspace(0, 1, DELAY_STEPS + 1)[:, None]
    delay_filters = np.sinc(shifted) * (0.5 + 0.5 * np.cos(2 * np.pi * shifted / filter_taps))
    try:
        rirs = impulse_responses(
            scene["room_size_m"],
            scene["speakers"][talker]["position_m"],
            mic_positions_m,
            sabine_reflection(scene["room_size_m"], scene["rt60_s"]),
            sample_rate_hz,
            num_taps,
            delay_filters,
        )
    except ValueError as error:
        raise ValueError(f"example '{scene['example_id']}': no RIR: {error}") from error
    # Allen and Berkley's high-pass: two zeros near z = 1, a pair of poles on a circle of radius r.
    omega = 2 * np.pi * HIGHPASS_HZ / sample_rate_hz
    r = np.exp(-omega)
    numerator, denominator = [1, -1 - r, r], [1, -2 * r * np.cos(omega), r**2]
    return lfilter(numerator, denominator, rirs[:, before : before + num_taps])


def time_of_flight(rirs: np.ndarray) -> int:
    """Samples that SMS-WSJ removes at the beginning of a talker's images.

    At each mic the first tap above a tenth of the largest; of all mics the first.

    Args:
        rirs: (mic, tap) of one talker.
    """
    magnitude = np.abs(rirs)
    return int(np.argmax(magnitude > 0.1 * magnitude.max(axis=1, keepdims=True), axis=1).min())


def _talker_images(
    scene: Scene, talker: int, mic_positions_m: list, dry: np.ndarray, farfield: np.ndarray, audio: ExampleAudio
) -> tuple[np.ndarray, float]:
    """One talker's images (mic, sample), scaled and shifted as the far-field files are; agreement in dB.

    Args:
        mic_positions_m: (mic, 3); may be empty.
        dry, farfield: (sample,) of this talker; all else and errors as `closetalk_images`.
    """
    where = f"example '{scene['example_id']}', talker {talker + 1}"
    for signal, files in ((dry, audio.sources), (farfield, audio.images[talker])):
        if not signal.any():
            raise ValueError(f"{where}: silent: {_names(files)}")
    mics, rate = scene["mic_positions_m"], scene["sample_rate_hz"]
    shift = time_of_flight(generator_rirs(scene, talker, mics, round(TIME_OF_FLIGHT_WINDOW_S * rate)))
    num_taps = min(ceil(RIR_LENGTH_T60 * scene["rt60_s"] * rate), SMS_WSJ_TAPS)
    rirs = generator_rirs(scene, talker, [mics[REF_MIC], *mic_positions_m], num_taps)
    made, *images = convolve(dry[None], rirs[None], shift)[0]
    scale = (made @ farfield) / (made @ made)
    error = farfield - scale * made
    agreement_db = 10 * np.log10((farfield @ farfield) / max(error @ error, np.finfo(float).tiny))
    if agreement_db < MIN_AGREEMENT_DB:
        raise ValueError(
            f"{where}: its far-field image at mic {REF_MIC} is reproduced to {agreement_db:.1f} dB"
            f" only, {MIN_AGREEMENT_DB:.0f} dB are expected: the dry speech"
            f" ({_names(files[talker] for files in audio.sources)}), the image"
            f" ({_names(audio.images[talker])}) or the"
            " positions, T60 and offset of the json are of another version of SMS-WSJ, or its RIRs"
            " are from another generator; headsets made here would not fit to the far-field mics"
        )
    return scale * np.array(images), agreement_db


def _names(paths: Iterable[Path]) -> str:
    return " + ".join(str(path) for path in paths)
