#!/usr/bin/env bash
# Stage 1 of egs2/librispeech_ff_ct: LibriSpeech, then two talkers in random rooms.
set -euo pipefail

python=python3
nj=2
fs=8000                 # Hz
datadir=data            # the sets are written to its folders train, valid and test
corpus_dir=downloads/LibriSpeech    # as unpacked from openslr.org
download=false          # get what is missing in corpus_dir from openslr.org (dev, test and train-clean-100: 7 GB)
train_subsets=train-clean-100       # one or more, separated by spaces
valid_subsets=dev-clean
test_subsets=test-clean
split_subsets=          # share these out among train, valid and test by speaker, instead of the three above
room=random             # random: the paper's random rooms; meeting: one room, two seats
num_train=33561         # mixtures; 0 leaves the set out
num_valid=982
num_test=1332
min_duration=0          # seconds of speech of each talker, at least; 0: one utterance of each
farfield_level_dbfs=-45 # RMS of a talker's far-field image
closetalk_gain_db=-22   # gain of the headsets relative to the far-field mics
seed=0

help_message="Options of stage 1 (defaults in brackets)"

. local/parse_options.sh
. ./path.sh
. local/jobs.sh

prepare() {             # data dir, subsets
    local download_option=
    if [ "${download}" = true ]; then
        download_option=--download
    fi
    ${python} -m espnet2_m2m.bin.prepare_librispeech --corpus_dir "${corpus_dir}" --subsets $2 \
        --out_dir "$1" ${download_option}
}

if [ -n "${split_subsets}" ]; then
    source_data=("${datadir}/clean")
    prepare "${source_data[0]}" "${split_subsets}"
else
    source_data=("${datadir}"/clean_{train,valid,test})
    for set in train valid test; do
        num=num_${set} subsets=${set}_subsets
        if [ "${!num}" -gt 0 ]; then
            prepare "${datadir}/clean_${set}" "${!subsets}"
        fi
    done
fi

run_processes "${train_cmd}" "${nj}" "${datadir}/log/simulate" \
    ${python} -m espnet2_m2m.bin.simulate --source_data "${source_data[@]}" --out_dir "${datadir}" \
    --room "${room}" --split_by speaker --sample_rate "${fs}" \
    --num_train "${num_train}" --num_valid "${num_valid}" --num_test "${num_test}" \
    --min_duration "${min_duration}" --farfield_level_dbfs "${farfield_level_dbfs}" \
    --closetalk_gain_db "${closetalk_gain_db}" --seed "${seed}"
