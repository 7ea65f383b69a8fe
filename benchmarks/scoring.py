"""Seconds of the scoring, against ESPnet's enh_scoring with the same files and as many processes.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --num_mixtures 200 --seconds 8

Two talkers of made-up speech (harmonics and noise in syllables, 8 kHz), a mixture and two estimates. ESPnet's
scoring is called as enh.sh calls it: once for the estimates and once for the mixtures, each in --nj processes
that share the utterances. Ours does both in one call. ESPnet's scores are SDR, SIR, SAR, STOI, eSTOI, SI-SNR
and PESQ, ours SI-SDR, SDR, eSTOI and PESQ. Start-up: the same with one mixture for each process. One thread a
process. Seconds are of the wall clock, from the command's start to its end; CPU seconds a mixture are those of
all processes without the start-up's, and depend less on what else the machine does.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import print_versions

from espnet2_m2m.data_dir import read_table, write_table, write_wav

SAMPLE_RATE = 8000
ENV = {
    **os.environ,
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "TQDM_DISABLE": "1",
}


def talker(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """(sample,) voice, peak 0.3."""
    seconds = np.arange(num_samples) / SAMPLE_RATE
    pitch_hz = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * seconds))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) + 0.3 * rng.standard_normal(num_samples)
    voice *= np.clip(np.sin(np.pi * rng.uniform(4, 5) * seconds + rng.uniform(0, 3)), 0, 1)
    return 0.3 * voice / np.abs(voice).max()


def make_set(folder: Path, num_mixtures: int, seconds: float) -> None:
    """Data dir `folder`/data and estimates `folder`/exp/enhanced."""
    tables = {}
    for index in range(num_mixtures):
        rng = np.random.default_rng(index)
        refs = [talker(rng, int(seconds * SAMPLE_RATE)) for _ in range(2)]
        noise = 0.003 * rng.standard_normal(len(refs[0]))
        ests = [refs[0] + 0.1 * refs[1] + noise, refs[1] + 0.1 * refs[0] + noise]
        signals = {
            "data/wav": sum(refs) + noise,
            "data/spk1": refs[0],
            "data/spk2": refs[1],
            "exp/enhanced/spk1": ests[0],
            "exp/enhanced/spk2": ests[1],
        }
        for name, samples in signals.items():
            path = folder / f"{name}_wav" / f"u{index:04d}.wav"
            write_wav(path, samples, SAMPLE_RATE, "PCM_16")
            tables.setdefault(name, {})[path.stem] = path
    for name, table in tables.items():
        write_table(folder / f"{name}.scp", table)
    write_table(folder / "data" / "utt2spk", dict.fromkeys(tables["data/wav"], "u"))


def run(commands: list[list[Any]]) -> np.ndarray:
    """Wall-clock seconds, and CPU seconds of all processes, of commands that run at the same time."""
    start, cpu = time.perf_counter(), cpu_seconds()
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    for process in processes:
        _, errors = process.communicate()
        if process.returncode != 0:
            raise SystemExit(errors[-2000:])
    return np.array([time.perf_counter() - start, cpu_seconds() - cpu])


def cpu_seconds() -> float:
    """Of all children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ours(folder: Path, nj: int) -> np.ndarray:
    """Seconds (see `run`) of our command."""
    data, enhanced = folder / "data", folder / "exp" / "enhanced"
    options = ["--data_dir", data, "--enhanced_dir", enhanced, "--nj", nj]
    return run([["-m", "espnet2_m2m.bin.enh_scoring", *options]])


def espnet(folder: Path, nj: int, estimates: list[Path]) -> np.ndarray:
    """Seconds (see `run`) of ESPnet's command; `estimates` are the scp files to score, one for each talker."""
    utt_ids = list(read_table(folder / "data" / "wav.scp"))
    commands = []
    for job in range(nj):
        keys = folder / f"keys.{job}"
        keys.write_text("".join(f"{utt_id} x\n" for utt_id in utt_ids[job::nj]))
        output_dir = folder / f"espnet{estimates[0].name}.{job}"
        options = ["--key_file", keys, "--output_dir", output_dir, "--use_pesq", "true"]
        for n, estimate in enumerate(estimates, start=1):
            options += ["--ref_scp", folder / "data" / f"spk{n}.scp", "--inf_scp", estimate]
        commands.append(["-m", "espnet2.bin.enh_scoring", *options])
    return run(commands)


def differences(folder: Path, nj: int) -> dict[str, float]:
    """Largest difference of SDR (dB), PESQ and eSTOI between the two, over all estimates."""
    with open(folder / "exp" / "enhanced" / "scoring" / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    largest = {}
    for theirs, name, unit in (("SDR", "sdr", 1), ("PESQ_NB", "pesq", 1), ("ESTOI", "estoi", 100)):
        scores = {n: {} for n in "12"}
        for n, found in scores.items():
            for job in range(nj):
                found.update(read_table(folder / f"espnetspk1.scp.{job}" / f"{theirs}_spk{n}"))
        pairs = [(float(row[f"separated_{name}"]), float(scores[row["speaker"]][row["utt_id"]])) for row in rows]
        largest[name] = max(abs(mine - other / unit) for mine, other in pairs)
    return largest


def measure(folder: Path, num_mixtures: int, seconds: float, nj: int) -> dict[str, np.ndarray]:
    """[wall-clock seconds, CPU seconds] of each way for one set."""
    make_set(folder, num_mixtures, seconds)
    enhanced, mixture = folder / "exp" / "enhanced", folder / "data" / "wav.scp"
    return {
        "ours, estimates and mixtures": ours(folder, nj),
        "ESPnet, estimates": espnet(folder, nj, [enhanced / "spk1.scp", enhanced / "spk2.scp"]),
        "ESPnet, mixtures": espnet(folder, nj, [mixture, mixture]),
    }


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_mixtures", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--nj", type=int, default=2)
    args = parser.parse_args()
    packages = ("espnet", "mir_eval", "fast_bss_eval", "pesq", "pystoi", "numpy", "torch")
    note = f"{args.num_mixtures} mixtures of {args.seconds:g} s, 2 talkers, {args.nj} processes"
    print_versions(*packages, note=note)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        startup = measure(Path(one), args.nj, args.seconds, args.nj)
        total = measure(Path(many), args.num_mixtures, args.seconds, args.nj)
        largest = differences(Path(many), args.nj)
    for seconds in (startup, total):
        seconds["ESPnet, both"] = seconds["ESPnet, estimates"] + seconds["ESPnet, mixtures"]
    first = next(iter(total))
    print(
        "| | all (s) | start-up within it (s) | ours is faster by | CPU seconds per mixture | ours needs less by |"
        "\n|:--|--:|--:|--:|--:|--:|"
    )
    each = {way: (total[way] - startup[way])[1] / (args.num_mixtures - args.nj) for way in total}
    for way, (seconds, _) in total.items():
        print(
            f"| {way} | {seconds:.1f} | {startup[way][0]:.1f} | {seconds / total[first][0]:.1f} |"
            f" {each[way]:.3f} | {each[way] / each[first]:.1f} |"
        )
    print("\nLargest difference of a score:", ", ".join(f"{k} {v:.0e}" for k, v in largest.items()))


if __name__ == "__main__":
    main()
