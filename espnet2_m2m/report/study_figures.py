"""Pictures of several systems: SI-SDR over training steps, and its distribution over signals.

As PNG on white, or as SVG for the report page. Colours are those of Okabe and Ito (grey for black), which
also colour-blind readers tell apart; line styles repeat with another period than colours, and every curve and
box has its name beside it.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from espnet2_m2m.data_dir import atomic_path
from espnet2_m2m.report import figures
from espnet2_m2m.report.study import Box, Curve, Panel

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
LINES = ("-", "--", "-.", ":")
WHISKERS = (5, 95)  # percentiles


def _panels(
    panels: list[Panel], draw: Callable[[Axes, list], None], size: tuple[float, float], **subplots: Any
) -> Figure:
    """A figure with axes for each of the panels."""
    figure = Figure(figsize=size, layout="constrained")
    for axes, (title, data) in zip(figure.subplots(squeeze=False, **subplots).flat, panels):
        axes.set_title(title, loc="left")
        draw(axes, data)
        axes.label_outer()  # of shared axes once
    return figure


def _save(path: Path | str, panels: list[Panel], *drawing: Any, **subplots: Any) -> None:
    if not panels:
        raise ValueError(f"{path}: nothing to draw")
    with figures.style(figures.ON_WHITE), atomic_path(path) as temporary:
        _panels(panels, *drawing, **subplots).savefig(temporary, dpi=150)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def save_learning_curves(path: Path | str, panels: list[Panel]) -> None:
    """Write a PNG of all panels of `study.learning_curves`, side by side.

    Raises:
        ValueError: no panel.
    """
    _save(path, panels, _curves_drawer(panels), (6.8 * len(panels), 4.8), ncols=len(panels))


@figures.style()
def learning_curves(panel: Panel) -> str:
    """The same of one panel as a `data:` URI of an SVG for the report page."""
    return figures.uri(_panels([panel], _curves_drawer([panel]), (4.6, 2.8)))


def _curves_drawer(panels: list[Panel]) -> Callable[[Axes, list[Curve]], None]:
    """`_draw_curves` with one range of SI-SDR for all panels."""
    curves = [curve for _, panel in panels for curve in panel]
    low = min((min(curve.low) for curve in curves), default=0.0)
    high = max((max(curve.high) for curve in curves), default=0.0)
    margin = max(0.5, 0.06 * (high - low))
    return functools.partial(_draw_curves, low=low - margin, high=high + margin)


def _draw_curves(axes: Axes, curves: list[Curve], low: float, high: float) -> None:
    for curve in curves:
        style = {"color": _colour(curve.place), "linestyle": LINES[curve.place % len(LINES)]}
        marker = {"marker": "o", "markersize": 3.5} if len(curve.steps) < 30 else {}
        axes.plot(curve.steps, curve.mean, linewidth=1.6, **style, **marker)
        axes.fill_between(curve.steps, curve.low, curve.high, color=_colour(curve.place), alpha=0.15, linewidth=0)
    last = max(curve.steps[-1] for curve in curves)
    axes.set(
        xlim=(0, last * 1.02),
        ylim=(low, high),
        xlabel="training steps (batches)",
        ylabel="validation SI-SDR (dB)",
    )
    # Names stand right of the axes at the height of their curve's end, as far apart as their font.
    height = (high - low) * 0.048
    ends = sorted(curves, key=lambda curve: curve.mean[-1])
    for curve, y in zip(ends, spread([curve.mean[-1] for curve in ends], height)):
        axes.annotate(
            curve.name,
            xy=(curve.steps[-1], curve.mean[-1]),
            xytext=(1.04, y),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=_colour(curve.place),
            arrowprops={"arrowstyle": "-", "color": _colour(curve.place), "linewidth": 0.6, "relpos": (0, 0.5)},
        )


def spread(values: list[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, in the order of the ascending `values` and close to them.

    Neighbours that are too close form a block, centred on the mean of its values.
    """
    blocks = []  # [values]
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) - _bottom(blocks[-2], gap) < gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [_bottom(block, gap) + n * gap for block in blocks for n in range(len(block))]


def _bottom(block: list[float], gap: float) -> float:
    return float(np.mean(block)) - gap * (len(block) - 1) / 2


def save_boxes(path: Path | str, panels: list[Panel]) -> None:
    """Write a PNG of all panels of `study.distributions`, one below the other.

    Raises:
        ValueError: no panel.
    """
    rows = [len(boxes) for _, boxes in panels]
    size = (7.5, 1.1 * len(panels) + 0.36 * sum(rows))
    _save(path, panels, _draw_boxes, size, nrows=len(panels), sharex=True, height_ratios=rows)


@figures.style()
def boxes(panel: Panel) -> str:
    """The same of one panel as a `data:` URI of an SVG for the report page."""
    return figures.uri(_panels([panel], _draw_boxes, (4.6, 1.1 + 0.3 * len(panel[1]))))


def _draw_boxes(axes: Axes, boxes: list[Box]) -> None:
    ink, faint = matplotlib.rcParams["text.color"], matplotlib.rcParams["grid.color"]
    drawn = axes.boxplot(
        [box.values for box in boxes],
        orientation="horizontal",
        whis=WHISKERS,
        widths=0.6,
        patch_artist=True,
        flierprops={"marker": ".", "markersize": 2.5, "markeredgewidth": 0},
    )
    for box, patch, fliers in zip(boxes, drawn["boxes"], drawn["fliers"]):
        # The mixture is what all start from, no system.
        is_mixture, colour = box.name.endswith("mixture"), _colour(box.place)
        face = matplotlib.colors.to_rgba(faint if is_mixture else colour, 0.55)
        patch.set(facecolor=face, edgecolor=ink, linewidth=0.8)
        fliers.set(markerfacecolor=ink if is_mixture else colour, alpha=0.5)
    for part in ("whiskers", "caps", "medians"):
        matplotlib.artist.setp(drawn[part], color=ink, linewidth=1.4 if part == "medians" else 0.8)
    axes.set_yticks(range(1, len(boxes) + 1), [box.name for box in boxes])
    axes.invert_yaxis()  # the table's order from above
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    # The medians as numbers, beyond the right-most point.
    values = [value for box in boxes for value in box.values]
    left, right = min(values), max(values)
    reach = max(right - left, 1.0)
    axes.set_xlim(min(left - 0.03 * reach, axes.get_xlim()[0]), max(right + 0.03 * reach, axes.get_xlim()[1]))
    for y, box in enumerate(boxes, start=1):
        median = f"{np.median(box.values):.1f}"
        axes.annotate(median, (1.01, y), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    axes.set_xlabel("SI-SDR of a test signal (dB)\nbox: quartiles, whiskers: 5 to 95 %, right: median")
