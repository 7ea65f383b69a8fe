#!/usr/bin/env bash
# The paper's study on LibriSpeech: two talkers in random rooms, recorded by a six-mic array and a
# headset each: simulate, train M2M, separate, score. `./run.sh --help` lists all options; README.md
# says what a run takes.
set -euo pipefail

# Options of stage 1 go to its script, all others to the stages' script.
data_opts=()
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --corpus_dir|--download|--train_subsets|--valid_subsets|--test_subsets|--split_subsets|\
        --room|--num_train|--num_valid|--num_test|--min_duration|--closetalk_gain_db|--farfield_level_dbfs|--seed|\
        --simulate|--job)
            data_opts+=("$1" "${2?"$1 needs a value"}")
            shift 2 ;;
        --help|-h)
            local/librispeech_data.sh --help
            options+=("$1")
            shift ;;
        *)
            options+=("$1")
            shift ;;
    esac
done

# No utterance of LibriSpeech is longer than 36 s; training cuts segments of 4 s.
local/m2m.sh \
    --data_script local/librispeech_data.sh \
    --data_opts "${data_opts[*]@Q}" \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --fs 8000 \
    --max_wav_duration 36 \
    --enh_config conf/tuning/table2_1a_m2m.yaml \
    "${options[@]}"
