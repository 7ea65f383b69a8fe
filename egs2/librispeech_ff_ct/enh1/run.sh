#!/usr/bin/env bash
# The paper's study on LibriSpeech: two talkers in random rooms, recorded by a six-mic array and a
# headset each: simulate, train M2M, separate, score. `./run.sh --help` lists all options; README.md
# says what a run takes.
set -euo pipefail

# No utterance of LibriSpeech is longer than 36 s; training cuts segments of 4 s.
local/m2m.sh \
    --data_script local/librispeech_data.sh \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --fs 8000 \
    --max_wav_duration 36 \
    --enh_config conf/tuning/table2_1a_m2m.yaml \
    "$@"
