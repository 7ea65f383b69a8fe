"""Means of a scored set, its section of RESULTS.md, and reading what was written."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from espnet2_m2m import markdown
from espnet2_m2m.scoring import metrics

TITLES = {"si_sdr": "SI-SDR (dB)", "sdr": "SDR (dB)", "pesq": "PESQ", "estoi": "eSTOI"}
DECIMALS = {"si_sdr": 1, "sdr": 1, "pesq": 2, "estoi": 3}  # as the paper prints them
ROWS = {
    "mixture": "mixture",
    "separated": "separated",
    "improvement": "improvement",
    "fixed_order": "separated, fixed order",
}
HEADSETS = {"closetalk": "close-talk mixture", "cleaned": "close-talk mixture, cleaned"}
PREAMBLE = """# Results

Written by `espnet2_m2m enh_scoring`: one section per scored set, replaced when the
set is scored again.
"""


def summarise(results: dict[str, dict]) -> dict:
    """Means over all utterances and speakers.

    A row (utterance, speaker) without a value in any of mixture, separated and fixed order counts
    in none of the three, so that improvement = separated - mixture holds for the means. Close-talk mixtures are
    those of the speakers who have a headset.

    Args:
        results: utt_id -> result of `scoring.score_job`.
    Returns:
        dict of JSON types; "mean" is {group: {metric: float or None}}, "undefined" is
        {metric: number of rows left out}.
    Raises:
        ValueError: no utterance, or utterances of several sample rates.
    """
    if not results:
        raise ValueError("no utterance to score: the set is empty")
    rates = {}
    for utt_id, result in results.items():
        rates.setdefault(result["sample_rate"], utt_id)
    if len(rates) > 1:
        found = ", ".join(f"{rate} Hz ('{utt_id}')" for rate, utt_id in rates.items())
        raise ValueError(f"one set needs one sample rate, found {found}")
    rows = [row for result in results.values() for row in result["rows"]]
    mean, undefined = {}, {}
    separation = [g for g in ("mixture", "separated", "fixed_order") if f"{g}_si_sdr" in rows[0]]
    groups = [(separation, rows)]
    for family in HEADSETS:
        with_headset = [row for row in rows if f"{family}_si_sdr" in row]
        groups += [([family], with_headset)] * bool(with_headset)
    for name in metrics.METRICS:
        for together, rows_here in groups:
            table = np.array([[row[f"{group}_{name}"] for group in together] for row in rows_here], dtype=float)
            defined = table[np.isfinite(table).all(axis=1)]
            for group, values in zip(together, defined.T):
                mean.setdefault(group, {})[name] = float(values.mean()) if len(values) else None
            undefined.setdefault(together[0], {})[name] = len(table) - len(defined)
        mixture, separated = mean["mixture"][name], mean["separated"][name]
        mean.setdefault("improvement", {})[name] = None if mixture is None else separated - mixture
    gains = [
        np.mean([row["separated_si_sdr"] - row["mixture_si_sdr"] for row in result["rows"]])
        for result in results.values()
    ]
    # Speakers of one utterance are not independent, so the interval is over utterances.
    half_width = 1.96 * np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else None
    agreeing = sum(all(row["speaker"] == row["estimate"] for row in result["rows"]) for result in results.values())
    (sample_rate,) = rates
    return {
        "num_utterances": len(results),
        "num_speakers": max(row["speaker"] for row in rows),
        "sample_rate_hz": sample_rate,
        "pesq_mode": metrics.PESQ_MODES.get(sample_rate),
        "mean": mean,
        "undefined": undefined,
        "num_rows": len(rows),
        "si_sdr_improvement_half_width_db": None if half_width is None else float(half_width),
        "fixed_order_agrees": agreeing if "fixed_order" in mean else None,
        "silent_estimates": sum(row["estimate_is_silent"] for row in rows),
    }


def markdown_section(summary: dict) -> str:
    """The set's section in RESULTS.md, from "## name" to its last line."""
    mean, num_rows = summary["mean"], summary["num_rows"]
    lines = [
        f"## {summary['set']}",
        "",
        f"{summary['num_utterances']} utterances of {summary['num_speakers']} speakers from"
        f" `{summary['data_dir']}`, {summary['sample_rate_hz']} Hz, reference mic"
        f" {summary['ref_mic']}. Means over utterances and speakers, best permutation unless said"
        " otherwise.",
        "",
        _table(mean, ROWS),
        "",
    ]
    half_width = summary["si_sdr_improvement_half_width_db"]
    if half_width is not None:
        gain = mean["improvement"]["si_sdr"]
        lines.append(
            f"- SI-SDR improvement: {gain:.2f} dB, 95 % confidence interval"
            f" {gain - half_width:.2f} to {gain + half_width:.2f} dB."
        )
    if summary["fixed_order_agrees"] is not None:
        agreeing, total = summary["fixed_order_agrees"], summary["num_utterances"]
        lines.append(
            "- Fixed order (output n is speaker n, the wearer of headset n) and best permutation"
            f" agree in {agreeing} of {total} utterances ({100 * agreeing / total:.1f} %)."
        )
    lines += _notes(summary, "mixture", num_rows)
    if summary["silent_estimates"]:
        lines.append(
            f"- **{summary['silent_estimates']} of {num_rows} estimates are silent**: SI-SDR and"
            f" SDR count as {-metrics.MAX_DB:.0f} dB, PESQ is undefined."
        )
    if "closetalk" in mean:
        lines += ["", "Table I: close-talk mixtures (reference: close-talk speech)", ""]
        lines.append(_table(mean, HEADSETS))
        lines += ["", *_notes(summary, "closetalk", num_rows)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(mean: dict[str, dict], names: dict[str, str]) -> str:
    rows = [[title, *format_scores(mean[group])] for group, title in names.items() if group in mean]
    return markdown.table(["", *TITLES.values()], rows)


def format_scores(scores: dict[str, float | None]) -> list[str]:
    """The METRICS of one group as the paper prints them; "n/a" where no value is defined."""
    return [
        "n/a" if scores[name] is None else f"{round(scores[name], decimals) + 0.0:.{decimals}f}"
        for name, decimals in DECIMALS.items()
    ]


def _notes(summary: dict, group: str, num_rows: int) -> Iterator[str]:
    """What a reader of the table must know: the PESQ scale, and rows that the means leave out."""
    mode = {"nb": "narrow-band (P.862.1)", "wb": "wide-band (P.862.2)"}.get(summary["pesq_mode"])
    if mode is None:
        yield f"- PESQ is not defined at {summary['sample_rate_hz']} Hz, only at 8000 and 16000 Hz."
    elif group == "mixture":
        yield f"- PESQ is {mode}."
    for name, count in summary["undefined"][group].items():
        if count and not (name == "pesq" and mode is None):
            title = TITLES[name].partition(" ")[0]
            yield (
                f"- **{title} is undefined in {count} of {num_rows} rows** (silent or too short:"
                f" empty cells of scores.csv); its means leave them out."
            )


def replace_section(text: str, section: str) -> str:
    """`text` of RESULTS.md with the section of the same heading replaced, or appended."""
    heading = section.partition("\n")[0]
    parts = [[]]
    for line in (text or PREAMBLE).splitlines():
        if line.startswith("## "):
            parts.append([])
        parts[-1].append(line)
    sections = ["\n".join(part).strip("\n") for part in parts]
    matching = [n for n, part in enumerate(sections) if part.partition("\n")[0].strip() == heading]
    if matching:
        sections[matching[0]] = section.strip("\n")
    else:
        sections.append(section.strip("\n"))
    return "\n\n".join(part for part in sections if part) + "\n"


def read_scores(enhanced_dir: Path) -> tuple[dict, list[dict]]:
    """summary.json and the rows of scores.csv, numbers as numbers (undefined: NaN).

    Raises:
        FileNotFoundError: not scored yet.
    """
    scoring_dir = enhanced_dir / "scoring"
    for name in ("summary.json", "scores.csv"):
        if not (scoring_dir / name).is_file():
            raise FileNotFoundError(f"{scoring_dir / name}: no such file; run espnet2_m2m enh_scoring first")
    summary = json.loads((scoring_dir / "summary.json").read_text(encoding="utf-8"))
    with open(scoring_dir / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    types = {"utt_id": str, "estimate_is_silent": str, "speaker": int, "estimate": int}
    for row in rows:
        for name, value in row.items():
            row[name] = types.get(name, float)(value or "nan")
    return summary, rows
