"""Figures of the report page: SVG text that follows the reader's light or dark theme.

Functions that save nothing return a `data:` URI for <img src>. The same data give the same bytes.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib
import numpy as np
import scipy.signal
from matplotlib.figure import Figure
from PIL import Image

from espnet2_m2m.data_dir.scenes import Scene

TALKER_COLOURS = ("#3b82c4", "#e0762f", "#3a9a6b", "#a06bc4")
TALKER_MARKERS = ("o", "s", "^", "D")  # shapes too: colour is not everybody's
TRAIN_COLOUR, VALID_COLOUR = TALKER_COLOURS[:2]
# Colours that stand for the page's: replaced in the SVG by variables that the theme sets.
INK, FAINT = "#0a0b0c", "#0d0e0f"
THEME = """<style>
:root { --ink: #24292f; --faint: #c3c8ce }
@media (prefers-color-scheme: dark) { :root { --ink: #d7dce2; --faint: #4a515a } }
</style>"""
STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
# The page's colours in its light theme, for pictures that have no theme.
ON_WHITE = {name: {INK: "#24292f", FAINT: "#c3c8ce"}.get(value, value) for name, value in STYLE.items()}
WINDOW_S, SHIFT_S = 0.032, 0.008  # s, as the project's STFT
RANGE_DB = 70.0  # dB below the peak shown in spectrograms
MAX_FRAMES = 900  # columns; longer signals are shown with a longer shift


def _figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """A figure of width x height inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


@contextlib.contextmanager
def style(rc: dict[str, Any] = STYLE) -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says; as a context or a decorator."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**rc, "svg.hashsalt": "report"})
        yield


def uri(figure: Figure) -> str:
    """`data:` URI of a figure that was drawn within `style()`, as SVG in the colours of the reader's theme."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    svg = svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(<svg[^>]*>)", lambda match: match[1] + THEME, svg, count=1)
    return "data:image/svg+xml," + quote(svg, safe=" =:/+;,()!*'$&@?")


@style()
def learning_curve(curves: dict[str, tuple[Sequence[int], Sequence[float]]]) -> str:
    """One statistic over epochs.

    Args:
        curves: "train" or "valid" -> (epochs, values); values may hold NaN.
    """
    figure, axes = _figure(3.7, 2.3)
    lines = {
        "train": {"color": TRAIN_COLOUR, "linestyle": "-"},
        "valid": {"color": VALID_COLOUR, "linestyle": "--"},
    }
    for name, (epochs, values) in curves.items():
        few = {"marker": "o", "markersize": 3} if len(epochs) < 30 else {}
        axes.plot(epochs, values, label=name, **lines[name], **few)
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return uri(figure)


def save_spectrogram(path: Path | str, samples: np.ndarray, sample_rate: int) -> None:
    """(sample,) as a PNG: time to the right, 0 Hz to half the rate upwards, RANGE_DB below its own peak.

    A pixel per frame and frequency, without axes, so that the page can lay a play head over it.
    """
    window = scipy.signal.windows.hann(round(WINDOW_S * sample_rate), sym=False) ** 0.5
    shift = max(round(SHIFT_S * sample_rate), -(-len(samples) // MAX_FRAMES))
    padded = np.pad(samples, (0, max(len(window) - len(samples), 0)))
    _, _, spectrum = scipy.signal.stft(padded, sample_rate, window, len(window), max(len(window) - shift, 0))
    power = np.abs(spectrum) ** 2
    peak = power.max() or 1.0
    level_db = 10 * np.log10(np.maximum(power / peak, 10 ** (-RANGE_DB / 10)))
    # A palette with a colour per dB: a third of the bytes of an RGB image.
    image = Image.fromarray(np.round(level_db + RANGE_DB).astype(np.uint8)[::-1], mode="P")
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, round(RANGE_DB) + 1), bytes=True)
    image.putpalette(colours[:, :3].tobytes())
    image.save(path, optimize=True)


@style()
def room_from_above(scene: Scene) -> str:
    """Walls, talkers with the distance to the array, and the array enlarged.

    Args:
        scene: one line of scenes.jsonl (positions in m).
    """
    width, depth = scene["room_size_m"][:2]
    mics = np.array(scene["mic_positions_m"])[:, :2]
    centre = mics.mean(axis=0)
    figure, (room, array) = _figure(5.2, 2.7, ncols=2, width_ratios=(2.4, 1))
    room.set(
        aspect="equal",
        xlim=(-0.02 * width, 1.02 * width),
        ylim=(-0.02 * depth, 1.02 * depth),
        xlabel="x (m)",
        ylabel="y (m)",
    )
    room.add_patch(matplotlib.patches.Rectangle((0, 0), width, depth, fill=False, edgecolor=INK, linewidth=1.6))
    room.spines[:].set_visible(False)
    room.plot(*centre, "P", color=INK, markersize=8)
    places = np.array([speaker["position_m"][:2] for speaker in scene["speakers"]])
    nearest = places[np.linalg.norm(places - centre, axis=1).argmin()]
    below = nearest[1] >= centre[1]  # the label keeps clear of the nearest talker
    offset = (0, -13 if below else 13)
    room.annotate("array", centre, offset, textcoords="offset points", ha="center", va="center")
    for index, place in enumerate(places):
        colour, marker = TALKER_COLOURS[index % 4], TALKER_MARKERS[index % 4]
        room.plot(*np.stack([centre, place]).T, ":", color=colour, linewidth=1)
        room.plot(*place, marker, color=colour, markersize=13, clip_on=False)
        room.annotate(str(index + 1), place, color="white", ha="center", va="center_baseline", weight="bold")
    mics_cm = 100 * (mics - centre)
    array.plot(*mics_cm.T, "o", color=INK, markersize=4)
    for index, place in enumerate(mics_cm):
        array.annotate(str(index), place, (4, 3), textcoords="offset points", fontsize=8)
    reach = max(1.35 * np.abs(mics_cm).max(), 1.0)
    array.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach), xlabel="cm")
    array.set_title("array, enlarged", fontsize=9)
    return uri(figure)


@style()
def agreement(agrees: dict[str, list[list[float]]], sample_rate: int) -> str:
    """Whether outputs belong to the same talkers at all frequencies: mean and single utterances.

    Args:
        agrees: "references" or "headsets" -> (utterance, freq) from 0 to 1; not empty.
        sample_rate: Hz.
    """
    return uri(_draw_agreement(agrees, sample_rate))


def save_agreement(path: Path | str, agrees: dict[str, list[list[float]]], sample_rate: int) -> None:
    """The same as a PNG file on white; without anything to compare with it says so."""
    with style(ON_WHITE):
        _draw_agreement(agrees, sample_rate).savefig(path, dpi=150, facecolor="white")


def _draw_agreement(agrees: dict[str, list[list[float]]], sample_rate: int) -> Figure:
    figure, axes = _figure(
        7.2,
        2.2 + 1.3 * len(agrees),
        nrows=1 + len(agrees),
        sharex=True,
        height_ratios=[2] + [1.3] * len(agrees),
        squeeze=False,
    )
    mean, *single = axes[:, 0]
    top = sample_rate / 2000  # kHz
    if not agrees:
        mean.annotate(
            "no references and no headsets to compare with", (0.5, 0.5), xycoords="axes fraction", ha="center"
        )
    lines = {
        "references": {"color": TALKER_COLOURS[0], "linestyle": "-"},
        "headsets": {"color": TALKER_COLOURS[1], "linestyle": "--"},
    }
    for (name, rows), below in zip(agrees.items(), single):
        rows = 100 * np.array(rows)
        frequency = np.linspace(0, top, rows.shape[1])
        mean.plot(frequency, rows.mean(axis=0), **lines[name], label=f"by {name}")
        map_ = matplotlib.colors.LinearSegmentedColormap.from_list(name, [VALID_COLOUR, "#dfe9f2"])
        edges = (frequency[1] if len(frequency) > 1 else top) / 2
        below.grid(False)
        below.imshow(
            rows,
            aspect="auto",
            interpolation="none",
            cmap=map_,
            vmin=0,
            vmax=100,
            extent=(-edges, top + edges, len(rows) + 0.5, 0.5),
        )
        below.yaxis.get_major_locator().set_params(integer=True)
        below.set_ylabel("utterance")
        below.set_title(f"by {name}: orange frequencies have another assignment", loc="left", fontsize=9)
    mean.set(xlim=(0, top), ylim=(-3, 103), ylabel="utterances that agree (%)")
    if agrees:
        mean.legend(loc="lower right", ncols=2)
    axes[-1, 0].set_xlabel("frequency (kHz)")
    return figure
