"""Keep the utterances of a formatted data dir whose duration is inside limits (stage 4).

    espnet2_m2m filter_data_dir --data_dir dump/raw/org/train --out_dir dump/raw/train \\
        --min_duration 0.1 --max_duration 20

The audio stays where it is.
"""

import argparse
import math

from espnet2_m2m.bin import SECONDS, cli_errors, command_parser, number
from espnet2_m2m.data_dir import filter_data_dir
from espnet2_m2m.data_dir.directory import count_some


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="data dir to read")
    parser.add_argument("--out_dir", required=True, help="data dir to write")
    parser.add_argument("--min_duration", type=SECONDS, default=0.1, help="seconds, exclusive")
    parser.add_argument(
        "--max_duration", type=number(0, math.inf), default=20.0, help="seconds, exclusive; inf for no limit"
    )
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    kept, too_short, too_long = filter_data_dir(args.data_dir, args.out_dir, args.min_duration, args.max_duration)
    print(
        f"{args.out_dir}: kept {len(kept)} utterances, removed {len(too_short) + len(too_long)}"
        f" ({count_some(too_short)} too short, {count_some(too_long)} too long)"
    )


if __name__ == "__main__":
    main()
