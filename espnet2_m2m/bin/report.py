"""Write the report page of an experiment: one HTML file that needs nothing beside it.

    python -m espnet2_m2m.bin.report --exp_dir exp/X --data_dir data/test \\
        --enhanced_dir exp/X/enhanced_test --out_dir exp/X/report

writes out_dir/index.html: the scores (bin/enh_scoring.py must have been run), learning curves from
exp_dir/checkpoint.pth, and for a few test mixtures, from the worst to the best, what is to be heard
and seen: far-field and close-talk mixtures, separated speech, references, and the room from above.
"""

import argparse
from pathlib import Path

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.bin.enh_scoring import positive
from espnet2_m2m.data_dir import atomic_path


def get_parser():
    parser = argparse.ArgumentParser(
        prog="python -m espnet2_m2m.bin.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--exp_dir", required=True, help="the training, with checkpoint.pth")
    parser.add_argument("--data_dir", required=True, help="the set that was separated")
    parser.add_argument("--enhanced_dir", required=True, help="the separated and scored speech")
    parser.add_argument("--out_dir", required=True, help="folder for index.html")
    parser.add_argument(
        "--num_examples", type=positive, default=3, help="test mixtures to show (default 3)"
    )
    return parser


@cli_errors
def main(cmd=None):
    args = get_parser().parse_args(cmd)
    if not Path(args.exp_dir).is_dir():
        raise FileNotFoundError(f"{args.exp_dir}: no such directory")
    from espnet2_m2m.report.page import render  # matplotlib, not needed for --help

    html = render(args.exp_dir, args.data_dir, args.enhanced_dir, args.num_examples)
    path = Path(args.out_dir) / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"{path}: {len(html) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
