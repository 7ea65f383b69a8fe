"""Tables I-III of the M2M paper beside our own runs: the paper's figures, collecting, formatting.

A study is a folder of trainings, `<row>_seed<k>`, named after the files of conf/tuning and written
by local/run_table.sh. In each of them `enhanced_<set>/scoring` holds the scores of the separated
speech, and `enhanced_<set>_fcp/scoring` those of the estimates passed through FCP, which count as
a row `<row>_fcp` of their own.
"""

import csv
import io
import json
import math
import re
import statistics
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import yaml

from espnet2_m2m.data_dir.directory import name_some
from espnet2_m2m.metrics import METRICS
from espnet2_m2m.report.results import DECIMALS, TITLES, read_scores
from espnet2_m2m.report.training import read_stats

RUN_NAME = re.compile(r"(table[23]_\w+)_seed(\d+)")
VALID_SI_SDR = "si_snr_loss"  # ESPnet's name of the validation's negative SI-SDR, in dB
SAME_SET_DB = 0.01  # dB; a mixture's SI-SDR differs less than this between machines
PANELS = {"2": "Table II (P = 6)", "3": "Table III (P = 1)"}
CAPTIONS = {
    "1": "Table I: quality of close-talk mixtures (reference: close-talk speech)",
    "2": "Table II: separation, P = 6 (reference: speaker images at the far-field reference mic)",
    "3": "Table III: separation, P = 1 (reference: speaker images at the far-field reference mic)",
}


@dataclass(frozen=True)
class Row:
    """One row of a table: what the paper prints in it, or of ours, then without `paper`."""

    table: str  # "1", "2" or "3"
    label: str  # the paper's number of the row
    system: str
    taps: str  # I/J/M/N
    alpha: str
    paper: dict | None = None  # METRICS -> figure

    @property
    def name(self):
        """What pictures call it."""
        parts = [self.label, self.system]
        if self.taps != "-":
            parts.append(self.taps)
        if self.table == "3" and self.alpha != "-":
            parts.append(f"α={self.alpha}")
        return " ".join(part for part in parts if part != "-")


def _row(label, system, taps, alpha, *scores, table):
    return Row(table, label, system, taps, alpha, dict(zip(METRICS, scores, strict=True)))


# Z.-Q. Wang, "Mixture to Mixture", IEEE SPL 2024, on SMS-WSJ-FF-CT; keys are the files of
# conf/tuning, except for the two qualities that need no training.
PAPER = {
    "table1_closetalk": _row("-", "close-talk mixture", "-", "-", 14.7, 14.7, 2.92, 0.875, table="1"),
    **{
        key: _row(*values, table="2")
        for key, values in {
            "table2_0_mixture": ("0", "mixture", "-", "-", 0.0, 0.1, 1.87, 0.603),
            "table2_1a_m2m": ("1a", "M2M", "19/1/19/1", "1.0", 16.9, 17.9, 3.85, 0.931),
            "table2_1b_m2m": ("1b", "M2M", "19/2/19/1", "1.0", 15.8, 16.7, 3.76, 0.916),
            "table2_1c_m2m": ("1c", "M2M", "19/3/19/1", "1.0", 16.3, 17.2, 3.79, 0.924),
            "table2_1d_m2m": ("1d", "M2M", "19/4/19/1", "1.0", 15.9, 16.8, 3.74, 0.917),
            "table2_1e_m2m": ("1e", "M2M", "19/5/19/1", "1.0", 15.8, 16.7, 3.75, 0.914),
            "table2_2a_m2m": ("2a", "M2M", "19/0/19/0", "1.0", 16.0, 16.9, 3.77, 0.918),
            "table2_2b_m2m": ("2b", "M2M", "19/2/19/2", "1.0", 15.8, 16.8, 3.74, 0.914),
            "table2_2c_m2m": ("2c", "M2M", "19/3/19/3", "1.0", 16.1, 17.1, 3.77, 0.921),
            "table2_4a_unssor": ("4a", "UNSSOR", "-", "-", 14.7, 15.6, 3.44, 0.886),
            "table2_4b_pit": ("4b", "PIT", "-", "-", 18.9, 19.4, 4.06, 0.950),
        }.items()
    },
    **{
        key: _row(*values, table="3")
        for key, values in {
            "table3_0_mixture": ("0", "mixture", "-", "-", 0.0, 0.1, 1.87, 0.603),
            "table3_1_m2m": ("1", "M2M", "19/1/19/1", "1.0", -2.6, -1.3, 1.64, 0.479),
            "table3_2a_m2m": ("2a", "M2M", "19/1/19/1", "1/5", 12.0, 12.9, 3.41, 0.857),
            "table3_2b_m2m": ("2b", "M2M", "19/1/19/1", "1/6", 11.8, 12.7, 3.40, 0.853),
            "table3_2c_m2m": ("2c", "M2M", "19/1/19/1", "1/7", 12.7, 13.7, 3.50, 0.872),
            "table3_2d_m2m": ("2d", "M2M", "19/1/19/1", "1/8", 12.1, 13.0, 3.45, 0.859),
            "table3_3_pit": ("3", "PIT", "-", "-", 13.7, 14.1, 3.61, 0.884),
        }.items()
    },
}
QUALITIES = {  # rows that need no training -> the signals of scores.csv that they are about
    "table1_closetalk": "closetalk",
    "table2_0_mixture": "mixture",
    "table3_0_mixture": "mixture",
}
OUR_SYSTEMS = {
    "table2_ours_m2m_anchor": "M2M with anchor",
    "table2_4b_pit_fcp": "PIT, then FCP",
    "table3_ours_m2m_anchor": "M2M with anchor",
    "table3_3_pit_fcp": "PIT, then FCP",
}


# ---- Collecting ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What the validations of a training report, one value per epoch."""

    steps: list  # batches seen since the start
    si_sdr: list  # of the validation set, in dB; NaN where the config has no such criterion
    seconds: float  # all epochs, without start-up; right also after a resumption


@dataclass(frozen=True)
class Run:
    """One scored output of one training."""

    folder: Path
    enhanced_dir: Path  # the separated speech, with its scores
    key: str  # of the row
    seed: int
    summary: dict  # summary.json
    scores: list  # rows of scores.csv, numbers as numbers
    training: Training | None


@dataclass(frozen=True)
class Study:
    """Runs that were scored on one test set, and the tables' rows."""

    folder: Path
    test_set: str
    runs: list  # of Run, in the tables' order, then by seed
    rows: dict  # key -> Row, of the paper and of ours, in the tables' order
    unfinished: list  # names of folders without scores of this test set

    def of(self, key):
        """The runs of a row."""
        return [run for run in self.runs if run.key == key]


def collect(study_dir, test_set="test", exclude=()):
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
        if folder.name in exclude:
            unfinished.append(folder.name)
            continue
        scored = {key: folder / f"enhanced_{test_set}", f"{key}_fcp": folder / f"enhanced_{test_set}_fcp"}
        scored = {k: path for k, path in scored.items() if (path / "scoring/summary.json").is_file()}
        if key not in scored:
            unfinished.append(folder.name)
        training = read_training(folder / "checkpoint.pth") if scored else None
        for key, enhanced_dir in scored.items():
            summary, scores = read_scores(enhanced_dir)
            runs.append(Run(folder, enhanced_dir, key, seed, summary, scores, training))
            if key not in rows:
                rows[key] = our_row(key, folder / "config.yaml")
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


def _place(key):
    """Sort key: as in the paper, `_fcp` behind its row, then our rows by name."""
    keys, base = list(PAPER), key.removesuffix("_fcp")
    return key[: len("table0")], keys.index(base) if base in keys else len(keys), key


def our_row(key, config_path):
    """A row that the paper does not have; taps and alpha from the training's config.yaml."""
    name = key.partition("_")[2].removeprefix("ours_")
    row = Row(key[len("table")], "-", OUR_SYSTEMS.get(key, name), "-", "-")
    if not config_path.is_file():
        return row
    criterions = yaml.safe_load(config_path.read_text(encoding="utf-8")).get("criterions") or []
    for criterion in criterions:
        conf = criterion.get("conf") or {}
        if criterion["name"] == "mixture_constraint" and conf.get("close_talk", True):
            taps = (
                ("closetalk", "past", 19),
                ("closetalk", "future", 1),
                ("farfield", "past", 19),
                ("farfield", "future", 1),
            )
            taps = "/".join(str(conf.get(f"{mic}_{side}_taps", n)) for mic, side, n in taps)
            return Row(row.table, "-", row.system, taps, _format_alpha(conf.get("alpha", 1.0)))
    return row


def _format_alpha(alpha):
    """0.142857 -> "1/7", as the paper writes it; 1.0 -> "1.0"."""
    fraction = Fraction(alpha).limit_denominator(20)
    near = fraction.denominator > 1 and math.isclose(fraction, alpha, rel_tol=1e-3)
    return str(fraction) if near else str(float(alpha))


def read_training(path):
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
            seconds=sum(phase["time"].total_seconds() for epoch in epochs for phase in epoch.values()),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint of an ESPnet training ({error!r})") from error


def require_one_test_set(runs):
    """Refuse runs whose scores belong to different mixtures: their means cannot be compared.

    Args:
        runs: with `folder`, `summary` and `scores` as in `Run`.
    Raises:
        ValueError: other signals, mixtures, sample rates or reference mics; names the folders.
    """

    def mixtures(run):
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


# ---- Figures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One metric of one row; None where there is no such figure."""

    paper: float | None
    mean: float | None  # over seeds, of the means over signals
    std: float | None  # sample standard deviation over seeds; None for fewer than two
    difference: float | None  # mean - paper


def cells(study, key):
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


def shown(study):
    """Keys of the tables to print: Table I, and those of II and III in which a row was run."""
    tables = {"1"} | {study.rows[run.key].table for run in study.runs}
    return {
        table: [key for key, row in study.rows.items() if row.table == table] for table in CAPTIONS if table in tables
    }


# ---- Formatting ----------------------------------------------------------------------------------


def markdown(study, pictures=()):
    """TABLES.md: the tables, what they were made from, and links to pictures beside it."""
    parts = ["# Tables I-III of the M2M paper and ours"]
    for table, keys in shown(study).items():
        header = ["Row", "System", "I/J/M/N", "α"]
        for metric in METRICS:
            header += [f"{TITLES[metric]}: paper", "ours", "diff."]
        lines = []
        for key in keys:
            row = study.rows[key]
            figures, seeds = cells(study, key)
            line = [row.label, row.system, row.taps, row.alpha]
            for metric, cell in figures.items():
                line += format_cell(cell, DECIMALS[metric])
            lines.append([*line, str(len(seeds)) if seeds else "-"])
        parts.append(f"## {CAPTIONS[table]}\n\n{_table([*header, 'seeds'], lines, left=4)}")
    parts += [f"![{title}]({name})" for name, title in pictures]
    parts.append("## What was run\n\n" + _trainings(study))
    parts.append("\n".join(f"- {note}" for note in notes(study)))
    return "\n\n".join(parts) + "\n"


def format_cell(cell, decimals):
    """The paper's figure, ours (mean ± standard deviation) and the difference; "-": there is none."""

    def number(value, sign=""):
        # + 0.0: no "-0.0"
        return "-" if value is None else f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"

    ours = number(cell.mean) if cell.std is None else f"{number(cell.mean)} ± {number(cell.std)}"
    return [number(cell.paper), ours, number(cell.difference, "+")]


def _table(header, lines, left=1):
    """A Markdown table that is also readable as text; the first `left` columns are words."""
    widths = [max(3, *map(len, column)) for column in zip(header, *lines)]

    def format_line(line):
        cells = [f"{cell:{'<' if n < left else '>'}{widths[n]}}" for n, cell in enumerate(line)]
        return "| " + " | ".join(cells) + " |"

    rule = [":" + "-" * (w - 1) if n < left else "-" * (w - 1) + ":" for n, w in enumerate(widths)]
    return "\n".join(map(format_line, [header, rule, *lines]))


def _span(values, form="{:.0f}"):
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _trainings(study):
    """Epochs, steps and seconds of the trainings of each row."""
    lines = []
    for key in dict.fromkeys(run.key for run in study.runs):
        runs = study.of(key)
        known = [run.training for run in runs if run.training is not None]
        seeds = " ".join(str(run.seed) for run in runs)
        line = [key, seeds]
        if known:
            line += [_span([len(training.steps) for training in known])]
            line += [_span([training.steps[-1] for training in known])]
            line += [_span([training.seconds for training in known])]
        lines.append(line + ["-"] * (5 - len(line)))
    header = ["Row", "seeds", "epochs", "steps (batches)", "seconds of training"]
    return _table(header, lines, left=2)


def notes(study):
    """Sentences, as Markdown, that a reader of the tables must know."""
    summary = study.runs[0].summary
    commits = sorted(set(_commits(study)))
    yield (
        f"Study `{study.folder}`, test set `{summary['data_dir']}`:"
        f" {summary['num_utterances']} utterances of {summary['num_speakers']} speakers,"
        f" {summary['sample_rate_hz']} Hz, reference mic {summary['ref_mic']}."
        + (f" Commit {', '.join(commits)}." if commits else "")
    )
    yield "The paper's figures are for SMS-WSJ-FF-CT, and its network and training."
    yield (
        "Ours: mean over utterances and speakers in the best permutation, then mean ± sample"
        " standard deviation over seeds; difference: that mean, before rounding, minus the paper's."
    )
    yield (
        "Rows with - in the paper's columns are ours. PIT, then FCP: PIT's estimates as Z(c) of"
        " eq. (10), for a comparison with M2M that does not depend on who may use filters."
    )
    if summary["pesq_mode"] == "wb":
        yield "PESQ is wide-band here and narrow-band in the paper: no difference is shown."
    elif summary["pesq_mode"] is None:
        yield f"PESQ is not defined at {summary['sample_rate_hz']} Hz."
    tables = shown(study)
    missing = [CAPTIONS[table].partition(":")[0] for table in CAPTIONS if table not in tables]
    if missing:
        yield f"{' and '.join(missing)}: no row was run."
    if study.unfinished:
        yield f"**Not finished**, so not in the tables: {', '.join(study.unfinished)}."
    steps = [run.training.steps[-1] for run in study.runs if run.training is not None]
    if steps and max(steps) > 1.1 * min(steps):
        yield f"**The trainings differ in length**: {_span(steps)} steps."
    for run in study.runs:
        name = f"{run.folder.name}{' (then FCP)' if run.key.endswith('_fcp') else ''}"
        if run.summary["silent_estimates"]:
            yield (
                f"**{name}: {run.summary['silent_estimates']} of {len(run.scores)} estimates are"
                " silent**; SI-SDR and SDR count as -100 dB."
            )
        for metric, count in run.summary["undefined"]["mixture"].items():
            if count and run.summary["mean"]["separated"][metric] is not None:
                yield (
                    f"{name}: {TITLES[metric]} is undefined for {count} signals, which its mean"
                    " leaves out: no difference is shown."
                )


def _commits(study):
    """Commits that run_table.sh noted for the runs."""
    for folder in {run.folder for run in study.runs}:
        path = folder / "run_table.jsonl"
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                commit = json.loads(line)["commit"]
                if commit is not None:
                    yield commit


def csv_text(study):
    """tables.csv: a line per row and metric, figures in full, empty where there is none."""
    buffer = io.StringIO()
    names = ["table", "row", "label", "system", "taps", "alpha", "metric"]
    names += ["paper", "mean", "std", "difference", "seeds"]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for table, keys in shown(study).items():
        for key in keys:
            row = study.rows[key]
            figures, seeds = cells(study, key)
            for metric, cell in figures.items():
                writer.writerow(
                    {
                        **{"table": table, "row": key, "label": row.label, "system": row.system},
                        **{"taps": row.taps, "alpha": row.alpha, "metric": metric},
                        **vars(cell),
                        "seeds": " ".join(map(str, seeds)),
                    }
                )
    return buffer.getvalue()


# ---- What the pictures show ----------------------------------------------------------------------


def learning_curves(study):
    """[(title, [(row's place in the table, name, steps, mean, low, high)])], a panel per table.

    The curves have one value per epoch: over seeds, of the validation set's SI-SDR in dB. A run
    without such a criterion or without checkpoint has none.
    """
    panels = []
    for table, keys in shown(study).items():
        curves = []
        for place, key in enumerate(keys):
            # FCP behind a training does not change its validation: one curve for both.
            runs = [] if key.endswith("_fcp") else study.of(key)
            known = [run.training for run in runs if run.training is not None]
            steps, values = [], []
            for trainings in zip(*(zip(training.steps, training.si_sdr) for training in known)):
                finite = [value for _, value in trainings if math.isfinite(value)]
                if finite:
                    steps.append(statistics.fmean(step for step, _ in trainings))
                    values.append(finite)
            if steps:
                curve = [list(map(of, values)) for of in (statistics.fmean, min, max)]
                curves.append((place, study.rows[key].name, steps, *curve))
        if curves:
            panels.append((PANELS[table], curves))
    return panels


def distributions(study):
    """[(title, [(row's place, name, SI-SDR of every signal in dB)])], seeds pooled, best first row."""
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
                boxes.append((place, study.rows[key].name, values))
        panels.append((PANELS[table], boxes))
    return panels
