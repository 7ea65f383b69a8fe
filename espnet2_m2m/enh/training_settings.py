"""A folder holds one training; its file train.settings notes which, and a rerun with other options is refused.

ESPnet would go on from the checkpoint, or take a finished model for what was asked for. Stage 6 of the recipes begins
with

    python -m espnet2_m2m.enh.training_settings EXP_DIR DUMPDIR ENH_ARGS CONFIG ...
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_m2m.enh.config import read_config


def training_settings(configs: Sequence[str], enh_args: str, dumpdir: str) -> str:
    """What decides on a training, as one line; for how many epochs it goes on does not.

    Args:
        configs: YAML files; later ones win.
        enh_args: further options of enh_train, separated by spaces.
        dumpdir: folder of the data.
    Returns:
        names of the configs, the options, the absolute path of the data, and a hash of what the configs add up to.
    Raises:
        FileNotFoundError, ValueError: as `read_config`.
    """
    parser = argparse.ArgumentParser(prog="--enh_args", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--max_epoch")
    args, others = parser.parse_known_args(enh_args.split())
    configs = [*configs, *args.config]
    merged = read_config(*configs)
    merged.pop("max_epoch", None)
    digest = hashlib.sha256(json.dumps(merged, sort_keys=True, default=str).encode()).hexdigest()
    return " ".join([*configs, *others, os.path.realpath(dumpdir), f"config:{digest[:16]}"])


def other_training(exp_dir: str | Path, settings: str) -> str | None:
    """Why a training with these settings must not begin in a folder, and what to do; None if it may."""
    noted = Path(exp_dir) / "train.settings"
    if not noted.is_file() or not Path(exp_dir, "checkpoint.pth").is_file():
        return None
    found = noted.read_text(encoding="utf-8").strip()
    if found == settings:
        return None
    if re.search(" [0-9a-f]{16}$", found):  # of the configs' text
        return (
            f"{noted} was written by an earlier version and cannot be compared: it says ({found}), now the options are "
            f"({settings}). If the training was made with these, remove the file and run again; else choose another "
            "--expdir or --enh_tag"
        )
    return (
        f"{exp_dir} is a training with other options ({found}); now they are ({settings}). Choose another --expdir or "
        f"--enh_tag, or remove the folder; to go on nevertheless, remove {noted}"
    )


def keep_settings(exp_dir: str | Path, settings: str) -> None:
    """Note the settings of a training that is about to begin.

    Raises:
        ValueError: the folder holds another training.
    """
    from espnet2_m2m.data_dir.tables import write_text  # loads numpy, which those who only ask do without

    reason = other_training(exp_dir, settings)
    if reason:
        raise ValueError(reason)
    write_text(Path(exp_dir, "train.settings"), f"{settings}\n")


if __name__ == "__main__":
    exp_dir, dumpdir, enh_args, *configs = sys.argv[1:]
    try:
        keep_settings(exp_dir, training_settings(configs, enh_args, dumpdir))
    except (ValueError, OSError) as error:
        sys.exit(f"stage 6: error: {error}")
