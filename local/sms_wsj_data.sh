#!/usr/bin/env bash
# Stage 1 of egs2/sms_wsj_ff_ct: close-talk mics for an existing SMS-WSJ.
set -euo pipefail

python=python3
nj=2
fs=8000                 # Hz, of SMS-WSJ's files
datadir=data            # the sets are written to its folders train, valid and test
sms_wsj=                # sms_wsj.json, or the folder that holds it
reroot=                 # "OLD=NEW,...": a path of the json below OLD is looked for below NEW
num_train=              # mixtures; 0 leaves the set out; default: all
num_valid=
num_test=
num_checks=3            # mixtures of each set whose far-field images are made again before all else
closetalk_gain_db=-20   # gain of the headsets relative to the far-field mics

help_message="Options of stage 1 (defaults in brackets)"

. local/parse_options.sh
. ./path.sh
. local/jobs.sh

if [ -z "${sms_wsj}" ]; then
    echo "$0: --sms_wsj is missing: the sms_wsj.json that fgnt/sms_wsj wrote, or its folder" >&2
    exit 1
fi

IFS=, read -ra rerooted <<< "${reroot}"
run_processes "${train_cmd}" "${nj}" "${datadir}/log/simulate" \
    ${python} -m espnet2_m2m.bin.simulate_sms_wsj --sms_wsj "${sms_wsj}" --out_dir "${datadir}" \
    --sample_rate "${fs}" --num_checks "${num_checks}" --closetalk_gain_db "${closetalk_gain_db}" \
    ${rerooted:+--reroot "${rerooted[@]}"} ${num_train:+--num_train "${num_train}"} \
    ${num_valid:+--num_valid "${num_valid}"} ${num_test:+--num_test "${num_test}"}
