"""A stand-in for an ESPnet checkout: the files, options and stages of it that the recipes rely on.

The scripts do in a few lines what ESPnet's do: the same names, the same options with the same quoting, the same
files in the same places, the same checks, the same ESPnet commands. `make_checkout` writes them. They leave out what
ESPnet leaves out: copy_data_dir.sh copies only the tables that Kaldi knows.
"""

import shutil
import sys
from pathlib import Path

ENH_SH = r"""#!/usr/bin/env bash
set -euo pipefail
stage=1
stop_stage=10000
skip_packing=true
ngpu=1
num_nodes=1
nj=32
inference_nj=32
gpu_inference=false
dumpdir=dump
expdir=exp
python=python3
local_data_opts=
audio_format=flac
fs=16k
min_wav_duration=0.1
max_wav_duration=20
enh_exp=
enh_config=
enh_args=
ref_num=2
use_noise_ref=false
extra_wav_list=
speed_perturb_factors=
feats_type=raw
inference_args="--normalize_output_wav true --output_format wav"
inference_model=valid.loss.ave.pth
scoring_protocol="STOI SDR SAR SIR SI_SNR"
ref_channel=0
train_set=
valid_set=
test_sets=
. utils/parse_options.sh
[ $# -eq 0 ] || { echo "no positional arguments, found $*"; exit 2; }
. ./path.sh
. ./cmd.sh
raw=${dumpdir}/raw
utt_extra_files="utt2category utt2fs"
stats=${expdir}/enh_stats_${fs}
refs=$(seq -f 'spk%.0f' "${ref_num}")
runs() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
min() { printf '%s\n' "$@" | sort -n | head -n 1; }
split() {       # split KEY_FILE NJ PREFIX: prefix.1.scp ...
    utils/split_scp.pl "$1" $(seq -f "$3.%.0f.scp" "$2")
}
copy_extra() {      # copy_extra DIR OUT_DIR
    for file in ${utt_extra_files}; do
        [ ! -f "$1/${file}" ] || cp "$1/${file}" "$2/${file}"
    done
}
extra_param() {     # extra_param OPTION DIR ...: if all of these have them
    local option=$1 extra=
    shift
    for extra in utt2category,category,text utt2fs,fs,text_int; do
        for dir in "$@"; do [ -e "${dir}/${extra%%,*}" ] || continue 2; done
        echo -n "${option} $1/${extra} "
    done
}
data_param() {      # data_param PHASE DIR [SHAPE_DIR]
    local name
    echo -n "--$1_data_path_and_name_and_type $2/wav.scp,speech_mix,sound "
    [ $# -lt 3 ] || echo -n "--$1_shape_file $3/speech_mix_shape "
    for n in $(seq "${ref_num}"); do
        echo -n "--$1_data_path_and_name_and_type $2/spk${n}.scp,speech_ref${n},sound "
        [ $# -lt 3 ] || echo -n "--$1_shape_file $3/speech_ref${n}_shape "
    done
}
format() {      # format NAME SET OUT_DIR
    local segments=
    [ ! -e "data/$2/segments" ] || segments="--segments data/$2/segments"
    scripts/audio/format_wav_scp.sh --nj "${nj}" --cmd "${train_cmd}" --out-filename "$1.scp" \
        --audio-format "${audio_format}" --fs "${fs}" ${segments} "data/$2/$1.scp" "$3" "$3/logs/$1" "$3/data/$1"
}

if runs 1; then
    local/data.sh ${local_data_opts}
fi
[ -z "${speed_perturb_factors}" ] || train_set=${train_set}_sp      # stage 2 makes it
if runs 3; then
    for dset in "${train_set}" "${valid_set}" ${test_sets}; do
        suf=
        if [ "${dset}" = "${train_set}" ] || [ "${dset}" = "${valid_set}" ]; then
            suf=/org
        fi
        utils/copy_data_dir.sh "data/${dset}" "${raw}${suf}/${dset}"
        rm -f "${raw}${suf}/${dset}"/{segments,wav.scp,reco2file_and_channel}
        for name in wav ${refs}; do
            format "${name}" "${dset}" "${raw}${suf}/${dset}"
        done
        for scp in ${extra_wav_list}; do        # not in org
            [ ! -e "data/${dset}/${scp}" ] || format "${scp%.*}" "${dset}" "${raw}/${dset}"
        done
        echo "${feats_type}" > "${raw}${suf}/${dset}/feats_type"
        copy_extra "data/${dset}" "${raw}${suf}/${dset}"
    done
fi
if runs 4; then
    for dset in "${train_set}" "${valid_set}"; do
        org=${raw}/org/${dset}
        utils/copy_data_dir.sh "${org}" "${raw}/${dset}"
        cp "${org}/feats_type" "${raw}/${dset}/feats_type"
        copy_extra "${org}" "${raw}/${dset}"
        python3 -c "
for line in open('${org}/utt2num_samples'):
    if ${min_wav_duration} * ${fs} < int(line.split()[1]) < ${max_wav_duration} * ${fs}:
        print(line, end='')" > "${raw}/${dset}/utt2num_samples"
        for name in ${refs} wav; do
            utils/filter_scp.pl "${raw}/${dset}/utt2num_samples" < "${org}/${name}.scp" \
                > "${raw}/${dset}/${name}.scp"
        done
        utils/fix_data_dir.sh --utt_extra_files "$(printf '%s.scp ' ${refs}) ${utt_extra_files}" "${raw}/${dset}"
    done
fi
if runs 5; then
    logdir=${stats}/logdir
    mkdir -p "${logdir}"
    jobs=$(min "${nj}" "$(wc -l < "${raw}/${train_set}/wav.scp")" "$(wc -l < "${raw}/${valid_set}/wav.scp")")
    split "${raw}/${train_set}/wav.scp" "${jobs}" "${logdir}/train"
    split "${raw}/${valid_set}/wav.scp" "${jobs}" "${logdir}/valid"
    ${train_cmd} JOB=1:"${jobs}" "${logdir}"/stats.JOB.log \
        ${python} -m espnet2.bin.enh_train --collect_stats true \
        $(data_param train "${raw}/${train_set}") $(data_param valid "${raw}/${valid_set}") \
        --train_shape_file "${logdir}/train.JOB.scp" --valid_shape_file "${logdir}/valid.JOB.scp" \
        --output_dir "${logdir}/stats.JOB" --config ${enh_config} ${enh_args} \
        || { cat "${logdir}"/stats.*.log; exit 1; }
    ${python} -m espnet2.bin.aggregate_stats_dirs $(seq -f "--input_dir ${logdir}/stats.%.0f" "${jobs}") \
        --output_dir "${stats}"
fi
if runs 6; then
    mkdir -p "${enh_exp}"
    ${python} -m espnet2.bin.launch --cmd "${cuda_cmd} --name ${enh_exp}/train.log" \
        --log "${enh_exp}"/train.log --ngpu "${ngpu}" --num_nodes "${num_nodes}" \
        --init_file_prefix "${enh_exp}"/.dist_init_ \
        --multiprocessing_distributed true -- ${python} -m espnet2.bin.enh_train \
        $(data_param train "${raw}/${train_set}" "${stats}/train") \
        $(data_param valid "${raw}/${valid_set}" "${stats}/valid") \
        $(extra_param --train_data_path_and_name_and_type "${raw}/${train_set}" "${raw}/${valid_set}") \
        $(extra_param --valid_data_path_and_name_and_type "${raw}/${valid_set}" "${raw}/${train_set}") \
        $(seq "$((ref_num + 1))" | sed 's/.*/--fold_length 80000/') --resume true --output_dir "${enh_exp}" \
        --config ${enh_config} ${enh_args}
fi
if runs 7; then
    gpu=0 cmd=${decode_cmd}
    if ${gpu_inference}; then
        gpu=1 cmd=${cuda_cmd}
    fi
    for dset in "${valid_set}" ${test_sets}; do
        dir=${enh_exp}/enhanced_${dset} logdir=${enh_exp}/enhanced_${dset}/logdir
        mkdir -p "${logdir}"
        jobs=$(min "${inference_nj}" "$(wc -l < "${raw}/${dset}/wav.scp")")
        split "${raw}/${dset}/wav.scp" "${jobs}" "${logdir}/keys"
        ${cmd} --gpu "${gpu}" JOB=1:"${jobs}" "${logdir}"/enh_inference.JOB.log \
            ${python} -m espnet2.bin.enh_inference --ngpu "${gpu}" --fs "${fs}" \
            --data_path_and_name_and_type "${raw}/${dset}/wav.scp,speech_mix,sound" \
            $(extra_param --data_path_and_name_and_type "${raw}/${dset}") \
            --key_file "${logdir}"/keys.JOB.scp --train_config "${enh_exp}"/config.yaml \
            --model_file "${enh_exp}"/"${inference_model}" --output_dir "${logdir}"/output.JOB \
            ${inference_args} \
            || { cat "${logdir}"/enh_inference.*.log; exit 1; }
        for spk in ${refs}; do
            for i in $(seq "${jobs}"); do
                cat "${logdir}/output.${i}/${spk}.scp"
            done | sort -k1 > "${dir}/${spk}.scp"
        done
    done
fi
if runs 8; then
    for dset in "${valid_set}" ${test_sets}; do
        dir=${enh_exp}/enhanced_${dset}/scoring logdir=${enh_exp}/enhanced_${dset}/scoring/logdir
        mkdir -p "${logdir}"
        jobs=$(min "${inference_nj}" "$(wc -l < "${raw}/${dset}/wav.scp")")
        split "${raw}/${dset}/wav.scp" "${jobs}" "${logdir}/keys"
        pairs=
        for s in ${refs}; do
            pairs+="--ref_scp ${raw}/${dset}/${s}.scp --inf_scp ${enh_exp}/enhanced_${dset}/${s}.scp "
        done
        ${decode_cmd} JOB=1:"${jobs}" "${logdir}"/enh_scoring.JOB.log \
            ${python} -m espnet2.bin.enh_scoring --key_file "${logdir}"/keys.JOB.scp \
            --output_dir "${logdir}"/output.JOB \
            ${pairs} --ref_channel ${ref_channel} --flexible_numspk false
        for metric in ${scoring_protocol}; do
            cat "${logdir}"/output.*/${metric}_spk* \
                | awk '{sum += $2} END {printf "%.2f\n", sum / NR}' > "${dir}/result_${metric,,}.txt"
        done
    done
    grep . "${enh_exp}"/enhanced_*/scoring/result_*.txt > "${enh_exp}/RESULTS.md"
fi
if [ "${skip_packing}" = false ] && runs 11; then
    ${python} -m espnet2.bin.pack enh --train_config "${enh_exp}"/config.yaml \
        --model_file "${enh_exp}"/"${inference_model}" --option "${enh_exp}"/RESULTS.md \
        --option "${enh_exp}"/images --outpath "${enh_exp}/${enh_exp##*/}_${inference_model%.*}.zip"
fi
"""

FORMAT_WAV_SCP_SH = r"""#!/usr/bin/env bash
set -euo pipefail
out_filename=wav.scp
cmd=utils/run.pl
nj=30
fs=none
segments=
audio_format=wav
. utils/parse_options.sh
. ./path.sh
scp=$1 dir=$2 logdir=$3 outdir=$4
mkdir -p ${logdir}
rm -f "${dir}/${out_filename}"
table=${segments:-${scp}}       # has a line for each utterance
num=$(wc -l < "${table}")
nj=$((nj < num ? nj : num))
utils/split_scp.pl "${table}" $(seq -f "${logdir}/utts.%.0f" "${nj}")
${cmd} "JOB=1:${nj}" "${logdir}/format_wav_scp.JOB.log" pyscripts/audio/format_wav_scp.py \
    --fs "${fs}" --audio-format "${audio_format}" ${segments:+--segment "${logdir}/utts.JOB"} \
    "$([ -n "${segments}" ] && echo "${scp}" || echo "${logdir}/utts.JOB")" "${outdir}/format.JOB"
for n in $(seq "${nj}"); do cat "${outdir}/format.${n}/wav.scp"; done > "${dir}/${out_filename}"
for n in $(seq "${nj}"); do cat "${outdir}/format.${n}/utt2num_samples"; done > "${dir}/utt2num_samples"
"""

FORMAT_WAV_SCP_PY = r'''#!/usr/bin/env python3
"""Keeps 16-bit files of the right kind where they are and writes all others as 16-bit files."""
import argparse
from pathlib import Path

import soundfile

parser = argparse.ArgumentParser()
parser.add_argument("scp")
parser.add_argument("outdir")
parser.add_argument("--fs", type=int)
parser.add_argument("--audio-format")
parser.add_argument("--segment")
args = parser.parse_args()
out = Path(args.outdir)
out.mkdir(parents=True, exist_ok=True)
with open(out / "wav.scp", "w") as scp, open(out / "utt2num_samples", "w") as num_samples:
    audio = dict(line.strip().split(None, 1) for line in open(args.scp))
    utterances = {utt_id: (utt_id, 0, None) for utt_id in audio}
    if args.segment:
        lines = [line.split() for line in open(args.segment)]
        utterances = {utt_id: (recording, float(start), float(end)) for utt_id, recording, start, end in lines}
    for utt_id, (recording, start, end) in utterances.items():
        path = audio[recording]
        with soundfile.SoundFile(path) as file:
            assert file.samplerate == args.fs, "the stand-in does not resample"
            as_is = file.subtype == "PCM_16" and path.endswith(f".{args.audio_format}") and end is None
            samples = file.read()[int(start * args.fs) : end and int(end * args.fs)]
        if not as_is:
            path = out / f"{utt_id}.{args.audio_format}"
            soundfile.write(path, samples, args.fs)
        scp.write(f"{utt_id} {path}\n")
        num_samples.write(f"{utt_id} {len(samples)}\n")
'''

PARSE_OPTIONS_SH = r"""while [ $# -gt 0 ]; do
    case "$1" in
        --*=*) echo "$0: options to scripts must be of the form --name value, got '$1'"; exit 1 ;;
        --*)
            name=${1#--}; name=${name//-/_}
            [ -n "${!name+x}" ] || { echo "$0: invalid option $1" 1>&2; exit 1; }
            printf -v "${name}" '%s' "$2"
            shift 2 ;;
        *) break ;;
    esac
done
"""

RUN_PL = r"""#!/usr/bin/env perl
# run.pl [--option value] ... [JOB=1:N] log command ...; a shell runs the command.
use strict;
while (@ARGV && $ARGV[0] =~ /^--/) { shift @ARGV; shift @ARGV; }
my ($first, $last) = (1, 1);
if ($ARGV[0] =~ /^JOB=(\d+):(\d+)$/) { ($first, $last) = ($1, $2); shift @ARGV; }
my ($log, @command) = @ARGV;
my $failed = 0;
for my $job ($first .. $last) {
    my @words = map { my $word = $_; $word =~ s/JOB/$job/g; $word } @command;
    @words = map { /[^\w\/.,:=@%+-]|^$/ ? do { (my $w = $_) =~ s/'/'\\''/g; "'$w'" } : $_ } @words;
    (my $joblog = $log) =~ s/JOB/$job/g;
    system("mkdir", "-p", $joblog =~ s/\/[^\/]*$//r) if $joblog =~ /\//;
    open(my $handle, ">", $joblog) or die "run.pl: cannot write $joblog";
    print $handle "# @words\n"; close($handle);
    open(my $shell, "|-", "bash") or die;
    print $shell "( @words ) >> '$joblog' 2>> '$joblog'\n";
    close($shell);
    my $status = $? >> 8;
    open($handle, ">>", $joblog); print $handle "# Ended (code $status)\n"; close($handle);
    if ($status) { print STDERR "run.pl: job failed, log is in $joblog\n"; $failed = 1; }
}
exit $failed;
"""

SPLIT_SCP_PL = r"""#!/usr/bin/env perl
use strict;
my ($in, @outs) = @ARGV;
open(my $handle, "<", $in) or die "split_scp.pl: cannot read $in";
my @lines = <$handle>;
die "split_scp.pl: more parts than lines" if @outs > @lines;
my ($size, $rest) = (int(@lines / @outs), @lines % @outs);
for my $k (0 .. $#outs) {
    open(my $out, ">", $outs[$k]) or die;
    print $out splice(@lines, 0, $size + ($k < $rest));
}
"""

FILTER_SCP_PL = r"""#!/usr/bin/env perl
my %keep;
open(my $ids, "<", $ARGV[0]) or die;
while (<$ids>) { $keep{(split)[0]} = 1; }
while (<STDIN>) { print if $keep{(split)[0]}; }
"""

COPY_DATA_DIR_SH = r"""#!/usr/bin/env bash
set -e
[ -f "$1/utt2spk" ] || { echo "copy_data_dir.sh: no such file $1/utt2spk"; exit 1; }
mkdir -p "$2"
for file in utt2spk spk2utt wav.scp text segments utt2lang utt2dur reco2dur reco2file_and_channel; do
    if [ -f "$1/${file}" ]; then
        cp "$1/${file}" "$2/${file}"
    elif [ -f "$2/${file}" ]; then
        mkdir -p "$2/.backup"
        mv "$2/${file}" "$2/.backup/"
    fi
done
utils/validate_data_dir.sh "$2"
"""

VALIDATE_DATA_DIR_SH = r"""#!/usr/bin/env bash
# The audio may be missing; tables that Kaldi does not know may hold anything.
export LC_ALL=C
fail() { echo "validate_data_dir.sh: $*"; exit 1; }
ids() { awk '{print $1}' "$1"; }
same() {        # same TABLE IDS
    [ ! -f "$1" ] || cmp -s <(ids "$1") "$2" || fail "$1 and utt2spk or segments need the same ids"
}
utts=$(mktemp) recordings=$(mktemp)
trap 'rm -f "${utts}" "${recordings}"' EXIT
for file in utt2spk spk2utt wav.scp; do
    [ -s "$1/${file}" ] || fail "no such file, or an empty one: $1/${file}"
done
for file in utt2spk spk2utt text segments wav.scp utt2lang utt2dur reco2dur; do
    [ ! -f "$1/${file}" ] || ids "$1/${file}" | sort -uC || fail "$1/${file} is not sorted or has duplicates"
done
awk 'NF != 2 {exit 1}' "$1/utt2spk" || fail "$1/utt2spk has a wrong format"
sort -k2 -C "$1/utt2spk" || fail "$1/utt2spk is not sorted by speaker: make these prefixes of the utterances"
cmp -s <(awk '{print $1, $2}' "$1/utt2spk") \
    <(awk '{for (n = 2; n <= NF; n++) print $n, $1}' "$1/spk2utt" | sort) || fail "spk2utt and utt2spk do not match"
ids "$1/utt2spk" > "${utts}"
cp "${utts}" "${recordings}"
[ ! -f "$1/segments" ] || awk '{print $2}' "$1/segments" | sort -u > "${recordings}"
for file in text segments utt2lang utt2dur; do same "$1/${file}" "${utts}"; done
for file in wav.scp reco2dur reco2file_and_channel; do same "$1/${file}" "${recordings}"; done
"""

FIX_DATA_DIR_SH = r"""#!/usr/bin/env bash
set -e
utt_extra_files=
. utils/parse_options.sh
mkdir -p "$1/.backup"
utts=$1/.backup/utts
cp "$1/wav.scp" "${utts}"
for file in text utt2lang utt2dur; do
    [ -f "$1/${file}" ] || continue
    utils/filter_scp.pl "$1/${file}" < "${utts}" > "${utts}.both"
    mv "${utts}.both" "${utts}"
done
for file in utt2spk text utt2lang utt2dur wav.scp ${utt_extra_files}; do
    [ -f "$1/${file}" ] || continue
    cp "$1/${file}" "$1/.backup/${file}"
    utils/filter_scp.pl "${utts}" < "$1/.backup/${file}" > "$1/${file}"
done
awk '{utts[$2] = utts[$2] " " $1} END {for (spk in utts) print spk utts[spk]}' "$1/utt2spk" | sort > "$1/spk2utt"
"""

CMD_SH = r"""cmd_backend='local'
export train_cmd="run.pl" cuda_cmd="run.pl" decode_cmd="run.pl"
"""

PATH_SH = r"""MAIN_ROOT=$PWD/../../..
export PATH=$PWD/utils/:$PATH
export LC_ALL=C
. "${MAIN_ROOT}"/tools/activate_python.sh && . "${MAIN_ROOT}"/tools/extra_path.sh
export OMP_NUM_THREADS=1
export PYTHONIOENCODING=UTF-8
. local/path.sh
"""

FILES = {
    "egs2/TEMPLATE/enh1/enh.sh": ENH_SH,
    "egs2/TEMPLATE/enh1/cmd.sh": CMD_SH,
    "egs2/TEMPLATE/enh1/path.sh": PATH_SH,
    "egs2/TEMPLATE/enh1/conf/slurm.conf": "command sbatch --export=PATH\n",
    "egs2/TEMPLATE/enh1/scripts/audio/format_wav_scp.sh": FORMAT_WAV_SCP_SH,
    "egs2/TEMPLATE/asr1/db.sh": "",
    "egs2/TEMPLATE/asr1/pyscripts/audio/format_wav_scp.py": FORMAT_WAV_SCP_PY,
    "egs2/TEMPLATE/asr1/steps/README": "",
    "egs2/TEMPLATE/asr1/utils/parse_options.sh": PARSE_OPTIONS_SH,
    "egs2/TEMPLATE/asr1/utils/run.pl": RUN_PL,
    "egs2/TEMPLATE/asr1/utils/split_scp.pl": SPLIT_SCP_PL,
    "egs2/TEMPLATE/asr1/utils/filter_scp.pl": FILTER_SCP_PL,
    "egs2/TEMPLATE/asr1/utils/copy_data_dir.sh": COPY_DATA_DIR_SH,
    "egs2/TEMPLATE/asr1/utils/fix_data_dir.sh": FIX_DATA_DIR_SH,
    "egs2/TEMPLATE/asr1/utils/validate_data_dir.sh": VALIDATE_DATA_DIR_SH,
    "tools/activate_python.sh": f'export PATH="{Path(sys.executable).parent}:$PATH"\n',
    "tools/extra_path.sh": "",
}


def make_checkout(root):
    """Write the stand-in to `root`; returns `root` as a Path."""
    for name, content in FILES.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    if shutil.which("perl") is None:
        raise RuntimeError("ESPnet's recipes need perl")
    return Path(root)
