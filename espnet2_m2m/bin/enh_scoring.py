"""Score separated speech: SI-SDR, SDR, PESQ and eSTOI of every utterance and speaker.

    python -m espnet2_m2m.bin.enh_scoring --data_dir data/test --enhanced_dir exp/X/enhanced_test

reads the references `data_dir/spk{n}.scp`, the mixture `data_dir/wav.scp` (its channel --ref_mic)
and the estimates `enhanced_dir/spk{n}.scp`, and writes

    enhanced_dir/scoring/scores.csv          one row per utterance and speaker
    enhanced_dir/scoring/summary.json        the means, and what they are means of
    enhanced_dir/scoring/wav_spk{n}          the estimates of speaker n, in the best permutation
    enhanced_dir/scoring/utterances.jsonl    finished utterances; a rerun continues from it
    enhanced_dir/../RESULTS.md               one section per scored set

Where the set has closetalk{n}.scp and closetalk_spk{n}.scp, the close-talk mixtures are scored
too, with the close-talk speech as reference (Table I of the M2M paper). The scores do not depend
on --nj.
"""

import argparse
import csv
import hashlib
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from espnet2_m2m import metrics
from espnet2_m2m.bin import cli_errors
from espnet2_m2m.data_dir import atomic_path, read_audio, read_table, write_table
from espnet2_m2m.data_dir.directory import name_some, numbered_files, read_segments
from espnet2_m2m.report.results import markdown_section, replace_section, summarise

SCORES_VERSION = 1  # raise when the same input gets other scores: old ones are then computed anew
FAMILIES = {  # the signals of an utterance and what messages call them
    "mixture": "the mixture",
    "references": "the reference of speaker {}",
    "estimates": "output {}",
    "closetalk": "the close-talk mixture of speaker {}",
    "closetalk_references": "the close-talk speech of speaker {}",
}


# ---- What to score -------------------------------------------------------------------------------


def list_jobs(data_dir, enhanced_dir, ref_mic=0, fixed_order=True):
    """One job per utterance: everything that its scores depend on, as plain JSON types.

    Args:
        data_dir, enhanced_dir: folders as in the module's docstring.
        ref_mic: channel of the far-field mixture that the references belong to.
        fixed_order: also score output n against speaker n.
    Returns:
        list of dicts, sorted by "utt_id". A signal is [entry of the scp, segment or None].
    Raises:
        ValueError, FileNotFoundError: files or utterances are missing; the message names them.
    """
    data_dir, enhanced_dir = Path(data_dir), Path(enhanced_dir)
    for folder in (data_dir, enhanced_dir):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such directory")
    speakers = _consecutive(data_dir, "spk", "reference images of the speakers")
    outputs = _consecutive(enhanced_dir, "spk", "separated speech")
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
        "references": [data_dir / f"spk{number}.scp" for number in speakers],
        "estimates": [enhanced_dir / f"spk{number}.scp" for number in outputs],
        "closetalk": headset_files("closetalk"),
        "closetalk_references": headset_files("closetalk_spk"),
    }
    segments_path = data_dir / "segments"
    segments = read_segments(segments_path) if segments_path.is_file() else {}
    utt_ids = sorted(segments or read_table(files["mixture"][0]), key=str.encode)
    signals = {utt_id: {family: [] for family in files} for utt_id in utt_ids}
    for family, path in ((family, path) for family in files for path in files[family]):
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
        {
            "utt_id": utt_id,
            "signals": signals[utt_id],
            "ref_mic": ref_mic,
            "fixed_order": fixed_order,
        }
        for utt_id in utt_ids
    ]


def _consecutive(folder, family, meaning):
    numbers = numbered_files(folder, family)
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        found = ", ".join(f"{family}{number}.scp" for number in numbers) or "none"
        raise ValueError(
            f"{folder}: expected {family}1.scp, {family}2.scp ... ({meaning}), found {found}"
        )
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
    separated = metrics.score_utterance(refs, ests, sample_rate, job["fixed_order"])
    rows = []
    for index, scores in enumerate(separated):
        groups = {
            "mixture": metrics.score_pair(refs[index], mixture, sample_rate),
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
                raise ValueError(
                    f"{where} is silent, so no metric is defined; remove the utterance from the set"
                )
            first = first or (sample_rate, len(samples), f"{name} ({signal[0]})")
            if sample_rate != first[0]:
                raise ValueError(
                    f"{where} has {sample_rate} Hz, but {first[2]} has {first[0]} Hz;"
                    " resample one of them"
                )
            if len(samples) != first[1]:
                raise ValueError(
                    f"{where} has {len(samples)} samples, but {first[2]} has {first[1]};"
                    " the signals of an utterance must be equally long"
                )
            signals[family].append(samples)
    return {**signals, "sample_rate": first[0]}


# ---- Scoring all utterances, resumably -----------------------------------------------------------


def score_jobs(jobs, cache_path, num_workers):
    """Scores of all jobs, utt_id -> result of `score_job`; `cache_path` keeps the finished ones."""
    keys = {job["utt_id"]: input_key(job) for job in jobs}
    done = read_cache(cache_path, keys)
    with atomic_path(cache_path) as temporary:  # drops stale and half-written lines
        lines = (_cache_line(utt_id, keys[utt_id], done[utt_id]) for utt_id in done)
        temporary.write_text("".join(lines), encoding="utf-8")
    todo = [job for job in jobs if job["utt_id"] not in done]
    if not todo:
        return done
    with (
        open(cache_path, "a", encoding="utf-8") as cache,
        _one_thread_per_worker(),
        ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool,
        tqdm(total=len(jobs), initial=len(done), desc="score", unit="utt") as progress,
    ):
        futures = {pool.submit(score_job, job): job["utt_id"] for job in todo}
        try:
            for future in as_completed(futures):
                utt_id = futures[future]
                done[utt_id] = future.result()
                cache.write(_cache_line(utt_id, keys[utt_id], done[utt_id]))
                cache.flush()
                progress.update()
        except BrokenProcessPool as error:
            raise OSError(
                "a scoring process died (out of memory?); run again with a smaller --nj:"
                " finished utterances are kept"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return done


@contextmanager
def _one_thread_per_worker():
    """Workers started inside use one BLAS thread: no oversubscription, and the same rounding."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def input_key(job):
    """Hash of a job and of the size and time of its files; None if it has no plain files to ask.

    The output of a pipe may change without a trace, so utterances with pipes are always computed.
    """
    stamps = [SCORES_VERSION, job]
    for entry, _ in (signal for family in job["signals"].values() for signal in family):
        path = entry if os.path.exists(entry) else entry.rpartition(":")[0]  # file.ark:offset
        if entry.endswith("|") or not os.path.exists(path):
            return None
        status = os.stat(path)
        stamps.append([status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()[:32]


def read_cache(path, keys):
    """utt_id -> result for the lines whose key is the current one; broken lines do not count."""
    results = {}
    if not Path(path).is_file():
        return results
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            kept = json.loads(line)
            utt_id, key, result = kept["utt_id"], kept["key"], kept["result"]
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed
        if key is not None and keys.get(utt_id) == key:
            results[utt_id] = result
    return results


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


def score_set(data_dir, enhanced_dir, nj=1, ref_mic=0, fixed_order=True):
    """Score one set and write all files named in the module's docstring; returns the summary."""
    data_dir, enhanced_dir = Path(data_dir), Path(enhanced_dir)
    jobs = list_jobs(data_dir, enhanced_dir, ref_mic, fixed_order)
    scoring_dir = enhanced_dir / "scoring"
    results = score_jobs(jobs, scoring_dir / "utterances.jsonl", nj)
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


# ---- Command line --------------------------------------------------------------------------------


def _bool(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
    return text == "true"


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text!r}")
    return int(text)


def get_parser():
    parser = argparse.ArgumentParser(
        prog="python -m espnet2_m2m.bin.enh_scoring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_dir", required=True, help="the set, with spk{n}.scp and wav.scp")
    parser.add_argument("--enhanced_dir", required=True, help="the estimates, as spk{n}.scp")
    parser.add_argument(
        "--nj", type=positive, default=os.cpu_count() or 1, help="worker processes (default: CPUs)"
    )
    parser.add_argument(
        "--ref_mic", type=int, default=0, help="far-field mic of the references, from 0 (default 0)"
    )
    parser.add_argument(
        "--fixed_order",
        type=_bool,
        default=True,
        metavar="true|false",
        help="also score output n against speaker n; false where the order means nothing, as for"
        " PIT and UNSSOR (default true)",
    )
    return parser


@cli_errors
def main(cmd=None):
    args = get_parser().parse_args(cmd)
    summary = score_set(args.data_dir, args.enhanced_dir, args.nj, args.ref_mic, args.fixed_order)
    print(markdown_section(summary), end="")


if __name__ == "__main__":
    main()
