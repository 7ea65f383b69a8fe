"""Commands, one a file: `python -m espnet2_m2m.bin.NAME --help`."""

import functools
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
