"""Print Tables I-III of the M2M paper: its figures, ours, and the difference.

    espnet2_m2m make_tables --study_dir exp/small_6ep

reads the runs `<row>_seed<k>` of a study (local/run_table.sh makes it) and writes into its folder

    TABLES.md            the tables, which are also printed, and what they were made from
    tables.csv           the same figures in full, a line per row and metric
    si_sdr_steps.png     validation SI-SDR over training steps, mean and range of the seeds
    si_sdr_boxes.png     SI-SDR of the test signals, all seeds together

Runs without scores are named below the tables; nothing is computed anew.
"""

import argparse

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.data_dir import write_text


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--study_dir", required=True, help="folder of the runs")
    parser.add_argument("--test_set", default="test", help="scored set (default test)")
    parser.add_argument(
        "--exclude", nargs="*", default=[], help="folders of runs that are not finished, whatever scores they hold"
    )
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    # matplotlib, not needed for --help
    from espnet2_m2m.report import study_figures, tables
    from espnet2_m2m.report.study import collect, distributions, learning_curves

    study = collect(args.study_dir, args.test_set, args.exclude)
    pictures = [("si_sdr_boxes.png", "SI-SDR of the test signals")]
    study_figures.save_boxes(study.folder / "si_sdr_boxes.png", distributions(study))
    curves = learning_curves(study)
    if curves:  # runs copied without their checkpoints have none
        pictures.insert(0, ("si_sdr_steps.png", "Validation SI-SDR over training steps"))
        study_figures.save_learning_curves(study.folder / "si_sdr_steps.png", curves)
    text = tables.markdown(study, pictures)
    write_text(study.folder / "TABLES.md", text)
    write_text(study.folder / "tables.csv", tables.csv_text(study))
    print(text, end="")
    print(f"\nwritten to {study.folder}: TABLES.md, tables.csv, {', '.join(name for name, _ in pictures)}")


if __name__ == "__main__":
    main()
