#!/usr/bin/env bash
# Two talkers in a meeting room, recorded by a six-mic table array and a headset each: simulate,
# train M2M, separate, score. `./run.sh --help` lists all options; README.md shows what comes out.
set -euo pipefail

local/m2m.sh \
    --data_script local/meeting_demo_data.sh \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --fs 8000 \
    --fixed_order true \
    --inference_asr_config conf/decode_asr.yaml \
    --enh_config conf/tuning/train_enh_m2m_tfgridnet_small.yaml \
    "$@"
