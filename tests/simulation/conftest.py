"""A small corpus of modulated noise, so that most of the simulation's tests need no speech."""

import numpy as np
import pytest
import soundfile

from espnet2_m2m.data_dir.tables import write_table


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Kaldi data dir of 6 speakers with 4 utterances each of about 0.8 s, 8 kHz."""
    data_dir = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    wav, utt2spk, text = {}, {}, {}
    for speaker in range(6):
        for utt in range(4):
            utt_id = f"s{speaker}-u{utt}"
            num_samples = round(6400 * rng.uniform(0.7, 1.3))
            envelope = np.abs(np.sin(2 * np.pi * 4 * np.arange(num_samples) / 8000))
            samples = 0.05 * rng.standard_normal(num_samples) * envelope
            wav[utt_id], utt2spk[utt_id] = data_dir / f"{utt_id}.wav", f"s{speaker}"
            text[utt_id] = f"utterance {utt}"
            soundfile.write(wav[utt_id], samples, 8000, subtype="PCM_16")
    for name, table in (("wav.scp", wav), ("utt2spk", utt2spk), ("text", text)):
        write_table(data_dir / name, table)
    return data_dir
