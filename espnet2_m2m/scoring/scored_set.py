"""Scores of a separated set: which signals belong together, reading, scoring, keeping the results.

bin/enh_scoring.py is the command and lists the files; report/page.py shows the same signals.
"""

import csv
import hashlib
import json
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from espnet2_m2m.data_dir import (
    AudioError,
    atomic_path,
    parallel_map,
    read_audio,
    read_table,
    require_finished,
    source_stamp,
    write_table,
)
from espnet2_m2m.data_dir.directory import name_some, numbered_files, read_segments
from espnet2_m2m.scoring import metrics
from espnet2_m2m.scoring.results import markdown_section, replace_section, summarise

SCORES_VERSION = 2  # raise when the same input gets other scores: old ones are then computed anew
FAMILIES = {  # the signals of an utterance and what messages call them
    "mixture": "the mixture",
    "references": "the reference of speaker {}",
    "estimates": "output {}",
    "closetalk": "the close-talk mixture of speaker {}",
    "closetalk_references": "the close-talk speech of speaker {}",
}


# ---- What to score -------------------------------------------------------------------------------


def list_jobs(data_dir, enhanced_dir, ref_mic=0, fixed_order=True, references=True):
    """One job per utterance: everything that its scores depend on, as plain JSON types.

    Args:
        data_dir: the set, with wav.scp and spk{n}.scp.
        enhanced_dir: the estimates, as spk{n}.scp.
        ref_mic: channel of the far-field mixture that the references belong to.
        fixed_order: also score output n against speaker n.
        references: False for real recordings, whose jobs can be read but not scored.
    Returns:
        list of dicts, sorted by "utt_id". A signal is [entry of the scp, segment or None].
    Raises:
        ValueError, FileNotFoundError: files or utterances are missing; the message names them.
    """
    data_dir, enhanced_dir = Path(data_dir), Path(enhanced_dir)
    for folder in (data_dir, enhanced_dir):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such directory")
    require_finished(data_dir)
    if references:
        _require_mic(enhanced_dir, ref_mic)
    outputs = _consecutive(enhanced_dir, "spk", "separated speech")
    speakers = _consecutive(data_dir, "spk", "reference images of the speakers") if references else outputs
    if len(outputs) < len(speakers):
        raise ValueError(
            f"{enhanced_dir} has {len(outputs)} outputs (spk{{n}}.scp), {data_dir} has"
            f" {len(speakers)} speakers; expected at least as many outputs as speakers"
        )

    def headset_files(family):
        paths = [data_dir / f"{family}{number}.scp" for number in speakers]
        return paths if all(path.is_file() for path in paths) else []

    files = {
        "mixture": [data_dir / "wav.scp"],
        "references": [data_dir / f"spk{number}.scp" for number in speakers] if references else [],
        "estimates": [enhanced_dir / f"spk{number}.scp" for number in outputs],
        "closetalk": headset_files("closetalk"),
        "closetalk_references": headset_files("closetalk_spk"),
    }
    segments_path = data_dir / "segments"
    segments = read_segments(segments_path) if segments_path.is_file() else {}
    utt_ids = sorted(segments or read_table(files["mixture"][0]), key=str.encode)
    signals = {utt_id: {family: [] for family in files} for utt_id in utt_ids}
    for family, path in [(family, path) for family, paths in files.items() for path in paths]:
        table = read_table(path)
        missing = []
        for utt_id in utt_ids:
            # `segments` cut the recordings of the data dir; estimates are keyed by utterance.
            cut = None if family == "estimates" else segments.get(utt_id)
            key = cut[0] if cut else utt_id
            if key in table:
                signals[utt_id][family].append([table[key], list(cut[1:]) if cut else None])
            else:
                missing.append(utt_id)
        if missing:
            raise ValueError(
                f"{path}: {len(missing)} of the {len(utt_ids)} utterances of {data_dir} are"
                f" missing: {name_some(missing)}"
            )
    return [
        {"utt_id": utt_id, "signals": signals[utt_id], "ref_mic": ref_mic, "fixed_order": fixed_order}
        for utt_id in utt_ids
    ]


def _require_mic(enhanced_dir, ref_mic):
    """Refuse speech that `enh_inference --ref_channel` filtered to another mic than the references are for."""
    settings = enhanced_dir / "settings.json"
    if settings.is_file():
        mic = json.loads(settings.read_text(encoding="utf-8"))["options"].get("ref_channel")
        if mic not in (None, ref_mic):
            raise ValueError(
                f"{enhanced_dir} is the speech at mic {mic} (--ref_channel), which cannot be compared with"
                f" references at mic {ref_mic}; where the references have all mics, choose --ref_mic {mic}"
            )


def _consecutive(folder, family, meaning):
    numbers = numbered_files(folder, family)
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        found = ", ".join(f"{family}{number}.scp" for number in numbers) or "none"
        raise ValueError(f"{folder}: expected {family}1.scp, {family}2.scp ... ({meaning}), found {found}")
    return numbers


# ---- Scoring one utterance (in a worker) ---------------------------------------------------------


def score_job(job):
    """Scores of one utterance, as kept in utterances.jsonl; None stands for undefined (NaN).

    Returns:
        {"sample_rate": Hz, "rows": [{"speaker", "estimate", "mixture_si_sdr", ...}]}, a row per
        speaker; speakers and estimates count from 1, as the names of the scp files do.
    Raises:
        ValueError: unreadable audio, other lengths or rates, samples that are not finite, a silent
            reference; the message names utterance and file.
    """
    signals = read_signals(job)
    (mixture,) = signals["mixture"]
    refs, ests = signals["references"], signals["estimates"]
    sample_rate = signals["sample_rate"]
    scored = metrics.score_utterance(refs, ests, sample_rate, job["fixed_order"], mixture)
    rows = []
    for index, scores in enumerate(scored):
        groups = {
            "mixture": {name: scores[f"mixture_{name}"] for name in metrics.METRICS},
            "separated": {name: scores[name] for name in metrics.METRICS},
        }
        if job["fixed_order"]:
            fixed = {name: scores[f"fixed_order_{name}"] for name in metrics.METRICS}
            groups["fixed_order"] = fixed
        if signals["closetalk"] and signals["closetalk_references"]:
            ref, est = signals["closetalk_references"][index], signals["closetalk"][index]
            groups["closetalk"] = metrics.score_pair(ref, est, sample_rate)
        row = {
            "speaker": index + 1,
            "estimate": scores["estimate"] + 1,
            "estimate_is_silent": not ests[scores["estimate"]].any(),
        }
        for group, values in groups.items():
            for name, value in values.items():
                row[f"{group}_{name}"] = None if math.isnan(value) else value
        rows.append(row)
    return {"sample_rate": sample_rate, "rows": rows}


def read_signals(job):
    """The signals of one utterance, family -> list of (sample,), all of one length and sample rate.

    Args and errors as `score_job`; "sample_rate" (Hz) stands beside the families.
    """
    signals, first = {}, None
    for family, meaning in FAMILIES.items():
        signals[family] = []
        for number, signal in enumerate(job["signals"][family], start=1):
            name = meaning.format(number)
            where = f"utterance '{job['utt_id']}': {name} ({signal[0]})"
            try:
                samples, sample_rate = read_audio(*signal)
            except ValueError as error:
                raise ValueError(f"utterance '{job['utt_id']}': {name}: {error}") from error
            num_channels = samples.shape[1]
            # Images may hold all mics or just the reference mic, headsets have one channel.
            channel = 0 if "closetalk" in family else job["ref_mic"]
            if num_channels == 1 and family != "mixture":
                channel = 0
            if not 0 <= channel < num_channels:
                raise ValueError(
                    f"{where} has {num_channels} channels, so no mic {channel} (mics count from"
                    " 0); choose another --ref_mic"
                )
            samples = samples[:, channel]
            if not np.isfinite(samples).all():
                raise ValueError(f"{where} has samples that are not finite (NaN or infinity)")
            if "references" in family and not samples.any():
                raise ValueError(f"{where} is silent, so no metric is defined; remove the utterance from the set")
            first = first or (sample_rate, len(samples), f"{name} ({signal[0]})")
            if sample_rate != first[0]:
                raise ValueError(
                    f"{where} has {sample_rate} Hz, but {first[2]} has {first[0]} Hz; resample one of them"
                )
            if len(samples) != first[1]:
                raise ValueError(
                    f"{where} has {len(samples)} samples, but {first[2]} has {first[1]};"
                    " the signals of an utterance must be equally long"
                )
            signals[family].append(samples)
    return {**signals, "sample_rate": first[0]}


# ---- Scoring all utterances, resumably -----------------------------------------------------------


def score_jobs(jobs, cache_path, num_workers, other_caches=()):
    """Scores of all jobs, utt_id -> result of `score_job`; `cache_path` keeps the finished ones.

    What `other_caches` have is not scored again, and is kept in `cache_path` too. An error of one
    utterance is raised when those that had begun are done and kept; 0 workers: in this process.
    """
    keys = {job["utt_id"]: input_key(job) for job in jobs}
    done = {
        utt_id: result
        for cache in (*other_caches, cache_path)
        for utt_id, (key, result) in read_cache(cache).items()
        if key is not None and keys.get(utt_id) == key
    }
    with atomic_path(cache_path) as temporary:  # drops stale and half-written lines
        lines = (_cache_line(utt_id, keys[utt_id], done[utt_id]) for utt_id in done)
        temporary.write_text("".join(lines), encoding="utf-8")
    todo = [job for job in jobs if job["utt_id"] not in done]
    bar = {"initial": len(done), "desc": "score", "unit": "utt"}
    # Also a single worker is a process of its own: its BLAS uses one thread, and rounds as all do.
    finished = parallel_map(_score_named, todo, num_workers, in_order=False, in_process=num_workers == 0, progress=bar)
    with cache_writer(cache_path) as keep:
        for utt_id, result in finished:
            done[utt_id] = result
            keep(utt_id, keys[utt_id], result)
    return done


def _score_named(job):
    return job["utt_id"], score_job(job)


def input_key(job):
    """Hash of a job and of the size and time of its files; None with pipes or missing files.

    The output of a pipe may change without a trace, so utterances with pipes are always computed.
    """
    stamps = [SCORES_VERSION, job]
    for entry, _ in (signal for family in job["signals"].values() for signal in family):
        try:
            stamps.append(source_stamp(entry))
        except AudioError:
            return None
        if stamps[-1] is None:
            return None
    return hashlib.sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()[:32]


def read_cache(path):
    """utt_id -> (input_key, result) of the finished utterances; broken lines do not count."""
    results = {}
    if not Path(path).is_file():
        return results
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            kept = json.loads(line)
            results[kept["utt_id"]] = kept["key"], kept["result"]
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed
    return results


@contextmanager
def cache_writer(path):
    """Function (utt_id, input_key, result) that adds a finished utterance to a cache at once.

    What a killed run left of its last line is ended first, so that it spoils no other.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.is_file() else b""
    with open(path, "a", encoding="utf-8") as file:
        if not before.endswith(b"\n") and before:
            file.write("\n")

        def keep(utt_id, key, result):
            file.write(_cache_line(utt_id, key, result))
            file.flush()

        yield keep


def _cache_line(utt_id, key, result):
    return json.dumps({"utt_id": utt_id, "key": key, "result": result}) + "\n"


# ---- Files ---------------------------------------------------------------------------------------


def write_csv(path, results):
    """scores.csv: a row per utterance and speaker, floats in full, undefined values empty."""
    rows = [{"utt_id": u, **row} for u, result in results.items() for row in result["rows"]]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def score_share(number, num_shares, data_dir, enhanced_dir, nj=1, ref_mic=0, fixed_order=True):
    """Score every `num_shares`-th utterance, from the `number`-th (from 1), for `score_set` to join.

    Each share has a cache of its own, so that shares may be scored at the same time.
    """
    jobs = list_jobs(data_dir, enhanced_dir, ref_mic, fixed_order)[number - 1 :: num_shares]
    scoring_dir = Path(enhanced_dir, "scoring")
    cache = scoring_dir / f"utterances.{number}-{num_shares}.jsonl"
    score_jobs(jobs, cache, nj, [scoring_dir / "utterances.jsonl"])


def score_set(data_dir, enhanced_dir, nj=1, ref_mic=0, fixed_order=True):
    """Score one set and write all files that bin/enh_scoring.py names; returns the summary."""
    data_dir, enhanced_dir = Path(data_dir), Path(enhanced_dir)
    jobs = list_jobs(data_dir, enhanced_dir, ref_mic, fixed_order)
    scoring_dir = enhanced_dir / "scoring"
    shares = sorted(scoring_dir.glob("utterances.*-*.jsonl"))
    results = score_jobs(jobs, scoring_dir / "utterances.jsonl", nj, shares)
    for share in shares:
        share.unlink()
    results = {job["utt_id"]: results[job["utt_id"]] for job in jobs}
    name = enhanced_dir.name or enhanced_dir.resolve().name
    summary = {"set": name, "data_dir": str(data_dir), "ref_mic": ref_mic, **summarise(results)}
    write_csv(scoring_dir / "scores.csv", results)
    for index in range(summary["num_speakers"]):
        chosen = {}
        for job in jobs:
            estimate = results[job["utt_id"]]["rows"][index]["estimate"]
            chosen[job["utt_id"]] = job["signals"]["estimates"][estimate - 1][0]
        write_table(scoring_dir / f"wav_spk{index + 1}", chosen)
    with atomic_path(scoring_dir / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    results_path = enhanced_dir.parent / "RESULTS.md"
    before = results_path.read_text(encoding="utf-8") if results_path.is_file() else ""
    with atomic_path(results_path) as temporary:
        text = replace_section(before, markdown_section(summary))
        temporary.write_text(text, encoding="utf-8")
    return summary
