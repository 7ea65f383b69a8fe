"""Note what a training is made with, in train.settings of its folder, or refuse to go on with another one there.

    python -m espnet2_m2m.bin.keep_settings --exp_dir exp/X --config conf/tuning/X.yaml --dumpdir dump

Stage 6 of the recipes calls it before the training. It compares what the configs add up to, without comments and
max_epoch, the further options, and the folder of the data.
"""

import argparse

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.enh.training_settings import keep_settings, training_settings


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m espnet2_m2m.bin.keep_settings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--exp_dir", required=True, help="folder of the training")
    parser.add_argument("--config", action="append", default=[], help="may be given several times; later ones win")
    parser.add_argument("--enh_args", default="", help="further options of enh_train, as --enh_args='--seed 1'")
    parser.add_argument("--dumpdir", default="dump", help="folder of the training's data (default dump)")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    keep_settings(args.exp_dir, training_settings(args.config, args.enh_args, args.dumpdir))


if __name__ == "__main__":
    main()
