#!/usr/bin/env python3
"""Draw demo_example.png, the picture in the README, from a finished demo.

    cd egs2/meeting_demo/enh1
    python ../../../docs/images/demo_example.py \\
        --data_dir dump/raw/test --enhanced_dir exp/train_enh_m2m_tfgridnet_small/enhanced_test

shows the test mixture of median SI-SDR.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
import scipy.signal
from matplotlib.figure import Figure

from espnet2_m2m.data_dir import read_audio, read_table

matplotlib.use("Agg")
ROWS = ("far-field mixture", "headset", "separated", "reference")


def median_utterance(scores_csv: Path) -> tuple[str, list[float]]:
    """Utterance whose mean SI-SDR over talkers is the median of the set, and its SI-SDRs in dB."""
    scores = defaultdict(list)
    with open(scores_csv, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores[row["utt_id"]].append(float(row["separated_si_sdr"]))
    ranked = sorted(scores, key=lambda utt_id: np.mean(scores[utt_id]))
    return ranked[len(ranked) // 2], scores[ranked[len(ranked) // 2]]


def level_db(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """(sample,) -> (freq, frame) level in dB, 0 to -60 below the peak."""
    window = round(0.032 * sample_rate)
    _, _, spectrum = scipy.signal.stft(
        samples, sample_rate, nperseg=window, noverlap=window - round(0.008 * sample_rate)
    )
    level = 20 * np.log10(np.abs(spectrum) + 1e-12)
    return np.clip(level - level.max(), -60, 0)


def main() -> None:
    """Draw and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--enhanced_dir", type=Path, required=True)
    args = parser.parse_args()
    utt_id, si_sdr = median_utterance(args.enhanced_dir / "scoring" / "scores.csv")
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    axes = figure.subplots(len(ROWS), 2, sharex=True, sharey=True)
    for speaker in (1, 2):
        tables = (
            args.data_dir / "wav.scp",
            args.data_dir / f"closetalk{speaker}.scp",
            args.enhanced_dir / f"spk{speaker}.scp",
            args.data_dir / f"spk{speaker}.scp",
        )
        for row, (name, table) in enumerate(zip(ROWS, tables)):
            samples, sample_rate = read_audio(read_table(table)[utt_id])
            axis = axes[row, speaker - 1]
            axis.imshow(
                level_db(samples[:, 0], sample_rate),
                origin="lower",
                aspect="auto",
                cmap="magma",
                extent=(0, len(samples) / sample_rate, 0, sample_rate / 2000),
            )
            score = f" ({si_sdr[speaker - 1]:.1f} dB SI-SDR)" if name == "separated" else ""
            axis.set_title(f"{name}, speaker {speaker}{score}" if row else name, fontsize=9)
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel("frequency (kHz)", fontsize=9)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=75)


if __name__ == "__main__":
    main()
