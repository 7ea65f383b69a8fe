"""Give all audio of a data dir one sample rate as plain wav or flac files (stage 3).

    espnet2_m2m format_data_dir --data_dir data/train --out_dir dump/raw/org/train \\
        --sample_rate 8000 [--channels 0,2] [--nj 2]

Files that already fit stay where they are; pipes, arks, segments and other rates are written to
out_dir/wav, as 16-bit integers where that loses nothing, else as 32-bit floats. Before, the files of each
recording are compared in rate and length. Resampling is soxr's (quality HQ). A rerun continues where the
last one stopped.
"""

import argparse

from espnet2_m2m.bin import cli_errors, command_parser, mic_list, positive, sample_rate
from espnet2_m2m.data_dir import format_data_dir


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="data dir to read")
    parser.add_argument("--out_dir", required=True, help="data dir to write")
    parser.add_argument("--sample_rate", type=sample_rate, help="Hz; default: leave as it is")
    parser.add_argument("--channels", type=mic_list, help="microphones of wav.scp to keep, e.g. 0,2")
    parser.add_argument("--nj", type=positive, default=1, help="processes")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
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
