#!/usr/bin/env bash
# Stage 1 of egs2/meeting_demo: clean speech, then two talkers in a meeting room.
set -euo pipefail

python=python3
nj=2
fs=8000                 # Hz
datadir=data            # the sets are written to its folders train, valid and test
source_data=            # Kaldi data dir of clean speech; empty: synthesised talkers
split_by=speaker        # what train, valid and test must not share: speaker | utterance
room=meeting            # meeting: one room, two seats; random: the paper's random rooms
num_train=300           # mixtures
num_valid=16
num_test=40
min_duration=4.5        # seconds of speech of each talker, at least
farfield_level_dbfs=-33 # RMS of a talker's far-field image
closetalk_gain_db=-22   # gain of the headsets relative to the far-field mics
num_talkers=24          # synthesised talkers
num_sentences=40        # of each
seed=0

help_message="Options of stage 1 (defaults in brackets)"

. local/parse_options.sh
. ./path.sh
. local/jobs.sh

if [ -z "${source_data}" ]; then
    source_data=${datadir}/clean
    ${train_cmd} "${datadir}/log/speech.log" \
        ${python} -m espnet2_m2m.bin.make_demo_speech --out_dir "${source_data}" \
        --num_talkers "${num_talkers}" --num_sentences "${num_sentences}" --seed "${seed}"
fi
run_processes "${train_cmd}" "${nj}" "${datadir}/log/simulate" \
    ${python} -m espnet2_m2m.bin.simulate --source_data "${source_data}" --out_dir "${datadir}" \
    --room "${room}" --split_by "${split_by}" --sample_rate "${fs}" \
    --num_train "${num_train}" --num_valid "${num_valid}" --num_test "${num_test}" \
    --min_duration "${min_duration}" --farfield_level_dbfs "${farfield_level_dbfs}" \
    --closetalk_gain_db "${closetalk_gain_db}" --seed "${seed}"
