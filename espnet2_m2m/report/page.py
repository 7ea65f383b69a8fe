"""The report page: one system's results in full, or several side by side, for people to look at and listen to.

    out_dir/index.html      the page: style, script, tables and line figures are part of it
    out_dir/media/          audio (wav) and spectrograms (png) of the examples

It opens from disk, without a server, and loads nothing but its media folder.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from espnet2_m2m.data_dir import source_stamp, write_text
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.report import examples, figures, study_figures, tables, training
from espnet2_m2m.report.paper import CAPTIONS
from espnet2_m2m.report.study import Box, Curve, Panel, Study, distributions, learning_curves, read_training, shown
from espnet2_m2m.report.systems import System, gains
from espnet2_m2m.scoring.results import DECIMALS, HEADSETS, TITLES, format_scores

Table = dict[str, Any]  # caption, columns (of study tables in groups), and rows of (class, cells)


def write_report(
    out_dir: Path | str,
    data_dir: Path | str,
    systems: list[System],
    study: Study | None = None,
    num_examples: int = 3,
) -> int:
    """Write the page; until it is complete there is no index.html.

    Args:
        out_dir: folder of the page.
        data_dir: the set that was separated.
        systems: one or more.
        study: that they are from: its tables and figures over seeds come first.
        num_examples: number of test mixtures to look at and listen to.
    Returns:
        the size of page and media in bytes.
    Raises:
        ValueError: broken scenes, checkpoints or diagnoses; the message names the file.
    """
    out_dir, data_dir = Path(out_dir), Path(data_dir)
    summary = systems[0].summary
    scored = bool(systems[0].scores)  # real recordings have no references
    scenes = read_scenes(data_dir / "scenes.jsonl")  # of real recordings: none
    if study is not None:
        panels = learning_curves(study), distributions(study)
    else:
        panels = _panels(systems) if scored else ([], [])
    # Outputs with and without FCP share a training.
    trainings = {system.folder: system for system in reversed(systems)}
    trainings = [(system, _training(system)) for system in reversed(trainings.values())]
    diagnoses = [read_diagnosis(system.enhanced_dir / "diagnosis" / "diagnosis.json") for system in systems]
    word_errors = word_error_table(systems, data_dir.resolve().name)
    texts = examples.read_texts(data_dir, summary["num_speakers"])
    gain = gains(systems)
    chosen = examples.choose(gain or dict.fromkeys(systems[0].jobs), num_examples)

    index = out_dir / "index.html"
    index.unlink(missing_ok=True)
    for path in (out_dir / "media").glob("example*_*"):  # of an earlier page
        path.unlink()
    shown = [
        examples.write_example(out_dir, n, label, utt_id, systems, gain.get(utt_id), scenes.get(utt_id), texts)
        for n, (label, utt_id) in enumerate(chosen, start=1)
    ]
    numbers = {example["utt_id"]: example["number"] for example in shown}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("index.html").render(
        title=study.folder.resolve().name if study else " and ".join(_some([s.name for s in systems])),
        summary=summary,
        systems=systems,
        study_tables=study_tables(study) if study else [],
        study_notes=list(tables.notes(study)) if study else [],
        score_table=score_table(systems) if scored else None,
        closetalk_table=closetalk_table(summary) if scored else None,
        word_errors=word_errors,
        boxes=[_boxes(panel) for panel in panels[1]],
        curves=[_curves(panel) for panel in panels[0]],
        trainings=trainings,
        diagnoses=[(system, diagnosis) for system, diagnosis in zip(systems, diagnoses) if diagnosis],
        utterances=utterance_table(systems, gain) if scored else None,
        numbers=numbers,
        points=points(systems, numbers) if scored else None,
        examples=shown,
        has_scenes=bool(scenes),
    )
    write_text(index, html)
    return sum(path.stat().st_size for path in [index, *(out_dir / "media").iterdir()])


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= 3 else [f"{names[0]}, {names[1]}", f"{len(names) - 2} more"]


# ---- Tables --------------------------------------------------------------------------------------


def score_table(systems: list[System]) -> Table:
    """Means of the mixture and of every system; where scored, also in fixed order."""
    rows = [("mixture", ["mixture", *format_scores(systems[0].summary["mean"]["mixture"]), "", ""])]
    for system in systems:
        mean, half_width = system.summary["mean"], system.summary["si_sdr_improvement_half_width_db"]
        gain = f"{mean['improvement']['si_sdr']:+.1f}"
        agreeing = system.summary["fixed_order_agrees"]
        name = "separated" if len(systems) == 1 else system.name
        cells = [name, *format_scores(mean["separated"])]
        cells += [gain if half_width is None else f"{gain} ± {half_width:.1f}"]
        cells += ["" if agreeing is None else f"{agreeing} of {system.summary['num_utterances']}"]
        rows.append(("separated" if len(systems) == 1 else "", cells))
        if agreeing is not None:
            rows.append(("fixed", [f"{name}, fixed order", *format_scores(mean["fixed_order"]), "", ""]))
    columns = ["Signal", *TITLES.values(), "SI-SDR improvement (dB)", "In headset order"]
    if all(not row[-1] for _, row in rows):
        columns, rows = columns[:-1], [(kind, row[:-1]) for kind, row in rows]
    return {
        "caption": "Reference: talkers' images at the far-field reference mic. Means over"
        f" {systems[0].summary['num_rows']} signals; higher is better",
        "columns": columns,
        "rows": rows,
    }


def closetalk_table(summary: dict[str, Any]) -> Table | None:
    """Quality of the close-talk mixtures, which no system changes; None where not scored."""
    if "closetalk" not in summary["mean"]:
        return None
    return {
        "caption": f"Reference: close-talk speech. Means over {summary['num_rows']} signals",
        "columns": ["Signal", *TITLES.values()],
        "rows": [
            ("", [title, *format_scores(summary["mean"][group])])
            for group, title in HEADSETS.items()
            if group in summary["mean"]
        ],
    }


def study_tables(study: Study) -> list[Table]:
    """Tables I-III: the paper's figure, ours and the difference for each metric."""
    result = []
    for table, keys in shown(study).items():
        columns = ["Row", "System", "I/J/M/N", "α", *["paper", "ours", "diff."] * len(DECIMALS), "seeds"]
        rows = [("separated" if study.of(key) else "", tables.table_line(study, key)) for key in keys]
        groups = [("", 4), *((TITLES[metric], 3) for metric in DECIMALS), ("", 1)]
        result.append({"caption": CAPTIONS[table], "groups": groups, "columns": columns, "rows": rows})
    return result


def word_error_table(systems: list[System], set_name: str) -> Table | None:
    """What stage 10 found for mixture, systems, headsets and clean speech, by each recogniser; None without.

    Reads decode_<recogniser>/<set>/summary.json beside the trainings.

    Raises:
        ValueError: a file without rates.
    """
    ours = {
        system.folder.name + system.enhanced_dir.name.removeprefix(f"enhanced_{set_name}"): system.name
        for system in systems
    }
    separated = dict(zip(ours, systems))
    names = {"mixture": "mixture", **ours, **HEADSETS, "clean": "clean speech"}
    paths = {path for s in systems for path in s.folder.parent.glob(f"decode_*/{set_name}/summary.json")}
    rows = []
    for path in sorted(paths):
        recogniser = path.parents[1].name.removeprefix("decode_")
        try:
            conditions = json.loads(path.read_text(encoding="utf-8"))["conditions"]
            for condition in conditions.keys() & names.keys():
                rates = [f"{conditions[condition][unit]['rate']:.1f}" for unit in ("wer", "cer")]
                if condition in separated and _changed_since(separated[condition], path):
                    rates = 2 * ["out of date: run stages 9 and 10"]
                rows.append((list(names).index(condition), [names[condition], recogniser, *rates]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no word error rates ({error!r}); run stage 10 again") from error
    if not rows:
        return None
    return {
        "caption": "Word and character error rates (cpWER, cpCER); lower is better",
        "columns": ["Signal", "Recogniser", "WER (%)", "CER (%)"],
        "rows": [("", cells) for _, cells in sorted(rows)],
    }


def _changed_since(system: System, path: Path) -> bool:
    """Whether the system's output is newer than a file."""
    streams = (job.utterance.signals["stream"].values() for job in system.jobs.values())
    outputs = (Path(signal.entry) for numbered in streams for signal in numbered)
    return any(output.is_file() and output.stat().st_mtime > path.stat().st_mtime for output in outputs)


def _signals(systems: list[System]) -> Iterator[tuple[tuple[str, int], float, list[float]]]:
    """((utt_id, speaker), SI-SDR of the mixture, SI-SDR of each system) of all signals, in dB."""
    separated = [
        {(row["utt_id"], row["speaker"]): row["separated_si_sdr"] for row in system.scores} for system in systems
    ]
    for row in systems[0].scores:
        signal = (row["utt_id"], row["speaker"])
        yield signal, row["mixture_si_sdr"], [values[signal] for values in separated]


def utterance_table(systems: list[System], gain: dict[str, float]) -> Table:
    """All signals, those of the utterances that gain least first."""
    ordered = sorted(_signals(systems), key=lambda one: (gain[one[0][0]], one[0]))
    rows = [
        ("", [utt_id, str(speaker), f"{mixture:.1f}", *(f"{value:.1f}" for value in values)])
        for (utt_id, speaker), mixture, values in ordered
    ]
    names = ["Separated"] if len(systems) == 1 else [system.name for system in systems]
    return {
        "caption": "SI-SDR in dB, the utterance that gains least first",
        "columns": ["Utterance", "Talker", "Mixture", *names],
        "rows": rows,
    }


def points(systems: list[System], numbers: dict[str, int]) -> dict[str, Any]:
    """What the scatter plot of the page's script shows.

    Args:
        numbers: utt_id -> number of the example that can be listened to.
    """
    return {
        "systems": ["separated"] if len(systems) == 1 else [system.name for system in systems],
        "signals": [
            {"utt": utt_id, "speaker": speaker, "example": numbers.get(utt_id), "si_sdr": [mixture, *values]}
            for (utt_id, speaker), mixture, values in _signals(systems)
            if all(map(math.isfinite, [mixture, *values]))
        ],
    }


# ---- Figures -------------------------------------------------------------------------------------


def _panels(systems: list[System]) -> tuple[list[Panel], list[Panel]]:
    """Learning curves and distributions of single trainings, as `study` gives them for studies."""
    names = ["separated"] if len(systems) == 1 else [system.name for system in systems]
    curves = []
    for place, (name, system) in enumerate(zip(names, systems)):
        found = read_training(system.folder / "checkpoint.pth") if len(systems) > 1 else None
        if found is not None and np.isfinite(found.si_sdr).any():
            curves.append(Curve(place, name, found.steps, found.si_sdr, found.si_sdr, found.si_sdr))
    boxes = [
        Box(place, name, [row["separated_si_sdr"] for row in system.scores])
        for place, (name, system) in enumerate(zip(names, systems))
    ]
    boxes.insert(0, Box(-1, "mixture", [row["mixture_si_sdr"] for row in systems[0].scores]))
    return [("Validation", curves)] if curves else [], [("", boxes)]


def _boxes(panel: Panel) -> dict[str, str]:
    title, boxes = panel
    medians = ", ".join(f"{box.name} {np.median(box.values):.1f}" for box in boxes)
    return {
        "src": study_figures.boxes(panel),
        "alt": f"Box plot of the SI-SDR of the test signals{title and ', ' + title}; medians in dB: {medians}",
    }


def _curves(panel: Panel) -> dict[str, str]:
    title, curves = panel
    ends = ", ".join(f"{curve.name} {curve.mean[-1]:.1f} dB" for curve in curves)
    return {
        "src": study_figures.learning_curves(panel),
        "alt": f"SI-SDR of the validation set over training steps, {title}; at the end: {ends}",
    }


# ---- Training ------------------------------------------------------------------------------------


def _training(system: System) -> dict[str, Any] | None:
    stats = training.read_stats(system.folder / "checkpoint.pth")
    return None if stats is None else training.summarise(stats)


def read_diagnosis(path: Path) -> dict[str, Any] | None:
    """What bin/diagnose.py found, in words, numbers and a figure; None where it has not been run.

    Raises:
        ValueError: not a diagnosis.
    """
    if not path.is_file():
        return None
    from espnet2_m2m.diagnosis import words  # torch takes seconds, so only where needed

    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        model = Path(result["model_file"])
        figure = None
        if result["agrees"]:
            shares = {name: 100 * np.mean(rows) for name, rows in result["agrees"].items()}
            figure = {
                "src": figures.agreement(result["agrees"], result["sample_rate_hz"]),
                "height": 336 if len(result["agrees"]) == 1 else 461,
                "alt": "Share of utterances, over frequency, whose outputs belong to the same talkers"
                " as at the other frequencies; on average "
                + ", ".join(f"{share:.0f} % by {name}" for name, share in shares.items()),
            }
        headsets = words.headset_table(result["mean"])
        return {
            "ok": result["verdict"] == "separates",
            "summary": result["summary"],
            "votes": words.sentence_of_votes(result),
            "why": result["why"],
            "change": result["change"],
            "model": model.name,
            "outdated": model.is_file() and source_stamp(model) != result["model_stamp"],
            "data_dir": result["data_dir"],
            "table": {
                "caption": "Means over the utterances; lists are over outputs or mics",
                "columns": ["Quantity", "Value", "Expected"],
                "rows": [("", row) for row in words.table(result["mean"])],
            },
            "headsets": headsets
            and {
                "caption": "How much one output alone explains of each headset (dB by which its energy falls)",
                "columns": ["Headset", *headsets[0]],
                "rows": [("", row) for row in headsets[1]],
            },
            "figure": figure,
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a diagnosis ({error!r}); run espnet2_m2m diagnose again") from error
