"""Separate by ESPnet's enh_inference: of M2M models, FCP images at the reference mic.

    espnet2_m2m enh_inference --train_config exp/X/config.yaml \\
        --model_file exp/X/valid.loss.best.pth --fs 8000 \\
        --data_path_and_name_and_type data/test/wav.scp,speech_mix,sound --output_dir exp/X/enhanced

The options are ESPnet's (`python -m espnet2.bin.enh_inference --help` lists them), but
--normalize_segment_scale is false by default, and --fcp_output and --job are new. Output is float at the level
it has in the mixture (unless --normalize_output_wav true), each file is written whole or not at all, and a
rerun separates only what is missing: settings.json says what the files were made with, and a file is valid if
it is newer than that and its recording (unless this is a pipe). --model_tag also takes a packed model, a
folder or a zip (model_files.py). For recordings without a data dir there is `espnet2_m2m separate`.

`--job k/n`, for k = 1 ... n, separates the k-th of n shares. The jobs may run at the same time, on machines
that see the same folders. When all have ended, the same command without --job writes the lists spk{n}.scp.
"""

import argparse
import functools
import hashlib
import json
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile

from espnet2_m2m.bin import boolean, cli_errors, command_parser, parse_job, share_of
from espnet2_m2m.data_dir import AudioError, atomic_path, audio_header, read_table, source_stamp, write_table
from espnet2_m2m.data_dir.audio import audio_errors
from espnet2_m2m.data_dir.ids import id_path
from espnet2_m2m.data_dir.tables import write_bytes
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.model_files import model_files

# These do not change the output.
NOT_SETTINGS = ("config", "output_dir", "key_file", "job", "log_level", "num_workers", "ngpu", "show_progressbar")


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    _add_options(command_parser(__file__, __doc__, allow_abbrev=False)).parse_known_args(cmd)  # --help, at once
    from espnet2.bin import enh_inference as stock

    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask, register
    from espnet2_m2m.tasks.espnet_patches import replaced_in_inference
    from espnet2_m2m.tasks.separate_speech import SeparateSpeech

    register()  # --enh_s2t_task true: ESPnet's own task builds the joint model

    parser = _add_options(stock.get_parser())
    parser.set_defaults(normalize_segment_scale=False)
    args = parser.parse_args(cmd)
    if args.model_tag is None:
        check_trained_rate(train_config(args), args.fs)
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
    streams = _streams(output_dir, settings)
    suffix = f".{args.output_format}"
    for utt_id in utt_ids:
        id_path(output_dir, utt_id, suffix)  # refused before hours of separation
    files = {utt_id: [id_path(folder, utt_id, suffix) for folder in streams] for utt_id in utt_ids}
    todo = [utt_id for utt_id in utt_ids if not _done(utt_id, files[utt_id], settings, tables.values())]
    num_channels = {name: check_recordings(scp, tables[scp], todo, args) for name, scp in scps.items()}
    print(f"enh_inference: {len(utt_ids) - len(todo)} of {len(utt_ids)} utterances are done already")
    if todo:
        for scp in output_dir.glob("spk*.scp"):  # until all files are there again
            scp.unlink(missing_ok=True)  # another job may be faster
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as key_file:
            key_file.writelines(f"{utt_id} -\n" for utt_id in todo)
            key_file.flush()
            options = vars(args) | {"key_file": key_file.name}
            options.pop("config", None)
            options.pop("job")
            load = functools.partial(
                SeparateSpeech.from_pretrained,
                fcp_output=options.pop("fcp_output"),
                recordings=num_channels.get("speech_mix"),
            )
            with replaced_in_inference(
                EnhancementTask=M2MEnhancementTask,
                SeparateSpeech=SimpleNamespace(from_pretrained=load),
                SoundScpWriter=AtomicWriter,
            ):
                stock.inference(**options)
    if args.job:
        return
    for folder in _streams(output_dir, settings):
        entries = {utt_id: str(id_path(folder, utt_id, suffix).resolve()) for utt_id in utt_ids}
        write_table(output_dir / f"spk{folder.name}.scp", entries)


def _add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give a parser what ESPnet's command does not have."""
    parser.add_argument(
        "--fcp_output",
        type=boolean,
        metavar="true|false",
        help="output is the FCP image of the estimates (true for M2M by default) or the "
        "estimates themselves (false for PIT by default)",
    )
    parser.add_argument("--job", type=parse_job, metavar="K/N", help="separate the K-th of N shares and write no lists")
    return parser


class AtomicWriter:
    """Stands in for ESPnet's SoundScpWriter: 32-bit float files (flac: 24-bit), whole or not at all.

    Args: as SoundScpWriter; the scp is written by `main` once all files exist.
    """

    def __init__(self, outdir: str | Path, scpfile: str | Path | None, format: str = "wav") -> None:
        self.folder = Path(outdir)
        # Before the first file, so that an interrupted run shows how many streams belong together;
        # an older folder was left by a model with more streams.
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.touch()
        self.format = format

    def __setitem__(self, utt_id: str, value: tuple[int, np.ndarray]) -> None:
        sample_rate, signal = value
        if not np.isfinite(signal).all():
            raise ValueError(f"{utt_id}: stream {self.folder.name} of the model's output has NaN or infinite samples")
        # As many bits as the format has: streams of a distant talker may be faint.
        available = soundfile.available_subtypes(self.format)
        subtype = next((name for name in ("FLOAT", "PCM_24") if name in available), None)
        with atomic_path(id_path(self.folder, utt_id, f".{self.format}")) as temporary:
            soundfile.write(temporary, signal, sample_rate, subtype=subtype)

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


def _write_settings(args: argparse.Namespace) -> int:
    """Note in settings.json what decides on the output; rewritten only when that has changed.

    Returns:
        time of its last change in ns; output that is older was made with other settings.
    """
    files = {"train_config": train_config(args), "inference_config": args.inference_config}
    files |= {name: path for path, name, _ in args.data_path_and_name_and_type}
    settings = {
        "options": {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS},
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
    path = Path(args.output_dir) / "settings.json"
    write_bytes(path, content.encode("utf-8"))
    return path.stat().st_mtime_ns


def _streams(output_dir: Path, settings: int) -> list[Path]:
    """Folders of the model's output streams; a folder older than the settings is another model's."""
    return [folder for folder in sorted(output_dir.glob("wavs/*")) if folder.stat().st_mtime_ns > settings]


def _done(utt_id: str, files: list[Path], settings: int, tables: Iterable[dict[str, str]]) -> bool:
    """Whether the files of an utterance's streams exist and are newer than the settings and its recordings."""
    changed = settings
    for table in tables:
        with suppress(KeyError, AudioError):  # where it is gone: `check_recordings` says so if it is needed
            stamp = source_stamp(table[utt_id])
            changed = max(changed, stamp[1] if stamp else 0)  # 0: a pipe
    return bool(files) and all(f.is_file() and f.stat().st_mtime_ns > changed for f in files)


if __name__ == "__main__":
    main()
