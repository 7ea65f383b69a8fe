"""Scores of a separated set: what to score, scoring it resumably, and the files with the results.

bin/enh_scoring.py is the command and lists the files; report/page.py shows the same signals.
"""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espnet2_m2m.data_dir import atomic_path, require_finished, write_table, write_text
from espnet2_m2m.data_dir.cache import Cache, input_key
from espnet2_m2m.data_dir.directory import consecutive_files
from espnet2_m2m.data_dir.signals import Utterance, find_utterances
from espnet2_m2m.scoring import metrics
from espnet2_m2m.scoring.results import markdown_section, replace_section, summarise

SCORES_VERSION = 3  # raise when the same input gets other scores: old ones are then computed anew
WITH_HEADSETS = ("closetalk", "closetalk_spk")  # Table I: the mixture at a headset, and its wearer alone there
KEY_NAMES = {  # of the families in the keys of scores; with other names or orders all kept scores would be lost
    "wav": "mixture",
    "spk": "references",
    "stream": "estimates",
    "closetalk": "closetalk",
    "closetalk_spk": "closetalk_references",
}


@dataclass(frozen=True)
class ScoringJob:
    """One utterance, with everything that its scores depend on.

    Attributes:
        utterance: its signals "wav", "spk", "stream", and WITH_HEADSETS and "cleaned" of the speakers that have them.
        ref_mic: channel of the far-field mixture that the references belong to, from 0.
        fixed_order: also score output n against speaker n.
    """

    utterance: Utterance
    ref_mic: int
    fixed_order: bool

    @property
    def utt_id(self) -> str:
        return self.utterance.utt_id

    def key(self) -> str | None:
        """`input_key` of its scores."""
        signals = {}
        for family, name in KEY_NAMES.items():
            numbered = self.utterance.signals[family]
            signals[name] = [numbered.get(number) for number in range(1, max(numbered, default=0) + 1)]
        if "cleaned" in self.utterance.signals:
            signals["cleaned"] = list(self.utterance.signals["cleaned"].values())
        content = {"utt_id": self.utt_id, "signals": signals, "ref_mic": self.ref_mic, "fixed_order": self.fixed_order}
        entries = (signal.entry for of_family in signals.values() for signal in of_family if signal is not None)
        return input_key([SCORES_VERSION, content], entries)


def list_jobs(
    data_dir: Path | str,
    enhanced_dir: Path | str,
    ref_mic: int = 0,
    fixed_order: bool = True,
    references: bool = True,
    cleaned_dir: Path | str | None = None,
) -> list[ScoringJob]:
    """One job per utterance, in C-locale order.

    Args:
        data_dir: the set, with wav.scp and spk{n}.scp.
        enhanced_dir: the estimates, as spk{n}.scp, at least as many as speakers.
        ref_mic, fixed_order: see `ScoringJob`.
        references: False for real recordings, whose jobs can be read but not scored.
        cleaned_dir: what bin/clean_headsets.py made of the set; None: its headsets are scored as they are.
    Raises:
        ValueError, FileNotFoundError: files or utterances are missing; the message names them.
    """
    require_finished(data_dir)
    utterances = find_utterances(data_dir, ("wav", "spk", *WITH_HEADSETS), enhanced_dir, cleaned_dir)
    speakers = outputs = consecutive_files(enhanced_dir, "spk", "separated speech")
    if references:
        speakers = consecutive_files(data_dir, "spk", "reference images of the speakers")
    if len(outputs) < len(speakers):
        raise ValueError(
            f"{enhanced_dir} has {len(outputs)} outputs (spk{{n}}.scp), {data_dir} has"
            f" {len(speakers)} speakers; expected at least as many outputs as speakers"
        )
    return [ScoringJob(utterance, ref_mic, fixed_order) for utterance in utterances]


def require_mic(enhanced_dir: Path | str, ref_mic: int) -> None:
    """Refuse speech that `enh_inference --ref_channel` filtered to another mic than the references are for.

    Raises:
        ValueError: the speech is at another mic, or settings.json is broken.
    """
    settings = Path(enhanced_dir, "settings.json")
    if settings.is_file():
        try:
            mic = json.loads(settings.read_text(encoding="utf-8"))["options"].get("ref_channel")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{settings}: expected the options that enh_inference writes, found something else; separate the set"
                " again or remove the file"
            ) from error
        if mic not in (None, ref_mic):
            raise ValueError(
                f"{enhanced_dir} is the speech at mic {mic} (--ref_channel), which cannot be compared with"
                f" references at mic {ref_mic}; where the references have all mics, choose --ref_mic {mic}"
            )


def score_job(job: ScoringJob) -> dict:
    """Scores of one utterance, as kept in utterances.jsonl; None stands for undefined (NaN).

    Returns:
        {"sample_rate": Hz, "rows": [{"speaker", "estimate", "mixture_si_sdr", ...}]}, a row per speaker, with
        "closetalk_..." and "cleaned_..." where it has such a headset; speakers and estimates count from 1, as the
        names of the scp files do.
    Raises:
        ValueError: unreadable audio, other lengths or rates, samples that are not finite, a silent
            reference; the message names utterance and file.
    """
    waves, sample_rate = job.utterance.read(job.ref_mic)
    for family in ("spk", "closetalk_spk"):
        for number, samples in waves[family].items():
            if not samples.any():
                raise ValueError(
                    f"{job.utterance.name(family, number)}: {job.utterance.signals[family][number].entry}: is silent,"
                    " so no metric is defined; remove the utterance from the set"
                )
    refs, ests = list(waves["spk"].values()), list(waves["stream"].values())
    rows = []
    scored = metrics.score_utterance(refs, ests, sample_rate, job.fixed_order, waves["wav"][1])
    for speaker, scores in enumerate(scored, start=1):
        estimate = scores["estimate"]
        row = {"speaker": speaker, "estimate": estimate + 1, "estimate_is_silent": not ests[estimate].any()}
        groups = {"mixture_": "mixture_", "separated_": "", "fixed_order_": "fixed_order_"}
        row |= {
            group + name: scores[prefix + name]
            for group, prefix in groups.items()
            for name in metrics.METRICS
            if prefix + name in scores
        }
        for family in ("closetalk", "cleaned"):
            if speaker in waves["closetalk_spk"] and speaker in waves.get(family, {}):
                heard = metrics.score_pair(waves["closetalk_spk"][speaker], waves[family][speaker], sample_rate)
                row |= {f"{family}_{name}": value for name, value in heard.items()}
        rows.append({name: None if math.isnan(value) else value for name, value in row.items()})
    return {"sample_rate": sample_rate, "rows": rows}


def score_jobs(
    jobs: list[ScoringJob], cache_path: Path, num_workers: int, other_caches: Iterable[Path] = ()
) -> dict[str, dict]:
    """Scores of all jobs, utt_id -> result of `score_job`; `cache_path` keeps the finished ones.

    What `other_caches` have is not scored again, and is kept in `cache_path` too. An error of one
    utterance is raised when those that had begun are done and kept; 0 workers: in this process.
    """
    by_id = {job.utt_id: job for job in jobs}
    cache = Cache(cache_path, {utt_id: job.key() for utt_id, job in by_id.items()}, other_caches, tidy=True)
    # Also a single worker is a process of its own: its BLAS uses one thread, and rounds as all do.
    return cache.complete(score_job, by_id, num_workers, "score", "utt", in_process=num_workers == 0)


def write_csv(path: Path | str, results: dict[str, dict]) -> None:
    """scores.csv: a row per utterance and speaker, floats in full, undefined values empty."""
    rows = [{"utt_id": u, **row} for u, result in results.items() for row in result["rows"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def score_share(
    number: int,
    num_shares: int,
    data_dir: Path | str,
    enhanced_dir: Path | str,
    nj: int = 1,
    ref_mic: int = 0,
    fixed_order: bool = True,
    cleaned_dir: Path | str | None = None,
) -> None:
    """Score every `num_shares`-th utterance, from the `number`-th (from 1), for `score_set` to join.

    Each share has a cache of its own, so that shares may be scored at the same time.
    """
    require_mic(enhanced_dir, ref_mic)
    jobs = list_jobs(data_dir, enhanced_dir, ref_mic, fixed_order, cleaned_dir=cleaned_dir)[number - 1 :: num_shares]
    scoring_dir = Path(enhanced_dir, "scoring")
    cache = scoring_dir / f"utterances.{number}-{num_shares}.jsonl"
    score_jobs(jobs, cache, nj, [scoring_dir / "utterances.jsonl"])


def score_set(
    data_dir: Path | str,
    enhanced_dir: Path | str,
    nj: int = 1,
    ref_mic: int = 0,
    fixed_order: bool = True,
    cleaned_dir: Path | str | None = None,
) -> dict:
    """Score one set and write all files that bin/enh_scoring.py names; returns the summary."""
    data_dir, enhanced_dir = Path(data_dir), Path(enhanced_dir)
    require_mic(enhanced_dir, ref_mic)
    jobs = list_jobs(data_dir, enhanced_dir, ref_mic, fixed_order, cleaned_dir=cleaned_dir)
    scoring_dir = enhanced_dir / "scoring"
    shares = sorted(scoring_dir.glob("utterances.*-*.jsonl"))
    results = score_jobs(jobs, scoring_dir / "utterances.jsonl", nj, shares)
    for share in shares:
        share.unlink()
    name = enhanced_dir.name or enhanced_dir.resolve().name
    summary = {"set": name, "data_dir": str(data_dir), "ref_mic": ref_mic, **summarise(results)}
    if cleaned_dir is not None:
        summary["cleaned_dir"] = str(cleaned_dir)
    write_csv(scoring_dir / "scores.csv", results)
    for index in range(summary["num_speakers"]):
        estimates = {utt_id: result["rows"][index]["estimate"] for utt_id, result in results.items()}
        chosen = {job.utt_id: job.utterance.signals["stream"][estimates[job.utt_id]].entry for job in jobs}
        write_table(scoring_dir / f"wav_spk{index + 1}", chosen)
    write_text(scoring_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    results_path = enhanced_dir.parent / "RESULTS.md"
    before = results_path.read_text(encoding="utf-8") if results_path.is_file() else ""
    write_text(results_path, replace_section(before, markdown_section(summary)))
    return summary
