"""Commands, one a file: `espnet2_m2m NAME --help`; `python -m espnet2_m2m NAME` is the same without pip's script."""

import argparse
import ast
import difflib
import functools
import importlib
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from espnet2_m2m import __version__

# The commands by what people want to do, each group in the order in which it is done.
GROUPS = {
    "Separate recordings": ("separate",),
    "Prepare and simulate data": (
        "make_demo_speech",
        "prepare_librispeech",
        "simulate",
        "simulate_sms_wsj",
        "format_data_dir",
        "filter_data_dir",
        "validate_data_dir",
    ),
    "Train, separate and score": ("enh_train", "enh_inference", "clean_headsets", "enh_scoring"),
    "Recognise": ("talker_data_dir", "asr_inference", "asr_scoring"),
    "Study and report": ("run_study", "diagnose", "make_tables", "report"),
    "Share": ("pack_model", "upload_model"),
    "ESPnet checkout": ("setup_recipe",),
}


def main() -> None:
    """The console script `espnet2_m2m NAME [ARGUMENT ...]`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    commands = [command for group in GROUPS.values() for command in group]
    if name in ("--help", "-h"):
        print(overview())
    elif name == "--version":
        print(f"espnet2_m2m {__version__}")
    elif name not in commands:
        near = " or ".join(difflib.get_close_matches(name, commands, n=2, cutoff=0.75))
        meant = f"did you mean {near}? " if near else ""
        sys.exit(f"espnet2_m2m: error: no command '{name}'; {meant}espnet2_m2m --help lists them")
    else:
        sys.argv[:2] = [f"espnet2_m2m {name}"]
        importlib.import_module(f"{__name__}.{name}").main()


def overview() -> str:
    """All commands with the first line of what they say of themselves."""
    lines = ["usage: espnet2_m2m NAME [ARGUMENT ...]; espnet2_m2m NAME --help says more; espnet2_m2m --version"]
    for group, names in GROUPS.items():
        lines += ["", f"{group}:"]
        for name in names:
            # Parsed, not imported: some modules take a while.
            doc = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")))
            lines.append(f"  {name:<21}{doc.splitlines()[0]}")
    return "\n".join(lines)


def command_parser(file: str, doc: str, **options: object) -> argparse.ArgumentParser:
    """The parser of the command in `file`, whose help begins with the module's docstring."""
    parser = argparse.ArgumentParser(
        prog=f"espnet2_m2m {Path(file).stem}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    return raise_usage_errors(parser)


def raise_usage_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make the parser raise ValueError, so that `cli_errors` shows wrong options as it shows all other mistakes."""

    def error(message: str) -> NoReturn:
        raise ValueError(f"{message}; see --help")

    parser.error = error
    return parser


def rendering_parser(file: str, doc: str, closetalk_gain_db: float) -> argparse.ArgumentParser:
    """`command_parser` of a command that renders sets of mixtures, with the options that all of these have."""
    parser = command_parser(file, doc)
    add = parser.add_argument
    add("--out_dir", required=True, help="the sets are written to OUT_DIR/{train,valid,test}")
    add(
        "--closetalk_gain_db",
        type=DECIBELS,
        default=closetalk_gain_db,
        help="gain of the headsets relative to the far-field mics",
    )
    add("--nj", type=positive, default=2, help="number of processes; the result does not depend on it")
    add("--job", type=parse_job, metavar="K/N", help="render the K-th of N shares of every set and write no tables")
    return parser


def check_rendering(args: argparse.Namespace) -> None:
    """Refuse a command of `rendering_parser` that leaves out all three sets.

    Raises:
        ValueError: says so.
    """
    if args.num_train == args.num_valid == args.num_test == 0:
        raise ValueError("nothing to do: --num_train, --num_valid and --num_test are all 0")


def cli_errors(main: Callable) -> Callable:
    """Show a user's mistake as one line on stderr and exit with status 1.

    ValueError and OSError are what this package raises for wrong input; anything else is our own
    mistake and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapped(cmd: list[str] | None = None) -> object:
        try:
            return main(cmd)
        except (ValueError, OSError) as error:
            command = main.__module__.rpartition(".")[2]
            if command == "__main__":
                command = Path(sys.argv[0]).stem
            print(f"{command}: error: {error}", file=sys.stderr)
            sys.exit(1)

    return wrapped


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """How exactly a trained network computes: `--precision`."""
    from espnet2_m2m.enh.training_config import PRECISIONS

    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the network; all else stays float32. auto: bfloat16 where the CPU has units for it and the network's"
        " scores in it have been compared, else float32 (default auto)",
    )


# ---- Values of options ---------------------------------------------------------------------------


def boolean(text: str) -> bool:
    """ "true" -> True; and ESPnet's other ways to say so."""
    if text.lower() in ("true", "t", "yes", "y", "on", "1"):
        return True
    if text.lower() in ("false", "f", "no", "n", "off", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")


def number(lowest: float, highest: float, convert: Callable[[str], float] = float) -> Callable[[str], float]:
    """The type of an option that takes a number from `lowest` to `highest`; nan is none, inf one if `highest` is."""

    def checked(text: str) -> float:
        with suppress(ValueError):
            value = convert(text)
            if lowest <= value <= highest:
                return value
        whole = "whole " if convert is int else ""
        raise argparse.ArgumentTypeError(f"expected a {whole}number from {lowest:,} to {highest:,}, found {text!r}")

    return checked


def whole(lowest: int, highest: int = 2**31 - 1) -> Callable[[str], int]:
    """As `number`, for whole numbers; by default up to the largest that C programs take."""
    return number(lowest, highest, int)


positive, not_negative = whole(1), whole(0)
SEED = whole(0, 2**32 - 1)  # as numpy's
SECONDS = number(0, 1_000_000)
DECIBELS = number(-200, 200)  # beyond, float32 has no room for two signals at once


def sample_rate(text: str) -> int:
    """ "16000", or "16k" as in ESPnet's recipes -> 16000, in Hz."""
    thousands = re.fullmatch(r"(\d+)k", text)
    return whole(1, 1_000_000)(f"{thousands[1]}000" if thousands else text)


def mic_list(text: str) -> list[int]:
    """ "0,2" -> [0, 2], different channels counted from 0."""
    mics = [not_negative(mic) for mic in text.split(",")] if re.fullmatch(r" *\d+ *(, *\d+ *)*", text) else []
    if not mics or len(set(mics)) < len(mics):
        raise argparse.ArgumentTypeError(f"expected different channels counted from 0 such as 0,2, found {text!r}")
    return mics


def share_of(tasks: list, job: tuple[int, int] | None) -> list:
    """The tasks of one job, a `parse_job`; all of them without."""
    number, num_jobs = job or (1, 1)
    return tasks[number - 1 :: num_jobs]


def parse_job(job: str) -> tuple[int, int]:
    """ "3/100" -> (3, 100): the third of a hundred jobs, which does the tasks [2::100], `share_of`."""
    match = re.fullmatch(r"(\d+)/(\d+)", job)
    number, num_jobs = map(not_negative, match.groups()) if match else (0, 0)
    if not 1 <= number <= num_jobs:
        raise argparse.ArgumentTypeError(f"expected k/n with 1 <= k <= n, found '{job}'")
    return number, num_jobs
