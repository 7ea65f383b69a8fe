"""Separate by ESPnet's enh_inference: of M2M models, FCP images at the reference mic.

    espnet2_m2m enh_inference --train_config exp/X/config.yaml \\
        --model_file exp/X/valid.loss.best.pth --fs 8000 \\
        --data_path_and_name_and_type data/test/wav.scp,speech_mix,sound --output_dir exp/X/enhanced

The options are ESPnet's (`python -m espnet2.bin.enh_inference --help` lists them), but
--normalize_segment_scale is false by default, and --fcp_output, --mixture_consistency, --precision and --job are new.
Output is float at the level it has in the mixture (unless --normalize_output_wav true), each file is written whole or
not at all, and a rerun separates only what is missing: the comment in a file's header says what it was made of, the
recording and the settings that settings.json holds. --model_tag also takes a packed model, a folder or a zip
(model_files.py). For recordings without a data dir there is `espnet2_m2m separate`.

`--job k/n`, for k = 1 ... n, separates the k-th of n shares. The jobs may run at the same time, on machines
that see the same folders. When all have ended, the same command without --job writes the lists spk{n}.scp.
"""

import argparse
import functools
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile

from espnet2_m2m.bin import (
    SECONDS,
    SEED,
    add_precision_option,
    boolean,
    cli_errors,
    command_parser,
    not_negative,
    parse_job,
    raise_usage_errors,
    sample_rate,
    share_of,
    whole,
)
from espnet2_m2m.data_dir import audio_header, read_table, write_table
from espnet2_m2m.data_dir.audio import audio_errors, comment_of, is_plain_file, new_sound_file
from espnet2_m2m.data_dir.cache import input_key
from espnet2_m2m.data_dir.ids import id_path
from espnet2_m2m.data_dir.tables import temporary_folder, write_bytes
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.model_files import model_files

OUTPUT_VERSION = 1  # raise when the same input gets another output: old ones are then made anew
MADE_OF = "espnet2_m2m {key} {num_streams}"  # comment of a file: how many belong together
FORMATS = ("wav", "flac", "ogg", "mp3")  # those of libsndfile's whose headers hold a comment, and whose names say it
# These do not change the output, except `precision`, of which settings.json tells what it has become.
NOT_SETTINGS = (
    "config",
    "output_dir",
    "key_file",
    "job",
    "log_level",
    "num_workers",
    "ngpu",
    "show_progressbar",
    "precision",
)

# In which ESPnet works.
RANGES = {
    "fs": sample_rate,
    "ngpu": whole(0, 1),
    "seed": SEED,
    "num_workers": whole(0, 1024),
    "batch_size": whole(1, 1),
    "segment_size": SECONDS,
    "hop_size": SECONDS,
    "ref_channel": not_negative,
}


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    _add_options(command_parser(__file__, __doc__, allow_abbrev=False)).parse_known_args(cmd)  # --help, at once
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask, register
    from espnet2_m2m.tasks.espnet_patches import replaced_in_inference
    from espnet2_m2m.tasks.separate_speech import SeparateSpeech, stock

    register()  # --enh_s2t_task true: ESPnet's own task builds the joint model

    args = get_parser().parse_args(cmd)
    _check(args)
    if args.model_tag is None:
        config = train_config(args)
        check_trained_rate(config, args.fs)
        trained = TrainingConfig({}) if config is None else TrainingConfig.load(config)
        args.data_path_and_name_and_type = [data for data in args.data_path_and_name_and_type if trained.reads(data[1])]
    else:
        with model_files(args.model_tag) as (config, _):
            check_trained_rate(config, args.fs)
    output_dir = Path(args.output_dir)
    first_table = args.data_path_and_name_and_type[0][0]
    utt_ids = list(read_table(args.key_file or first_table, allow_empty=args.key_file is not None))
    utt_ids = share_of(utt_ids, args.job)
    settings = _write_settings(args)
    scps = {name: path for path, name, kind in args.data_path_and_name_and_type if kind == "sound"}
    tables = {scp: read_table(scp) for scp in scps.values()}
    keys = {
        utt_id: input_key([OUTPUT_VERSION, settings], [table.get(utt_id, "") for table in tables.values()])
        for utt_id in utt_ids
    }
    names = {utt_id: id_path(output_dir, utt_id, f".{args.output_format}").name for utt_id in utt_ids}
    todo = [utt_id for utt_id in utt_ids if not finished_files(output_dir, names[utt_id], keys[utt_id])]
    num_channels = {name: check_recordings(scp, tables[scp], todo, args) for name, scp in scps.items()}
    print(f"enh_inference: {len(utt_ids) - len(todo)} of {len(utt_ids)} utterances are done already")
    if todo:
        for scp in output_dir.glob("spk*.scp"):  # until all files are there again
            scp.unlink(missing_ok=True)  # another job may be faster
        with temporary_folder() as folder:
            write_table(folder / "keys", dict.fromkeys(todo, "-"))
            options = vars(args) | {"key_file": str(folder / "keys")}
            options.pop("config", None)
            options.pop("job")
            ours = {name: options.pop(name) for name in ("fcp_output", "mixture_consistency", "precision")}

            def load(**kwargs: Any) -> SeparateSpeech:
                model = SeparateSpeech.from_pretrained(**kwargs, **ours, recordings=num_channels.get("speech_mix"))
                precision = getattr(model.enh_model.separator, "precision", args.dtype)
                print(f"enh_inference: the network works in {precision}")
                return model

            with replaced_in_inference(
                EnhancementTask=M2MEnhancementTask,
                SeparateSpeech=SimpleNamespace(from_pretrained=load),
                SoundScpWriter=functools.partial(AtomicWriter, keys=keys, streams=[]),
            ):
                stock.inference(**options)
    if args.job:
        return
    lists = {}
    for utt_id in utt_ids:
        for number, path in enumerate(finished_files(output_dir, names[utt_id], keys[utt_id]), start=1):
            lists.setdefault(number, {})[utt_id] = str(path.resolve())
    for number, entries in lists.items():
        write_table(output_dir / f"spk{number}.scp", entries)


def get_parser() -> argparse.ArgumentParser:
    """ESPnet's parser, with our options, and with the ranges of its own in which ESPnet works."""
    from espnet2_m2m.tasks.separate_speech import stock

    parser = _add_options(stock.get_parser())
    parser.set_defaults(normalize_segment_scale=False)
    for action in parser._actions:
        action.type = RANGES.get(action.dest, action.type)
    return raise_usage_errors(parser)


def _check(args: argparse.Namespace) -> None:
    """Refuse a format that cannot say what it was made of, and lengths with which ESPnet would divide by zero.

    Raises:
        ValueError: says which.
    """
    if args.output_format not in FORMATS:
        raise ValueError(f"--output_format must be one of {', '.join(FORMATS)}, found {args.output_format}")
    segment, hop = (None if size is None else int(size * args.fs) for size in (args.segment_size, args.hop_size))
    if None not in (segment, hop) and not 1 <= hop <= segment:
        raise ValueError(
            f"--hop_size must be more than 0 s and at most --segment_size, found {args.hop_size} s and"
            f" {args.segment_size} s"
        )


def _add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give a parser what ESPnet's command does not have."""
    parser.add_argument(
        "--fcp_output",
        type=boolean,
        metavar="true|false",
        help="output is the FCP image of the estimates (true for M2M by default) or the "
        "estimates themselves (false for PIT by default)",
    )
    parser.add_argument(
        "--mixture_consistency",
        type=boolean,
        metavar="true|false",
        help="give back to the output what its sources leave of the mixture (default: as model_conf says)",
    )
    add_precision_option(parser)
    parser.add_argument("--job", type=parse_job, metavar="K/N", help="separate the K-th of N shares and write no lists")
    return parser


class AtomicWriter:
    """Stands in for ESPnet's SoundScpWriter: files of 32-bit floats (flac: 24 bits), whole or not at all.

    They say what they are made of.

    Args: as SoundScpWriter, and
        keys: utt_id -> what its files are made of.
        streams: list that all writers of a run share, one for each stream.
    The scp is written by `main` once all files exist.
    """

    def __init__(
        self,
        outdir: str | Path,
        scpfile: str | Path | None,
        format: str = "wav",
        *,
        keys: dict[str, str | None],
        streams: list["AtomicWriter"],
    ) -> None:
        self.folder = Path(outdir)
        self.format = format
        self.keys = keys
        self.streams = streams
        streams.append(self)

    def __setitem__(self, utt_id: str, value: tuple[int, np.ndarray]) -> None:
        sample_rate, signal = value
        if not np.isfinite(signal).all():
            raise ValueError(f"{utt_id}: stream {self.folder.name} of the model's output has NaN or infinite samples")
        # As many bits as the format has: streams of a distant talker may be faint.
        available = soundfile.available_subtypes(self.format)
        subtype = next((name for name in ("FLOAT", "PCM_24") if name in available), None)
        path = id_path(self.folder, utt_id, f".{self.format}")
        num_channels = 1 if signal.ndim == 1 else signal.shape[1]
        comment = MADE_OF.format(key=self.keys[utt_id], num_streams=len(self.streams))
        with new_sound_file(path, sample_rate, num_channels, subtype, self.format, comment) as file:
            file.write(signal)

    def close(self) -> None:
        pass


def check_trained_rate(config: Path | None, sample_rate: int) -> None:
    """Refuse another --fs than an M2M model was trained at.

    Args:
        config: of the training; None if there is none.
        sample_rate: Hz.
    Raises:
        ValueError: they differ.
    """
    if config is None:
        return
    trained = TrainingConfig.load(config)
    if trained.is_ours and trained.sample_rate not in (None, sample_rate):
        raise ValueError(
            f"--fs is {sample_rate}, but the model was trained at {trained.sample_rate} Hz (sample_rate in {config})"
        )


def check_recordings(scp: str, table: dict[str, str], utt_ids: list[str], args: argparse.Namespace) -> dict[str, int]:
    """ESPnet writes its output at --fs whatever the rate of the input; refuse a mismatch.

    Args:
        scp, table: Kaldi's wav.scp, and what it holds.
        utt_ids: the utterances to look at.
        args: fs in Hz, segment_size, normalize_segment_scale.
    Returns:
        the utterances' number of channels by a name for messages.
    Raises:
        ValueError: a file that is missing, cannot be opened, has another rate, or does not go with
            the options; names it.
    """
    num_channels = {}
    for utt_id in utt_ids:
        if utt_id not in table:
            raise ValueError(f"{scp}: no utterance '{utt_id}'; {args.key_file or 'the first list'} asks for it")
        if not is_plain_file(table[utt_id]):
            raise ValueError(
                f"{scp}: {utt_id}: expected the path of a file, found `{table[utt_id]}`, which ESPnet does not read;"
                " format the data dir (stage 3 of run.sh)"
            )
        with audio_errors(f"{scp}: {utt_id}"):
            _, channels, found = audio_header(table[utt_id])
        if found != args.fs:
            raise ValueError(
                f"{scp}: {utt_id}: {table[utt_id]} has {found} Hz, but --fs is "
                f"{args.fs}; use the rate that the model was trained with and resample "
                "the recordings to it (stage 3 of run.sh)"
            )
        if channels > 1 and args.segment_size is not None and args.normalize_segment_scale:
            raise ValueError(
                f"{scp}: {utt_id} has {channels} channels, for which ESPnet's "
                "--normalize_segment_scale true scales by a wrong level; leave it false"
            )
        num_channels[f"{scp}: {utt_id}"] = channels
    return num_channels


def train_config(args: argparse.Namespace) -> Path | None:
    """The training config that ESPnet will read, by default the one beside the model."""
    if args.train_config is not None:
        return Path(args.train_config)
    return Path(args.model_file).parent / "config.yaml" if args.model_file is not None else None


def _write_settings(args: argparse.Namespace) -> str:
    """Note in settings.json what decides on the output besides the recordings; returns its content."""
    from espnet2_m2m.enh.precision import auto_precision

    files = {"train_config": train_config(args), "inference_config": args.inference_config}
    files |= {name: path for path, name, _ in args.data_path_and_name_and_type}
    settings = {
        "options": {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS},
        # The network may keep `auto` from being bfloat16; which it is, the config says.
        "precision": args.precision
        if args.precision != "auto"
        else auto_precision("cuda" if args.ngpu else "cpu", args.dtype)[0],
        # By content: ESPnet rewrites config.yaml whenever a training is resumed.
        "sha256": {
            name: hashlib.sha256(Path(path).read_bytes()).hexdigest()
            for name, path in files.items()
            if path is not None
        },
    }
    if args.model_tag is not None:
        with model_files(args.model_tag) as paths:
            settings["sha256"]["model_tag"] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    if args.model_file is not None:
        model = Path(args.model_file).resolve().stat()
        settings["model_file"] = {"bytes": model.st_size, "mtime_ns": model.st_mtime_ns}
    content = json.dumps(settings, indent=1, sort_keys=True, default=str)
    write_bytes(Path(args.output_dir) / "settings.json", content.encode("utf-8"))
    return content


def finished_files(output_dir: Path, name: str, key: str | None) -> list[Path]:
    """The files of an utterance's streams, in their order; none unless all have been made of what `key` stands for.

    Args:
        name: of the files, one in the folder of each stream.
    """
    comment = comment_of(output_dir / "wavs" / "1" / name) or ""
    made = re.fullmatch(MADE_OF.format(key=key, num_streams=r"(\d+)"), comment)
    paths = [output_dir / "wavs" / str(stream) / name for stream in range(1, int(made[1]) + 1)] if made else []
    return paths if all(comment_of(path) == comment for path in paths) else []


if __name__ == "__main__":
    main()
