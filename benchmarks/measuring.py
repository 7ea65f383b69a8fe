"""What the benchmarks share: time and memory of a step, measured in a process of its own."""

import json
import resource
import statistics
import subprocess
import sys
import time

import torch


def timed(step, repeats, device="cpu"):
    """Call `step` once to warm up, then `repeats` times.

    Returns:
        seconds (median) and bytes by which the memory's peak rises over what was in use before: of the
        process, or on a GPU of the allocator.
    """
    cuda = device == "cuda"
    before = torch.cuda.memory_allocated() if cuda else peak_bytes()
    seconds = []
    for _ in range(1 + repeats):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
    return statistics.median(seconds[1:]), peak - before


def peak_bytes():
    """Highest resident memory of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_new_process(script, *job):
    """Run `script --measure JOB`, which does the work, and return what it prints as JSON."""
    command = [sys.executable, script, "--measure", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{script} {job}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
