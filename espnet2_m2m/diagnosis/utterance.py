"""Why does a training not separate? What the estimates of one utterance show.

The mixture-constraint loss can be small in several ways that are no separation (docs/method.md): the
speakers are exchanged between frequencies, or the network hands its input on. The loss does not show
it; the quantities of `diagnose_utterance` do, and `verdict` says which way it is. diagnosis/words.py
puts it in words for a set of utterances; bin/diagnose.py is the command.

Spectra are (mic | source, freq, frame) complex, one utterance at a time. JSON types come out, with
None where nothing can be said (a silent microphone, no references): never NaN.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from espnet2_m2m.consistency import mixture_consistency
from espnet2_m2m.fcp import fcp_weight, forward_convolutive_prediction
from espnet2_m2m.fir_least_squares import stack_taps
from espnet2_m2m.loss import MixtureConstraintLoss, ri_mag_l1
from espnet2_m2m.scoring import metrics
from espnet2_m2m.spectra import check_spectra

MAX_DB = metrics.MAX_DB
# Borders between the verdicts. Measured on trained models: tests/diagnosis/test_utterance.py has the clear cases.
COPY_DB = -15.0  # one talker of two leaves about -3 dB of a mixture, a copy of it nothing
COPIED_SHARE = 0.5  # of the energy, in frequencies where one output alone is the mixture
SILENT_DB = -30.0  # an output's image, relative to the mixture
SAME_COHERENCE = 0.9  # of two outputs; separated talkers are below 0.3
MET_DB = -20.0  # residual of all far-field mics; separating networks leave -8 to -15 dB
SEPARATED_DB = 5.0  # improvement in SI-SDR from which a training works
CONTRAST_DB = 2.0  # the same by headsets: by how much its own source explains one better than another
AGREEMENT = 0.9  # of the energy, in frequencies that have the utterance's assignment
MIXED_AGREEMENT = 0.8  # below, outputs that separate little do not tend to talkers at all
ORACLE_GAIN_DB = 3.0  # in SI-SDR, by the best assignment at every frequency


@torch.no_grad()
def diagnose_utterance(
    est: Tensor,
    far_field: Tensor,
    loss: MixtureConstraintLoss,
    close_talk: Tensor | None = None,
    refs: Tensor | None = None,
    inverse: Callable[[Tensor], Tensor] | None = None,
    consistent: bool = False,
) -> dict:
    """Everything that is known about the estimates of one utterance.

    Args:
        est: (source, freq, frame) complex, the network's estimates Z.
        far_field: (mic, freq, frame) complex, the far-field mixtures of the loss.
        loss: gives taps, floor, diagonal load and reference mic of FCP.
        close_talk: (mic, freq, frame) complex, the close-talk mixtures, at most as many as sources.
        refs: (speaker, freq, frame) complex, true images at the reference mic, at most as many as
            sources.
        inverse: the inverse STFT, (signal, freq, frame) -> (signal, sample); needed with `refs`.
        consistent: the model's output is made consistent with the mixture, and so is what is compared with `refs`.
    Returns:
        level_db: for each source, energy of its image at the reference mic relative to the mixture.
        alone_residual_db: for each source, what it leaves of the mixture at the reference mic, alone.
        copied_share: share of the energy in frequencies that one source explains alone, to COPY_DB.
        coherence, magnitude_correlation: of the two images that are most alike; see `likeness`.
        residual_db, mc: {"far_field", "close_talk"}, a list over mics: energy of Y - sum_c X(c)
            relative to Y, and the distance (5) between them.
        condition_median, condition_q95: for each source, of the loaded covariances over frequencies.
        explained_db: [headset][source], by how much one source alone lowers the energy of a headset.
        headsets, references: None, or {"agreement", "assignment", "agrees"}, see `compare_assignments`,
            and how well it went, first with this one assignment, then with the best one at every
            frequency by itself (oracle): for headsets contrast_db, contrast_oracle_db, by how much
            its own source explains a headset better than any other; for references si_sdr and
            si_sdr_oracle, and si_sdr_mixture. Means over headsets or speakers, in dB.
        verdict: see `verdict`.
    Raises:
        ValueError: shapes that do not fit, values that are not finite (named).
    """
    _check(est, far_field=far_field, close_talk=close_talk, refs=refs)
    ref_mic = loss.ref_mic
    weight = fcp_weight(far_field[None], loss.floor, shared=True)
    images = _images(est, far_field, weight, loss.farfield_taps, loss.diag_load)
    mix, at_ref = far_field[ref_mic], images[ref_mic]
    alone = _energy(mix - at_ref)  # (source, freq)
    mix_energy = _energy(mix)  # (freq,)
    coherence, magnitude_correlation = likeness(at_ref)
    condition = condition_numbers(est, weight[0, 0], *loss.farfield_taps, loss.diag_load)
    heard = bool((mix_energy > 0).any())
    found = {
        "level_db": [ratio_db(energy, mix_energy) for energy in _energy(at_ref)],
        "alone_residual_db": [ratio_db(energy, mix_energy) for energy in alone],
        "copied_share": None,
        "coherence": coherence,
        "magnitude_correlation": magnitude_correlation,
        "residual_db": {"far_field": residuals_db(images, far_field), "close_talk": None},
        "mc": {"far_field": ri_mag_l1(images.sum(1), far_field).tolist(), "close_talk": None},
        "condition_median": np.median(condition, axis=1).tolist(),
        "condition_q95": np.quantile(condition, 0.95, axis=1).tolist(),
        "explained_db": None,
        "headsets": None,
        "references": None,
    }
    if heard:
        copied = alone.amin(0) < 10 ** (COPY_DB / 10) * mix_energy
        found["copied_share"] = float((mix_energy * copied).sum() / mix_energy.sum())
    if close_talk is not None:
        weight = fcp_weight(close_talk[None], loss.floor)
        images = _images(est, close_talk, weight, loss.closetalk_taps, loss.diag_load)
        found["residual_db"]["close_talk"] = residuals_db(images, close_talk)
        found["mc"]["close_talk"] = ri_mag_l1(images.sum(1), close_talk).tolist()
        left, energy = _energy(close_talk[:, None] - images), _energy(close_talk)
        found["explained_db"] = [
            [None if value is None else -value for value in (ratio_db(e, y) for e in row)]
            for row, y in zip(left, energy)
        ]
        if (energy.sum(-1) > 0).all():
            found["headsets"] = _against_headsets(left, energy)
    if refs is not None and heard and (_energy(refs).sum(-1) > 0).all():
        found["references"] = _against_references(at_ref, refs, mix, inverse, consistent)
    found["verdict"] = verdict(found)
    return found


def ratio_db(energy: Tensor, of: Tensor) -> float | None:
    """10 log10 of the ratio of two sums over frequencies, within +-MAX_DB; None if `of` is silent."""
    energy, of = float(energy.sum()), float(of.sum())
    if of == 0:
        return None
    return float(10 * np.log10(np.clip(energy / of, 10 ** (-MAX_DB / 10), 10 ** (MAX_DB / 10))))


def residuals_db(images: Tensor, mix: Tensor) -> list[float | None]:
    """Energy of Y - sum_c X(c) relative to Y at every mic: (mic, source, freq, frame), (mic, freq, frame)."""
    return [ratio_db(left, energy) for left, energy in zip(_energy(mix - images.sum(1)), _energy(mix))]


def likeness(images: Tensor) -> tuple[float | None, float | None]:
    """How much alike the two most alike of several signals are.

    Args:
        images: (source, freq, frame) complex.
    Returns:
        coherence: |<X, X'>| / (|X| |X'|) over all time-frequency units, 1 for the same signal.
        magnitude correlation: Pearson's of |X| and |X'| over frames, in every frequency by itself, so
            that a common spectral slope does not count; mean weighted by |X| |X'|.
        None, None where fewer than two of them are heard.
    """
    heard = [x.to(torch.complex128) for x in images if (x != 0).any()]
    pairs = [(x, y) for n, x in enumerate(heard) for y in heard[:n]]
    if not pairs:
        return None, None
    return (max(_coherence(x, y) for x, y in pairs), max(_magnitude_correlation(x, y) for x, y in pairs))


def condition_numbers(est: Tensor, weight: Tensor, past_taps: int, future_taps: int, diag_load: float) -> np.ndarray:
    """Condition of the loaded covariance that FCP solves with, for every source and frequency.

    Args:
        est: (source, freq, frame) complex.
        weight: (freq, frame) real, lambda of eq. (7).
    Returns:
        (source, freq) numpy; 1 for a silent estimate. The load bounds it by 1 + taps / diag_load.
    """
    inverse = torch.where(weight > 0, weight.amax() / weight, 1.0).double()
    numbers = []
    for z in est.to(torch.complex128):
        stacked = stack_taps(z, past_taps, future_taps)  # (freq, tap, frame)
        covariance = (stacked * inverse[:, None]) @ stacked.mH
        load = diag_load * covariance.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        load = torch.where(load > 0, load, 1.0)
        eigenvalues = torch.linalg.eigvalsh(covariance).clamp(min=0)  # ascending
        numbers.append((eigenvalues[:, -1] + load) / (eigenvalues[:, 0] + load))
    return torch.stack(numbers).cpu().numpy()


def compare_assignments(similarity: Tensor, energy: Tensor) -> tuple[dict, np.ndarray]:
    """Is the best assignment of sources to targets the same at all frequencies?

    Args:
        similarity: (target, source, freq) real, additive over targets and frequencies: the share of
            the target's energy that a source explains, say.
        energy: (target, freq) real, of the targets; each target counts the same.
    Returns:
        assignment: for each target its source, the best for all frequencies together.
        agrees: for each frequency the share of targets that get the same source there by themselves.
        agreement: mean of `agrees`, weighted by energy: 1 is no permutation, 1 / sources is chance.
        And besides, (freq, target): the source that each target gets at each frequency by itself.
    """
    similarity = similarity.cpu().double().numpy()
    energy = energy.cpu().double().numpy()
    weight = (energy / energy.sum(axis=1, keepdims=True)).mean(axis=0)  # (freq,)
    assignment = best_sources(similarity @ weight)
    own = np.stack([best_sources(at) for at in np.moveaxis(similarity, 2, 0)])  # (freq, target)
    agrees = (own == assignment).mean(axis=1)
    return {"agreement": float(agrees @ weight), "assignment": assignment.tolist(), "agrees": agrees.tolist()}, own


def best_sources(similarity: np.ndarray) -> np.ndarray:
    """(target, source) -> (target,): the assignment with the largest sum."""
    return linear_sum_assignment(similarity, maximize=True)[1]


def _against_headsets(left: Tensor, energy: Tensor) -> dict:
    """left (headset, source, freq): energy that a source alone leaves; energy (headset, freq)."""
    heard = energy[:, None] > 0
    explained = torch.where(heard, 1 - left / torch.where(heard, energy[:, None], 1.0), 0.0)
    compared, own = compare_assignments(explained, energy)
    left, energy = left.cpu().numpy(), energy.cpu().numpy()
    fixed = np.broadcast_to(compared["assignment"], own.shape)
    return compared | {
        "contrast_db": _contrast_db(left, energy, fixed),
        "contrast_oracle_db": _contrast_db(left, energy, own),
    }


def _contrast_db(left: np.ndarray, energy: np.ndarray, sources: np.ndarray) -> float:
    """As above, sources (freq, headset): by how much a headset's own source leaves less than any other."""
    num_sources, freqs = left.shape[1], np.arange(left.shape[2])
    contrasts = []
    for alone, silence, own in zip(left, energy, sources.T):
        by_own = alone[own, freqs].sum()
        # The others are whole signals too: the sources that follow the own one, frequency by frequency.
        others = [alone[(own + n) % num_sources, freqs].sum() for n in range(1, num_sources)]
        floor = silence.sum() * 10 ** (-MAX_DB / 10)
        contrasts.append(10 * np.log10((min(others, default=silence.sum()) + floor) / (by_own + floor)))
    return float(np.mean(contrasts))


def _against_references(
    images: Tensor, refs: Tensor, mix: Tensor, inverse: Callable[[Tensor], Tensor], consistent: bool
) -> dict:
    if consistent:
        images = mixture_consistency(images[None], mix[None])[0]
    power = _energy(refs)[:, None] * _energy(images)  # (speaker, source, freq)
    inner = (refs[:, None].conj() * images).sum(-1).abs().double().square()
    coherence = torch.where(power > 0, inner / torch.where(power > 0, power, 1.0), 0.0)
    compared, own = compare_assignments(coherence, _energy(refs))
    own = torch.from_numpy(own.T).to(images.device)  # (speaker, freq)
    regrouped = images[own, torch.arange(images.shape[1], device=images.device)]  # the oracle's images
    ref_waves, est_waves = _numpy(inverse(refs)), _numpy(inverse(images))
    permutation, pairwise = metrics.best_permutation(ref_waves, est_waves)
    mixture = _numpy(inverse(mix[None]))[0]
    oracle = _numpy(inverse(regrouped))
    return compared | {
        "assignment": permutation.tolist(),
        "si_sdr_mixture": float(np.mean([metrics.si_sdr(ref, mixture) for ref in ref_waves])),
        "si_sdr": float(np.mean(pairwise[range(len(permutation)), permutation])),
        "si_sdr_oracle": float(np.mean([metrics.si_sdr(*pair) for pair in zip(ref_waves, oracle)])),
    }


def _images(est: Tensor, mix: Tensor, weight: Tensor, taps: tuple[int, int], diag_load: float) -> Tensor:
    """(mic, source, freq, frame) of one utterance."""
    return forward_convolutive_prediction(est[None], mix[None], weight, *taps, diag_load)[0][0]


def _energy(spectrum: Tensor) -> Tensor:
    """Sum over frames; float64, so that faint recordings do not underflow."""
    return spectrum.abs().double().square().sum(-1)


def _coherence(x: Tensor, y: Tensor) -> float:
    return float((x.conj() * y).sum().abs() / (x.norm() * y.norm()))


def _magnitude_correlation(x: Tensor, y: Tensor) -> float:
    weight = x.norm(dim=-1) * y.norm(dim=-1)  # (freq,)
    x, y = (m.abs() - m.abs().mean(-1, keepdim=True) for m in (x, y))
    scale = x.norm(dim=-1) * y.norm(dim=-1)
    correlation = torch.where(scale > 0, (x * y).sum(-1) / scale.clamp(min=1e-300), 0.0)
    return float((weight * correlation).sum() / weight.sum().clamp(min=1e-300))


def _numpy(waves: Tensor) -> np.ndarray:
    return torch.as_tensor(waves).cpu().double().numpy()


def _check(est: Tensor, **others: Tensor | None) -> None:
    check_spectra("mic | source, freq, frame", est=est, **others)
    for name, spectra in {"est": est, **others}.items():
        if spectra is not None and not torch.isfinite(spectra).all():
            raise ValueError(f"{name} has values that are not finite (NaN or infinity)")
    for name in ("close_talk", "refs"):
        if others[name] is not None and len(others[name]) > len(est):
            raise ValueError(f"{len(others[name])} {name} need at least as many estimates, found {len(est)}")


def verdict(found: dict) -> str:
    """What the quantities of `diagnose_utterance` speak for; diagnosis/words.py has it in words.

    Faults that make the rest meaningless come first: where all outputs are the same, any assignment is
    as good as another. References, where there are any, count instead of headsets.
    """
    if found["copied_share"] is None:
        return "silent_recording"
    copies = [residual < COPY_DB for residual in found["alone_residual_db"]]
    if all(copies) and len(copies) > 1:
        return "outputs_are_mixture"
    if any(copies):
        return "one_output_is_mixture"
    if found["copied_share"] > COPIED_SHARE:
        return "mixture_is_shared_out"
    if min(found["level_db"]) < SILENT_DB:
        return "silent_output"
    if found["coherence"] is not None and found["coherence"] > SAME_COHERENCE:
        return "same_outputs"
    if found["references"] is not None:
        judged = found["references"]
        better_db = judged["si_sdr"] - judged["si_sdr_mixture"]
        oracle_db = judged["si_sdr_oracle"] - judged["si_sdr_mixture"]
        enough_db = SEPARATED_DB
    elif found["headsets"] is not None:
        judged = found["headsets"]
        better_db, oracle_db = judged["contrast_db"], judged["contrast_oracle_db"]
        enough_db = CONTRAST_DB
    else:
        return "cannot_tell"
    gain_db = oracle_db - better_db
    if judged["agreement"] < AGREEMENT and gain_db > ORACLE_GAIN_DB and oracle_db > enough_db:
        return "frequency_permutation"
    if better_db > enough_db:
        return "separates"
    if max(db for db in found["residual_db"]["far_field"] if db is not None) < MET_DB:
        return "mixture_is_shared_out"
    return "mixed_outputs" if judged["agreement"] < MIXED_AGREEMENT else "weak"
