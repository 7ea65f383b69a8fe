#!/usr/bin/env bash
# The paper's study on SMS-WSJ-FF-CT: an SMS-WSJ that you have made with fgnt/sms_wsj gets a headset
# for each talker; then train M2M, separate, score. `./run.sh --help` lists all options; README.md
# says what a run takes.
set -euo pipefail

# Options of stage 1 go to its script, all others to the stages' script.
data_opts=()
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --sms_wsj|--reroot|--num_train|--num_valid|--num_test|--num_checks|--closetalk_gain_db|--job)
            data_opts+=("$1" "${2?"$1 needs a value"}")
            shift 2 ;;
        --help|-h)
            local/sms_wsj_data.sh --help
            options+=("$1")
            shift ;;
        *)
            options+=("$1")
            shift ;;
    esac
done

# WSJ's longest utterance lasts 25 s.
local/m2m.sh \
    --data_script local/sms_wsj_data.sh \
    --data_opts "${data_opts[*]@Q}" \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --fs 8000 \
    --max_wav_duration 30 \
    --enh_config conf/tuning/table2_1a_m2m.yaml \
    "${options[@]}"
