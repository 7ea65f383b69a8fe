# Sourced by m2m.sh in an ESPnet checkout: the recipe's settings become options of the checkout's enh.sh, which
# runs the stages. With bin/setup_recipe.py, which makes the links, this is all that the recipes assume of it.

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
for option in lang corpus license num_examples num_channels inference_asr_model; do
    if [[ " ${options[*]} " == *" --${option} "* ]]; then
        echo "$0: --${option} is for our own stages: use --use_enh_sh false" >&2
        exit 1
    fi
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
headsets=
for ((n = 1; n <= num_speakers; n++)); do
    headsets+="closetalk${n}.scp "
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

# wav: recordings in PCM_16 at the right rate stay where they are, all others are rewritten as PCM_16.
# normalize_output_wav would change the levels of the outputs, normalize_segment_scale takes a sample for a channel.
exec ./enh.sh \
    --stage "${stage}" \
    --stop_stage "${stop_stage}" \
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
    --extra_wav_list "${headsets}" \
    --dumpdir "${dumpdir}" \
    --expdir "${expdir}" \
    --enh_exp "${enh_exp}" \
    --enh_config "${configs[0]}" \
    --enh_args "${stock_args} ${enh_args}" \
    --inference_model "${inference_model}" \
    --inference_args "--normalize_output_wav false --normalize_segment_scale false ${inference_args}" \
    "${stock_opts[@]}" \
    "${other_opts[@]}"
