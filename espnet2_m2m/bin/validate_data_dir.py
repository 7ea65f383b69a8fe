"""Check Kaldi-style data dirs: all problems at once, with file, line and remedy.

    espnet2_m2m validate_data_dir data/train data/valid --sample_rate 8000 \\
        --num_channels 6 --num_speakers 2 --require closetalk spk

Exit status 1 if there is any problem.
"""

import argparse
import sys

from espnet2_m2m.bin import cli_errors, command_parser, not_negative, positive, sample_rate
from espnet2_m2m.data_dir import inspect_data_dir


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("data_dirs", nargs="+", metavar="data_dir", help="data dir to check")
    parser.add_argument("--sample_rate", type=sample_rate, help="Hz of all audio; default: all the same")
    parser.add_argument("--num_channels", type=positive, help="of wav.scp; default: all the same")
    parser.add_argument(
        "--num_speakers", type=not_negative, help="how many closetalk{n}.scp, spk{n}.scp ... there must be"
    )
    parser.add_argument(
        "--require",
        nargs="+",
        default=[],
        metavar="NAME",
        help="files (text, scenes.jsonl) or numbered families (closetalk, spk, closetalk_spk,"
        " text_spk) that must be there; put it after the data dirs",
    )
    parser.add_argument("--no_audio", action="store_true", help="check the tables only")
    parser.add_argument("--nj", type=positive, default=1, help="processes that read audio")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    failed = False
    for data_dir in args.data_dirs:
        problems, summary = inspect_data_dir(
            data_dir,
            sample_rate=args.sample_rate,
            num_channels=args.num_channels,
            num_speakers=args.num_speakers,
            require=args.require,
            check_audio=not args.no_audio,
            num_workers=args.nj,
            progress=True,
        )
        for problem in problems:
            print(problem)
        verdict = f"{len(problems)} problem(s)" if problems else "OK"
        print(f"{data_dir}: {verdict}: {summary}{', audio not read' if args.no_audio else ''}")
        failed = failed or bool(problems)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
