"""What the benchmarks share: versions, and time and memory of a step, measured in a process of its own."""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any


def print_versions(*packages: str, note: str) -> None:
    """A line with the versions of packages and Python, and what else the reader of the figures must know."""
    print(*(f"{name} {version(name)}" for name in packages), f"Python {platform.python_version()}", note, sep=", ")
    print()


def timed(
    step: Callable[[], Any], repeats: int, device: str = "cpu", clock: Callable[[], float] = time.perf_counter
) -> tuple[float, int]:
    """Call `step` once to warm up, then `repeats` times.

    Returns:
        seconds (the shortest: other work on the machine only adds to it) and bytes by which the memory's peak
        rises over what was in use before: of the process, or on a GPU of the allocator.
    """
    cuda = device == "cuda"
    if cuda:
        import torch

        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else peak_bytes()
    seconds = []
    for _ in range(1 + repeats):
        if cuda:
            torch.cuda.synchronize()
        start = clock()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
    return min(seconds[1:]), peak - before


def peak_bytes() -> int:
    """Highest resident memory of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_new_process(script: str, *job: Any) -> Any:
    """Run `script --measure JOB`, which does the work, and return what it prints as JSON."""
    command = [sys.executable, script, "--measure", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{script} {job}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
