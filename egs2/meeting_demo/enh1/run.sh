#!/usr/bin/env bash
# Two talkers in a meeting room, recorded by a six-mic table array and a headset each: simulate,
# train M2M, separate, score. `./run.sh --help` lists all options; README.md shows what comes out.
set -euo pipefail

# Options of stage 1 go to its script, all others to the stages' script.
data_opts=()
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --source_data|--split_by|--room|--num_train|--num_valid|--num_test|--min_duration|--farfield_level_dbfs|--closetalk_gain_db|\
        --num_talkers|--num_sentences|--seed)
            data_opts+=("$1" "${2?"$1 needs a value"}")
            shift 2 ;;
        --help|-h)
            local/meeting_demo_data.sh --help
            options+=("$1")
            shift ;;
        *)
            options+=("$1")
            shift ;;
    esac
done

local/m2m.sh \
    --data_script local/meeting_demo_data.sh \
    --data_opts "${data_opts[*]@Q}" \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --fs 8000 \
    --fixed_order true \
    --inference_asr_config conf/decode_asr.yaml \
    --enh_config conf/tuning/train_enh_m2m_tfgridnet_small.yaml \
    "${options[@]}"
