"""Train: ESPnet's enh_train with the plug-in's task, and whole data dirs as input.

    espnet2_m2m enh_train --config conf/tuning/X.yaml --output_dir exp/X \\
        --train_dir dump/raw/train --valid_dir dump/raw/valid

--config may be given several times, later files win, and a config may be based on others by its key
`base` (enh/config.py); OUTPUT_DIR/train_config.yaml then holds what they add up to.

--train_dir and --valid_dir pass the files that the config's criteria need: wav.scp always,
closetalk{n}.scp for the mixture-constraint loss, spk{n}.scp for the criteria that compare with
references, in training only if they are not `only_for_test: true`. Real recordings have no references:
where VALID_DIR has no spk{n}.scp, criteria that are `only_for_test: true` are left out.

All other options are ESPnet's; `espnet2_m2m enh_train --print_config` shows them with their defaults.
"""

import argparse
import sys
from itertools import compress
from pathlib import Path

import yaml

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.data_dir import numbered_files, write_text
from espnet2_m2m.data_dir.directory import consecutive_files, numbered_file
from espnet2_m2m.enh.config import read_config, read_file
from espnet2_m2m.enh.training_config import TrainingConfig

# Files of a data dir -> what ESPnet and the model call them, both with a number.
ESPNET_NAMES = {"closetalk": "closetalk_mix", "spk": "speech_ref"}


def main(cmd: list[str] | None = None) -> None:
    command = espnet_command(cmd)

    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    # Beyond this point an error keeps its traceback in the log; its message comes last.
    M2MEnhancementTask.main(cmd=command)


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="training config; may be given several times")
    parser.add_argument("--output_dir", help="folder of the training")
    for phase in ("train", "valid"):
        parser.add_argument(f"--{phase}_dir", help="Kaldi data dir")
        parser.add_argument(
            f"--{phase}_data_path_and_name_and_type",
            action="append",
            default=[],
            metavar="PATH,NAME,TYPE",
            help=f"data beside that of --{phase}_dir, or in its place",
        )
    return parser


@cli_errors
def espnet_command(cmd: list[str] | None = None) -> list[str]:
    """The options of ESPnet's enh_train, with --train_dir and --valid_dir replaced by their files."""
    args, others = get_parser().parse_known_args(cmd)
    command = list(others)
    if args.output_dir is not None:
        command += ["--output_dir", args.output_dir]
    config = read_config(*args.config)
    training = TrainingConfig(config, ", ".join(args.config))
    if args.valid_dir is not None and Path(args.valid_dir).is_dir():
        config = _without_unusable_criterions(config, training, args.valid_dir)
        training = TrainingConfig(config)
    if args.config:
        command += ["--config", str(_one_file(args.config, config, args.output_dir))]
    for phase in ("train", "valid"):
        data_dir = getattr(args, f"{phase}_dir")
        data_of_phase = getattr(args, f"{phase}_data_path_and_name_and_type")
        if data_dir is not None:
            if not training.criterions:
                raise ValueError(
                    "--train_dir and --valid_dir need a --config with `criterions`, which decide on the "
                    f"files of the data dir that are used; found none in {args.config or 'no config'}"
                )
            named = {data.split(",")[1] for data in data_of_phase if data.count(",") == 2}
            data_of_phase += [
                data for data in data_options(data_dir, training, phase == "valid") if data.split(",")[1] not in named
            ]
        if "--preprocessor" not in others:
            data_of_phase = [data for data in data_of_phase if training.reads("".join(data.split(",")[1:2]))]
        for data in data_of_phase:
            command += [f"--{phase}_data_path_and_name_and_type", data]
    return command


def _without_unusable_criterions(config: dict, training: TrainingConfig, valid_dir: str) -> dict:
    """The config without the criteria that are for validation with references, if VALID_DIR has none."""
    usable = [not (criterion.needs_references and criterion.only_for_test) for criterion in training.criterions]
    if all(usable) or numbered_files(valid_dir, "spk"):
        return config
    left_out = ", ".join(criterion.name for criterion, kept in zip(training.criterions, usable) if not kept)
    print(f"{valid_dir} has no references (spk1.scp ...): validation goes without {left_out}", file=sys.stderr)
    return {**config, "criterions": list(compress(config["criterions"], usable))}


def _one_file(paths: list[str], config: dict, output_dir: str | None) -> Path:
    """The file that holds `config`, what the `paths` add up to; written unless one of them is it."""
    if len(paths) == 1 and read_file(Path(paths[0])) == config:
        return Path(paths[0])
    if output_dir is None:
        raise ValueError(
            "several configs, one with `base`, or one whose references are not there need "
            "--output_dir, where the config that is used is written"
        )
    merged = Path(output_dir) / "train_config.yaml"
    write_text(merged, f"# Merged from {' '.join(paths)}\n" + yaml.safe_dump(config, sort_keys=False))
    return merged


def data_options(data_dir: str | Path, training: TrainingConfig, validation: bool) -> list[str]:
    """Values of ESPnet's --*_data_path_and_name_and_type for a data dir.

    Args:
        data_dir: Kaldi-style data dir.
        training: its criterions decide on the files.
        validation: for the validation set, where `only_for_test` criteria are computed too.
    Returns:
        list of "path,name,sound".
    Raises:
        ValueError: a file that a criterion needs is not in the data dir; names it.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such data dir; stages 1 to 4 of run.sh make it")
    files = {"speech_mix": data_dir / "wav.scp"}
    families = {}  # -> the criterion that needs it
    if training.uses_headsets:
        families[training.closetalk_family] = training.criterion
    for criterion in training.criterions:
        if criterion.needs_references and (validation or not criterion.only_for_test):
            families.setdefault("spk", criterion)
    for family, criterion in families.items():
        for n in consecutive_files(data_dir, family, f"criterion {criterion.name}"):
            files[f"{ESPNET_NAMES[family]}{n}"] = data_dir / numbered_file(family, n)
    for path in files.values():
        if not path.is_file():
            raise ValueError(f"{path}: no such file; stages 1 to 4 of run.sh make it")
    return [f"{path},{name},sound" for name, path in files.items()]


if __name__ == "__main__":
    main()
