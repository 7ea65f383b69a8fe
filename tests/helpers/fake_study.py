"""A made-up study: folders of finished runs with scores and checkpoints, as the recipe leaves them."""

import datetime
import json

import numpy as np
import yaml

from espnet2_m2m.scoring import scored_set
from espnet2_m2m.scoring.metrics import METRICS
from espnet2_m2m.scoring.results import summarise

NUM_UTTERANCES = 4


def write_scores(enhanced_dir, separated, set_seed=0, num_utterances=NUM_UTTERANCES, sample_rate=8000):
    """scores.csv and summary.json of a set of two speakers.

    Args:
        separated: METRICS -> mean of the separated signals; single signals differ from it.
        set_seed: decides on the mixtures, so on what is another test set.
    """
    rng = np.random.default_rng(set_seed)
    # Sums to zero over the signals, so that their mean is `separated`.
    around = np.linspace(-1, 1, 2 * num_utterances)
    results = {}
    for utterance in range(num_utterances):
        rows = []
        for speaker in (1, 2):
            row = {"speaker": speaker, "estimate": speaker, "estimate_is_silent": False}
            for metric, scale in zip(METRICS, (1.0, 1.0, 0.1, 0.01)):
                row[f"mixture_{metric}"] = scale * rng.uniform(0, 1)
                row[f"separated_{metric}"] = separated[metric] + scale * around[2 * utterance + speaker - 1]
                row[f"closetalk_{metric}"] = scale * rng.uniform(10, 12)
            rows.append(row)
        results[f"a-b-test{utterance}"] = {"sample_rate": sample_rate, "rows": rows}
    folder = enhanced_dir / "scoring"
    scored_set.write_csv(folder / "scores.csv", results)
    summary = {"set": enhanced_dir.name, "data_dir": "dump/raw/test", "ref_mic": 0, **summarise(results)}
    (folder / "summary.json").write_text(json.dumps(summary))


def write_checkpoint(path, si_sdr, steps_per_epoch=100, seconds_per_epoch=60.0):
    """What ESPnet's trainer saves, with one validation SI-SDR (dB) per epoch; times of 202511 and of 202611."""
    import torch

    stats = {
        epoch: {
            "train": {
                "loss": np.float32(1.0),
                "total_count": steps_per_epoch * epoch,
                "time": datetime.timedelta(seconds=seconds_per_epoch),
            },
            "valid": {
                "si_snr_loss": np.float32(-value),
                "total_count": 10 * epoch,
                "time": {"__timedelta_seconds__": 0.0},
            },
        }
        for epoch, value in enumerate(si_sdr, start=1)
    }
    torch.save({"model": {}, "reporter": {"stats": stats, "epoch": len(stats)}}, path)


def write_run(study_dir, row, seed, si_sdr, curve=(1.0, 2.0), inference_tag="", conf=None, **options):
    """One finished run whose separated signals have mean `si_sdr` (dB); the other metrics follow it."""
    folder = study_dir / f"{row}_seed{seed}"
    enhanced_dir = folder / f"enhanced_test{inference_tag and '_' + inference_tag}"
    enhanced_dir.mkdir(parents=True)
    (enhanced_dir / "scoring").mkdir()
    separated = {"si_sdr": si_sdr, "sdr": si_sdr + 1, "pesq": si_sdr / 5, "estoi": si_sdr / 20}
    write_scores(enhanced_dir, separated, **options)
    if len(curve):
        write_checkpoint(folder / "checkpoint.pth", curve)
    criterion = {"name": "mixture_constraint", "conf": conf or {}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"criterions": [criterion]}))
    return folder
