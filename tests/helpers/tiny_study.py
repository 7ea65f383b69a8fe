"""Made-up clean speech and options with which egs2/meeting_demo takes seconds."""

import numpy as np
from fake_set import SAMPLE_RATE, talker

from espnet2_m2m.data_dir import write_table, write_wav

# Stage 1: 5 training, 2 validation, 2 test mixtures of 1.2 s.
DATA_OPTIONS = ["--num_train", "5", "--num_valid", "2", "--num_test", "2", "--min_duration", "1.2"]
TRAINING = (
    "--chunk_length 8000 --num_iters_per_epoch 4 --num_workers 0 --separator_conf emb_dim=8 "
    "--separator_conf lstm_hidden_units=8"
)
STAGE_OPTIONS = ["--min_wav_duration", "1.01"]


def make_clean_speech(data_dir):
    """Kaldi data dir of 6 talkers with 2 utterances each."""
    wav, utt2spk = {}, {}
    for speaker in range(6):
        for utt in range(2):
            utt_id = f"s{speaker}-u{utt}"
            wav[utt_id], utt2spk[utt_id] = data_dir / f"{utt_id}.wav", f"s{speaker}"
            rng = np.random.default_rng([speaker, utt])
            write_wav(wav[utt_id], talker(rng, round(1.3 * SAMPLE_RATE), 4), SAMPLE_RATE)
    write_table(data_dir / "wav.scp", wav)
    write_table(data_dir / "utt2spk", utt2spk)
    return data_dir
