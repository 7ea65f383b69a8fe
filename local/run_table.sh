#!/usr/bin/env bash
# The study of the M2M paper with one command: train, separate and score rows of Tables II and III for
# several seeds, then print Tables I-III, the paper's figures beside ours. Run it in egs2/<corpus>/enh1
# after stages 1 to 4 of run.sh. A rerun skips what is finished and continues the rest. The report page of the
# study, report/index.html in its folder, has the tables, too, and all systems to listen to.
set -euo pipefail

log() { echo "$(date '+%H:%M:%S') $*"; }

rows=                   # e.g. "table2_1a_m2m table2_4b_pit"; default: all table*.yaml of conf/tuning
size=small              # network and training: paper | small
max_epoch=              # default: that of conf/tuning/size_SIZE.yaml
seeds="0 1 2"           # one training of each row per seed; all rows of the first seed come first
jobs=1                  # runs at the same time
ngpu=0                  # GPUs of each run; those that run at the same time get different ones
nj=2                    # processes of each run's scoring
fs=8000                 # sample rate in Hz
train_set=train
valid_set=valid
test_set=test
datadir=data
dumpdir=dump
expdir=exp              # the study is written to EXPDIR/SIZE_EPOCHSep/ROW_seedK
enh_args=               # further options of enh_train, e.g. "--num_iters_per_epoch 50"
python=python3          # e.g. ~/espnet/tools/venv/bin/python3

help_message="usage: $0 [--option value] ...   (defaults in brackets)"
command="$0 ${*@Q}"

. ./path.sh
. ./cmd.sh
. local/parse_options.sh
. local/training_settings.sh

fail() { echo "$0: $*" >&2; exit 1; }

# ---- Checks, before hours of training ----

[ $# -eq 0 ] || fail "unexpected argument '$1'; see --help"
[[ ${size} == paper || ${size} == small ]] || fail "--size is paper or small, found '${size}'"
[ -n "${rows}" ] || rows=$(basename -s .yaml -a conf/tuning/table*.yaml)
for row in ${rows}; do
    if [ ! -f "conf/tuning/${row}.yaml" ] || [[ ${row} != table[23]_* ]]; then
        fail "no row '${row}'; conf/tuning has" $(basename -s .yaml -a conf/tuning/table*.yaml)
    fi
done
[ -n "${max_epoch}" ] || max_epoch=$(sed -n 's/^max_epoch: *\([0-9]*\).*/\1/p' "conf/tuning/size_${size}.yaml")
for number in "${max_epoch}" "${jobs}"; do
    [[ ${number} =~ ^[1-9][0-9]*$ ]] || fail "--max_epoch and --jobs are numbers above 0, found '${number}'"
done
[[ ${ngpu} =~ ^[0-9]+$ ]] || fail "--ngpu is a number, found '${ngpu}'"
gpus=()
if [ "${ngpu}" -gt 0 ] && [ "${cmd_backend}" = local ]; then        # else the cluster's scheduler gives them out
    if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        gpus=(${CUDA_VISIBLE_DEVICES//,/ })
    else
        gpus=($(nvidia-smi --list-gpus 2> /dev/null | sed -n 's/^GPU \([0-9]*\):.*/\1/p')) || true
    fi
    [ "${#gpus[@]}" -ge $((jobs * ngpu)) ] \
        || fail "--jobs ${jobs} of --ngpu ${ngpu} need $((jobs * ngpu)) GPUs, found ${#gpus[@]} (${gpus[*]:-none})"
fi
[ -n "${seeds}" ] || fail "--seeds needs at least one seed"
for seed in ${seeds}; do
    [[ ${seed} =~ ^(0|[1-9][0-9]*)$ ]] || fail "--seeds are numbers, e.g. \"0 1 2\", found '${seed}'"
done
[[ ${fs} == 8000 || ${fs} == 16000 ]] || fail "--fs is 8000 or 16000, found '${fs}'"
for set in "${train_set}" "${valid_set}" "${test_set}"; do
    # utt2spk is what a finished data dir has
    [ -f "${dumpdir}/raw/${set}/utt2spk" ] || fail "${dumpdir}/raw/${set}: no finished data dir; make it with" \
        "./run.sh --stop_stage 4 --datadir ${datadir} --dumpdir ${dumpdir}"
done

# ---- One run ----

study=${expdir}/${size}_${max_epoch}ep
configs_of() {
    local configs=conf/tuning/$1.yaml
    [ "${size}" = paper ] || configs+=" conf/tuning/size_${size}.yaml"
    [ "${fs}" = 8000 ] || configs+=" conf/tuning/rate_16k.yaml"
    echo "${configs}"
}
args_of() {
    local args="--seed $1 --max_epoch ${max_epoch}"
    if grep -q '^scheduler: *cosineannealinglr' "conf/tuning/size_${size}.yaml"; then
        args+=" --scheduler_conf T_max=${max_epoch}"    # the training ends with small steps
    fi
    echo "${args}${enh_args:+ ${enh_args}}"
}
# PIT's estimates are also passed through FCP, as M2M's are.
tags_of() { if [[ $1 == *_pit ]]; then echo "plain fcp"; else echo plain; fi; }
scoring_of() { echo "$1/enhanced_${test_set}$([ "$2" = plain ] || echo "_$2")/scoring"; }

is_another_training() {     # is_another_training ROW SEED
    has_other_settings "${study}/$1_seed$2" "$(training_settings "$(configs_of "$1")" "$(args_of "$2")" "${dumpdir}")"
}

# ESPnet logs these when a training is complete.
is_trained() {
    grep -qs -e "training was finished at ${max_epoch} epochs" -e "already reached at max_epoch" \
        -e "\[Early stopping\]" "$1/train.log"
}

is_finished() {     # trained, and scored since the model or the test set changed; takes milliseconds
    local exp=${study}/$1_seed$2 tag summary file
    is_trained "${exp}" || return 1
    for tag in $(tags_of "$1"); do
        summary=$(scoring_of "${exp}" "${tag}")/summary.json
        for file in "${exp}/valid.loss.best.pth" "${dumpdir}/raw/${test_set}/wav.scp"; do
            [ "${summary}" -nt "${file}" ] || return 1
        done
    done
}

m2m() {     # m2m ROW SEED FIRST_STAGE LAST_STAGE [OPTION VALUE] ...
    local/m2m.sh --use_enh_sh false --stage "$3" --stop_stage "$4" --python "${python}" --ngpu "${ngpu}" \
        --nj "${nj}" --fs "${fs}" \
        --train_set "${train_set}" --valid_set "${valid_set}" --test_sets "${test_set}" \
        --datadir "${datadir}" --dumpdir "${dumpdir}" --expdir "${study}" --enh_tag "$1_seed$2" \
        --enh_config "$(configs_of "$1")" --enh_args "$(args_of "$2")" "${@:5}"
}

train_and_score() {
    local exp=${study}/$1_seed$2 begin=${SECONDS}
    m2m "$1" "$2" 6 6 || return 1
    is_trained "${exp}" || { log "the training ended before epoch ${max_epoch}; see ${exp}/train.log"; return 1; }
    training_seconds=$((SECONDS - begin))
    m2m "$1" "$2" 7 8 || return 1
    if [[ $(tags_of "$1") == *fcp ]]; then
        m2m "$1" "$2" 7 8 --inference_tag fcp --inference_args "--fcp_output true"
    fi
}

take_gpus() {       # of as many shares as there are jobs the first that is free, held like a run's folder
    local share IFS=,
    for ((share = 0; share < jobs; share++)); do
        exec 8> "${study}/.gpus${share}"
        if flock -n 8; then
            export CUDA_VISIBLE_DEVICES="${gpus[*]:share * ngpu:ngpu}"
            return
        fi
    done
    return 1
}

quote() {       # as a JSON string
    local text=${1//\\/\\\\}
    echo "\"${text//\"/\\\"}\""
}

run_one() {     # run_one ROW SEED NAME: its output goes to run_table.log, what it took to run_table.jsonl
    local exp=${study}/$1_seed$2 begin=${SECONDS} started resumed=false status=finished
    local training_seconds=null commit
    mkdir -p "${exp}"
    exec 9> "${exp}/.lock"      # held until the last process of this run has ended
    flock -n 9 || { log "$3: not started, another run_table.sh is at work in ${exp}"; return; }
    if [ "${#gpus[@]}" -gt 0 ] && ! take_gpus; then
        log "$3: not started, another run_table.sh has the GPUs"
        return
    fi
    [ ! -f "${exp}/checkpoint.pth" ] || resumed=true
    started=$(date '+%Y-%m-%dT%H:%M:%S%z')
    commit=$(git describe --always --dirty --exclude '*' 2> /dev/null) && commit=$(quote "${commit}") || commit=null
    log "$3: started, log in ${exp}/run_table.log"
    train_and_score "$1" "$2" >> "${exp}/run_table.log" 2>&1 < /dev/null || status=failed
    log "$3: ${status} after $((SECONDS - begin)) s"
    printf '{"started": "%s", "status": "%s", "seed": %s, "resumed": %s, "training_seconds": %s, "seconds": %s, ' \
        "${started}" "${status}" "$2" "${resumed}" "${training_seconds}" "$((SECONDS - begin))" \
        >> "${exp}/run_table.jsonl"
    printf '"commit": %s, "command": %s}\n' "${commit}" "$(quote "${command}")" >> "${exp}/run_table.jsonl"
}

# ---- All runs ----

if [ "${jobs}" -gt 1 ] && [ "${ngpu}" -eq 0 ] && [ "${cmd_backend}" = local ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}        # runs share the cores
fi

runs=()
for seed in ${seeds}; do
    for row in ${rows}; do
        runs+=("${row} ${seed}")
    done
done
log "${#runs[@]} runs -> ${study}"

# Each run is a process group (set -m) that Ctrl-C or kill of this script ends too.
trap 'trap - INT TERM HUP; for group in $(jobs -p); do kill -- "-${group}" 2> /dev/null || true; done; exit 130' \
    INT TERM HUP
for index in "${!runs[@]}"; do
    read -r row seed <<< "${runs[index]}"
    name="[$((index + 1)) of ${#runs[@]}] ${row} seed ${seed}"
    if is_another_training "${row}" "${seed}"; then
        log "${name}: not started, ${study}/${row}_seed${seed} is a training with other options; choose another" \
            "--expdir or remove the folder"
        continue
    fi
    if is_finished "${row}" "${seed}"; then
        log "${name}: finished before"
        continue
    fi
    while [ "$(jobs -rp | wc -l)" -ge "${jobs}" ]; do
        wait -n || true
    done
    set -m
    run_one "${row}" "${seed}" "${name}" &
    set +m
done
wait
trap - INT TERM HUP

unfinished=()
for run in "${runs[@]}"; do
    read -r row seed <<< "${run}"
    if is_another_training "${row}" "${seed}"; then
        echo "$0: ${row} seed ${seed} was not started, see above" >&2
    elif ! is_finished "${row}" "${seed}"; then
        echo "$0: ${row} seed ${seed} failed; see ${study}/${row}_seed${seed}/run_table.log" >&2
    else
        continue
    fi
    unfinished+=("${row}_seed${seed}")
done
${python} -m espnet2_m2m.bin.make_tables --study_dir "${study}" --test_set "${test_set}" \
    ${unfinished:+--exclude "${unfinished[@]}"}
${python} -m espnet2_m2m.bin.report --study_dir "${study}" --test_set "${test_set}" --data_dir "${dumpdir}/raw/${test_set}" \
    --out_dir "${study}/report" ${unfinished:+--exclude "${unfinished[@]}"} \
    || log "without a report page, for the reason above"
[ -z "${unfinished:-}" ]
