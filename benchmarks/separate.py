"""Time and memory of the whole `espnet2_m2m separate`: networks of both sizes, both precisions, 1 and 2 threads.

    python benchmarks/separate.py                                 # 10 s and 10 minutes; the hour is extrapolated
    python benchmarks/separate.py --sizes paper --seconds 10 60   # the paper's size takes long: 10 minutes, too

Each line is a process of its own, the shortest of --repeats: six mics of noise at 8 kHz, weights at random. `start` is
what the command needs besides the recordings (imports, the model, a first reading), "steady" the real-time factor
that it prints itself. CPU time, of all threads, is disturbed less by other work on the machine; its start and its
steady part are those of a line through the shortest and the longest recording. Lengths beyond the longest measured one
are extrapolated: its steady factor, its memory.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import yaml

from espnet2_m2m.data_dir.tables import temporary_folder
from espnet2_m2m.enh.config import read_config

CONF = Path(__file__).parents[1] / "conf/tuning"
SIZES = {
    "small": ["table2_ours_m2m_anchor.yaml", "size_small.yaml"],
    "paper": ["table2_ours_m2m_anchor.yaml"],
}
RATE, MICS = 8000, 6
TOLD = (10, 600, 3600)  # s, the lengths of the table


class Run(NamedTuple):
    """What a command needed for a recording."""

    seconds: float  # in all
    cpu_seconds: float
    steady_seconds: float  # of them for the recording, as the command says
    peak_bytes: int


def make_model(folder: Path, size: str) -> None:
    """A training's folder with random weights."""
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    config = M2MEnhancementTask.get_default_config() | read_config(*(CONF / name for name in SIZES[size]))
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(argparse.Namespace(**config))
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"sample_rate": RATE}))
    torch.save(model.state_dict(), folder / "valid.loss.best.pth")


def run_command(model: Path, recording: Path, precision: str, threads: int) -> Run:
    """Separate once."""
    with temporary_folder() as out_dir:
        command = [sys.executable, "-m", "espnet2_m2m", "separate", "--model", model, recording, "-o", out_dir]
        env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        begin = time.perf_counter()
        with tempfile.TemporaryFile("w+") as printed:
            process = subprocess.Popen(
                [*command, "--precision", precision], env=env, stdout=printed, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            printed.seek(0)
            output = printed.read()
    found = re.search(r"separated in ([\d.]+) s", output)
    if process.returncode or not found:
        raise SystemExit(f"{' '.join(map(str, command))}: {output.strip().splitlines()[-1]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, float(found[1]), 1024 * usage.ru_maxrss)


def rows(measured: dict[int, Run]) -> list[list[str]]:
    """Cells of the table for every length: measured, or extrapolated from those that were."""
    shortest, longest = min(measured), max(measured)
    base = measured[longest]
    cpu_steady = (base.cpu_seconds - measured[shortest].cpu_seconds) / max(longest - shortest, 1)
    cpu_start = base.cpu_seconds - longest * cpu_steady
    cells = []
    for length in sorted({*measured, *(told for told in TOLD if told > longest)}):
        run, note = measured.get(length), ""
        if run is None:
            note = " (extrapolated)"
            steady = length / longest * base.steady_seconds
            seconds, cpu_seconds = base.seconds - base.steady_seconds + steady, cpu_start + length * cpu_steady
            run = Run(seconds, cpu_seconds, steady, base.peak_bytes)
        cells.append(
            [
                f"{length}{note}",
                f"{run.seconds - run.steady_seconds:.1f}",
                f"{run.steady_seconds / length:.3f}",
                f"{run.seconds / length:.3f}",
                f"{cpu_start:.1f}",
                f"{cpu_steady:.3f}",
                f"{run.cpu_seconds / length:.3f}",
                f"{run.peak_bytes / 1e9:.2f}",
            ]
        )
    return cells


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", nargs="+", type=int, default=[10, 600], help="lengths of recordings")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, Python {platform.python_version()}\n")
    print(
        "| size | precision | threads | recording (s) | start (s) | real-time factor, steady | whole command |"
        " CPU (s), start | per second, steady | whole command | peak memory (GB) |\n|:--|:--|--:|--:" + 7 * "|--:" + "|"
    )
    with temporary_folder() as folder:
        recordings = {seconds: folder / f"{seconds}.wav" for seconds in args.seconds}
        for seconds, path in recordings.items():
            noise = np.random.default_rng(0).normal(size=(seconds * RATE, MICS))
            soundfile.write(path, 0.1 * noise.astype(np.float32), RATE, subtype="PCM_16")
        for size in args.sizes:
            make_model(folder / size, size)
            for precision in args.precisions:
                for threads in args.threads:
                    measured = {
                        seconds: min(run_command(folder / size, path, precision, threads) for _ in range(args.repeats))
                        for seconds, path in recordings.items()
                    }
                    for cells in rows(measured):
                        print(f"| {size} | {precision} | {threads} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
