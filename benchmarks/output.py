#!/usr/bin/env python3
"""What the output of trained models should be: FCP images, or what they leave of the mixture given back to them.

In egs2/<corpus>/enh1, after stage 6 (a model for each seed, say):

    python ../../../benchmarks/output.py --data_dir dump/raw/test exp/X_seed0 exp/X_seed1 exp/X_seed2

For every output the means over the set's signals of SI-SDR, eSTOI and PESQ against the talkers' images at the
reference mic, +- the standard deviation over models. --snr_db adds white noise to the far-field mics, as loud at all
of them, before the models get the recordings. Where the set has headsets, a second table compares ways to take the
cross-talk out of them, with the models' sources and without (reference: close-talk speech).
"""

import argparse
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from espnet2_m2m import markdown
from espnet2_m2m.bin import cli_errors, positive
from espnet2_m2m.consistency import mixture_consistency
from espnet2_m2m.data_dir.signals import Utterance, find_utterances
from espnet2_m2m.headset_cleaning import clean_headsets
from espnet2_m2m.loss import MixtureConstraintLoss
from espnet2_m2m.loss.assignment import best_assignment
from espnet2_m2m.loss.ri_mag import ri_mag_l1
from espnet2_m2m.scoring import metrics

SHOWN = [("SI-SDR (dB)", 1), ("eSTOI", 3), ("PESQ", 2)]  # metric, decimals
POWERS = {"equal shares": 0.0, "p = 1/2": 0.5, "p = 1": 1.0, "p = 2": 2.0}
Scores = dict[str, list[list[float]]]  # output -> for each signal its metrics


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dir", nargs="+", type=Path, help="trainings, with config.yaml and valid.loss.best.pth")
    parser.add_argument("--data_dir", required=True, help="a set with wav.scp and spk{n}.scp")
    parser.add_argument("--snr_db", type=float, nargs="*", default=[], help="of white noise, besides none")
    parser.add_argument("--num_utts", type=positive, help="the set's first ones (default: all)")
    args = parser.parse_args(cmd)
    utterances = find_utterances(args.data_dir, ["wav", "spk", "closetalk", "closetalk_spk"])[: args.num_utts]
    for snr_db in [np.inf, *args.snr_db]:
        outputs, headsets = [], []
        for exp_dir in args.exp_dir:
            model = _load(exp_dir)
            separated, cleaned = {}, {}
            for utterance in tqdm(utterances, desc=f"{exp_dir.name}, {snr_db:g} dB", unit="utt"):
                _score(model, utterance, snr_db, separated, cleaned)
            outputs.append(separated)
            headsets += [cleaned] * bool(cleaned)
        noise = "no noise added" if np.isinf(snr_db) else f"white noise at {snr_db:g} dB"
        print(f"\nOutput at the reference mic, {noise}:\n\n{_table(outputs)}", flush=True)
        if headsets and np.isinf(snr_db):
            print(f"\nHeadsets (reference: close-talk speech):\n\n{_table(headsets)}", flush=True)


def _load(exp_dir: Path) -> torch.nn.Module:
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    model, _ = M2MEnhancementTask.build_model_from_file(exp_dir / "config.yaml", exp_dir / "valid.loss.best.pth", "cpu")
    return model.eval()


@torch.no_grad()
def _score(model: torch.nn.Module, utterance: Utterance, snr_db: float, separated: Scores, cleaned: Scores) -> None:
    """Append the scores of an utterance's signals to those of every output."""
    separator = model.separator
    domain, loss, ref_mic = separator.domain, separator.mixture_constraint, separator.array.ref_mic
    waves, rate = utterance.read(ref_mic, all_mics=True)
    recording = torch.from_numpy(_noisy(waves["wav"][1], snr_db, utterance.utt_id))[None]
    length = torch.tensor([recording.shape[1]])

    def spectra(numbered: dict[int, np.ndarray]) -> Tensor:
        return domain.spectra_of_waves(torch.from_numpy(np.stack(list(numbered.values()), axis=1))[None], length)

    def signals(spectrum: Tensor) -> np.ndarray:
        """(1, signal, freq, frame) -> (signal, sample)."""
        features = domain.feature(spectrum[0], recording)
        return model.decoder(features, length.expand(len(features)))[0].numpy()

    mixture = domain.mixture(recording, length, model.normalize_variance)
    est = separator.estimate(mixture).spectra
    at_ref = domain.select_mics(mixture.feature, [ref_mic])
    target = domain.spectra(at_ref, mixture.lengths)
    images = loss.farfield_images(est, mixture.spectra, mixture.frames, target)[:, 0]
    outputs = {"mixture": target.expand_as(images), "FCP image": images}
    if not separator.fcp_output:
        outputs["estimate"] = est
        outputs["estimate, p = 1"] = mixture_consistency(est, target[:, 0])
    for name, power in POWERS.items():
        outputs[name] = mixture_consistency(images, target[:, 0], power)
    power = images.abs().square()
    outputs["power shares (mask)"] = power / power.sum(1, keepdim=True).clamp(min=1e-30) * target
    refs = list(waves["spk"].values())
    for name, spectrum in outputs.items():
        streams = signals(spectrum)
        order, _ = metrics.best_permutation(refs, streams)
        _append(separated, name, ((ref, streams[n]) for ref, n in zip(refs, order)), rate)
    if waves["closetalk"] and waves["closetalk"].keys() == waves["closetalk_spk"].keys():
        mixes = spectra(waves["closetalk"])
        for name, spectrum in _cleaned(est, mixes, loss, mixture.frames).items():
            _append(cleaned, name, zip(waves["closetalk_spk"].values(), signals(spectrum)), rate)


def _cleaned(est: Tensor, mixes: Tensor, loss: MixtureConstraintLoss, frames: Tensor) -> dict[str, Tensor]:
    """What a headset's wearer may be taken to have said, (1, headset, freq, frame) each."""
    images = loss.closetalk_images(est, mixes, frames)
    own = best_assignment(ri_mag_l1(images, mixes[:, :, None]))[0]
    consistent = [mixture_consistency(images[:, d], mixes[:, d])[:, c] for d, c in enumerate(own)]
    own_image = torch.stack([images[:, d, c] for d, c in enumerate(own)], dim=1)
    cleaned = {"headset": mixes, "less the images of the other sources": mixes - images.sum(2) + own_image}
    for passes in (1, 2, 3, 5):
        cleaned[f"clean_headsets, passes: {passes}"] = clean_headsets(mixes, passes=passes)
    cleaned["own image, consistent (p = 1)"] = torch.stack(consistent, dim=1)
    cleaned["own image"] = own_image
    return cleaned


def _noisy(recording: np.ndarray, snr_db: float, utt_id: str) -> np.ndarray:
    """(sample, mic) with white noise that is as loud at every mic, `snr_db` below the mean over mics."""
    noise = np.random.default_rng(zlib.crc32(utt_id.encode())).standard_normal(recording.shape)
    return (recording + np.sqrt(np.mean(recording**2.0) * 10 ** (-snr_db / 10)) * noise).astype(np.float32)


def _append(scores: Scores, name: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]], rate: int) -> None:
    for ref, est in pairs:
        row = [metrics.si_sdr(ref, est), metrics.estoi(ref, est, rate), metrics.pesq(ref, est, rate)]
        scores.setdefault(name, []).append(row)


def _table(models: list[Scores]) -> str:
    """Means over signals, +- their standard deviation over models."""
    rows = []
    for name in models[0]:
        means = np.array([np.nanmean(scores[name], axis=0) for scores in models])
        cells = [name]
        for values, (_, decimals) in zip(means.T, SHOWN):
            spread = f" ± {values.std(ddof=1):.{decimals}f}" if len(models) > 1 else ""
            cells.append(f"{values.mean():.{decimals}f}{spread}")
        rows.append(cells)
    return markdown.table(["", *(title for title, _ in SHOWN)], rows)


if __name__ == "__main__":
    main()
