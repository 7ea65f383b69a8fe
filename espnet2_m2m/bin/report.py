"""Write the report page of one system, of several side by side, or of a study.

    espnet2_m2m report --data_dir dump/raw/test \\
        --enhanced_dir exp/A/enhanced_test exp/B/enhanced_test --out_dir exp/report
    espnet2_m2m report --data_dir dump/raw/test \\
        --study_dir exp/small_6ep --out_dir exp/small_6ep/report

An enhanced_dir is separated speech that enh_scoring has scored, in the folder of its training.
Of a study (local/run_table.sh makes it), the page has Tables I-III beside the paper's, and for each row
the run with the lowest seed to listen to. Open

    out_dir/index.html      scores, learning curves, diagnoses, a scatter plot, and mixtures from the
                            worst to the best: switch between mixture, systems and reference while it plays
    out_dir/media/          their audio and spectrograms

in a browser, from disk; both may be copied anywhere together.
"""

import argparse
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser, positive


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="the set that was separated")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--enhanced_dir", nargs="+", help="the separated and scored speech of each system")
    what.add_argument("--study_dir", help="folder of a study's runs")
    parser.add_argument("--test_set", default="test", help="scored set of the study (default test)")
    parser.add_argument("--exclude", nargs="*", default=[], help="folders of the study's runs that are not finished")
    parser.add_argument("--out_dir", required=True, help="folder for index.html and media/")
    parser.add_argument("--num_examples", type=positive, default=3, help="test mixtures to listen to (default 3)")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    # matplotlib, not needed for --help
    from espnet2_m2m.report import systems
    from espnet2_m2m.report.page import write_report
    from espnet2_m2m.report.study import collect

    if args.study_dir is None:
        study, shown = None, systems.load(args.data_dir, args.enhanced_dir)
    else:
        study = collect(args.study_dir, args.test_set, args.exclude)
        shown = systems.load_study(args.data_dir, study)
    num_bytes = write_report(args.out_dir, args.data_dir, shown, study, args.num_examples)
    print(f"{Path(args.out_dir) / 'index.html'}: {num_bytes / 1e6:.1f} MB with media")


if __name__ == "__main__":
    main()
