"""Pictures of several systems: SI-SDR over training steps, and its distribution over signals.

As PNG on white, or as SVG for the report page. Colours are those of Okabe and Ito (grey for black), which
also colour-blind readers tell apart; line styles repeat with another period than colours, and every curve and
box has its name beside it.
"""

import functools
import itertools

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from espnet2_m2m.data_dir import atomic_path
from espnet2_m2m.report import figures

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
LINES = ("-", "--", "-.", ":")
WHISKERS = (5, 95)  # percentiles


def _panels(panels, draw, size, **subplots):
    """A figure with axes for each of the panels [(title, data)]."""
    figure = Figure(figsize=size, layout="constrained")
    for axes, (title, data) in zip(figure.subplots(squeeze=False, **subplots).flat, panels):
        axes.set_title(title, loc="left")
        draw(axes, data)
        axes.label_outer()  # of shared axes once
    return figure


def _save(path, panels, *drawing, **subplots):
    if not panels:
        raise ValueError(f"{path}: nothing to draw")
    with figures.style(figures.ON_WHITE), atomic_path(path) as temporary:
        _panels(panels, *drawing, **subplots).savefig(temporary, dpi=150)


def _colour(place):
    return COLOURS[place % len(COLOURS)]


def save_learning_curves(path, panels):
    """SI-SDR of the validation set over training steps: mean and range of the seeds.

    Args:
        path: PNG file.
        panels: of `study.learning_curves`.
    Raises:
        ValueError: no panel.
    """
    _save(path, panels, _curves_drawer(panels), (6.8 * len(panels), 4.8), ncols=len(panels))


def learning_curves(panel):
    """The same of one panel as a `data:` URI of an SVG for the report page."""
    with figures.style():
        return figures.uri(_panels([panel], _curves_drawer([panel]), (4.6, 2.8)))


def _curves_drawer(panels):
    """`_draw_curves` with one range of SI-SDR for all panels."""
    curves = [curve for _, panel in panels for curve in panel]
    low = min((min(curve[4]) for curve in curves), default=0.0)
    high = max((max(curve[5]) for curve in curves), default=0.0)
    margin = max(0.5, 0.06 * (high - low))
    return functools.partial(_draw_curves, low=low - margin, high=high + margin)


def _draw_curves(axes, curves, low, high):
    for place, _, steps, mean, lowest, highest in curves:
        style = {"color": _colour(place), "linestyle": LINES[place % len(LINES)]}
        marker = {"marker": "o", "markersize": 3.5} if len(steps) < 30 else {}
        axes.plot(steps, mean, linewidth=1.6, **style, **marker)
        axes.fill_between(steps, lowest, highest, color=_colour(place), alpha=0.15, linewidth=0)
    last = max(curve[2][-1] for curve in curves)
    axes.set_ylim(low, high)
    axes.set_xlim(0, last * 1.02)
    axes.set_xlabel("training steps (batches)")
    axes.set_ylabel("validation SI-SDR (dB)")
    # Names stand right of the axes at the height of their curve's end, as far apart as their font.
    height = (high - low) * 0.048
    ends = sorted(curves, key=lambda curve: curve[3][-1])
    for curve, y in zip(ends, spread([curve[3][-1] for curve in ends], height)):
        place, name, steps, mean = curve[:4]
        axes.annotate(
            name,
            xy=(steps[-1], mean[-1]),
            xytext=(1.04, y),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=_colour(place),
            arrowprops={"arrowstyle": "-", "color": _colour(place), "linewidth": 0.6, "relpos": (0, 0.5)},
        )


def spread(values, gap):
    """Positions at least `gap` apart, in the order of the ascending `values` and close to them.

    Neighbours that are too close form a block, centred on the mean of its values.
    """
    blocks = []  # [values]
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) - _top(blocks[-2], gap) < gap:
            last = blocks.pop()
            blocks[-1] += last
    return [_bottom(block, gap) + n * gap for block in blocks for n in range(len(block))]


def _bottom(block, gap):
    return float(np.mean(block)) - gap * (len(block) - 1) / 2


def _top(block, gap):
    return float(np.mean(block)) + gap * (len(block) - 1) / 2


def save_boxes(path, panels):
    """SI-SDR of the test signals (utterance, speaker), all seeds together: a box per system.

    Args:
        path: PNG file.
        panels: of `study.distributions`.
    Raises:
        ValueError: no panel.
    """
    rows = [len(boxes) for _, boxes in panels]
    size = (7.5, 1.1 * len(panels) + 0.36 * sum(rows))
    _save(path, panels, _draw_boxes, size, nrows=len(panels), sharex=True, height_ratios=rows)


def boxes(panel):
    """The same of one panel as a `data:` URI of an SVG for the report page."""
    with figures.style():
        return figures.uri(_panels([panel], _draw_boxes, (4.6, 1.1 + 0.3 * len(panel[1]))))


def _draw_boxes(axes, boxes):
    ink, faint = matplotlib.rcParams["text.color"], matplotlib.rcParams["grid.color"]
    drawn = axes.boxplot(
        [values for _, _, values in boxes],
        orientation="horizontal",
        whis=WHISKERS,
        widths=0.6,
        patch_artist=True,
        flierprops={"marker": ".", "markersize": 2.5, "markeredgewidth": 0},
    )
    for (place, name, _), box in zip(boxes, drawn["boxes"]):
        # The mixture is what all start from, no system.
        colour = faint if name.endswith("mixture") else _colour(place)
        box.set(facecolor=matplotlib.colors.to_rgba(colour, 0.55), edgecolor=ink, linewidth=0.8)
    for part in ("whiskers", "caps", "medians"):
        matplotlib.artist.setp(drawn[part], color=ink, linewidth=1.4 if part == "medians" else 0.8)
    for (place, name, _), fliers in zip(boxes, drawn["fliers"]):
        colour = ink if name.endswith("mixture") else _colour(place)
        fliers.set(markerfacecolor=colour, alpha=0.5)
    axes.set_yticks(range(1, len(boxes) + 1), [name for _, name, _ in boxes])
    axes.invert_yaxis()  # the table's order from above
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    # The medians as numbers, beyond the right-most point.
    right = max(itertools.chain.from_iterable(values for _, _, values in boxes))
    left = min(itertools.chain.from_iterable(values for _, _, values in boxes))
    reach = max(right - left, 1.0)
    axes.set_xlim(min(left - 0.03 * reach, axes.get_xlim()[0]), max(right + 0.03 * reach, axes.get_xlim()[1]))
    for y, (_, _, values) in enumerate(boxes, start=1):
        axes.annotate(
            f"{np.median(values):.1f}", (1.01, y), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8.5
        )
    axes.set_xlabel("SI-SDR of a test signal (dB)\nbox: quartiles, whiskers: 5 to 95 %, right: median")
