"""What kill -9 leaves: a rerun must give what an undisturbed run gives, bit by bit, and nothing else.

    python benchmarks/kills.py
    python benchmarks/kills.py --num 5 --commands simulate,train --seed 3

Each command works on tiny data and a tiny network. Its whole process group is killed at a random moment of its
duration, the same command is run again to its end, and its folder is compared with that of an undisturbed run. A file
with a hidden or temporary name that is left there or in the temporary folder counts as a leftover. The commands are
run in forks of a process that has imported ESPnet, and their workers are new processes.

Files are compared by their bytes. What must differ is left out: of a training the log, and the times and memory in
its checkpoint and curves; of kept scores the order of their lines, which is that in which jobs finished.
"""

import argparse
import functools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from measuring import print_versions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

RATE, MICS = 8000, 3
CONFIG = {
    "encoder": "spectra",
    "encoder_conf": {"n_fft": 64, "hop_length": 16},
    "decoder": "spectra",
    "decoder_conf": {"n_fft": 64, "hop_length": 16},
    "separator": "tfgridnet_spectra",
    "separator_conf": {
        "n_srcs": 2,
        "n_imics": MICS,
        "n_layers": 1,
        "emb_dim": 4,
        "emb_ks": 2,
        "emb_hs": 2,
        "lstm_hidden_units": 6,
        "attn_n_head": 2,
        "attn_qk_dim": 1,
    },
    "criterions": [
        {
            "name": "mixture_constraint",
            "conf": {"n_fft": 64, "hop_length": 16, "closetalk_past_taps": 3, "farfield_past_taps": 4},
            "wrapper": "mixture",
            "wrapper_conf": {"weight": 1.0},
        }
    ],
    "iterator_type": "chunk",
    "chunk_length": 2000,
    "batch_size": 1,
    "optim": "adam",
    "max_epoch": 2,
    "num_iters_per_epoch": 2,
    "num_workers": 0,
    "num_att_plot": 0,
    "use_tensorboard": False,
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": 1,
}
TIMES = re.compile(r".*_time|time|.*_mem_GB")  # statistics of a training that are others each time
NOT_COMPARED = re.compile(r"(train|launch)\.log|images/(.*_time|.*mem_GB|total_count)\.png|.*/log/.*")


class Command(NamedTuple):
    """A command as it is killed.

    Attributes:
        run: function of the folders of input and output.
        seconds: of the undisturbed run.
        result: its tree, `contents`.
        cache: what it leaves in the temporary folder, as torch does.
    """

    run: Callable[[Path, Path], None]
    seconds: float
    result: dict[str, object]
    cache: set[Path]


class Outcome(NamedTuple):
    """Of a kill: whether it came before the end; files that differ after the rerun, and leftovers."""

    killed: bool
    wrong: str
    left: str


# ---- The commands --------------------------------------------------------------------------------


def simulate(data: Path, out: Path, nj: int) -> None:
    from espnet2_m2m.bin.simulate import main

    main(
        f"--source_data {data}/clean --out_dir {out} --min_duration 0.3 --num_train 3 --num_valid 0 --num_test 1"
        f" --nj {nj}".split()
    )


def format_set(data: Path, out: Path, nj: int) -> None:
    from espnet2_m2m.bin.format_data_dir import main

    main(f"--data_dir {data}/recorded --out_dir {out} --sample_rate {RATE} --nj {nj}".split())


def train(data: Path, out: Path) -> None:
    from espnet2_m2m.bin.enh_train import main

    main(
        f"--config {data}/train.yaml --output_dir {out} --train_dir {data}/set --valid_dir {data}/set"
        " --resume true --log_level WARNING".split()
    )


def separate(data: Path, out: Path) -> None:
    from espnet2_m2m.bin.separate import main

    main(f"--model {data}/exp {data}/a.wav {data}/b.wav -o {out} --segment_size 1 --hop_size 0.75".split())


def infer(data: Path, out: Path, nj: int) -> None:
    """As the recipes do: shares at the same time, then the lists."""
    from espnet2_m2m.bin.enh_inference import main

    command = (
        f"--train_config {data}/exp/config.yaml --model_file {data}/exp/valid.loss.best.pth --fs {RATE}"
        f" --data_path_and_name_and_type {data}/set/wav.scp,speech_mix,sound --output_dir {out} --num_workers 0"
        " --log_level WARNING"
    ).split()
    if nj > 1:
        shares = [begin(lambda job=job: main([*command, "--job", job]), os.getpgrp()) for job in ("1/2", "2/2")]
        statuses = [os.waitpid(share, 0)[1] for share in shares]
        if any(statuses):
            raise RuntimeError("a share failed")
    main(command)


def score(data: Path, out: Path, nj: int) -> None:
    from espnet2_m2m.bin.enh_scoring import main

    out.mkdir(exist_ok=True)
    enhanced = out / "enhanced"
    if not enhanced.is_dir():  # the separated speech, which is there before the scores are
        shutil.copytree(data / "enhanced", out / "new", dirs_exist_ok=True)
        (out / "new").rename(enhanced)
    main(f"--data_dir {data}/scored --enhanced_dir {enhanced} --nj {nj}".split())


COMMANDS = {  # -> by number of jobs
    "simulate": {nj: functools.partial(simulate, nj=nj) for nj in (1, 2)},
    "format_data_dir": {nj: functools.partial(format_set, nj=nj) for nj in (1, 2)},
    "enh_train": {1: train},
    "separate": {1: separate},
    "enh_inference": {nj: functools.partial(infer, nj=nj) for nj in (1, 2)},
    "enh_scoring": {nj: functools.partial(score, nj=nj) for nj in (1, 2)},
}


# ---- Their input ---------------------------------------------------------------------------------


def make_input(data: Path) -> None:
    """Everything that the commands read."""
    import fake_set
    import soundfile
    from clean_speech import make_clean_speech
    from data_dir_example import make_data_dir

    from espnet2_m2m.data_dir import read_table, write_table

    rng = np.random.default_rng(0)
    make_clean_speech(data / "clean", 2, lambda speaker, _: 0.1 * rng.standard_normal(3000 + 10 * speaker), RATE)
    make_data_dir(data / "set", [4000, 4400, 4800, 5200], num_channels=MICS)
    # Of pipes and of another rate, so that all is written anew.
    make_data_dir(data / "recorded", [4000, 4400, 4800], num_channels=MICS)
    for scp in (data / "recorded").glob("*.scp"):
        table = read_table(scp)
        for number, path in enumerate(table.values()):
            samples, _ = soundfile.read(path)
            soundfile.write(path, samples, 2 * RATE if number else RATE)
        write_table(scp, {utt: path if number else f"cat {path} |" for number, (utt, path) in enumerate(table.items())})
    for name in "ab":
        soundfile.write(data / f"{name}.wav", 0.1 * rng.standard_normal((3 * RATE, MICS)), RATE)
    scored, enhanced = fake_set.make_set(data / "scoring", 4)
    scored.rename(data / "scored")
    enhanced.rename(data / "enhanced")
    for folder in ("scored", "enhanced"):
        for table in (data / folder).glob("*.scp"):
            content = table.read_text().replace(str(scored), str(data / "scored"))
            table.write_text(content.replace(str(enhanced), str(data / "enhanced")))
    (data / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    train(data, data / "exp")


# ---- Running and killing -------------------------------------------------------------------------


def begin(function: Callable[[], None], group: int = 0, log: Path | None = None) -> int:
    """Call a function in a forked process of this group, 0: a new one; returns its id."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.setpgid(0, group)
            if log is not None:
                file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, 1)
                os.dup2(file, 2)
            function()
            status = 0
        except SystemExit as error:
            status = 0 if error.code in (None, 0) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return process


class Trials:
    """Runs commands in a folder.

    Args:
        work: its folder data is the input, out the output of one run after the other, tmp the temporary folder.
    """

    def __init__(self, work: Path) -> None:
        self.data, self.out, self.tmp = work / "data", work / "out", work / "tmp"
        self.log = work / "log"
        self.tmp.mkdir(parents=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.tmp)
        process = begin(lambda: make_input(self.data), log=self.log)
        if os.waitpid(process, 0)[1] != 0:
            raise RuntimeError(self.log.read_text()[-3000:])
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.tmp)
        self.tmp.mkdir()

    def run(self, command: Callable, kill_after_s: float | None = None) -> tuple[float, bool]:
        """Seconds that it took, and whether it was killed.

        Raises:
            RuntimeError: it failed by itself.
        """
        start = time.monotonic()
        process = begin(lambda: command(self.data, self.out), log=self.log)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.killpg(process, signal.SIGKILL)  # not waited for as yet, so the group is there
        _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status)
        if status != 0 and not killed:
            raise RuntimeError(self.log.read_text()[-2000:])
        return time.monotonic() - start, killed

    def undisturbed(self, function: Callable) -> Command:
        """Run it twice, as two runs must give the same; the second has all imports on the disk's cache."""
        self.clear()
        self.run(function)
        first = contents(self.out)
        self.clear()
        seconds, _ = self.run(function)
        result = contents(self.out)
        if changed := differing(first, result):
            raise RuntimeError(f"two undisturbed runs differ in {changed}")
        return Command(function, seconds, result, set(self.tmp.rglob("*")))

    def trial(self, command: Command, kill_after_s: float) -> Outcome:
        """Kill it, run it again, and compare."""
        self.clear()
        _, killed = self.run(command.run, kill_after_s)
        try:
            self.run(command.run)
        except RuntimeError as error:
            return Outcome(killed, f"the rerun fails: {error}", "")
        wrong = differing(command.result, contents(self.out))
        left = [path for folder in (self.out, self.tmp) for path in folder.rglob("*")]
        left = [path for path in left if is_leftover(path, self.tmp) and path not in command.cache]
        return Outcome(killed, ", ".join(wrong), ", ".join(str(path.relative_to(self.out.parent)) for path in left))


def is_leftover(path: Path, tmp: Path) -> bool:
    return path.name.startswith(".") or "tmp" in path.name or tmp in path.parents


def contents(out: Path) -> dict[str, object]:
    """Relative path -> what is compared of a file, link or folder."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if NOT_COMPARED.fullmatch(name) or is_leftover(path, path):
            continue
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "folder"
        elif name == "checkpoint.pth":
            found[name] = without_times(path)
        elif path.suffix == ".jsonl":  # kept results stand in the order in which jobs finished
            found[name] = sorted(path.read_bytes().splitlines())
        else:
            found[name] = path.read_bytes()
    return found


def without_times(checkpoint: Path) -> str:
    """All that a checkpoint holds but times and memory."""
    from espnet2_m2m.tasks.checkpoints import read_checkpoint

    def text(value: object) -> str:
        if isinstance(value, dict):
            items = (f"{key!r}: {text(item)}" for key, item in value.items() if not TIMES.fullmatch(str(key)))
            return "{" + ", ".join(items) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(text, value)) + "]"
        return repr(value.tolist()) if hasattr(value, "tolist") else repr(value)

    return text(read_checkpoint(checkpoint))


def differing(desired: dict[str, object], actual: dict[str, object]) -> list[str]:
    return [name for name in sorted(desired | actual) if desired.get(name) != actual.get(name)]


def kill(work: Path, commands: list[str], num: int, seed: int) -> Iterator[tuple[str, int, float, list[Outcome]]]:
    """Kill each of COMMANDS `num` times, half of them with two jobs where it has jobs.

    Yields:
        command, number of jobs, seconds of an undisturbed run, Outcomes.
    """
    trials, rng = Trials(work), np.random.default_rng(seed)
    for name in commands:
        for nj, function in COMMANDS[name].items():
            command = trials.undisturbed(function)
            outcomes = []
            for _ in range(num // len(COMMANDS[name])):
                moment = float(rng.uniform(0, command.seconds))
                outcomes.append(trials.trial(command, moment))
                if outcomes[-1].wrong or outcomes[-1].left:
                    print(f"{name}, {nj} job(s), after {moment:.3f} s: {outcomes[-1]}", flush=True)
            yield name, nj, command.seconds, outcomes


def warm_up() -> None:
    """Import here what the forked processes would each import."""
    import espnet2.bin.enh_inference  # noqa: F401

    import espnet2_m2m.bin.enh_scoring
    import espnet2_m2m.bin.simulate
    import espnet2_m2m.tasks.enh_m2m
    import espnet2_m2m.tasks.separate_speech  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=50, help="kills of each command (default 50)")
    parser.add_argument("--commands", default=",".join(COMMANDS), help=f"default: {','.join(COMMANDS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    args = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    start = time.monotonic()
    warm_up()
    work = Path(tempfile.mkdtemp(dir=args.work))
    lines = ["| command | jobs | kills | before its end | as undisturbed | leftovers | s undisturbed |"]
    lines.append("|:--|" + "--:|" * 6)
    for name, nj, seconds, outcomes in kill(work, args.commands.split(","), args.num, args.seed):
        killed = sum(outcome.killed for outcome in outcomes)
        equal, clean = (sum(not getattr(outcome, what) for outcome in outcomes) for what in ("wrong", "left"))
        cells = [name, nj, len(outcomes), killed, equal, len(outcomes) - clean, f"{seconds:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], file=sys.stderr)
    shutil.rmtree(work)
    print("", *lines, "", sep="\n")
    print_versions("espnet", "torch", note=f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
