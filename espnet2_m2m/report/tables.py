"""TABLES.md and tables.csv: Tables I-III of the M2M paper beside our own runs."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

from espnet2_m2m.markdown import table as markdown_table
from espnet2_m2m.report.paper import CAPTIONS, OUTPUTS, training_of
from espnet2_m2m.report.study import Cell, Study, cells_of_row, shown
from espnet2_m2m.scoring.metrics import METRICS
from espnet2_m2m.scoring.results import DECIMALS, TITLES


def markdown(study: Study, pictures: Iterable[tuple[str, str]] = ()) -> str:
    """TABLES.md: the tables, what they were made from, and links to pictures beside it.

    Args:
        study: what is shown.
        pictures: (file name, title) of each.
    """
    parts = ["# Tables I-III of the M2M paper and ours"]
    for table, keys in shown(study).items():
        header = ["Row", "System", "I/J/M/N", "α"]
        for metric in METRICS:
            header += [f"{TITLES[metric]}: paper", "ours", "diff."]
        lines = [table_line(study, key) for key in keys]
        parts.append(f"## {CAPTIONS[table]}\n\n{markdown_table([*header, 'seeds'], lines, 4, 'padded')}")
    parts += [f"![{title}]({name})" for name, title in pictures]
    parts.append("## What was run\n\n" + _trainings(study))
    parts.append("\n".join(f"- {note}" for note in notes(study)))
    return "\n\n".join(parts) + "\n"


def table_line(study: Study, key: str) -> list[str]:
    """Cells of a row: label, system, taps, alpha; of each metric the paper's, ours and the difference; seeds."""
    row = study.rows[key]
    figures, seeds = cells_of_row(study, key)
    line = [row.label, row.system, row.taps, row.alpha]
    for metric, cell in figures.items():
        line += _format_cell(cell, DECIMALS[metric])
    return [*line, str(len(seeds)) if seeds else "-"]


def _format_cell(cell: Cell, decimals: int) -> list[str]:
    """The paper's figure, ours (mean ± standard deviation) and the difference; "-": there is none."""

    def number(value: float | None, sign: str = "") -> str:
        # + 0.0: no "-0.0"
        return "-" if value is None else f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"

    ours = number(cell.mean) if cell.std is None else f"{number(cell.mean)} ± {number(cell.std)}"
    return [number(cell.paper), ours, number(cell.difference, "+")]


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _trainings(study: Study) -> str:
    """Epochs, steps and seconds of the trainings of each row."""
    lines = []
    for key in dict.fromkeys(run.key for run in study.runs):
        runs = study.of(key)
        known = [run.training for run in runs if run.training is not None]
        figures = [(len(training.steps), training.steps[-1], training.seconds) for training in known]
        seeds = " ".join(str(run.seed) for run in runs)
        lines.append([key, seeds, *(map(_span, zip(*figures)) if figures else ["-"] * 3)])
    header = ["Row", "seeds", "epochs", "steps (batches)", "seconds of training"]
    return markdown_table(header, lines, 2, "padded")


def notes(study: Study) -> Iterator[str]:
    """Sentences, as Markdown, that a reader of the tables must know."""
    summary = study.runs[0].summary
    commits = _commits(study)
    yield (
        f"Study `{study.folder}`, test set `{summary['data_dir']}`:"
        f" {summary['num_utterances']} utterances of {summary['num_speakers']} talkers,"
        f" {summary['sample_rate_hz']} Hz, reference mic {summary['ref_mic']}."
        + (f" Commit {', '.join(commits)}." if commits else "")
    )
    yield "The paper's figures are for SMS-WSJ-FF-CT, and its network and training."
    yield (
        "Ours: mean over utterances and talkers in the best permutation, then mean ± sample"
        " standard deviation over seeds; difference: that mean, before rounding, minus the paper's."
    )
    yield (
        "Rows with - in the paper's columns are ours. PIT, then FCP: PIT's estimates as Z(c) of"
        " eq. (10), for a comparison with M2M that does not depend on who may use filters. Consistent: what the"
        " output leaves of the mixture is given back to it; all other rows have the paper's output."
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
        _, tag = training_of(run.key)
        name = f"{run.folder.name}{f' ({OUTPUTS[tag].system})' if tag else ''}"
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


def _commits(study: Study) -> list[str]:
    """Commits that run_table.sh noted for the runs."""
    paths = {run.folder / "run_table.jsonl" for run in study.runs}
    lines = [line for path in paths if path.is_file() for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted({json.loads(line)["commit"] for line in lines} - {None})


def csv_text(study: Study) -> str:
    """tables.csv: a line per row and metric, figures in full, empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = "table row label system taps alpha metric paper mean std difference seeds"
    writer.writerow(names.split())
    for table, keys in shown(study).items():
        for key in keys:
            row = study.rows[key]
            figures, seeds = cells_of_row(study, key)
            for metric, cell in figures.items():
                facts = [table, key, row.label, row.system, row.taps, row.alpha, metric]
                writer.writerow([*facts, cell.paper, cell.mean, cell.std, cell.difference, " ".join(map(str, seeds))])
    return buffer.getvalue()
