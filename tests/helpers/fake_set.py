"""A made-up test set with separated speech: modulated noise that PESQ and eSTOI take for speech."""

import json

import numpy as np

from espnet2_m2m.data_dir import write_table, write_wav

SAMPLE_RATE = 8000  # Hz


def talker(rng, num_samples, syllable_rate_hz):
    """(sample,) harmonics and noise in syllables, peak 0.3."""
    time = np.arange(num_samples) / SAMPLE_RATE
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    voice += 0.3 * rng.standard_normal(num_samples)
    syllables = np.clip(np.sin(np.pi * syllable_rate_hz * time + rng.uniform(0, 3)), 0, 1)
    voice *= syllables
    return 0.3 * voice / np.abs(voice).max()


def make_set(root, num_utterances=3, seconds=1.0, num_speakers=2, swapped=(), seed=0):
    """Write data/test and exp/enhanced_test below `root`; return both folders.

    `swapped`: indices of utterances whose outputs come in reversed order.
    """
    data_dir, enhanced_dir = root / "data" / "test", root / "exp" / "enhanced_test"
    tables = {}

    def save(folder, name, utt_id, signal, subtype="PCM_16"):
        path = folder / "wav" / name / f"{utt_id}.wav"
        write_wav(path, signal, SAMPLE_RATE, subtype)
        tables.setdefault(folder / f"{name}.scp", {})[utt_id] = str(path)

    scenes = []
    for index in range(num_utterances):
        rng = np.random.default_rng([seed, index])
        num_samples = int(seconds * SAMPLE_RATE) + 10 * index
        refs = np.stack([talker(rng, num_samples, 4 + n) for n in range(num_speakers)])
        noise = 0.01 * rng.standard_normal((num_samples, 3))
        utt_id = f"a-b-test{index:05d}"
        save(data_dir, "wav", utt_id, refs.sum(axis=0)[:, None] / 2 + noise)
        leak = 0.05 * (index + 1)
        order = range(num_speakers)
        for number in order:
            other = refs.sum(axis=0) - refs[number]
            save(data_dir, f"spk{number + 1}", utt_id, refs[number])
            save(data_dir, f"closetalk{number + 1}", utt_id, refs[number] + 0.2 * other)
            save(data_dir, f"closetalk_spk{number + 1}", utt_id, refs[number])
            target = num_speakers - 1 - number if index in swapped else number
            other = refs.sum(axis=0) - refs[target]
            estimate = refs[target] + leak * other + 0.1 * noise[:, 0]
            save(enhanced_dir, f"spk{number + 1}", utt_id, estimate, "FLOAT")
        scenes.append(scene(rng, utt_id, num_speakers))
    for path, table in tables.items():
        write_table(path, table)
    utt_ids = [one["utt_id"] for one in scenes]
    write_table(data_dir / "utt2spk", dict.fromkeys(utt_ids, "a-b"))
    lines = "".join(json.dumps(one) + "\n" for one in scenes)
    (data_dir / "scenes.jsonl").write_text(lines)
    return data_dir, enhanced_dir


def scene(rng, utt_id, num_speakers):
    """One line of scenes.jsonl: a 6-mic array of 10 cm in the middle, talkers with headsets."""
    angles = np.arange(6) * np.pi / 3
    array = np.stack([4 + 0.1 * np.cos(angles), 3 + 0.1 * np.sin(angles), 1.2 + 0 * angles], 1)
    speakers = []
    for number in range(num_speakers):
        position = np.array([rng.uniform(1, 7), rng.uniform(0.8, 5.2), 1.6])
        speakers.append(
            {
                "speaker_id": "abc"[number],
                "position_m": position.tolist(),
                "closetalk_position_m": (position + [0.08, 0.0, -0.05]).tolist(),
                "level_db": 0.0,
                "offset_samples": 0,
                "text": f"<b>made up</b> & sentence {number}",
            }
        )
    return {
        "utt_id": utt_id,
        "sample_rate_hz": SAMPLE_RATE,
        "room_size_m": [8.0, 6.0, 3.0],
        "rt60_s": 0.32,
        "mic_positions_m": array.tolist(),
        "speakers": speakers,
        "snr_db": 25.0,
    }
