"""Checkpoints and weights: read as data, written whole, repaired after a kill."""

import os
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.train.reporter import Reporter

from espnet2_m2m.data_dir import atomic_path

STEP = "separator.mixture_constraint.step"  # of the anchor's fade, in a model's weights

# What the reporter of espnet 202511 keeps beside plain numbers: times, and means that numpy computed. By the names
# that they have in files, as numpy 1 wrote them and as numpy 2 writes them.
_OF_REPORTER = [
    timedelta,
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The states in a checkpoint.pth of ESPnet's trainer, read as data; tensors stay on disk until they are used.

    Raises:
        ValueError: not such a file, or one that holds objects whose loading may run code.
    """
    try:
        with torch.serialization.safe_globals(_OF_REPORTER):
            states = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        stats = states["reporter"]["stats"]
        for epoch in stats.values():
            for phase in epoch.values():
                phase.items()
    except OSError:
        raise
    except Exception as error:  # torch's reader stumbles over broken bytes in every way
        raise ValueError(
            f"{path}: not a checkpoint of an ESPnet training, or one that holds objects whose loading may run code, "
            "which is refused"
        ) from error
    return states


def load_weights(model: torch.nn.Module, model_file: str | Path, train_dtype: str = "float32") -> None:
    """Load a state dict into a model, all of it or nothing.

    Args:
        model_file: what ESPnet's trainer or deepspeed saved.
        train_dtype: of the config; the weights must have it, unless deepspeed saved them.
    Raises:
        ValueError: the file holds anything but weights, or they do not fit; names all that differ.
    """
    try:
        # They stay on disk until it is clear that they fit; a file of an old torch is no zip and cannot.
        saved = torch.load(model_file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(model_file))
    except OSError:
        raise
    except Exception as error:  # as above
        raise ValueError(
            f"{model_file}: expected a file of weights and nothing else, found one that is broken "
            "or holds objects whose loading may run code, which is refused; copy it again, or "
            "save the model's state_dict() alone"
        ) from error
    by_deepspeed = isinstance(saved, dict) and "module" in saved
    saved = saved["module"] if by_deepspeed else saved
    if not isinstance(saved, dict) or not all(isinstance(value, torch.Tensor) for value in saved.values()):
        raise ValueError(
            f"{model_file}: expected the weights of a model, tensors by name, found something "
            "else; a checkpoint.pth is not a model, take the .pth file of an epoch"
        )
    desired = model.state_dict()
    dtypes = {
        name: getattr(torch, train_dtype) if value.is_floating_point() else value.dtype
        for name, value in desired.items()
    }
    problems = {
        "not in the file": [name for name in desired if name not in saved],
        "in the file only": [name for name in saved if name not in desired],
        "of another shape": [
            f"{name} {tuple(saved[name].shape)} for {tuple(value.shape)}"
            for name, value in desired.items()
            if name in saved and saved[name].shape != value.shape
        ],
        "of another dtype": [
            f"{name} {saved[name].dtype} for {dtype}"
            for name, dtype in dtypes.items()
            if name in saved and saved[name].dtype != dtype and not by_deepspeed
        ],
    }
    if any(problems.values()):
        raise ValueError(
            f"{model_file} does not fit its config; use the config.yaml that the training wrote "
            "beside it: "
            + "; ".join(
                f"{len(names)} tensors {problem}: {', '.join(names)}" for problem, names in problems.items() if names
            )
        )
    model.load_state_dict(saved)


def repair_checkpoints(output_dir: str | Path, best_model_criterion: list[tuple[str, str, str]]) -> None:
    """Complete what a training left that was killed just after it had written checkpoint.pth.

    ESPnet then writes Nepoch.pth and moves the links latest.pth and PHASE.KEY.best.pth to it. A
    resumed training starts with epoch N + 1 and would never do so for epoch N.

    Args:
        output_dir: the experiment.
        best_model_criterion: of the config, list of (phase, key, mode).
    Raises:
        ValueError: as `read_checkpoint`.
    """
    output_dir = Path(output_dir)
    if not (output_dir / "checkpoint.pth").is_file():
        return
    states = read_checkpoint(output_dir / "checkpoint.pth")
    reporter = Reporter()
    reporter.load_state_dict(states["reporter"])
    epoch = reporter.get_epoch()
    newest = f"{epoch}epoch.pth"
    if not (output_dir / newest).is_file():
        # Not logged: logging before ESPnet has configured it would silence ESPnet's own log.
        print(f"{output_dir / newest} is missing; restored from checkpoint.pth", file=sys.stderr)
        with atomic_path(output_dir / newest) as temporary, open(temporary, "wb") as file:
            torch.save(states["model"], file)
    best = [
        f"{phase}.{key}.best.pth"
        for phase, key, mode in best_model_criterion
        if reporter.has(phase, key) and reporter.get_best_epoch(phase, key, mode) == epoch
    ]
    for link in ["latest.pth", *best]:
        link = output_dir / link
        if not link.is_symlink() or os.readlink(link) != newest:
            temporary = link.with_name(f".{link.name}.link")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(newest)
            os.replace(temporary, link)


def without_step(init_param: str) -> str:
    """ESPnet's --init_param PATH[:SRC_KEY[:DST_KEY[:EXCLUDE_KEYS]]], leaving out the step of the anchor's fade.

    A new training would else begin with an anchor that has faded away already.
    """
    parts = init_param.split(":")
    parts += [""] * (4 - len(parts))
    parts[3] = ",".join(filter(None, (parts[3], STEP, f"enh_model.{STEP}")))  # the latter of a joint model
    return ":".join(parts)
