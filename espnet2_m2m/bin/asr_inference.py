"""Recognise a set's mixtures, separated speech, headsets and clean speech by an ESPnet ASR model.

    espnet2_m2m asr_inference --asr_exp exp/asr_train --data_dir dump/raw/test \\
        --separated exp/X/enhanced_test/talkers --name X --out_dir exp/decode_asr/test

The conditions, each a Kaldi data dir OUT_DIR/CONDITION with a line per talker and the hypotheses in `hyp`:

    mixture     wav.scp at --ref_channel, for each of its talkers (and decoded once)
    closetalk   closetalk{n}.scp, the headsets, if the set has them
    cleaned     the same without cross-talk, of --cleaned_dir
    clean       spk{n}.scp, each talker alone at the reference mic, with reverberation, if the set has them
    NAME        what talker_data_dir wrote of the separated speech

The model is an experiment folder of ESPnet's asr task (config.yaml and --asr_model_file in it), or a tag that
espnet_model_zoo downloads. Audio is resampled to the model's rate. --inference_config has the options of
espnet2.bin.asr_inference.Speech2Text: beam_size, ctc_weight, lm_train_config, lm_file ... One process decodes
all conditions; a rerun decodes what is missing or has changed (OUT_DIR/hypotheses*.jsonl keep the rest).
`espnet2_m2m asr_scoring` computes WER and CER.

`--job k/n`, for k = 1 ... n, decodes the k-th of n shares. The jobs may run at the same time, on machines that
see the same folders. When all have ended, the same command without --job writes the data dirs.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from espnet2_m2m.bin import cli_errors, command_parser, not_negative, parse_job, share_of
from espnet2_m2m.data_dir import numbered_files, require_finished, source_stamp, write_table
from espnet2_m2m.data_dir.audio import audio_errors, resample
from espnet2_m2m.data_dir.cache import Cache, input_key
from espnet2_m2m.data_dir.signals import channel_of, read_signal
from espnet2_m2m.data_dir.talkers import TalkerLine, lines_of_set, read_talker_data_dir, write_talker_data_dir
from espnet2_m2m.enh.config import read_config

CONDITIONS = {"mixture": "wav", "closetalk": "closetalk", "clean": "spk"}  # name -> family of files
CLEANED = "cleaned"
DEFAULT_RATE = 16000  # Hz, of ESPnet's frontends


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--asr_exp", help="experiment folder of ESPnet's asr task")
    model.add_argument("--asr_tag", help="tag of a model that espnet_model_zoo can download")
    parser.add_argument("--asr_model_file", default="valid.acc.ave.pth", help="in ASR_EXP (default: %(default)s)")
    parser.add_argument("--inference_config", help="YAML with options of Speech2Text")
    parser.add_argument("--data_dir", required=True, help="the set, formatted (dump/raw/SET)")
    parser.add_argument("--separated", help="data dir of its separated speech, by talker_data_dir")
    parser.add_argument("--name", default="separated", help="name of that condition (default: %(default)s)")
    parser.add_argument("--cleaned_dir", help="the set with cleaned headsets, by clean_headsets")
    parser.add_argument("--out_dir", required=True)
    parser.add_argument("--ref_channel", type=not_negative, default=0, help="far-field mic to decode, from 0")
    parser.add_argument("--ngpu", type=int, choices=(0, 1), default=0)
    parser.add_argument(
        "--job", type=parse_job, metavar="K/N", help="decode the K-th of N shares and write no data dirs"
    )
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    if args.name in (*CONDITIONS, CLEANED) or Path(args.name).name != args.name:
        raise ValueError(f"--name '{args.name}' must be a folder's name other than {', '.join((*CONDITIONS, CLEANED))}")
    conditions = list_conditions(args)
    options = model_options(args)
    if args.job:
        decode(args, options, [line for lines in conditions.values() for line in lines])
        return
    for name, lines in conditions.items():
        Path(args.out_dir, name, "hyp").unlink(missing_ok=True)  # until all lines are decoded
        write_talker_data_dir(Path(args.out_dir, name), lines)
    hypotheses = decode(args, options, [line for lines in conditions.values() for line in lines])
    for name, lines in conditions.items():
        found = {line.utt_id: hypotheses[signal_of(line)] for line in lines}
        write_table(Path(args.out_dir, name, "hyp"), found)


def list_conditions(args: argparse.Namespace) -> dict[str, list[TalkerLine]]:
    """Condition -> list of TalkerLine."""
    require_finished(args.data_dir)
    conditions = {
        name: lines_of_set(args.data_dir, family)
        for name, family in CONDITIONS.items()
        if name == "mixture" or numbered_files(args.data_dir, family)
    }
    if args.cleaned_dir:
        conditions[CLEANED] = lines_of_set(args.cleaned_dir, "closetalk")
    if args.separated:
        conditions[args.name] = read_talker_data_dir(args.separated)
    return conditions


def model_options(args: argparse.Namespace) -> dict:
    """Arguments of Speech2Text, with the model's files."""
    options = read_config(args.inference_config) if args.inference_config else {}
    if args.asr_tag:
        try:
            from espnet_model_zoo.downloader import ModelDownloader
        except ImportError as error:
            raise ValueError("--asr_tag needs espnet_model_zoo: pip install espnet_model_zoo") from error
        return {**ModelDownloader().download_and_unpack(args.asr_tag), **options}
    files = {
        "asr_train_config": Path(args.asr_exp, "config.yaml"),
        "asr_model_file": Path(args.asr_exp, args.asr_model_file),
    }
    for path in files.values():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected a trained model of ESPnet's asr task")
    return {**{name: str(path) for name, path in files.items()}, **options}


def signal_of(line: TalkerLine) -> str:
    """What is decoded, as text; the talkers of a mixture share it."""
    return json.dumps(line.signal)


def decode(args: argparse.Namespace, options: dict, lines: list[TalkerLine]) -> dict[str, str]:
    """signal -> hypothesis, for all lines, or for this job's share; each signal is decoded once."""
    # Files of the model by size and time, and the options: another model's hypotheses do not count.
    model = {
        name: [value, source_stamp(value) if isinstance(value, str) and Path(value).is_file() else None]
        for name, value in sorted(options.items())
    }
    keys, line_of = {}, {}
    for line in lines:
        with audio_errors(f"utterance '{line.utt_id}'"):
            source_stamp(line.signal.entry)  # a missing file is found before hours of decoding
        signal = signal_of(line)
        line_of.setdefault(signal, line)
        keys[signal] = input_key([[model, args.ref_channel], signal], [line.signal.entry])
    keys = dict(share_of(list(keys.items()), args.job))
    # Each job appends to a file of its own, so that jobs may run at the same time.
    path = Path(args.out_dir, "hypotheses" + (".{}-{}".format(*args.job) if args.job else "") + ".jsonl")
    cache = Cache(path, keys, Path(args.out_dir).glob("hypotheses*.jsonl"))
    todo, num_done = cache.missing(), len(cache.results)
    print(f"asr_inference: {num_done} of {len(keys)} signals are decoded already", flush=True)
    if not todo:
        return cache.results
    recognise = _recogniser(options, args.ngpu)
    from tqdm import tqdm

    for signal in tqdm(todo, initial=num_done, total=len(keys), desc="decode", unit="signal"):
        line = line_of[signal]
        try:
            samples, sample_rate = read_signal(line.signal)
            mic = args.ref_channel if samples.shape[1] > 1 else 0
            text = recognise(channel_of(samples, mic, line.signal.entry), sample_rate)
        except ValueError as error:
            raise ValueError(f"utterance '{line.utt_id}': {error}") from error
        cache.keep(signal, text)
    return cache.results


def _recogniser(options: dict, ngpu: int) -> Callable:
    """Function (sample,) float32, sample rate in Hz -> text, of an ESPnet ASR model."""
    import humanfriendly

    from espnet2_m2m.espnet_imports import import_espnet

    stock = import_espnet("espnet2.bin.asr_inference")

    try:
        speech2text = stock.Speech2Text(device="cuda" if ngpu else "cpu", **options)
    except TypeError as error:
        raise ValueError(f"no recogniser with the options {options}: {error}") from error
    rate = (speech2text.asr_train_args.frontend_conf or {}).get("fs", DEFAULT_RATE)
    rate = humanfriendly.parse_size(rate) if isinstance(rate, str) else rate

    def recognise(samples: np.ndarray, sample_rate: int) -> str:
        if sample_rate != rate:
            samples = resample(samples, sample_rate, rate)
        try:
            results = speech2text(samples.astype("float32"))
        except stock.TooShortUttError:
            return ""
        if isinstance(results, tuple):  # with the outputs of intermediate CTC
            results = results[0]
        return results[0][0] or ""

    return recognise


if __name__ == "__main__":
    main()
