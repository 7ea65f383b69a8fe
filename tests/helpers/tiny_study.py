"""Made-up clean speech and options with which egs2/meeting_demo takes seconds."""

import clean_speech
import numpy as np
from fake_set import SAMPLE_RATE, talker

# Stage 1: 5 training, 2 validation, 2 test mixtures of 1.2 s.
DATA_OPTIONS = ["--num_train", "5", "--num_valid", "2", "--num_test", "2", "--min_duration", "1.2"]
TRAINING = (
    "--chunk_length 8000 --num_iters_per_epoch 4 --num_workers 0 --separator_conf emb_dim=8 "
    "--separator_conf lstm_hidden_units=8"
)
STAGE_OPTIONS = ["--min_wav_duration", "1.01"]


def make_clean_speech(data_dir):
    """Kaldi data dir of 6 talkers with 2 utterances each."""

    def samples_of(speaker, utt):
        return talker(np.random.default_rng([speaker, utt]), round(1.3 * SAMPLE_RATE), 4)

    return clean_speech.make_clean_speech(data_dir, 2, samples_of, SAMPLE_RATE, text=False)
