#!/usr/bin/env bash
# A small ESPnet ASR for the demo's sentences, trained on clean speech of talkers whom no set of the demo has. Run it
# in egs2/meeting_demo/enh1, then `./run.sh --stage 9 --stop_stage 10 --asr_exp exp/asr_train_asr_demo`.
# It can be killed at any moment: the same command continues where it stopped.
set -euo pipefail

log() { echo "$(date '+%H:%M:%S') $*"; }

python=python3
nj=2                    # processes that render and check audio
ngpu=0
fs=8000                 # Hz
first_talker=25         # the demo has talkers 1 to 24
num_talkers=80          # for training; the 16 that follow are for validation
num_sentences=50        # of each
num_train=400           # mixtures, whose talkers' images at the table are training data besides the dry sentences
num_valid=16
seed=0                  # of the data; the training's is in the config
datadir=data_asr
dumpdir=dump_asr
expdir=exp
asr_config=conf/tuning/train_asr_demo.yaml
asr_args=               # further options of asr_train, e.g. "--max_epoch 3"

help_message="usage: $0 [--option value] ...   (defaults in brackets)"

. ./path.sh
. local/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1'; see --help" >&2; exit 1; }

asr_exp=${expdir}/asr_$(basename "${asr_config}" .yaml)

log "talkers ${first_talker} ... and meeting rooms -> ${datadir}"
speak() { ${python} -m espnet2_m2m.bin.make_demo_speech --num_sentences "${num_sentences}" --seed "${seed}" "$@"; }
speak --out_dir "${datadir}/clean_train" --first_talker "${first_talker}" --num_talkers "${num_talkers}"
speak --out_dir "${datadir}/clean_valid" --first_talker "$((first_talker + num_talkers))" --num_talkers 16 \
    --num_sentences 10
${python} -m espnet2_m2m.bin.simulate --source_data "${datadir}"/clean_{train,valid,valid} --out_dir "${datadir}" \
    --room meeting --sample_rate "${fs}" --num_train "${num_train}" --num_valid "${num_valid}" --num_test 0 \
    --farfield_level_dbfs -33 --closetalk_gain_db -22 --seed "${seed}" --nj "${nj}"

log "each talker alone, dry and at the table -> ${dumpdir}"
for set in train valid; do
    both=${datadir}/${set}_both
    ${python} -m espnet2_m2m.bin.talker_data_dir --data_dir "${datadir}/${set}" --signal spk \
        --out_dir "${datadir}/${set}_image"
    mkdir -p "${both}"
    for table in wav.scp utt2spk text; do
        sort "${datadir}/${set}_image/${table}" "${datadir}/clean_${set}/${table}" > "${both}/${table}"
    done
    awk '{utts[$2] = utts[$2] " " $1} END {for (spk in utts) print spk utts[spk]}' "${both}/utt2spk" \
        | sort > "${both}/spk2utt"
    ${python} -m espnet2_m2m.bin.format_data_dir --data_dir "${both}" --out_dir "${dumpdir}/${set}" \
        --sample_rate "${fs}" --nj "${nj}"
    ${python} -m espnet2_m2m.bin.validate_data_dir "${dumpdir}/${set}" --sample_rate "${fs}" --num_channels 1 \
        --nj "${nj}" --require text
done

log "words -> ${dumpdir}/tokens.txt"
${python} -m espnet2.bin.tokenize_text --token_type word --input "${dumpdir}/train/text" --field 2- \
    --output "${dumpdir}/tokens.txt" --write_vocabulary true \
    --add_symbol "<blank>:0" --add_symbol "<unk>:1" --add_symbol "<sos/eos>:-1" --log_level WARNING

log "training -> ${asr_exp} (log: ${asr_exp}/train.log)"
mkdir -p "${asr_exp}"
data=()
for set in train valid; do
    data+=(--"${set}"_data_path_and_name_and_type "${dumpdir}/${set}/wav.scp,speech,sound"
           --"${set}"_data_path_and_name_and_type "${dumpdir}/${set}/text,text,text"
           --"${set}"_shape_file "${dumpdir}/${set}/utt2num_samples")
done
set +e
${python} -m espnet2.bin.asr_train --config "${asr_config}" --token_list "${dumpdir}/tokens.txt" \
    --use_preprocessor true --output_dir "${asr_exp}" --ngpu "${ngpu}" --resume true "${data[@]}" ${asr_args} \
    2>&1 | tee -a "${asr_exp}/train.log" | grep --line-buffered "epoch results"
status=${PIPESTATUS[0]}
set -e
if [ "${status}" -ne 0 ]; then
    tail -n 20 "${asr_exp}/train.log" >&2
    log "the training failed; the whole log is in ${asr_exp}/train.log" >&2
    exit 1
fi
log "done: ./run.sh --stage 9 --stop_stage 10 --asr_exp ${asr_exp}"
