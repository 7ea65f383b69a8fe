"""Runs of a study: each one a process group and a locked folder, as many at the same time as are asked for."""

import argparse
import fcntl
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

from espnet2_m2m.enh.config import read_config
from espnet2_m2m.enh.training_settings import other_training, training_settings
from espnet2_m2m.report.paper import OUTPUTS, PAPER_OUTPUT

TUNING = Path("conf/tuning")
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def log(message: str, file: IO | None = None) -> None:
    """One line with the time, on stdout or to a file."""
    print(time.strftime("%H:%M:%S"), message, file=file, flush=True)


class Run:
    """A row of the tables with a seed: a training, and the scores of a test set.

    Args:
        row: file of conf/tuning.
        seed: of the training.
        args: options of bin/run_study, with `study`, the folder, `gpus`, those that the runs share, and `command`.
    """

    def __init__(self, row: str, seed: int, args: argparse.Namespace) -> None:
        self.row, self.seed, self.args = row, seed, args
        self.folder = args.study / f"{row}_seed{seed}"
        names = [row, *["size_small"] * (args.size == "small"), *["rate_16k"] * (args.fs == "16000")]
        self.configs = [f"{TUNING}/{name}.yaml" for name in names]
        self.enh_args = f"--seed {seed} --max_epoch {args.max_epoch}"
        if read_config(*self.configs).get("scheduler") == "cosineannealinglr":
            self.enh_args += f" --scheduler_conf T_max={args.max_epoch}"  # the training ends with small steps
        self.enh_args += f" {args.enh_args}" if args.enh_args else ""
        self._settings = training_settings(self.configs, self.enh_args, args.dumpdir)
        # Separated set -> its options.
        self.separations = {f"enhanced_{args.test_set}": ["--inference_args", PAPER_OUTPUT]}
        for tag, output in OUTPUTS.items():
            if re.fullmatch(output.rows, row):
                options = ["--inference_tag", tag, "--inference_args", output.inference_args]
                self.separations[f"enhanced_{args.test_set}_{tag}"] = options

    def __str__(self) -> str:
        return f"{self.row} seed {self.seed}"

    def other_training(self) -> str | None:
        """Why it cannot be started: its folder holds a training with other options."""
        return other_training(self.folder, self._settings)

    def is_trained(self) -> bool:
        """Whether ESPnet's log says so, which it does after the last epoch's files are written.

        The checkpoint takes seconds to load, and does not tell a training that patience ended from one that stopped
        since no gradient was finite. If ESPnet changed these words no training would count as complete.
        """
        ends = rf"training was finished at {self.args.max_epoch} epochs|already reached at max_epoch|\[Early stopping\]"
        with suppress(FileNotFoundError):
            return (
                re.search(ends, (self.folder / "train.log").read_text(encoding="utf-8", errors="replace")) is not None
            )
        return False

    def is_finished(self) -> bool:
        """Trained, and scored since the model or the test set changed; takes milliseconds."""
        sources = self.folder / "valid.loss.best.pth", Path(self.args.dumpdir, "raw", self.args.test_set, "wav.scp")
        summaries = [self.folder / name / "scoring/summary.json" for name in self.separations]
        return self.is_trained() and all(_is_newer(summary, path) for summary in summaries for path in sources)

    def run(self, name: str) -> None:
        """Train and score, unless another process is at it; `name` is for messages.

        Locks are held and GPUs taken for this process and all that it starts: it should end with the run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not _hold(self.folder / ".lock"):
            return log(f"{name}: not started, another run_table.sh is at work in {self.folder}")
        if self.args.gpus and not self._take_gpus():
            return log(f"{name}: not started, another run_table.sh has the GPUs")
        log(f"{name}: started, log in {self.folder}/run_table.log")
        record = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "status": "failed", "seed": self.seed}
        record |= {"resumed": (self.folder / "checkpoint.pth").is_file(), "training_seconds": None}
        commit, begin = _commit(), time.monotonic()
        with open(self.folder / "run_table.log", "a", encoding="utf-8") as output:
            if self._stages(6, 6, output):
                if self.is_trained():
                    record["training_seconds"] = int(time.monotonic() - begin)
                    if all(self._stages(7, 8, output, *options) for options in self.separations.values()):
                        record["status"] = "finished"
                else:
                    message = f"the training ended before epoch {self.args.max_epoch}; see {self.folder}/train.log"
                    log(message, file=output)
        record |= {"seconds": int(time.monotonic() - begin), "commit": commit, "command": self.args.command}
        log(f"{name}: {record['status']} after {record['seconds']} s")
        with open(self.folder / "run_table.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _stages(self, first: int, last: int, output: IO, *options: str) -> bool:
        """Whether these stages of local/m2m.sh succeed."""
        command = f"local/m2m.sh --use_enh_sh false --stage {first} --stop_stage {last}".split()
        for name in ("python", "ngpu", "nj", "fs", "train_set", "valid_set", "datadir", "dumpdir"):
            command += [f"--{name}", str(getattr(self.args, name))]
        command += ["--test_sets", self.args.test_set, "--expdir", self.args.study, "--enh_tag", self.folder.name]
        command += ["--enh_config", " ".join(self.configs), "--enh_args", self.enh_args]
        command += ["--clean_headsets", "false", *options]  # what no training changes
        # The locks are inherited.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, close_fds=False)
        return done.returncode == 0

    def _take_gpus(self) -> bool:
        """Of as many shares as there are jobs the first that is free."""
        for share in range(self.args.jobs):
            if _hold(self.args.study / f".gpus{share}"):
                gpus = self.args.gpus[share * self.args.ngpu : (share + 1) * self.args.ngpu]
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
                return True
        return False


def _is_newer(path: Path, other: Path) -> bool:
    return path.exists() and (not other.exists() or path.stat().st_mtime_ns > other.stat().st_mtime_ns)


def _commit() -> str | None:
    """Of the folder's repository."""
    with suppress(FileNotFoundError):  # no git
        git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
        return subprocess.run(git, text=True, capture_output=True).stdout.strip() or None
    return None


def _hold(path: Path) -> bool:
    """Lock a file until the last of this process and those that it starts has ended; False if another has it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    os.set_inheritable(file, True)
    return True


# ---- All runs ----


def run_all(runs: list[Run], num_jobs: int) -> None:
    """Start runs in their order, and return when all have ended. SIGINT, SIGTERM or SIGHUP ends all of them, with 130.

    Each run is a process group, so that the signal reaches its stages. Forked, it lives on if this process is killed.

    Args:
        runs: those that are finished or cannot be started are left out with a message.
        num_jobs: at most so many at the same time.
    """
    signals = [number for number in STOP if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    active = []

    def stop(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        for process in active:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGTERM)
        sys.exit(130)

    def lead_group(run: Run, name: str) -> None:
        os.setpgid(0, 0)
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        run.run(name)

    def wait_until(num_active: int) -> None:
        while len(active) > num_active:
            wait([process.sentinel for process in active])
            active[:] = [process for process in active if process.is_alive()]

    for number in signals:
        signal.signal(number, stop)
    for number, run in enumerate(runs, start=1):
        name = f"[{number} of {len(runs)}] {run}"
        reason = run.other_training()
        if reason or run.is_finished():
            log(f"{name}: " + (f"not started, {reason}" if reason else "finished before"))
            continue
        wait_until(num_jobs - 1)
        process = multiprocessing.get_context("fork").Process(target=lead_group, args=(run, name))
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until `stop` knows the process, and its group is there
        process.start()
        os.setpgid(process.pid, process.pid)
        active.append(process)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    wait_until(0)
