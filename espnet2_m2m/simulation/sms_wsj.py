"""SMS-WSJ-FF-CT: close-talk mics added to the rooms of an existing SMS-WSJ.

SMS-WSJ (Drude et al., arXiv:1910.13934; github.com/fgnt/sms_wsj) has for each mixture a room, a
six-mic array and a position for each speaker, all kept in sms_wsj.json, and makes

    image_k(mic) = scale_k * (dry_k * rir_k(mic)), from sample `time_of_flight_k` of the result on
    observation  = sum_k image_k + noise,                 image_k = early_k + tail_k

dry_k is the utterance, silent before its offset. The time of flight is estimated on the RIRs of all
mics, and scale_k gives the image of all mics the speaker's level. So every speaker has a shift and
a scale of his own, and a headset fits to the far-field files when its images have the same two.
They are found without making the far-field images again:

- the time of flight needs the direct path at every mic, which the first 0.13 s of a RIR hold: of the far-field
  RIRs nothing else is needed but that of the reference mic;
- the scale is the least-squares factor between the image at the reference mic as it is on disk and
  the same image made here without scale. What is left over shows how well the two agree: all
  mixtures are checked in this way, and one below `MIN_AGREEMENT_DB` is an error.
"""

import hashlib
import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from espnet2_m2m.data_dir.audio import AudioError, audio_header, read_audio, write_wav
from espnet2_m2m.simulation.image_source import impulse_responses, sabine_reflection
from espnet2_m2m.simulation.render import REF_MIC, white_noise
from espnet2_m2m.simulation.rooms import Geometry, draw_closetalk_positions
from espnet2_m2m.simulation.scene import check_order_of_pairs, check_speaker_ids

DATASETS = {"train": "train_si284", "valid": "cv_dev93", "test": "test_eval92"}
CLOSETALK_DISTANCE_M = (0.1, 0.3)  # M2M paper, section V

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


@dataclass(frozen=True)
class ExampleAudio:
    """Files of one mixture, all Paths.

    Attributes:
        observation: far-field mixture, one channel a mic.
        images: for each speaker the files whose sum is its far-field image: (image,) or
            (early, tail).
        sources: possible places of the dry speech, in order of preference: of each, one file for
            each speaker.
    """

    observation: Path
    images: tuple
    sources: tuple


def read_database(path):
    """The datasets of an sms_wsj.json: dict dataset -> example id -> example (dict).

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


def draw_scenes(examples, sample_rate_hz, closetalk_gain_db):
    """Scenes (see scene.py) of SMS-WSJ's examples with a headset for each speaker.

    A headset and its noise come from the example id and from nothing else.

    Args:
        examples: dict example id -> example.
        sample_rate_hz: of the audio; the json does not tell.
        closetalk_gain_db: gain of the headsets relative to the far-field mics.
    Returns:
        list of dicts that JSON can hold, sorted by utt_id, which is `speaker1-speaker2-example_id`.
    Raises:
        ValueError: an example lacks something or makes no sense; names it.
    """
    scenes = [
        _draw_scene(example_id, example, sample_rate_hz, closetalk_gain_db) for example_id, example in examples.items()
    ]
    check_speaker_ids({speaker["speaker_id"] for scene in scenes for speaker in scene["speakers"]})
    scenes.sort(key=lambda scene: scene["utt_id"].encode())
    check_order_of_pairs(scenes)
    return scenes


def example_audio(example_id, example, folder, reroot=()):
    """Where the files of one example are.

    Args:
        example: dict of sms_wsj.json.
        folder: relative paths start here: the folder of the json.
        reroot: (old, new) pairs of folders; a path below `old` is looked for below `new`.
    Returns:
        ExampleAudio; whether the files exist is not looked at.
    Raises:
        ValueError: a signal that is needed is not listed.
    """

    def place(path):
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


def render_to_files(task, set_dir):
    """Render the headsets of one mixture and write its wav files (FLOAT, as SMS-WSJ's are).

    Args:
        task: (scene, ExampleAudio).
        set_dir: folder of the set.
    Returns:
        Agreement with the far-field files in dB, the worst of the speakers.
    Raises:
        ValueError: audio that does not fit, or an agreement below `MIN_AGREEMENT_DB`.
    """
    scene, audio = task
    farfield = load_images(scene, audio)
    images, agreement_db = closetalk_images(scene, load_dry(scene, audio), farfield, audio)
    clean = images.sum(axis=0)  # (headset, sample)
    noise = [
        white_noise(mixture[None], scene["snr_db"], [scene["noise_seed"], 1 + headset])[0]
        for headset, mixture in enumerate(clean)
    ]
    closetalk = clean + np.array(noise)
    paths = wav_paths(scene, set_dir)
    for n in range(len(scene["speakers"])):
        for name, samples in (
            (f"closetalk{n + 1}", closetalk[n]),
            (f"closetalk_spk{n + 1}", images[n, n]),
            (f"spk{n + 1}", farfield[n]),
        ):
            write_wav(paths[name], samples, scene["sample_rate_hz"], "FLOAT")
    return agreement_db


def wav_paths(scene, set_dir):
    """Files made for one mixture: dict of `closetalk{n}`, `spk{n}`, `closetalk_spk{n}`."""
    numbers = range(1, len(scene["speakers"]) + 1)
    names = [f"{family}{n}" for n in numbers for family in ("closetalk", "spk", "closetalk_spk")]
    return {name: Path(set_dir, "wav", name, f"{scene['utt_id']}.wav") for name in names}


def check_farfield(task):
    """As `render_to_files`, but only makes the far-field images at the reference mic.

    Returns:
        Agreement with the files in dB, the worst of the speakers.
    Raises:
        ValueError: as there.
    """
    scene, audio = task
    signals = zip(load_dry(scene, audio), load_images(scene, audio), strict=True)
    return min(_speaker_images(scene, k, [], *pair, audio)[1] for k, pair in enumerate(signals))


def closetalk_images(scene, dry, farfield, audio):
    """What the headsets hear of each speaker.

    Args:
        scene: dict, as `draw_scenes` makes it.
        dry: (speaker, sample), see `load_dry`.
        farfield: (speaker, sample) images at the reference mic on disk.
        audio: ExampleAudio, for messages.
    Returns:
        (speaker, headset, sample) images, agreement in dB (the worst of the speakers).
    """
    headsets = [speaker["closetalk_position_m"] for speaker in scene["speakers"]]
    made = [
        _speaker_images(scene, k, headsets, samples, image, audio)
        for k, (samples, image) in enumerate(zip(dry, farfield, strict=True))
    ]
    gain = 10 ** (scene["closetalk_gain_db"] / 20)
    return gain * np.array([images for images, _ in made]), min(agreement_db for _, agreement_db in made)


def room_impulse_responses(scene, speaker, mic_positions_m, num_taps):
    """RIRs as the generator that made SMS-WSJ (E. Habets' image method) computes them with SMS-WSJ's settings.

    All reflections, omnidirectional mics, high-pass. `num_taps` only cuts: the taps that are there
    do not depend on it, but for the last 32 (half the fractional-delay filter).

    Args:
        scene: dict, as `draw_scenes` makes it.
        speaker: index of the source.
        mic_positions_m: (mic, 3).
        num_taps: length.
    Returns:
        (mic, tap) float64; the direct path from a distance d is at tap d / c * sample rate.
    Raises:
        ValueError: impossible room, e.g. a T60 too short for its size.
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
            scene["speakers"][speaker]["position_m"],
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


def time_of_flight(rirs):
    """Samples that SMS-WSJ removes at the beginning of a speaker's images.

    At each mic the first tap above a tenth of the largest; of all mics the first.

    Args:
        rirs: (mic, tap) of one speaker.
    """
    magnitude = np.abs(rirs)
    return int(np.argmax(magnitude > 0.1 * magnitude.max(axis=1, keepdims=True), axis=1).min())


def load_dry(scene, audio):
    """(speaker, sample) dry speech at its place in the mixture.

    A file as long as the mixture begins with it (SMS-WSJ's padded speech_source), another one
    begins at the speaker's offset (original_source).

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


def load_images(scene, audio):
    """(speaker, sample) far-field images at the reference mic; also checks the observation's format.

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


def _speaker_images(scene, speaker, mic_positions_m, dry, farfield, audio):
    """One speaker's images (mic, sample), scaled and shifted as the far-field files are; agreement in dB.

    Args:
        mic_positions_m: (mic, 3); may be empty.
        dry, farfield: (sample,) of this speaker; all else and errors as `closetalk_images`.
    """
    where = f"example '{scene['example_id']}', speaker {speaker + 1}"
    for signal, files in ((dry, audio.sources), (farfield, audio.images[speaker])):
        if not signal.any():
            raise ValueError(f"{where}: silent: {_names(files)}")
    mics, rate = scene["mic_positions_m"], scene["sample_rate_hz"]
    shift = time_of_flight(room_impulse_responses(scene, speaker, mics, round(TIME_OF_FLIGHT_WINDOW_S * rate)))
    num_taps = min(ceil(RIR_LENGTH_T60 * scene["rt60_s"] * rate), SMS_WSJ_TAPS)
    rirs = room_impulse_responses(scene, speaker, [mics[REF_MIC], *mic_positions_m], num_taps)
    made, *images = _convolve(dry, rirs, shift)
    scale = (made @ farfield) / (made @ made)
    error = farfield - scale * made
    agreement_db = 10 * np.log10((farfield @ farfield) / max(error @ error, np.finfo(float).tiny))
    if agreement_db < MIN_AGREEMENT_DB:
        raise ValueError(
            f"{where}: its far-field image at mic {REF_MIC} is reproduced to {agreement_db:.1f} dB"
            f" only, {MIN_AGREEMENT_DB:.0f} dB are expected: the dry speech"
            f" ({_names(files[speaker] for files in audio.sources)}), the image"
            f" ({_names(audio.images[speaker])}) or the"
            " positions, T60 and offset of the json are of another version of SMS-WSJ, or its RIRs"
            " are from another generator; headsets made here would not fit to the far-field mics"
        )
    return scale * np.array(images), agreement_db


def _convolve(dry, rirs, shift):
    """(sample,) * (mic, tap) -> (mic, sample), from sample `shift` on, as long as `dry`."""
    from scipy.signal import fftconvolve

    return fftconvolve(dry[None], rirs, axes=-1)[:, shift : shift + len(dry)]


def _draw_scene(example_id, example, sample_rate_hz, closetalk_gain_db):
    try:
        num_speakers = len(example["speaker_id"])
        room_size = np.array(example["room_dimensions"], dtype=float).reshape(3)
        mics = np.array(example["sensor_position"], dtype=float).reshape(3, -1).T
        talkers = np.array(example["source_position"], dtype=float).reshape(3, -1).T[:num_speakers]
        rt60_s = float(example["sound_decay_time"])
        num_samples = int(example["num_samples"]["observation"])
        lengths = example["num_samples"]
        lengths = lengths.get("original_source", lengths.get("speech_source"))
        of_speaker = [
            {
                "level_db": float(example["log_weights"][k]),
                "offset_samples": int(example["offset"][k]),
                "text": str(example["kaldi_transcription"][k]),
                "utterances": [
                    {"utt_id": str(example["source_id"][k]), "start_sample": 0, "num_samples": int(lengths[k])}
                ],
            }
            for k in range(num_speakers)
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
    rng = _generator(example_id)
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
                **of_speaker[k],
            }
            for k in range(num_speakers)
        ],
        "closetalk_gain_db": closetalk_gain_db,
        "snr_db": snr_db,
        "noise_seed": int(rng.integers(2**31)),
    }


def _generator(example_id):
    key = hashlib.sha256(f"close-talk/{example_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "little"))


def _read(scene, path):
    _require_file(scene, path)
    return read_audio(path)


def _require_file(scene, path):
    if not path.is_file():
        raise AudioError(
            f"example '{scene['example_id']}': {path}: no such file", "if the database moved, give --reroot OLD=NEW"
        )


def _check_format(scene, path, found, expected):
    """`found` is (samples, channels, Hz) of a file, `expected` the first two of them."""
    expected = (*expected, scene["sample_rate_hz"])
    if tuple(found) != expected:
        raise AudioError(
            f"example '{scene['example_id']}': {path}: expected %d samples, %d channels, %d Hz,"
            " found %d, %d, %d" % (*expected, *found),
            "json and audio are not of the same database, or --sample_rate is wrong",
        )


def _names(paths):
    return " + ".join(str(path) for path in paths)
