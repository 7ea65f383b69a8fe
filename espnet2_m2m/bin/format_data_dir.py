"""Give all audio of a data dir one sample rate as plain wav or flac files (stage 3).

python -m espnet2_m2m.bin.format_data_dir --data_dir data/train --out_dir dump/raw/org/train \\
    --sample_rate 8000 [--channels 0,2] [--nj 2]

Files that already fit stay where they are; pipes, arks, segments and other rates are written to
out_dir/wav. Resampling is soxr's (quality HQ). A rerun continues where the last one stopped.
"""

import argparse

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.data_dir import format_data_dir


def channel_list(value):
    """ "0,2" -> [0, 2]."""
    try:
        channels = [int(channel) for channel in value.split(",")]
    except ValueError:
        channels = [-1]
    if min(channels) < 0 or len(set(channels)) < len(channels):
        raise argparse.ArgumentTypeError(f"expected different channels counted from 0 such as 0,2, found {value}")
    return channels


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="data dir to read")
    parser.add_argument("--out_dir", required=True, help="data dir to write")
    parser.add_argument("--sample_rate", type=int, help="Hz; default: leave as it is")
    parser.add_argument("--channels", type=channel_list, help="microphones of wav.scp to keep, e.g. 0,2")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    return parser


@cli_errors
def main(cmd=None):
    args = get_parser().parse_args(cmd)
    kept, written = format_data_dir(
        args.data_dir,
        args.out_dir,
        sample_rate=args.sample_rate,
        channels=args.channels,
        num_workers=args.nj,
        progress=True,
    )
    print(f"{args.out_dir}: {kept} files fit as they are, {written} in {args.out_dir}/wav")


if __name__ == "__main__":
    main()
