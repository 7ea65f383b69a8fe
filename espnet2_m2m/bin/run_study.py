"""Train, separate and score rows of Tables II and III of the M2M paper for several seeds: a study.

    ./run_table.sh --size small --jobs 2 --seeds "0 1 2"

in egs2/<corpus>/enh1, after stages 1 to 4 of run.sh, is this command behind the recipe's path.sh and cmd.sh, whose
cmd_backend comes in the environment. At the end Tables I-III are printed, the paper's figures beside ours. The
report page of the study, report/index.html in its folder, has them, too, and all systems to listen to.

A rerun skips what is finished and continues the rest. In the folder of each run are run_table.log, what its stages
printed, and run_table.jsonl, a line for each time that it was started: how long it took, and with what result.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path

from espnet2_m2m.bin import SEED, cli_errors, not_negative, positive, raise_usage_errors
from espnet2_m2m.enh.config import read_config
from espnet2_m2m.study_runs import TUNING, Run, log, run_all


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run_table.sh",
        usage="%(prog)s [--option value] ...   (defaults in brackets)",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(name: str, default: str | None, text: str = "", **options: object) -> None:
        parser.add_argument(f"--{name}", default=default, help=f"[{default or ''}] {text}", **options)

    add("rows", "", 'e.g. "table2_1a_m2m table2_4b_pit"; default: all table*.yaml of conf/tuning', type=str.split)
    add("size", "small", "network and training", choices=("paper", "small"))
    add("max_epoch", None, "default: that of conf/tuning/size_SIZE.yaml", type=positive)
    add("seeds", "0 1 2", "one training of each row per seed; all rows of the first seed come first", type=numbers)
    add("jobs", "1", "runs at the same time", type=positive)
    add("ngpu", "0", "GPUs of each run; those that run at the same time get different ones", type=not_negative)
    add("nj", "2", "processes of each run's scoring", type=positive)
    add("fs", "8000", "sample rate in Hz", choices=("8000", "16000"))
    for name in ("train", "valid", "test"):
        add(f"{name}_set", name)
    for name in ("data", "dump"):
        add(f"{name}dir", name)
    add("expdir", "exp", "the study is written to EXPDIR/SIZE_EPOCHSep/ROW_seedK")
    add("enh_args", "", 'further options of enh_train, e.g. "--num_iters_per_epoch 50"')
    add("python", "python3", "e.g. ~/espnet/tools/venv/bin/python3")
    return raise_usage_errors(parser)


def numbers(text: str) -> list[int]:
    """ "0 1 2" -> [0, 1, 2]"""
    if not re.fullmatch(r" *(\d+ *)+", text):
        raise argparse.ArgumentTypeError(f'expected numbers, e.g. "0 1 2", found {text!r}')
    return [SEED(word) for word in text.split()]


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    words = sys.argv[1:] if cmd is None else cmd
    args = parse(words)
    check(args)
    args.gpus = find_gpus(args)
    args.command = f"./run_table.sh {shlex.join(words)}"
    args.study = Path(args.expdir, f"{args.size}_{args.max_epoch}ep")
    runs = [Run(row, seed, args) for seed in args.seeds for row in args.rows]
    if args.jobs > 1 and not args.ngpu and is_local():
        os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"  # runs share the cores
    log(f"{len(runs)} runs -> {args.study}")
    run_all(runs, args.jobs)

    unfinished = [run for run in runs if run.other_training() or not run.is_finished()]
    for run in unfinished:
        end = "was not started, see above" if run.other_training() else f"failed; see {run.folder}/run_table.log"
        print(f"run_study: {run} {end}", file=sys.stderr)
    python = [*args.python.split(), "-m"]
    study = ["--study_dir", args.study, "--test_set", args.test_set]
    page = ["--data_dir", f"{args.dumpdir}/raw/{args.test_set}", "--out_dir", args.study / "report"]
    exclude = ["--exclude", *(run.folder.name for run in unfinished)] if unfinished else []
    if subprocess.run([*python, "espnet2_m2m.bin.make_tables", *study, *exclude]).returncode:
        sys.exit(1)
    if subprocess.run([*python, "espnet2_m2m.bin.report", *study, *page, *exclude]).returncode:
        log("without a report page, for the reason above")
    sys.exit(1 if unfinished else 0)


def is_local() -> bool:
    """Whether jobs run on this machine; else a cluster's scheduler gives out its GPUs and cores."""
    return os.environ.get("cmd_backend", "local") == "local"


# ---- Checks, before hours of training ----


def parse(words: list[str]) -> argparse.Namespace:
    """As in the recipe's scripts, a value may begin with dashes and a name may be written with them.

    Raises:
        ValueError: an option that there is not, or another value than it takes.
    """

    rest, joined = iter(words), []
    for word in rest:
        if re.fullmatch("--[^=]+", word) and word != "--help":
            word = "=".join([f"--{word[2:].replace('-', '_')}", *islice(rest, 1)])
        joined.append(word)
    return get_parser().parse_args(joined)


def check(args: argparse.Namespace) -> None:
    """Complete rows and max_epoch.

    Raises:
        FileNotFoundError, ValueError: there is no such row, or data that are not finished.
    """
    if not Path("local/m2m.sh").is_file():
        raise FileNotFoundError("local/m2m.sh: no such file; go to a recipe's folder, egs2/<corpus>/enh1")
    known = sorted(path.stem for path in TUNING.glob("table*.yaml"))
    args.rows = args.rows or known
    for row in args.rows:
        if row not in known or not re.match("table[23]_", row):
            raise ValueError(f"no row '{row}'; conf/tuning has {' '.join(known)}")
    size = TUNING / f"size_{args.size}.yaml"
    args.max_epoch = args.max_epoch or read_config(size).get("max_epoch")
    if args.max_epoch is None:
        raise ValueError(f"{size} has no max_epoch; give --max_epoch")
    for name in (args.train_set, args.valid_set, args.test_set):
        if not Path(args.dumpdir, "raw", name, "utt2spk").is_file():  # what a finished data dir has
            raise ValueError(
                f"{args.dumpdir}/raw/{name}: no finished data dir; make it with"
                f" ./run.sh --stop_stage 4 --datadir {args.datadir} --dumpdir {args.dumpdir}"
            )


def find_gpus(args: argparse.Namespace) -> list[str]:
    """The GPUs that the runs share; none where they need none, or a scheduler gives them out.

    Raises:
        ValueError: too few.
    """
    needed = args.jobs * args.ngpu
    if not needed or not is_local():
        return []
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(",", " ").split()
    if not gpus:
        with suppress(FileNotFoundError):
            listed = subprocess.run(["nvidia-smi", "--list-gpus"], text=True, capture_output=True).stdout
            gpus = re.findall(r"^GPU (\d+):", listed, flags=re.MULTILINE)
    if len(gpus) < needed:
        found = f"{len(gpus)} ({' '.join(gpus) or 'none'})"
        raise ValueError(f"--jobs {args.jobs} of --ngpu {args.ngpu} need {needed} GPUs, found {found}")
    return gpus


if __name__ == "__main__":
    main()
