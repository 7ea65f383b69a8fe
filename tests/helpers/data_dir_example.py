"""A small, complete and valid data dir for tests."""

import json

import numpy as np

from espnet2_m2m.data_dir import read_table, spk2utt_from, write_table, write_wav

SAMPLE_RATE = 8000  # Hz
FAMILIES = ("closetalk", "closetalk_spk", "spk")
SCPS = [*(f"{family}{n}.scp" for family in FAMILIES for n in (1, 2)), "wav.scp"]  # of a simulated set, sorted
SCENE = {  # what a line of scenes.jsonl needs besides its id
    "room_size_m": [8.0, 6.0, 3.0],
    "mic_positions_m": [[4.0, 3.0, 1.2]],
    "speakers": [{"position_m": [2.0, 3.0, 1.6]}, {"position_m": [6.0, 3.0, 1.6]}],
}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def make_data_dir(data_dir, num_samples, num_channels=6, speakers=("f03-m01", "f04-m02")):
    """A complete set of two-speaker mixtures, laid out as the simulation does it."""
    utt2spk = {
        f"{speakers[index % len(speakers)]}-train{index:05d}": speakers[index % len(speakers)]
        for index in range(len(num_samples))
    }
    lengths = dict(zip(utt2spk, num_samples))
    files = [("wav", num_channels)] + [(f"{family}{n}", 1) for family in FAMILIES for n in (1, 2)]
    for place, (name, channels) in enumerate(files):
        scp = {}
        for index, (utt_id, length) in enumerate(lengths.items()):
            scp[utt_id] = str(data_dir / "wav" / name / f"{utt_id}.wav")
            write_wav(scp[utt_id], noise(length, channels, seed=100 * index + place), SAMPLE_RATE, "PCM_16")
        write_table(data_dir / f"{name}.scp", scp)
    for n in (1, 2):
        write_table(data_dir / f"text_spk{n}", dict.fromkeys(utt2spk, "ONE TWO"))
    durations = {utt_id: length / SAMPLE_RATE for utt_id, length in lengths.items()}
    write_table(data_dir / "utt2dur", durations)
    write_table(data_dir / "utt2spk", utt2spk)
    write_table(data_dir / "spk2utt", spk2utt_from(read_table(data_dir / "utt2spk")))
    scenes = [json.dumps({"utt_id": utt_id, **SCENE, "rt60_s": 0.3}) for utt_id in sorted(utt2spk)]
    (data_dir / "scenes.jsonl").write_text("".join(f"{line}\n" for line in scenes))
    return data_dir
