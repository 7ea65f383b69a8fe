#!/usr/bin/env bash
# The paper's study on SMS-WSJ-FF-CT: an SMS-WSJ that you have made with fgnt/sms_wsj gets a headset
# for each talker; then train M2M, separate, score. `./run.sh --help` lists all options; README.md
# says what a run takes.
set -euo pipefail

# WSJ's longest utterance lasts 25 s.
local/m2m.sh \
    --data_script local/sms_wsj_data.sh \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --fs 8000 \
    --max_wav_duration 30 \
    --enh_config conf/tuning/table2_1a_m2m.yaml \
    "$@"
