#!/usr/bin/env python3
"""SI-SDR of simulated close-talk and far-field mixtures: Table I of the paper, and row 0 of Table II.

    python -m espnet2_m2m.bin.simulate --source_data data/clean --out_dir data_random --room random \\
        --num_train 300 --num_valid 0 --num_test 0
    python benchmarks/simulated_quality.py data_random/train

References are the talker's own speech at its headset, and its image at the reference mic.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from espnet2_m2m.data_dir import numbered_files, read_audio, read_table
from espnet2_m2m.metrics import si_sdr


def scores(data_dir, mixture, reference):
    """SI-SDR in dB, (utterance, speaker); `mixture` and `reference` are scp names with {n}."""
    rows = []
    for n in numbered_files(data_dir, "spk"):
        mixtures = read_table(data_dir / mixture.format(n=n))
        references = read_table(data_dir / reference.format(n=n))
        rows.append([si_sdr(read_audio(references[utt_id])[0][:, 0],
                            read_audio(mixtures[utt_id])[0][:, 0])      # mic 0 of the far field
                     for utt_id in tqdm(mixtures, desc=mixture.format(n=n), leave=False)])
    return np.array(rows).T


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    data_dir = parser.parse_args().data_dir
    print("| mixture | utterances | SI-SDR (dB) |\n|:--|--:|--:|")
    for name, mixture, reference in (("close-talk", "closetalk{n}.scp", "closetalk_spk{n}.scp"),
                                     ("far-field", "wav.scp", "spk{n}.scp")):
        of_utterance = scores(data_dir, mixture, reference).mean(axis=1)
        error = of_utterance.std(ddof=1) / np.sqrt(len(of_utterance))
        print(f"| {name} | {len(of_utterance)} | {of_utterance.mean():.2f} ± {error:.2f} |")


if __name__ == "__main__":
    main()
