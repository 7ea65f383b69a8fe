"""Statistics of every epoch that ESPnet's trainer keeps in checkpoint.pth, as learning curves."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_m2m.report import figures

# Counters, times and memory that the trainer reports beside the losses.
NOT_A_CURVE = re.compile(r".*(_time|_mem_GB)|time|total_count|clip|loss_scale|grad_norm")

Stats = dict[int, dict[str, dict[str, Any]]]  # epoch -> "train" or "valid" -> name -> value


def read_stats(path: Path | str) -> Stats | None:
    """Statistics of all epochs in a checkpoint; None where there is no such file.

    Raises:
        ValueError: not a checkpoint of an ESPnet training.
    """
    path = Path(path)
    if not path.is_file():
        return None
    from espnet2_m2m.tasks.checkpoints import read_checkpoint  # torch and ESPnet's reporter: seconds

    stats = read_checkpoint(path)["reporter"]["stats"]
    return {epoch: stats[epoch] for epoch in sorted(stats)}


def training_seconds(stats: Stats) -> float:
    """How long the epochs took, in seconds, without the start of the program."""
    times = [phase["time"] for epoch in stats.values() for phase in epoch.values() if "time" in phase]
    # espnet 202609 and later writes {"__timedelta_seconds__": seconds}, 202511 a timedelta.
    return sum(time["__timedelta_seconds__"] if isinstance(time, dict) else time.total_seconds() for time in times)


def summarise(stats: Stats) -> dict[str, Any]:
    """Learning curves, number of epochs, the best of them and the duration, as the page shows them."""
    epochs = list(stats)
    names = {name for epoch in epochs for phase in stats[epoch].values() for name in phase}
    names = {name for name in names if not NOT_A_CURVE.fullmatch(name)}
    is_rate = {name: bool(re.fullmatch(r"optim\d+_lr\d+", name)) for name in names}
    curves = []
    for name in sorted(names, key=lambda name: (name != "loss", is_rate[name], name)):
        phases = {}
        for phase in ("train", "valid"):
            values = [float(stats[epoch].get(phase, {}).get(name, math.nan)) for epoch in epochs]
            if np.isfinite(values).any():
                phases[phase] = (epochs, values)
        if phases:
            curves.append(
                {
                    "name": f"learning rate ({name})" if is_rate[name] else name,
                    "src": figures.learning_curve(phases),
                    "alt": f"{name} over {len(epochs)} epochs: "
                    + "; ".join(f"{phase} {_span(*curve)}" for phase, curve in phases.items()),
                }
            )
    valid = {epoch: stats[epoch].get("valid", {}).get("loss", math.nan) for epoch in epochs}
    valid = {epoch: value for epoch, value in valid.items() if math.isfinite(value)}
    duration = training_seconds(stats)
    return {
        "curves": curves,
        "num_epochs": len(epochs),
        "best_epoch": min(valid, key=valid.get) if valid else None,
        "duration": _duration(duration) if duration else None,
    }


def _span(epochs: list[int], values: list[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return f"from {finite[0]:.3g} to {finite[-1]:.3g}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
