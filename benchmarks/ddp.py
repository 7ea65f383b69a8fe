"""Training in two processes (DDP) against one process with the same batches: the loss and the time.

    cd egs2/meeting_demo/enh1 && python ../../../benchmarks/ddp.py dump/raw      # after stages 1 to 4 of run.sh

The folder holds the data dirs train and valid of a recipe. The small network trains on whole utterances, two a
step: both in one process, or one in each of two processes, which gloo joins on a CPU as nccl does on GPUs. The
mixtures of every step are the same, so the losses must agree up to rounding.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml

CONF = Path(__file__).resolve().parents[1] / "conf/tuning"
WHOLE = {"iterator_type": "sequence", "batch_type": "unsorted", "batch_size": 2, "max_epoch": 1, "num_workers": 1}


def train(
    folder: Path, dump: Path, steps: int, interval: int, processes: int, threads: int
) -> tuple[dict[int, float], float]:
    """Mean loss of every `interval` steps, by the last of them, and the seconds a step took."""
    config = folder / "whole_utterances.yaml"
    config.write_text(yaml.safe_dump({**WHOLE, "num_iters_per_epoch": steps, "log_interval": interval}))
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    log = folder / f"{processes}x{threads}.log"
    with log.open("w") as stream:
        status = subprocess.run(
            [
                *(*launcher, "-m", "espnet2_m2m.bin.enh_train"),
                *("--config", CONF / "table2_ours_m2m_anchor.yaml"),
                *("--config", CONF / "size_small.yaml"),
                *("--config", config),
                *("--output_dir", log.with_suffix("")),
                *("--train_dir", dump / "train"),
                *("--valid_dir", dump / "valid"),
                *("--ngpu", "0"),
                *("--train_shape_file", dump / "train/wav.scp"),
                *("--valid_shape_file", dump / "valid/wav.scp"),
                *("--multiprocessing_distributed", "false"),
                *("--dist_backend", "gloo"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        ).returncode
    if status != 0:
        raise SystemExit(f"{processes} process(es): {log.read_text().strip().splitlines()[-1]}")
    number = r"([\d.e+-]+)"
    lines = re.findall(rf"1epoch:train:\d+-(\d+)batch: .*?\bloss={number}.*train_time={number}", log.read_text())
    losses = {int(last): float(loss) for last, loss, _ in lines}
    # train_time covers all of a step; the first interval holds the start of the workers
    return losses, sum(float(seconds) for *_, seconds in lines[1:]) / (len(lines) - 1)


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump_dir", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--interval", type=int, default=10, help="steps of a line")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, CPU\n")
    ways = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: train(Path(folder), args.dump_dir.resolve(), args.steps, args.interval, *way)
            for name, way in ways.items()
        }
    rows = [("seconds per step", [f"{seconds:.3f}" for _, seconds in found.values()])]
    first = next(iter(found.values()))
    rows.append(("faster by", [f"{first[1] / seconds:.2f}" for _, seconds in found.values()]))
    rows += [
        (f"mean loss, steps {last - args.interval + 1}-{last}", [f"{losses[last]:.4f}" for losses, _ in found.values()])
        for last in first[0]
    ]
    print(f"| | {' | '.join(found)} |\n|:--|{'--:|' * len(found)}")
    for name, values in rows:
        print(f"| {name} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
