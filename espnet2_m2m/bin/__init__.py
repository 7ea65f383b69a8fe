"""Commands, one a file: `python -m espnet2_m2m.bin.NAME --help`."""

import argparse
import functools
import re
import sys
from pathlib import Path


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
    """"3/100" -> (3, 100): the third of a hundred jobs, which does the tasks [2::100]."""
    match = re.fullmatch(r"(\d+)/(\d+)", job)
    number, num_jobs = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= num_jobs:
        raise argparse.ArgumentTypeError(f"expected k/n with 1 <= k <= n, found '{job}'")
    return number, num_jobs
