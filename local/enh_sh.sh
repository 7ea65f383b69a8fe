# Sourced by m2m.sh in an ESPnet checkout: the recipe's settings become options of the checkout's enh.sh, which
# runs the stages; what ours give beside that is added to each. With bin/setup_recipe.py, which makes the links, this is
# all that the recipes assume of a checkout.

if [ "${datadir}" != data ]; then
    echo "$0: enh.sh reads its sets from data; --datadir is for --use_enh_sh false" >&2
    exit 1
fi
for option in inference_tag asr_exp asr_tag hf_repo; do     # which enh.sh does not have, or means otherwise
    if [ -n "${!option:-}" ]; then
        echo "$0: --${option} is for our own stages: use --use_enh_sh false" >&2
        exit 1
    fi
done
for option in lang corpus license num_examples inference_asr_model; do
    if [[ " ${options[*]} " == *" --${option} "* ]]; then
        echo "$0: --${option} is for our own stages: use --use_enh_sh false" >&2
        exit 1
    fi
done
for option in "${other_opts[@]}"; do    # of enh.sh itself, which would part it from what is added here
    case "${option//-/_}" in
        __speed_perturb_factors)
            reason="is not for M2M: enh.sh changes the speed of wav.scp and spk{n}.scp, but not of the headsets" ;;
        __ref_num) reason="is set by --num_speakers" ;;
        __extra_wav_list) reason="is set by --num_speakers: it lists the headsets" ;;
        __enh_exp) reason="is set by --expdir and --enh_tag" ;;
        __inference_enh_config) reason="puts the outputs elsewhere: use --inference_args '--inference_config FILE'" ;;
        *) continue ;;
    esac
    echo "$0: ${option} ${reason}" >&2
    exit 1
done
has_module() { ${python} -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }
if ! has_module espnet2_m2m; then
    echo "$0: the checkout's ${python}, $(command -v ${python%% *}), does not know espnet2_m2m; install it there" >&2
    exit 1
fi
if grep -qs '^import resampy' pyscripts/audio/format_wav_scp.py && ! has_module resampy; then
    echo "$0: enh.sh's stage 3 needs resampy: pip install resampy" >&2
    exit 1
fi

# enh.sh passes spk{n}.scp alone to the training. Stage 3 formats the headsets too, and --train_dir adds those that
# the config's criteria need (bin/enh_train.py).
headsets=()
for ((n = 1; n <= num_speakers; n++)); do
    headsets+=("closetalk${n}.scp" "closetalk_spk${n}.scp")
done
stock_args="--train_dir ${dumpdir}/raw/${train_set} --valid_dir ${dumpdir}/raw/${valid_set}"
configs=(${enh_config})
for config in "${configs[@]:1}"; do     # enh.sh takes one; later ones win
    stock_args+=" --config ${config}"
done
stock_opts=()
# Recent versions of enh.sh pack the model (stage 11) only when asked to.
if grep -q '^skip_packing=' enh.sh; then
    stock_opts+=(--skip_packing false)
fi

# local/data.sh, stage 1 of enh.sh, runs it: local_data_opts could not hold a value with a space.
stage1=("${data_script}" --python "${python}" --nj "${nj}" --fs "${fs}" "${data_opts[@]}")
export data_command="${stage1[*]@Q}"

# run_enh_sh FIRST LAST: those of these stages that are asked for.
# wav: recordings in PCM_16 at the right rate stay where they are, all others are rewritten as PCM_16.
# normalize_output_wav would change the levels of the outputs, normalize_segment_scale takes a sample for a channel.
run_enh_sh() {
    local first=$((stage > $1 ? stage : $1)) last=$((stop_stage < $2 ? stop_stage : $2))
    [ "${first}" -le "${last}" ] || return 0
    ./enh.sh \
        --stage "${first}" \
        --stop_stage "${last}" \
        --python "${python} -m espnet2_m2m.run" \
        --nj "${nj}" \
        --inference_nj "${inference_nj}" \
        --ngpu "${ngpu}" \
        --num_nodes "${num_nodes}" \
        --gpu_inference "$([ "${ngpu}" -gt 0 ] && echo true || echo false)" \
        --train_set "${train_set}" \
        --valid_set "${valid_set}" \
        --test_sets "${test_sets}" \
        --fs "${fs}" \
        --audio_format wav \
        --min_wav_duration "${min_wav_duration}" \
        --max_wav_duration "${max_wav_duration}" \
        --ref_num "${num_speakers}" \
        --extra_wav_list "${headsets[*]}" \
        --dumpdir "${dumpdir}" \
        --expdir "${expdir}" \
        --enh_exp "${enh_exp}" \
        --enh_config "${configs[0]}" \
        --enh_args "${stock_args} ${enh_args}" \
        --inference_model "${inference_model}" \
        --inference_args "--normalize_output_wav false --normalize_segment_scale false ${inference_args}" \
        "${stock_opts[@]}" \
        "${other_opts[@]}"
}

# adds STAGE PART: stage STAGE was run by enh.sh, whose option --skip_PART leaves it out.
adds() { runs "$1" && [[ " ${other_opts[*]//-/_} " != *" __skip_$2 true "* ]]; }

# add_tables SET DIR: give DIR, which stage 3 of enh.sh made of data/SET, the tables that it leaves out: those that Kaldi's
# copy_data_dir.sh does not know (text_spk{n}, scenes.jsonl ...), and in DIR the headsets, which it puts in dump/raw/SET.
add_tables() {
    local path scp
    rm -f "$2"/text_spk* "$2/scenes.jsonl"      # of another data/SET
    [ ! -e "data/$1/segments" ] || rm -f "$2"/reco2*    # there are no recordings any more
    for path in "data/$1"/*; do
        case "${path##*/}" in
            *.scp|segments|reco2*|utt2spk|spk2utt|utt2num_samples|feats_type) ;;
            *) [ ! -f "${path}" ] || cp "${path}" "$2" ;;
        esac
    done
    for scp in "${headsets[@]}"; do
        if [ ! -e "data/$1/${scp}" ]; then
            rm -f "$2/${scp}" "${dumpdir}/raw/$1/${scp}"
        elif [ "$2" != "${dumpdir}/raw/$1" ]; then
            cp "${dumpdir}/raw/$1/${scp}" "$2"
        fi
    done
}

run_enh_sh 1 3
if adds 3 data_prep; then
    log "stage 3: tables that enh.sh leaves out -> ${dumpdir}/raw"
    for set in ${train_set} ${valid_set}; do
        add_tables "${set}" "${dumpdir}/raw/org/${set}"
    done
    for set in ${test_sets}; do
        add_tables "${set}" "${dumpdir}/raw/${set}"
    done
fi
run_enh_sh 4 4
if adds 4 data_prep; then
    log "stage 4: the same for all tables, and validation -> ${dumpdir}/raw"
    filter_sets "${min_wav_duration}" "${max_wav_duration}" ${train_set} ${valid_set}
    validate_sets
fi
run_enh_sh 5 7
if adds 7 eval; then
    for set in ${test_sets}; do
        log "stage 7: a line per talker -> $(enhanced "${set}")/talkers"
        make_talkers "${set}"
        clean_set "${set}"
    done
fi
run_enh_sh 8 "${stop_stage}"
