"""Commands, one a file: `espnet2_m2m NAME --help`; `python -m espnet2_m2m NAME` is the same without pip's script."""

import argparse
import ast
import difflib
import functools
import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

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
    "Train, separate and score": ("enh_train", "enh_inference", "enh_scoring"),
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
    return argparse.ArgumentParser(
        prog=f"espnet2_m2m {Path(file).stem}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def rendering_parser(file: str, doc: str, closetalk_gain_db: float) -> argparse.ArgumentParser:
    """`command_parser` of a command that renders sets of mixtures, with the options that all of these have."""
    parser = command_parser(file, doc)
    add = parser.add_argument
    add("--out_dir", required=True, help="the sets are written to OUT_DIR/{train,valid,test}")
    add(
        "--closetalk_gain_db",
        type=float,
        default=closetalk_gain_db,
        help="gain of the headsets relative to the far-field mics",
    )
    add("--nj", type=int, default=2, help="number of processes; the result does not depend on it")
    add("--job", type=parse_job, metavar="K/N", help="render the K-th of N shares of every set and write no tables")
    return parser


def check_rendering(args: argparse.Namespace, **lowest: float) -> None:
    """Refuse values of `rendering_parser`'s options, and of num_train ..., that no simulation can have.

    Args:
        lowest: values that further options must at least have.
    Raises:
        ValueError: names the option, what is expected and what was found.
    """
    lowest = {"num_train": 0, "num_valid": 0, "num_test": 0, "sample_rate": 1, "nj": 1, **lowest}
    if all(value is not None and value < 1 for value in (args.num_train, args.num_valid, args.num_test)):
        raise ValueError("nothing to do: --num_train, --num_valid and --num_test are all 0")
    for option, low in lowest.items():
        value = getattr(args, option)
        if value is not None and value < low:
            raise ValueError(f"--{option} must be {low} or more, found {value}")
    if not math.isfinite(args.closetalk_gain_db):
        raise ValueError(f"--closetalk_gain_db must be a number, found {args.closetalk_gain_db}")


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


# ---- Values of options ---------------------------------------------------------------------------


def boolean(text: str) -> bool:
    """ "true" -> True; and ESPnet's other ways to say so."""
    if text.lower() in ("true", "t", "yes", "y", "on", "1"):
        return True
    if text.lower() in ("false", "f", "no", "n", "off", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")


def positive(text: str) -> int:
    """ "3" -> 3, for options that take a number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text!r}")
    return int(text)


def mic_list(text: str) -> list[int]:
    """ "0,2" -> [0, 2], different channels counted from 0."""
    mics = [int(mic) for mic in text.split(",")] if re.fullmatch(r" *\d+ *(, *\d+ *)*", text) else []
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
    number, num_jobs = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= num_jobs:
        raise argparse.ArgumentTypeError(f"expected k/n with 1 <= k <= n, found '{job}'")
    return number, num_jobs
