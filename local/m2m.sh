#!/usr/bin/env bash
# Stages of an M2M recipe, numbered as in ESPnet's enh.sh, which runs them in an ESPnet checkout. A recipe's
# run.sh calls it with the corpus's settings; the user's options come last and win. Every stage can be rerun: it
# continues where it stopped. cmd.sh says where the jobs run.
set -euo pipefail

log() { echo "$(date '+%H:%M:%S') $*"; }

stage=1
stop_stage=13
python=python3          # e.g. ~/espnet/tools/venv/bin/python3
nj=2                    # processes of stages 1, 3, 4, 7 and 8; on a cluster jobs of stages 1 and 8
inference_nj=1          # jobs of stages 7 and 9, each of which takes some 4 s to begin
ngpu=0                  # GPUs of stage 6, on each node; above 0, stages 7, 9 and 13 use one: here all jobs the same
num_nodes=1             # nodes of stage 6
data_script=            # stage 1: the corpus's local script, which also has options
train_set=train
valid_set=valid
test_sets=test          # one or more, separated by spaces
fs=8000                 # sample rate in Hz
num_channels=6          # far-field mics in wav.scp
num_speakers=2
min_wav_duration=4.01   # seconds; shorter (or as short as a chunk) is of no use in training
max_wav_duration=20     # seconds
enh_config=conf/tuning/table2_1a_m2m.yaml # one or more, separated by spaces; later ones win
enh_args=               # further options of enh_train, e.g. "--max_epoch 9 --scheduler_conf T_max=9"
enh_tag=                # name of the experiment; default: the configs'
datadir=data
dumpdir=dump
expdir=exp
inference_model=valid.loss.best.pth
inference_args=         # further options of enh_inference, e.g. "--fcp_output true"
inference_tag=          # added to the name of the separated set, for other inference_args
clean_headsets=true     # take the cross-talk out of the test sets' headsets, score and recognise them too
fixed_order=false       # also score output n against speaker n: for models with a fixed anchor
asr_exp=                # stages 9 and 10: an ESPnet ASR model that decodes ...
asr_tag=                # ... or the tag of one that espnet_model_zoo downloads
inference_asr_model=valid.acc.ave.pth   # in ASR_EXP
inference_asr_config=   # YAML with options of Speech2Text
num_examples=3          # mixtures shown in the report
lang=en                 # stage 11, for the model card: language of the speech
corpus=                 # and name of the corpus; default: the recipe's
license=cc-by-4.0       # and of the weights
hf_repo=                # stage 12: upload to this Hugging Face repository, user/name
use_enh_sh=             # true: ESPnet's enh.sh runs the stages; default: in an ESPnet checkout

help_message="usage: $0 [--option value] ...   (defaults in brackets)"

. local/data_options.sh
set -- "${options[@]}"
. local/parse_options.sh
if [ -z "${use_enh_sh}" ]; then
    use_enh_sh=false
    [ ! -e enh.sh ] || use_enh_sh=true
elif [[ ${use_enh_sh} != true && ${use_enh_sh} != false ]]; then
    echo "$0: --use_enh_sh is true or false, found '${use_enh_sh}'" >&2
    exit 1
fi
if [ "${use_enh_sh}" = false ]; then
    set -- "${other_opts[@]}"           # nobody's: an error
    . local/parse_options.sh
fi
. ./path.sh
. local/jobs.sh
if [ $# -ne 0 ]; then
    echo "$0: unexpected argument '$1'; see --help" >&2
    exit 1
fi

config_options=()
config_names=
for config in ${enh_config}; do
    config_options+=(--config "${config}")
    config_names+=${config_names:+-}$(basename "${config}" .yaml)
done
enh_exp=${expdir}/${enh_tag:-${config_names}}
asr_name=$(basename "${asr_exp:-${asr_tag//[^A-Za-z0-9_.-]/_}}")
enhanced() { echo "${enh_exp}/enhanced_$1${inference_tag:+_${inference_tag}}"; }
runs() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

if [ -n "${asr_exp}" ] && [ -n "${asr_tag}" ]; then
    echo "$0: give --asr_exp or --asr_tag, not both" >&2
    exit 1
fi

# What enh.sh does not give is done by these in a checkout, too.
filter_sets() {         # filter_sets SECONDS SECONDS SET ...: utterances longer and shorter than these -> dump/raw
    local set
    for set in "${@:3}"; do
        ${python} -m espnet2_m2m.bin.filter_data_dir --data_dir "${dumpdir}/raw/org/${set}" \
            --out_dir "${dumpdir}/raw/${set}" --min_duration "$1" --max_duration "$2"
    done
}
validate_sets() {
    local set
    for set in ${train_set} ${valid_set} ${test_sets}; do
        ${python} -m espnet2_m2m.bin.validate_data_dir "${dumpdir}/raw/${set}" \
            --sample_rate "${fs}" --num_channels "${num_channels}" \
            --num_speakers "${num_speakers}" --nj "$(pool "${nj}")"
    done
}
make_talkers() {        # make_talkers SET: its separated speech, a line per talker
    ${decode_cmd} "$(enhanced "$1")/log/talkers.log" \
        ${python} -m espnet2_m2m.bin.talker_data_dir --data_dir "${dumpdir}/raw/$1" \
        --enhanced_dir "$(enhanced "$1")" --train_config "${enh_exp}/config.yaml" \
        --out_dir "$(enhanced "$1")/talkers" --nj "$(pool "${nj}")"
}

cleaned() { echo "${dumpdir}/raw/$1_cleaned"; }
clean_set() {           # clean_set SET: its headsets without cross-talk, which clean each other
    [ "${clean_headsets}" = true ] && [ -e "${dumpdir}/raw/$1/closetalk2.scp" ] || return 0
    ${python} -m espnet2_m2m.bin.clean_headsets --data_dir "${dumpdir}/raw/$1" --out_dir "$(cleaned "$1")" \
        --nj "$(pool "${nj}")"
}
with_cleaned() {        # with_cleaned SET: the option that names them, in the array cleaned_dir
    cleaned_dir=()
    [ "${clean_headsets}" != true ] || [ ! -e "$(cleaned "$1")/utt2spk" ] || cleaned_dir=(--cleaned_dir "$(cleaned "$1")")
}

if [ "${use_enh_sh}" = true ]; then
    . local/enh_sh.sh
    exit
fi

inference_cmd=${decode_cmd}
if [ "${ngpu}" -gt 0 ]; then
    inference_cmd="${cuda_cmd} --gpu 1"
fi

if runs 1; then
    log "stage 1: data preparation -> ${datadir}/{${train_set},${valid_set},${test_sets// /,}}"
    "${data_script}" --python "${python}" --nj "${nj}" --fs "${fs}" --datadir "${datadir}" "${data_opts[@]}"
fi

if runs 3; then
    log "stage 3: audio at ${fs} Hz as plain files -> ${dumpdir}/raw/org"
    for set in ${train_set} ${valid_set} ${test_sets}; do
        ${python} -m espnet2_m2m.bin.format_data_dir --data_dir "${datadir}/${set}" \
            --out_dir "${dumpdir}/raw/org/${set}" --sample_rate "${fs}" --nj "$(pool "${nj}")"
    done
fi

if runs 4; then
    log "stage 4: length filter and validation -> ${dumpdir}/raw"
    filter_sets "${min_wav_duration}" "${max_wav_duration}" ${train_set} ${valid_set}
    filter_sets 0 inf ${test_sets}      # never filtered
    validate_sets
fi

if runs 5; then
    log "stage 5: nothing to do: enhancement models use no feature statistics, and chunked" \
        "training needs no shape files"
fi

if runs 6; then
    log "stage 6: training -> ${enh_exp} (log: ${enh_exp}/train.log)"
    ${python} -m espnet2_m2m.enh.training_settings "${enh_exp}" "${dumpdir}" "${enh_args}" ${enh_config}
    status=0
    # A step allocates the same large tensors again and again. glibc would return each to the kernel at
    # once, and page it in anew: a sixth of a CPU step.
    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456 \
    ${python} -m espnet2.bin.launch --cmd "${cuda_cmd}" --log "${enh_exp}/train.log" --ngpu "${ngpu}" \
        --num_nodes "${num_nodes}" --init_file_prefix "${enh_exp}/.dist_init_" \
        --multiprocessing_distributed true -- \
        ${python} -m espnet2_m2m.bin.enh_train "${config_options[@]}" --output_dir "${enh_exp}" \
        --train_dir "${dumpdir}/raw/${train_set}" --valid_dir "${dumpdir}/raw/${valid_set}" \
        --resume true ${enh_args} 2> "${enh_exp}/launch.log" \
        | { grep --line-buffered "epoch results" || true; } || status=$?
    if [ "${status}" -ne 0 ]; then
        if [ -s "${enh_exp}/train.log" ]; then
            tail -n 20 "${enh_exp}/train.log" >&2
            log "stage 6 failed; the whole log is in ${enh_exp}/train.log" >&2
        else            # the job has not begun
            tail -n 20 "${enh_exp}/launch.log" >&2
        fi
        exit 1
    fi
fi

if runs 7; then
    for set in ${test_sets}; do
        log "stage 7: separation -> $(enhanced "${set}")"
        run_jobs "${inference_cmd}" "${inference_nj}" "$(enhanced "${set}")/log/separate" \
            ${python} -m espnet2_m2m.bin.enh_inference --train_config "${enh_exp}/config.yaml" \
            --model_file "${enh_exp}/${inference_model}" --fs "${fs}" --ngpu "$((ngpu > 0))" \
            --data_path_and_name_and_type "${dumpdir}/raw/${set}/wav.scp,speech_mix,sound" \
            --output_dir "$(enhanced "${set}")" --log_level WARNING ${inference_args}
        make_talkers "${set}"
        clean_set "${set}"
    done
fi

if runs 8; then
    for set in ${test_sets}; do
        if [ ! -e "${dumpdir}/raw/${set}/spk1.scp" ] && [ -e "${dumpdir}/raw/${set}/utt2spk" ]; then
            log "stage 8: no scores of ${set}, whose recordings have no references (spk1.scp ...)"
            continue
        fi
        with_cleaned "${set}"
        log "stage 8: scoring -> ${enh_exp}/RESULTS.md"
        run_processes "${decode_cmd}" "${nj}" "$(enhanced "${set}")/log/score" \
            ${python} -m espnet2_m2m.bin.enh_scoring --data_dir "${dumpdir}/raw/${set}" \
            --enhanced_dir "$(enhanced "${set}")" --fixed_order "${fixed_order}" "${cleaned_dir[@]}"
    done
fi

if [ -n "${asr_name}" ]; then
    if runs 9; then
        for set in ${test_sets}; do
            log "stage 9: recognition -> ${expdir}/decode_${asr_name}/${set}"
            asr_model=(--asr_tag "${asr_tag}")
            [ -z "${asr_exp}" ] || asr_model=(--asr_exp "${asr_exp}" --asr_model_file "${inference_asr_model}")
            with_cleaned "${set}"
            run_jobs "${inference_cmd}" "${inference_nj}" "${expdir}/decode_${asr_name}/${set}/log/decode" \
                ${python} -m espnet2_m2m.bin.asr_inference "${asr_model[@]}" --data_dir "${dumpdir}/raw/${set}" \
                --separated "$(enhanced "${set}")/talkers" "${cleaned_dir[@]}" --out_dir "${expdir}/decode_${asr_name}/${set}" \
                --name "$(basename "${enh_exp}")${inference_tag:+_${inference_tag}}" --ngpu "$((ngpu > 0))" \
                ${inference_asr_config:+--inference_config "${inference_asr_config}"}
        done
    fi
    if runs 10; then
        for set in ${test_sets}; do
            log "stage 10: word error rates -> ${expdir}/decode_${asr_name}/RESULTS_ASR.md"
            ${python} -m espnet2_m2m.bin.asr_scoring --data_dir "${dumpdir}/raw/${set}" \
                --decode_dir "${expdir}/decode_${asr_name}/${set}"
        done
    fi
elif [[ ${stage} =~ ^(9|10)$ || ${stop_stage} =~ ^(9|10)$ ]]; then
    log "stages 9 and 10 need an ASR model: --asr_exp or --asr_tag" >&2
    exit 1
fi

packed_model=${enh_exp}/${enh_exp##*/}_${inference_model%.*}.zip
if runs 11; then
    log "stage 11: packing -> ${packed_model}"
    ${python} -m espnet2_m2m.bin.pack_model --exp_dir "${enh_exp}" --inference_model "${inference_model}" \
        --language "${lang}" --dataset "${corpus:-$(basename "$(dirname "${PWD}")")}" \
        --license "${license}" --hf_repo "${hf_repo}"
fi

if runs 12; then
    if [ -n "${hf_repo}" ]; then
        log "stage 12: upload -> ${hf_repo}"
        ${python} -m espnet2_m2m.bin.upload_model --packed "${packed_model}" --hf_repo "${hf_repo}"
    else
        log "stage 12: no upload without --hf_repo"
    fi
fi

if runs 13; then
    for set in ${test_sets}; do
        log "stage 13: diagnosis and report -> $(enhanced "${set}")/report/index.html"
        ${inference_cmd} "$(enhanced "${set}")/log/diagnose.log" \
            ${python} -m espnet2_m2m.bin.diagnose --train_config "${enh_exp}/config.yaml" \
            --model_file "${enh_exp}/${inference_model}" --data_dir "${dumpdir}/raw/${set}" \
            --out_dir "$(enhanced "${set}")/diagnosis" --ngpu "$((ngpu > 0))" \
            || log "stage 13: without a diagnosis, for the reason above"
        ${python} -m espnet2_m2m.bin.report \
            --data_dir "${dumpdir}/raw/${set}" --enhanced_dir "$(enhanced "${set}")" \
            --out_dir "$(enhanced "${set}")/report" --num_examples "${num_examples}"
    done
fi
