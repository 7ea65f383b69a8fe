"""Commands, one a file: `espnet2_m2m NAME --help`, or `python -m espnet2_m2m.bin.NAME --help`."""

import argparse
import ast
import functools
import importlib
import re
import sys
from pathlib import Path


def main():
    """The console script `espnet2_m2m NAME [ARGUMENT ...]`."""
    commands = {path.stem: path for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print("usage: espnet2_m2m COMMAND [ARGUMENT ...]; espnet2_m2m COMMAND --help says more\n")
        for command, path in commands.items():
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            print(f"  {command:<20}  {doc.splitlines()[0]}")
    elif name not in commands:
        sys.exit(f"espnet2_m2m: error: no command '{name}'; espnet2_m2m --help lists them")
    else:
        sys.argv[:2] = [f"espnet2_m2m {name}"]
        importlib.import_module(f"{__name__}.{name}").main()


def cli_errors(main):
    """Show a user's mistake as one line on stderr and exit with status 1.

    ValueError and OSError are what this package raises for wrong input; anything else is our own
    mistake and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapped(cmd=None):
        try:
            return main(cmd)
        except (ValueError, OSError) as error:
            command = main.__module__.rpartition(".")[2]
            if command == "__main__":
                command = Path(sys.argv[0]).stem
            print(f"{command}: error: {error}", file=sys.stderr)
            sys.exit(1)

    return wrapped


def parse_job(job):
    """ "3/100" -> (3, 100): the third of a hundred jobs, which does the tasks [2::100]."""
    match = re.fullmatch(r"(\d+)/(\d+)", job)
    number, num_jobs = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= num_jobs:
        raise argparse.ArgumentTypeError(f"expected k/n with 1 <= k <= n, found '{job}'")
    return number, num_jobs


def positive(text):
    """ "3" -> 3, for options that take a number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text!r}")
    return int(text)
