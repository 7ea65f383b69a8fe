"""Word and character error rates of several talkers at once: cpWER and cpCER.

Of every mixture, the hypotheses are assigned to the talkers so that the errors are fewest (cpWER: S.
Watanabe et al., "CHiME-6 Challenge", 2020), by the package meeteval: what separated them need not know
the talkers' order.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet2_m2m import markdown
from espnet2_m2m.data_dir import TableError, read_table
from espnet2_m2m.data_dir.directory import name_some
from espnet2_m2m.data_dir.talkers import read_talker_data_dir, transcripts

UNITS = ("wer", "cer")
FIRST, LAST = ("mixture",), ("closetalk", "cleaned", "clean")  # conditions of every set; systems stand between them
COLUMNS = {
    "lines": "Snt",
    "length": "Wrd",
    "correct": "Corr",
    "substitutions": "Sub",
    "deletions": "Del",
    "insertions": "Ins",
    "errors": "Err",
    "wrong_lines": "S.Err",
}


def tokens(text: str, unit: str) -> list[str]:
    """Words, or characters with blanks as "▁" (they count, as in ESPnet's CER)."""
    words = text.split()
    return words if unit == "wer" else list("▁".join(words))


def score_mixture(references: Sequence[str], hypotheses: Sequence[str], unit: str = "wer") -> Counter:
    """Errors of one mixture under the assignment of hypotheses to talkers with the fewest errors.

    Args:
        references: what each talker says.
        hypotheses: one too many counts as insertions, one too few as deletions.
        unit: "wer" counts words, "cer" characters.
    Returns:
        Counter with the keys of COLUMNS: "lines" and "wrong_lines" count talkers, "length" is that of
        the references.
    Raises:
        ValueError: meeteval is not installed.
    """
    try:
        from meeteval.wer import cp_word_error_rate, siso_word_error_rate
    except ImportError as error:
        raise ValueError("word error rates need meeteval: pip install meeteval") from error

    refs, hyps = (
        {n: " ".join(tokens(text, unit)) for n, text in enumerate(texts)} for texts in (references, hypotheses)
    )
    # Unsorted: there are no times to sort by, which meeteval would mention for every mixture.
    best = cp_word_error_rate(refs, hyps, reference_sort=False, hypothesis_sort=False)
    counts = Counter(dict.fromkeys(COLUMNS, 0), lines=len(refs))
    for ref, hyp in best.assignment:
        pair = siso_word_error_rate(refs.get(ref, ""), hyps.get(hyp, ""))
        for name in ("length", "substitutions", "deletions", "insertions", "errors"):
            counts[name] += getattr(pair, name)
        counts["wrong_lines"] += ref is not None and pair.errors > 0
    counts["correct"] = counts["length"] - counts["substitutions"] - counts["deletions"]
    assert counts["errors"] == best.errors, (counts, best)
    return counts


def score_condition(texts: Mapping[str, Mapping[int, str]], condition_dir: Path | str) -> dict[str, dict]:
    """Errors of all mixtures of one condition.

    Args:
        texts: mixture -> number of a talker -> what it says.
        condition_dir: data dir by bin/asr_inference, with `hyp`.
    Returns:
        unit -> Counter as of `score_mixture`, and "rate", errors in percent of the length.
    Raises:
        ValueError, FileNotFoundError: hypotheses that are missing, or of other mixtures.
    """
    hyp = Path(condition_dir, "hyp")
    if not hyp.is_file():
        raise FileNotFoundError(f"{hyp}: no such file; the recognition (stage 9) has not finished")
    hypotheses, of_mixture = read_table(hyp, allow_empty=True), defaultdict(list)
    for line in read_talker_data_dir(condition_dir):
        if line.utt_id not in hypotheses:
            raise TableError(f"{hyp}: no entry for '{line.utt_id}'; run the recognition (stage 9) again")
        of_mixture[line.mixture].append(hypotheses[line.utt_id])
    different = sorted(of_mixture.keys() ^ texts.keys())
    if different:
        raise TableError(
            f"{condition_dir} and the transcripts (text_spk{{n}}) of the set need the same mixtures, but only"
            f" one has {name_some(different)}"
        )
    found = {}
    for unit in UNITS:
        counts = sum((score_mixture(list(texts[m].values()), of_mixture[m], unit) for m in texts), Counter())
        if not counts["length"]:
            raise ValueError(f"{condition_dir}: nobody says anything in this set, so there is no error rate")
        found[unit] = {name: counts[name] for name in COLUMNS}
        found[unit]["rate"] = 100 * counts["errors"] / counts["length"]
    return found


def score_set(data_dir: Path | str, decode_dir: Path | str) -> dict:
    """Errors of all conditions of a set.

    Args:
        data_dir: the set, with text_spk{n}.
        decode_dir: folder that bin/asr_inference wrote for it.
    Returns:
        {"set": name, "data_dir", "num_mixtures", "conditions": {name: `score_condition`}}.
    Raises:
        ValueError, FileNotFoundError: no transcripts or no hypotheses; see `score_condition`.
    """
    if not Path(data_dir).is_dir():
        raise FileNotFoundError(f"{data_dir}: no such data directory; stages 1 to 4 of run.sh make it")
    texts = transcripts(data_dir)
    if not texts:
        raise FileNotFoundError(f"{data_dir}: no text_spk{{n}}, so there is nothing to score against")
    decode_dir = Path(decode_dir)
    names = sorted(path.parent.name for path in decode_dir.glob("*/utt2mix"))
    if not names:
        raise FileNotFoundError(f"{decode_dir}: no hypotheses; run the recognition (stage 9) first")
    systems = [name for name in names if name not in FIRST + LAST]
    ordered = [name for name in (*FIRST, *systems, *LAST) if name in names]
    return {
        "set": decode_dir.name,
        "data_dir": str(data_dir),
        "num_mixtures": len(texts),
        "conditions": {name: score_condition(texts, decode_dir / name) for name in ordered},
    }


def markdown_section(summary: dict) -> str:
    """The set's section in RESULTS_ASR.md: ESPnet's tables, percentages but for Snt and Wrd."""
    lines = [
        f"## {summary['set']}",
        "",
        f"{summary['num_mixtures']} mixtures of `{summary['data_dir']}`. In each the hypotheses are assigned to"
        " the talkers with the fewest errors (cpWER, cpCER).",
    ]
    for unit in UNITS:
        rows = []
        for name, found in summary["conditions"].items():
            counts = found[unit]
            columns = ("correct", "substitutions", "deletions", "insertions", "errors")
            percentages = [100 * counts[column] / counts["length"] for column in columns]
            percentages.append(100 * counts["wrong_lines"] / counts["lines"])
            rows.append([name, counts["lines"], counts["length"], *map("{:.1f}".format, percentages)])
        lines += ["", f"### {unit.upper()}", "", markdown.table(["dataset", *COLUMNS.values()], rows, form="espnet")]
    return "\n".join(lines) + "\n"
