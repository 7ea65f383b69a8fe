"""The systems that a report page compares: trainings whose separated speech is at hand, scored if it can be."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_m2m.data_dir.cache import read_cache
from espnet2_m2m.data_dir.directory import name_some, numbered_files
from espnet2_m2m.report.study import Study, require_one_test_set
from espnet2_m2m.scoring import scored_set
from espnet2_m2m.scoring.results import read_scores


@dataclass(frozen=True)
class System:
    """One output of one training."""

    name: str
    folder: Path  # of the training
    enhanced_dir: Path
    summary: dict[str, Any]  # summary.json; without references only the numbers of talkers and utterances
    scores: list[dict[str, Any]]  # rows of scores.csv, numbers as numbers; empty without references
    jobs: dict[str, scored_set.ScoringJob]  # by utt_id


def load(data_dir: Path | str, enhanced_dirs: Iterable[Path | str], names: list[str] | None = None) -> list[System]:
    """The systems whose output stands in `enhanced_dirs`, each a folder of its training.

    Args:
        data_dir: the set that they have separated.
        enhanced_dirs: one for each system.
        names: of the systems; default: the trainings' folders.
    Raises:
        FileNotFoundError: not scored, although the set has references.
        ValueError: other audio than was scored, or systems scored on different sets.
    """
    enhanced_dirs = [Path(enhanced_dir) for enhanced_dir in enhanced_dirs]
    names = names or _names([enhanced_dir.resolve() for enhanced_dir in enhanced_dirs])
    scored = bool(numbered_files(data_dir, "spk"))
    systems = []
    for name, enhanced_dir in zip(names, enhanced_dirs):
        if scored:
            summary, rows = read_scores(enhanced_dir)
            fixed_order = summary["fixed_order_agrees"] is not None
            cleaned_dir = summary.get("cleaned_dir")
            jobs = scored_set.list_jobs(
                data_dir, enhanced_dir, summary["ref_mic"], fixed_order, cleaned_dir=cleaned_dir
            )
        else:
            jobs = scored_set.list_jobs(data_dir, enhanced_dir, fixed_order=False, references=False)
            rows = []
            summary = {"num_utterances": len(jobs), "num_speakers": len(jobs[0].utterance.signals["stream"])}
        jobs = {job.utt_id: job for job in jobs}
        if scored:
            require_current(rows, jobs, data_dir, enhanced_dir / "scoring")
        systems.append(System(name, enhanced_dir.resolve().parent, enhanced_dir, summary, rows, jobs))
    if scored:
        require_one_test_set(systems)
    return systems


def load_study(data_dir: Path | str, study: Study) -> list[System]:
    """A system for each row of a study: the run with the lowest seed.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    first = {}
    for run in study.runs:  # ordered by seed
        first.setdefault(run.key, run)
    both = len({key[: len("table2")] for key in first}) > 1
    names = [
        f"{study.rows[key].name}{', P = 1' if both and key.startswith('table3') else ''} (seed {run.seed})"
        for key, run in first.items()
    ]
    return load(data_dir, [run.enhanced_dir for run in first.values()], names)


def _names(enhanced_dirs: list[Path]) -> list[str]:
    """The trainings' names, and the outputs' where one training has several."""
    trainings = [enhanced_dir.parent for enhanced_dir in enhanced_dirs]
    if len(set(enhanced_dirs)) < len(enhanced_dirs):
        raise ValueError(f"the same folder twice: {', '.join(map(str, enhanced_dirs))}")
    return [
        training.name if trainings.count(training) == 1 else f"{training.name}, {enhanced_dir.name}"
        for training, enhanced_dir in zip(trainings, enhanced_dirs)
    ]


def require_current(
    rows: list[dict[str, Any]], jobs: dict[str, scored_set.ScoringJob], data_dir: Path | str, scoring_dir: Path
) -> None:
    """Refuse scores of other audio than is there now; of pipes, nobody can tell.

    Args:
        rows: of scores.csv.
        jobs: by utt_id.
        data_dir, scoring_dir: for the message, and to read the keys that the scores were kept with.
    Raises:
        ValueError: other utterances, or files that changed since they were scored.
    """
    different = {row["utt_id"] for row in rows} ^ jobs.keys()
    if different:
        raise ValueError(
            f"{scoring_dir}/scores.csv and {data_dir} need the same utterances, but only one has"
            f" {name_some(sorted(different))}; run stage 8 (espnet2_m2m enh_scoring) again"
        )
    kept = read_cache(scoring_dir / "utterances.jsonl")
    changed = [utt_id for utt_id, job in jobs.items() if utt_id not in kept or kept[utt_id][0] != job.key()]
    if changed:
        raise ValueError(
            f"{scoring_dir}/scores.csv: the audio is not what was scored, for utterance"
            f" {name_some(changed)}; run stage 8 (espnet2_m2m enh_scoring) again"
        )


def gains(systems: list[System]) -> dict[str, float]:
    """utt_id -> SI-SDR improvement in dB, mean over talkers and systems."""
    values = {}
    for system in systems:
        for row in system.scores:
            gain = row["separated_si_sdr"] - row["mixture_si_sdr"]
            values.setdefault(row["utt_id"], []).append(gain)
    return {utt_id: float(np.mean(each)) for utt_id, each in values.items()}
