"""A miniature SMS-WSJ, made step by step from the rules of Drude et al., arXiv:1910.13934.

Slow and literal: RIRs of all mics in full, tap-by-tap search for the time of flight, the scale from
the standard deviation over all mics. The package finds shift and scale in another way. Two mics
instead of six, a second of speech-like noise instead of WSJ.
"""

import json
from pathlib import Path

import numpy as np
import rir_generator
import soundfile

SAMPLE_RATE = 8000
T60_S = 0.16
NUM_TAPS = 2400  # what comes later is 90 dB below the RIR
SETS = {"train_si284": 3, "cv_dev93": 1, "test_eval92": 1}
SPEAKERS = ["01a", "01b", "02k", "4k0", "4k6"]


def rirs(example, speaker, mics_m, num_taps=NUM_TAPS):
    """(mic, tap)"""
    return rir_generator.generate(
        c=343,
        fs=SAMPLE_RATE,
        r=np.array(mics_m),
        s=positions(example, "source_position")[speaker],
        L=np.array(example["room_dimensions"])[:, 0].copy(),
        nsample=num_taps,
        reverberation_time=example["sound_decay_time"],
    ).T


def positions(example, key):
    """(point, 3)"""
    return np.array(example[key]).T.copy()


def time_of_flight(all_rirs):
    """Of (mic, tap): the first tap above 0.1 of the largest, at the mic where it comes first."""
    starts = []
    for rir in all_rirs:
        largest = max(abs(value) for value in rir)
        starts.append(next(n for n, value in enumerate(rir) if abs(value) > 0.1 * largest))
    return min(starts)


def place(signal, offset, length):
    """`signal` from sample `offset` (may be negative) of silence of this length on."""
    placed = np.zeros(length)
    end = min(length, offset + len(signal))
    placed[max(offset, 0) : end] = signal[max(-offset, 0) : end - offset]
    return placed


def shift_and_scale(example, speaker, source):
    """SMS-WSJ's time of flight and scale of a speaker, his images and their early part (mic, sample)."""
    of_mics = rirs(example, speaker, positions(example, "sensor_position"))
    shift = time_of_flight(of_mics)
    offset, length = example["offset"][speaker] - shift, example["num_samples"]["observation"]
    images = np.array([place(np.convolve(source, rir), offset, length) for rir in of_mics])
    scale = 10 ** (example["log_weights"][speaker] / 20) / images.std() / 71
    early = of_mics.copy()
    early[:, shift + 400 :] = 0
    early = np.array([place(np.convolve(source, rir), offset, length) for rir in early])
    return shift, scale, scale * images, scale * early


def make(folder):
    """Write wav files and sms_wsj.json; returns the path of the json."""
    folder, datasets, rir_id = Path(folder), {}, 0
    rng = np.random.default_rng(0)
    for dataset, count in SETS.items():
        datasets[dataset] = {}
        for _ in range(count):
            example_id, example = make_example(folder, dataset, rir_id, rng)
            datasets[dataset][example_id] = example
            rir_id += 1
    path = folder / "sms_wsj.json"
    path.write_text(json.dumps({"datasets": datasets}, indent=2), encoding="utf-8")
    return path


def make_example(folder, dataset, rir_id, rng):
    ids = [SPEAKERS[k] for k in rng.permutation(len(SPEAKERS))[:2]]
    utts = [f"{speaker}c{rir_id:02d}0{k}" for k, speaker in enumerate(ids)]
    example_id = "_".join([str(rir_id), *utts])
    room = np.array([8, 6, 3]) + rng.uniform(-0.2, 0.2, 3)
    center = np.array([4, 3, 1.5]) + rng.uniform(-0.2, 0.2, 3)
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, np.pi])
    mics = center + 0.1 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    talkers = []
    for azimuth, distance in zip(rng.uniform(0, 2 * np.pi, 2), rng.uniform(1, 2, 2)):
        talkers.append(center + distance * np.array([np.cos(azimuth), np.sin(azimuth), 0]))
    level_db = rng.uniform(-2.5, 2.5)
    lengths = [int(n) for n in rng.integers(6000, 9000, 2)]
    example = {
        "room_dimensions": room.round(3)[:, None].tolist(),
        "sound_decay_time": T60_S,
        "source_position": np.round(talkers, 3).T.tolist(),
        "sensor_position": mics.round(3).T.tolist(),
        "example_id": example_id,
        "num_speakers": 2,
        "speaker_id": ids,
        "source_id": utts,
        "gender": ["male", "female"],
        "kaldi_transcription": [f"WORDS OF {speaker.upper()}" for speaker in ids],
        "log_weights": [level_db, -level_db],
        "num_samples": {"original_source": lengths, "observation": max(lengths)},
        "offset": [int(rng.integers(max(lengths) - n + 1)) for n in lengths],
        "snr": rng.uniform(20, 30),
    }
    signals = {"speech_reverberation_early": [], "speech_reverberation_tail": []}
    sources = []
    for k, length in enumerate(lengths):
        envelope = np.abs(np.sin(2 * np.pi * 3 * np.arange(length) / SAMPLE_RATE))
        sources.append((rng.standard_normal(length) * envelope / 5).astype(np.float32))
        _, _, images, early = shift_and_scale(example, k, sources[k])
        signals["speech_reverberation_early"].append(early)
        signals["speech_reverberation_tail"].append(images - early)
    clean = sum(signals["speech_reverberation_early"]) + sum(signals["speech_reverberation_tail"])
    noise = rng.standard_normal(clean.shape)
    noise *= np.sqrt((clean**2).mean() / (noise**2).mean()) * 10 ** (-example["snr"] / 20)

    def write(kind, name, samples):
        path = folder / kind / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.T, SAMPLE_RATE, subtype="FLOAT")
        return str(path)

    paths = {"observation": write(f"observation/{dataset}", example_id, clean + noise)}
    paths["noise_image"] = write(f"noise/{dataset}", example_id, noise)
    for name, of_speaker in signals.items():
        kind = f"{name.rpartition('_')[2]}/{dataset}"
        paths[name] = [write(kind, f"{example_id}_{k}", s) for k, s in enumerate(of_speaker)]
    paths["original_source"] = [write("wsj_8k_zeromean", u, s) for u, s in zip(utts, sources)]
    example["audio_path"] = paths
    return example_id, example
