"""Segments per second of the training data loader, against ESPnet's that reads whole files.

    python benchmarks/data_loading.py
    python benchmarks/data_loading.py --seconds 5 20 --num_workers 1 2 4 8

What conf/tuning/size_paper.yaml asks of ESPnet, through M2MEnhancementTask: one segment of 4 s at a random
place of each mixture, batches of 4, M2M's data (a file of 6 far-field mics, two headsets), 8 kHz, PCM_16, read
from the disk cache. The files are noise, 5 s and 60 s long. Batches are taken as fast as they come, as a step
of no time would; the first of each epoch do not count (start of the workers). CPU time is that of all
processes.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from espnet2.train.distributed_utils import DistributedOption  # noqa: E402

from espnet2_m2m.bin.enh_train import espnet_command  # noqa: E402
from espnet2_m2m.data_dir import write_table, write_wav  # noqa: E402
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask  # noqa: E402

SAMPLE_RATE = 8000
CONFIG = Path(__file__).parents[1] / "conf" / "tuning" / "table2_1a_m2m.yaml"


def make_set(folder: Path, num_mixtures: int, seconds: float) -> None:
    """A data dir of noise; a file serves several utterances, since reading is from memory anyway."""
    rng = np.random.default_rng(0)
    names = {"wav": 6, "closetalk1": 1, "closetalk2": 1}
    tables = {name: {} for name in names}
    for index in range(num_mixtures):
        for name, num_channels in names.items():
            path = folder / f"{name}{index % 16}_{seconds:g}.wav"
            if not path.is_file():
                samples = 0.1 * rng.standard_normal((int(seconds * SAMPLE_RATE), num_channels))
                write_wav(path, samples.clip(-0.9, 0.9), SAMPLE_RATE, "PCM_16")
            tables[name][f"u{index:05d}"] = path
    for name, table in tables.items():
        write_table(folder / f"{name}.scp", table)


class WholeFiles(M2MEnhancementTask):
    """With ESPnet's own reading."""

    @classmethod
    def build_chunk_iter_factory(cls, *args: Any, **kwargs: Any) -> Any:
        return super(M2MEnhancementTask, cls).build_chunk_iter_factory(*args, **kwargs)


TASKS = {"segments (ours)": M2MEnhancementTask, "whole files (ESPnet)": WholeFiles}


def training_batches(task: type[M2MEnhancementTask], folder: Path, num_workers: int) -> Iterator[Any]:
    """The batches of the first epoch."""
    options = ["--config", CONFIG, "--output_dir", folder, "--train_dir", folder, "--num_workers", num_workers]
    command = espnet_command(list(map(str, options)))
    args = task.get_parser().parse_args(command)
    return task.build_iter_factory(args, DistributedOption(), mode="train").build_iter(1)


def cpu_seconds() -> float:
    """Of this process and its children so far."""
    return sum(os.times()[:4])


def measure(
    task: type[M2MEnhancementTask], folder: Path, num_workers: int, num_batches: int, skipped: int = 20
) -> tuple[float, float]:
    """Segments per second after `skipped` batches (a cache of 64 segments fills first), CPU seconds."""
    cpu = cpu_seconds()
    batches = training_batches(task, folder, num_workers)
    for _ in islice(batches, skipped):
        pass
    start = time.perf_counter()
    for _, batch in islice(batches, num_batches):
        assert batch["speech_mix"].shape == (4, 4 * SAMPLE_RATE, 6), batch["speech_mix"].shape
    rate = 4 * num_batches / (time.perf_counter() - start)
    for _ in batches:  # to the end, so that the workers' times are known
        pass
    return rate, cpu_seconds() - cpu


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 60])
    parser.add_argument("--num_workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num_batches", type=int, default=60)
    args = parser.parse_args()
    print(
        f"espnet {version('espnet')}, torch {torch.__version__}, numpy {np.__version__}, Python"
        f" {platform.python_version()}, one thread a worker, batches of 4 segments of 4 s, 8 channels\n"
    )
    print(
        "| files (s) | workers | reads | segments per second | ms between batches of 4 |"
        " CPU ms per segment |\n|--:|--:|:--|--:|--:|--:|"
    )
    for seconds in args.seconds:
        with tempfile.TemporaryDirectory() as folder:
            num_mixtures = 4 * (args.num_batches + 20) + 80  # the last batches come from the cache alone
            make_set(Path(folder), num_mixtures, seconds)
            for num_workers in args.num_workers:
                for reads, task in TASKS.items():
                    rate, cpu = measure(task, Path(folder), num_workers, args.num_batches)
                    print(
                        f"| {seconds:g} | {num_workers} | {reads} | {rate:.0f} | {4000 / rate:.1f} |"
                        f" {1000 * cpu / num_mixtures:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
