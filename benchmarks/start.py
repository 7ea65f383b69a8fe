#!/usr/bin/env python3
"""CPU seconds of the commands that import ESPnet, as it is imported here and as anybody imports it.

    python benchmarks/start.py
    python benchmarks/start.py --asr_exp exp/asr_train

Each command does the least that it can do on noise with 6 mics at 8 kHz: one step of training and of validation (small
network), or one recording of 10 s. CPU seconds (user) are those of all its processes, with one thread each, in the run
of --repeats that needs fewest; they depend less on what else the machine does than the wall clock's seconds of that
run. All include `import torch`, but for --help, which imports neither ESPnet nor torch.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import print_versions

from espnet2_m2m import markdown
from espnet2_m2m.bin import GROUPS, positive
from espnet2_m2m.data_dir import write_table, write_wav

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_RATE = 8000
SECONDS = 10
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
OURS = "from espnet2_m2m.bin import main; main()"
AS_USUAL = f"import contextlib, espnet2_m2m.espnet_imports as e; e.deferred = contextlib.nullcontext; {OURS}"


def make_set(folder: Path) -> Path:
    """A formatted data dir with one mixture of 6 mics, two headsets and two references, all of them noise."""
    rng = np.random.default_rng(0)
    for name, num_mics in {"wav": 6, "closetalk1": 1, "closetalk2": 1, "spk1": 1, "spk2": 1}.items():
        path = folder / f"{name}.wav"
        write_wav(path, 0.1 * rng.standard_normal((SECONDS * SAMPLE_RATE, num_mics)), SAMPLE_RATE)
        write_table(folder / f"{name}.scp", {"u1": path})
    write_table(folder / "utt2spk", {"u1": "u1"})
    return folder


def commands(data_dir: Path, exp_dir: Path, out_dir: Path, asr_exp: Path | None) -> dict[str, list]:
    """Name -> the command's arguments, with which it writes to `out_dir`; all but the training use its `exp_dir`."""
    model = ["--train_config", exp_dir / "config.yaml", "--model_file", exp_dir / "valid.loss.best.pth"]
    config = ROOT / "conf" / "tuning" / "train_enh_m2m_tfgridnet_small.yaml"
    step = ["--max_epoch", 1, "--num_iters_per_epoch", 1, "--num_workers", 0]
    arguments = {
        "enh_train": ["--config", config, "--train_dir", data_dir, "--valid_dir", data_dir, "--output_dir", out_dir]
        + step,
        "separate": ["--model", exp_dir, data_dir / "wav.wav", "--out_dir", out_dir],
        "enh_inference": [*model, "--fs", SAMPLE_RATE, "--output_dir", out_dir, "--num_workers", 0]
        + ["--data_path_and_name_and_type", f"{data_dir}/wav.scp,speech_mix,sound"],
        "diagnose": [*model, "--data_dir", data_dir, "--out_dir", out_dir],
    }
    if asr_exp is not None:
        decoding = ROOT / "conf" / "decode_asr.yaml"
        arguments["asr_inference"] = ["--asr_exp", asr_exp, "--inference_config", decoding, "--data_dir", data_dir]
        arguments["asr_inference"] += ["--out_dir", out_dir]
    return {name: [name, *values] for name, values in arguments.items()}


def cpu_seconds(program: str, *arguments: object) -> tuple[float, float]:
    """Of a Python program: user seconds of it and its processes, and seconds of the wall clock."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.perf_counter()
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=ENV, text=True, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[3:])} failed:\n{done.stderr.strip()[-2000:]}")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, time.perf_counter() - start


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument(
        "--asr_exp", type=Path, help="an ESPnet ASR model for `asr_inference`, which is left out without"
    )
    args = parser.parse_args()
    print_versions("espnet", "torch", "typeguard", note=f"one thread, load {os.getloadavg()[0]:.1f}")
    helps = [
        min(cpu_seconds(OURS, name, "--help") for _ in range(args.repeats))
        for names in GROUPS.values()
        for name in names
    ]
    rows = [row("`--help`, the slowest", max(helps))]
    rows.append(row("`import torch`", min(cpu_seconds("import torch") for _ in range(args.repeats))))
    with tempfile.TemporaryDirectory() as folder:
        data_dir, exp_dir = make_set(Path(folder, "data")), Path(folder, "exp")
        cpu_seconds(OURS, *commands(data_dir, exp_dir, exp_dir, None)["enh_train"])
        for name in commands(data_dir, exp_dir, exp_dir, args.asr_exp):
            best = {}
            for number in range(args.repeats):
                for program in (AS_USUAL, OURS):  # by turns, since the machine may change its speed
                    out_dir = Path(folder, f"{name}{number}{len(program)}")
                    seconds = cpu_seconds(program, *commands(data_dir, exp_dir, out_dir, args.asr_exp)[name])
                    best[program] = min(seconds, best.get(program, seconds))
            rows.append(row(f"`{name}`", best[OURS], best[AS_USUAL]))
    print(markdown.table(["", "as usual (CPU s)", "(s)", "ours (CPU s)", "(s)"], rows))


def row(name: str, ours: tuple[float, float], as_usual: tuple[float, float] | None = None) -> list[str]:
    return [name, *([f"{seconds:.1f}" for seconds in as_usual] if as_usual else ["", ""]), *(f"{s:.1f}" for s in ours)]


if __name__ == "__main__":
    main()
