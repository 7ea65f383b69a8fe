"""A study: trainings of rows of the paper's tables, collected, and what the tables and pictures show of them.

A study is a folder of trainings, `<row>_seed<k>`, named after the files of conf/tuning and written
by local/run_table.sh. In each of them `enhanced_<set>/scoring` holds the scores of the separated
speech, and `enhanced_<set>_<tag>/scoring` those of another output of the same training, which counts as
a row `<row>_<tag>` of its own (`OUTPUTS` in paper.py).
"""

import math
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from espnet2_m2m.data_dir.directory import name_some
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.report.paper import CAPTIONS, OUR_SYSTEMS, OUTPUTS, PANELS, PAPER, QUALITIES, Row, training_of
from espnet2_m2m.report.training import read_stats, training_seconds
from espnet2_m2m.scoring.metrics import METRICS
from espnet2_m2m.scoring.results import read_scores

RUN_NAME = re.compile(r"(table[23]_\w+)_seed(\d+)")
VALID_SI_SDR = "si_snr_loss"  # ESPnet's name of the validation's negative SI-SDR, in dB
SAME_SET_DB = 0.01  # dB; a mixture's SI-SDR differs less than this between machines


@dataclass(frozen=True)
class Training:
    """What the validations of a training report, one value per epoch."""

    steps: list[int]  # batches seen since the start
    si_sdr: list[float]  # of the validation set, in dB; NaN where the config has no such criterion
    seconds: float  # all epochs, without start-up; right also after a resumption


@dataclass(frozen=True)
class Run:
    """One scored output of one training."""

    folder: Path
    enhanced_dir: Path  # the separated speech, with its scores
    key: str  # of the row
    seed: int
    summary: dict[str, Any]  # summary.json
    scores: list[dict[str, Any]]  # rows of scores.csv, numbers as numbers
    training: Training | None


@dataclass(frozen=True)
class Study:
    """Runs that were scored on one test set, and the tables' rows."""

    folder: Path
    test_set: str
    runs: list[Run]  # in the tables' order, then by seed
    rows: dict[str, Row]  # by key, of the paper and of ours, in the tables' order
    unfinished: list[str]  # names of folders without scores of this test set

    def of(self, key: str) -> list[Run]:
        """The runs of a row."""
        return [run for run in self.runs if run.key == key]


def collect(study_dir: Path | str, test_set: str = "test", exclude: Iterable[str] = ()) -> Study:
    """All scored runs of a study, except for folders named in `exclude`, which count as not finished.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no finished run in it, or runs that were scored on different sets.
    """
    study_dir = Path(study_dir)
    if not study_dir.is_dir():
        raise FileNotFoundError(f"{study_dir}: no such directory")
    runs, unfinished, rows = [], [], dict(PAPER)
    for folder in sorted(study_dir.iterdir()):
        match = RUN_NAME.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        key, seed = match[1], int(match[2])
        scored = {key: folder / f"enhanced_{test_set}"}
        scored |= {f"{key}_{tag}": folder / f"enhanced_{test_set}_{tag}" for tag in OUTPUTS}
        scored = {
            k: path
            for k, path in scored.items()
            if folder.name not in exclude and (path / "scoring/summary.json").is_file()
        }
        if key not in scored:
            unfinished.append(folder.name)
        training = read_training(folder / "checkpoint.pth") if scored else None
        for key, enhanced_dir in scored.items():
            summary, scores = read_scores(enhanced_dir)
            runs.append(Run(folder, enhanced_dir, key, seed, summary, scores, training))
            if key not in rows:
                rows[key] = our_row(key, _config(folder))
    if not runs:
        found = f"; not finished: {name_some(unfinished)}" if unfinished else ""
        raise ValueError(
            f"{study_dir}: no run that was scored on '{test_set}', expected folders like"
            f" table2_1a_m2m_seed0/enhanced_{test_set}/scoring; local/run_table.sh makes them{found}"
        )
    require_one_test_set(runs)
    order = {key: place for place, key in enumerate(sorted(rows, key=_place))}
    runs.sort(key=lambda run: (order[run.key], run.seed))
    return Study(study_dir, test_set, runs, {key: rows[key] for key in order}, unfinished)


def _place(key: str) -> tuple[str, int, str]:
    """Sort key: as in the paper, other outputs behind the row of their training, then our rows by name."""
    keys, (base, _) = list(PAPER), training_of(key)
    return key[: len("table0")], keys.index(base) if base in keys else len(keys), key


def _config(folder: Path) -> TrainingConfig:
    """Of a training; without any option where it has none."""
    path = folder / "config.yaml"
    return TrainingConfig.load(path) if path.is_file() else TrainingConfig({})


def our_row(key: str, config: TrainingConfig) -> Row:
    """A row that the paper does not have; taps and alpha from the training's config."""
    base, tag = training_of(key)
    system = (
        PAPER[base].system if base in PAPER else OUR_SYSTEMS.get(base, base.partition("_")[2].removeprefix("ours_"))
    )
    row = Row(key[len("table")], "-", f"{system}, {OUTPUTS[tag].system}" if tag else system, "-", "-")
    if not config.uses_headsets:
        return row
    taps = "/".join(
        str(config.loss[f"{mic}_{side}_taps"]) for mic in ("closetalk", "farfield") for side in ("past", "future")
    )
    return Row(row.table, "-", row.system, taps, _format_alpha(config.loss["alpha"]))


def _format_alpha(alpha: float) -> str:
    """0.142857 -> "1/7", as the paper writes it; 1.0 -> "1.0"."""
    fraction = Fraction(alpha).limit_denominator(20)
    near = fraction.denominator > 1 and math.isclose(fraction, alpha, rel_tol=1e-3)
    return str(fraction) if near else str(float(alpha))


def read_training(path: Path | str) -> Training | None:
    """Steps and validation SI-SDR from ESPnet's checkpoint; None where there is no checkpoint.

    Raises:
        ValueError: not a checkpoint of an ESPnet training.
    """
    stats = read_stats(path)
    if stats is None:
        return None
    try:
        epochs = [stats[epoch] for epoch in sorted(stats)]
        return Training(
            steps=[epoch["train"]["total_count"] for epoch in epochs],
            si_sdr=[-float(epoch["valid"].get(VALID_SI_SDR, math.nan)) for epoch in epochs],
            seconds=training_seconds(stats),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint of an ESPnet training ({error!r})") from error


def require_one_test_set(runs: list) -> None:
    """Refuse runs whose scores belong to different mixtures: their means cannot be compared.

    Args:
        runs: Run or System, with `folder`, `summary` and `scores` as in `Run`.
    Raises:
        ValueError: other signals, mixtures, sample rates or reference mics; names the folders.
    """

    def mixtures(run: Any) -> dict[tuple[str, int], float]:
        return {(row["utt_id"], row["speaker"]): row["mixture_si_sdr"] for row in run.scores}

    first, desired = runs[0], mixtures(runs[0])
    for run in runs[1:]:
        found = mixtures(run)
        where = f"{run.folder} and {first.folder} were not scored on the same set"
        remedy = "separate and score both on one set (stages 7 and 8)"
        for name in ("sample_rate_hz", "ref_mic"):
            if run.summary[name] != first.summary[name]:
                raise ValueError(f"{where}: {name} is {run.summary[name]} and {first.summary[name]}; {remedy}")
        different = {utt_id for utt_id, _ in found.keys() ^ desired.keys()}
        if different:
            raise ValueError(
                f"{where}: they have {len(found)} and {len(desired)} signals, and only one has"
                f" utterance {name_some(sorted(different))}; {remedy}"
            )
        for signal, value in found.items():
            if abs(value - desired[signal]) > SAME_SET_DB:
                raise ValueError(
                    f"{where}: the SI-SDR of mixture '{signal[0]}' is {value:.2f} and"
                    f" {desired[signal]:.2f} dB; {remedy}"
                )


@dataclass(frozen=True)
class Cell:
    """One metric of one row; None where there is no such figure."""

    paper: float | None
    mean: float | None  # over seeds, of the means over signals
    std: float | None  # sample standard deviation over seeds; None for fewer than two
    difference: float | None  # mean - paper


def cells_of_row(study: Study, key: str) -> tuple[dict[str, Cell], list[int]]:
    """METRICS -> Cell of one row, and the seeds behind it: none for a quality or a row not run."""
    runs = study.of(key)
    comparable = study.runs[0].summary["pesq_mode"] == "nb"  # the paper's: 8 kHz
    result = {}
    for metric in METRICS:
        if key in QUALITIES:
            column = f"{QUALITIES[key]}_{metric}"
            signals = [row[column] for row in study.runs[0].scores if column in row]
            signals = [value for value in signals if math.isfinite(value)]
            values = [statistics.fmean(signals)] if signals else []
        else:
            values = [run.summary["mean"]["separated"][metric] for run in runs]
            values = [value for value in values if value is not None]
        paper = (study.rows[key].paper or {}).get(metric)
        mean = statistics.fmean(values) if values else None
        std = statistics.stdev(values) if len(values) > 1 else None
        left_out = any(run.summary["undefined"].get("mixture", {}).get(metric) for run in runs)
        compared = None not in (mean, paper) and not left_out and (metric != "pesq" or comparable)
        result[metric] = Cell(paper, mean, std, mean - paper if compared else None)
    return result, [run.seed for run in runs]


def shown(study: Study) -> dict[str, list[str]]:
    """Keys of the tables to print: Table I, and those of II and III in which a row was run."""
    tables = {"1"} | {study.rows[run.key].table for run in study.runs}
    return {
        table: [key for key, row in study.rows.items() if row.table == table] for table in CAPTIONS if table in tables
    }


class Curve(NamedTuple):
    """SI-SDR of the validation set in dB over training steps: mean and range of the seeds."""

    place: int  # of the row in its table, which is its colour
    name: str
    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


class Box(NamedTuple):
    """SI-SDR in dB of the test signals (utterance, talker), all seeds together."""

    place: int  # of the row in its table, which is its colour
    name: str
    values: list[float]


Panel = tuple[str, list]  # title, and of what is drawn below it: Curve or Box


def learning_curves(study: Study) -> list[Panel]:
    """A panel of `Curve` per table.

    The curves have one value per epoch: over seeds, of the validation set's SI-SDR in dB. A run
    without such a criterion or without checkpoint has none.
    """
    panels = []
    for table, keys in shown(study).items():
        curves = []
        for place, key in enumerate(keys):
            runs = study.of(key) if training_of(key)[1] is None else []  # one curve for all outputs of a training
            known = [run.training for run in runs if run.training is not None]
            steps, values = [], []
            for trainings in zip(*(zip(training.steps, training.si_sdr) for training in known)):
                finite = [value for _, value in trainings if math.isfinite(value)]
                if finite:
                    steps.append(statistics.fmean(step for step, _ in trainings))
                    values.append(finite)
            if steps:
                curve = [list(map(of, values)) for of in (statistics.fmean, min, max)]
                # The validation's output is that of the training's config.
                consistent = ", consistent" * _config(runs[0].folder).mixture_consistency
                curves.append(Curve(place, study.rows[key].name + consistent, steps, *curve))
        if curves:
            panels.append((PANELS[table], curves))
    return panels


def distributions(study: Study) -> list[Panel]:
    """A panel of `Box` per table, a box for each row that has been run and for the mixture."""
    panels = []
    for table, keys in shown(study).items():
        if table not in PANELS:
            continue
        boxes = []
        for place, key in enumerate(keys):
            if key in QUALITIES:
                values = [row["mixture_si_sdr"] for row in study.runs[0].scores]
            else:
                values = [row["separated_si_sdr"] for run in study.of(key) for row in run.scores]
            if values:
                boxes.append(Box(place, study.rows[key].name, values))
        panels.append((PANELS[table], boxes))
    return panels
