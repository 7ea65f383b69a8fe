#!/usr/bin/env python3
"""How good are the mixtures of a simulated set: Table I of the paper, and row 0 of Table II.

    python -m espnet2_m2m.bin.simulate --source_data data/clean --out_dir data_random --room random \\
        --num_train 0 --num_valid 0 --num_test 500
    python benchmarks/simulated_quality.py data_random/test

The reference of a close-talk mixture is the talker's own speech at its headset; that of the far-field mixture
(mic 0) is the talker's image there. Means over utterances and talkers, +- the standard error over utterances.
PESQ is narrow-band at 8 kHz, wide-band at 16 kHz.
"""

import argparse
from pathlib import Path

import numpy as np

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.data_dir import numbered_files, parallel_map, read_audio, read_table
from espnet2_m2m.scoring.metrics import METRICS, score_pair
from espnet2_m2m.scoring.results import DECIMALS, TITLES

KINDS = {  # mixture and reference, as names of scp files
    "close-talk mixture": ("closetalk{n}.scp", "closetalk_spk{n}.scp"),
    "far-field mixture": ("wav.scp", "spk{n}.scp"),
}


def score_mixture(signals: list[tuple[str, str]]) -> list[float]:
    """Scores of one mixture against its talkers, as the mean of the talkers.

    Args:
        signals: for each talker the scp values of mixture and reference.
    Returns:
        scores in the order of METRICS; NaN where a talker has no score.
    """
    scores = []
    for mixture, reference in signals:
        (mixture, _), (reference, sample_rate) = read_audio(mixture), read_audio(reference)
        scores.append(score_pair(reference[:, 0], mixture[:, 0], sample_rate))
    return [float(np.mean([score[name] for score in scores])) for name in METRICS]


def row(name: str, table: np.ndarray) -> str:
    """A line of the Markdown table: mean and standard error over the utterances that have a score."""
    cells = []
    for metric, values in zip(METRICS, table.T):
        values, decimals = values[np.isfinite(values)], DECIMALS[metric] + 1
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        mean = values.mean() if len(values) else np.nan
        cells.append(f"{mean:.{decimals}f} ± {error:.{decimals}f}")
    return f"| {name} | {len(table)} | {' | '.join(cells)} |"


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Score all mixtures and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--nj", type=int, default=2, help="number of processes")
    args = parser.parse_args(cmd)
    speakers = numbered_files(args.data_dir, "spk")
    if not speakers:
        raise ValueError(f"{args.data_dir}: expected spk1.scp, spk2.scp ..., the talkers' images; found none")
    rows = []
    for name, (mixture, reference) in KINDS.items():
        tables = [[read_table(args.data_dir / scp.format(n=n)) for scp in (mixture, reference)] for n in speakers]
        jobs = [[(mixtures[utt_id], references[utt_id]) for mixtures, references in tables] for utt_id in tables[0][0]]
        scores = parallel_map(score_mixture, jobs, args.nj, progress={"desc": name, "unit": "utt"})
        rows.append(row(name, np.array(list(scores))))
    print(f"| | utterances | {' | '.join(TITLES[name] for name in METRICS)} |")
    print("|:--|--:|" + "--:|" * len(METRICS))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
