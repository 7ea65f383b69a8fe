"""How good is a separated signal: SI-SDR, SDR, PESQ, eSTOI and the best permutation.

Numpy in, plain numbers out. `ref` is the true signal of a source, `est` an estimate of it; both
(sample,), and (source, sample) where there are several. A call does not depend on earlier calls:
the same input gives the same bits.

What is defined at the edges, so that means over a test set stay meaningful:

- SI-SDR and SDR are clamped to +-MAX_DB. A perfect estimate scores MAX_DB and a silent one
  -MAX_DB instead of an infinity that would swallow the mean of all other utterances.
- PESQ and eSTOI are NaN where they do not exist: PESQ finds no utterance (a silent estimate, a
  fraction of a second) or the rate is neither 8 nor 16 kHz (how faint a signal is does not matter,
  how long it is may: see `pesq`); eSTOI has fewer than its 30 speech
  frames. NaN means "undefined", and only that. A band without change, in the extreme a silent
  estimate, has no correlation with speech: 0 (pystoi: that of random numbers).
- A silent `ref`, signals that are not finite and unequal lengths raise ValueError.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

METRICS = ("si_sdr", "sdr", "pesq", "estoi")
MAX_DB = 100.0  # dB; more than 16-bit audio can hold (98 dB), so no real score is changed
PESQ_MODES = {8000: "nb", 16000: "wb"}  # sample rate in Hz: narrow-band P.862.1, wide-band P.862.2
PESQ_MAX_BURSTS = 45  # beyond, a signal is scored in parts; the limit is 50, and our count need not be PESQ's
PESQ_PART = 15  # s; with pauses of 0.2 s there is no room for 50 utterances of as much
SDR_TAPS = 512  # length of the distortion filter that BSS-eval v3 forgives, in samples


def _pair(ref: ArrayLike, est: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two signals as float64, checked: one axis, equal lengths, finite, `ref` not silent."""
    ref, est = np.asarray(ref, dtype=np.float64), np.asarray(est, dtype=np.float64)
    if ref.ndim != 1 or ref.shape != est.shape:
        raise ValueError(f"ref {ref.shape} and est {est.shape} need one axis and the same number of samples")
    for name, signal in (("ref", ref), ("est", est)):
        if not np.isfinite(signal).all():
            raise ValueError(f"{name} has samples that are not finite (NaN or infinity)")
    if not ref.any():
        raise ValueError("ref is silent (all samples are zero): no metric is defined for it")
    return ref, est


def _ratio_db(target: np.ndarray, error: np.ndarray) -> float:
    """10 log10(|target|^2 / |error|^2), clamped to +-MAX_DB; -MAX_DB for 0 / 0 as well."""
    target, error = target @ target, error @ error
    if target == 0.0:
        return -MAX_DB
    floor = target * 10 ** (-MAX_DB / 10)
    return float(np.clip(10 * np.log10(target / max(error, floor)), -MAX_DB, MAX_DB))


def si_sdr(ref: ArrayLike, est: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio in dB.

        SI-SDR = 10 log10(|a ref|^2 / |est - a ref|^2),   a = <est, ref> / <ref, ref>

    Args:
        ref, est: (sample,) real. The mean is not subtracted; SI-SNR, as ESPnet reports it, does so.
    Returns:
        float in [-MAX_DB, MAX_DB]. A silent `est` gives -MAX_DB.
    Raises:
        ValueError: shapes differ, a sample is not finite, or `ref` is silent.
    Source: Le Roux, Wisdom, Erdogan, Hershey, "SDR - half-baked or well done?", ICASSP 2019.
    Example:
        >>> round(si_sdr([1.0, 1.0], [2.0, 0.0]), 6)  # a ref = [1, 1], error [1, -1]: equal powers
        0.0
    """
    ref, est = _pair(ref, est)
    # Level does not matter, so take it out: squares of very faint samples would underflow.
    ref, est = ref / np.abs(ref).max(), est / (np.abs(est).max() or 1.0)
    target = (est @ ref) / (ref @ ref) * ref
    return _ratio_db(target, est - target)


def sdr(ref: ArrayLike, est: ArrayLike, taps: int = SDR_TAPS) -> float:
    """Signal-to-distortion ratio of BSS-eval in dB: SI-SDR that forgives a filter, not just a gain.

        SDR = 10 log10(|h * ref|^2 / |est - h * ref|^2),   h = argmin_h |est - h * ref|^2

    with h causal, `taps` long. The interference and artifact terms of BSS-eval add up to
    est - h * ref, so the other sources are not needed.

    Args:
        ref, est: (sample,) real.
        taps: length of h in samples.
    Returns:
        float in [-MAX_DB, MAX_DB]. A silent `est` gives -MAX_DB.
    Raises:
        ValueError: as `si_sdr`.
    Source: Vincent, Gribonval, Fevotte, "Performance measurement in blind audio source
        separation", TASLP 2006; BSS-eval version 3.
    Example:
        >>> ref = np.append(np.random.default_rng(0).standard_normal(3998), [0, 0])
        >>> echo = np.convolve(ref, [1, 0, 0.5])[:4000]  # a filter of `ref`; to SI-SDR half of it is distortion
        >>> round(sdr(ref, echo)), round(si_sdr(ref, echo))
        (100, 6)
    """
    ref, est = _pair(ref, est)
    return _sdrs(ref, [est], taps)[0]


def _sdrs(ref: np.ndarray, ests: Sequence[np.ndarray], taps: int = SDR_TAPS) -> list[float]:
    """`sdr` of each of several estimates: the equations for h have one matrix, that of `ref`."""
    import fast_bss_eval  # here, since it imports torch

    scores = [-MAX_DB] * len(ests)
    audible = [index for index, est in enumerate(ests) if est.any()]
    if not audible:
        return scores
    ref = ref / np.abs(ref).max()
    ests = np.stack([ests[index] / np.abs(ests[index]).max() for index in audible])
    options = dict(filter_length=taps, clamp_db=MAX_DB, pairwise=True)
    try:
        losses = fast_bss_eval.sdr_loss(ests, ref[None], **options)
    except np.linalg.LinAlgError:  # a few sinusoids do not determine all taps
        losses = fast_bss_eval.sdr_loss(ests, ref[None], load_diag=1e-10, **options)
    for index, loss in zip(audible, losses[0]):
        scores[index] = -float(loss)
    return scores


def pesq(ref: ArrayLike, est: ArrayLike, sample_rate: int) -> float:
    """PESQ as MOS-LQO: narrow-band at 8 kHz (P.862.1), wide-band at 16 kHz (P.862.2).

    The two scales are not comparable. PESQ's own program has room for 50 utterances, by which it means stretches of
    speech between pauses of 0.2 s, and writes beyond it. A signal with nearly as many is scored in equal parts of 15 s
    at most; its score is the mean of those that have one.

    Args:
        ref, est: (sample,) real. Their levels do not matter.
        sample_rate: 8000 or 16000 Hz.
    Returns:
        float, about 1.0 to 4.6; NaN where PESQ finds no utterance, has less than 1/4 s, or nothing in the band of
        speech to bring to its level.
    Raises:
        ValueError: as `si_sdr`, or another sample rate.
    Example:
        >>> ref = np.random.default_rng(0).standard_normal(8000)
        >>> round(pesq(ref, ref, sample_rate=8000), 1), pesq(ref, 0 * ref, sample_rate=8000)
        (4.5, nan)
    """
    if sample_rate not in PESQ_MODES:
        raise ValueError(f"PESQ is defined at 8000 and 16000 Hz, not at {sample_rate} Hz")
    ref, est = _pair(ref, est)
    parts = 1
    if _num_bursts(ref, sample_rate) > PESQ_MAX_BURSTS:
        parts = -(-len(ref) // (PESQ_PART * sample_rate))
    scores = [_pesq(*pair, sample_rate) for pair in zip(np.array_split(ref, parts), np.array_split(est, parts))]
    defined = [score for score in scores if not np.isnan(score)]
    return sum(defined) / len(defined) if defined else float("nan")


def _pesq(ref: np.ndarray, est: np.ndarray, sample_rate: int) -> float:
    """What the package finds, NaN where it finds nothing."""
    from pesq import PesqError
    from pesq import pesq as itu_pesq

    if not (ref.any() and est.any()):  # the package fails on 0 / 0 here
        return float("nan")
    peaks = np.abs(ref).max(), np.abs(est).max()
    if min(peaks) < 1e-10 * max(peaks):  # the package divides both by the larger one, and squares in float32
        ref, est = ref / peaks[0], est / peaks[1]
    score = itu_pesq(sample_rate, ref, est, PESQ_MODES[sample_rate], on_error=PesqError.RETURN_VALUES)
    if score in (PesqError.NO_UTTERANCES_DETECTED, PesqError.BUFFER_TOO_SHORT):
        return float("nan")
    if score < 0:
        raise PesqError(f"the package pesq failed with status {score}")
    return float(score)


def _num_bursts(signal: np.ndarray, sample_rate: int) -> int:
    """About as many utterances as PESQ would find: level over 4 ms in the band of speech, above that of the noise.

    The noise's level is found by leaving out what exceeds its mean by two standard deviations, again and again.
    Utterances last 0.2 s at least, as pauses between them, so that a short signal cannot have many.
    """
    from scipy.signal import butter, sosfilt  # here, since its import takes long

    frame = sample_rate // 250
    num_frames = len(signal) // frame
    if num_frames < 100 * PESQ_MAX_BURSTS:
        return 0
    band = butter(2, (250, 3400), "bandpass", fs=sample_rate, output="sos")
    filtered = sosfilt(band, signal)[: num_frames * frame]
    power = np.square(filtered).reshape(num_frames, frame).mean(axis=1)
    power = np.maximum(power, 1e-4 * power.max())
    threshold = power.mean()
    for _ in range(12):
        noise = power[power <= threshold]
        threshold = noise.mean() + 2 * noise.std()
    starts, ends = _runs(power > threshold)
    starts, ends = starts[ends - starts > 4], ends[ends - starts > 4]  # shorter ones are clicks
    if not len(starts):
        return 1
    pause = starts[1:] - ends[:-1] > 50
    starts, ends = starts[np.append(True, pause)], ends[np.append(pause, True)]
    return int(np.sum(ends - starts >= 50))


def _runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of true values start, and where they have ended."""
    changes = np.diff(np.concatenate([[0], flags.astype(int), [0]]))
    return np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)


def estoi(ref: ArrayLike, est: ArrayLike, sample_rate: int) -> float:
    """Extended short-time objective intelligibility, at most 1.

    Args:
        ref, est: (sample,) real.
        sample_rate: in Hz; pystoi resamples to 10 kHz.
    Returns:
        float; NaN where fewer than 30 frames (0.4 s) of `ref` are speech: eSTOI correlates
            segments of that length.
    Raises:
        ValueError: as `si_sdr`.
    Source: Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by
        modulated noise maskers", TASLP 2016.
    Example:
        >>> ref = np.random.default_rng(0).standard_normal(10000)
        >>> round(estoi(ref, ref, sample_rate=10000), 6), estoi(ref, 0 * ref, sample_rate=10000)
        (1.0, 0.0)
    """
    ref, est = _pair(ref, est)
    return _estois(ref, [est], sample_rate)[0]


def _estois(ref: np.ndarray, ests: Sequence[np.ndarray], sample_rate: int) -> list[float]:
    """`estoi` of each of several estimates; what depends on `ref` alone is computed once."""
    from pystoi.stoi import DYN_RANGE, FS, N_FRAME, N
    from pystoi.utils import remove_silent_frames, resample_oct

    signals = [ref, *ests]
    if sample_rate != FS:
        signals = [resample_oct(signal, FS, sample_rate) for signal in signals]
    if len(signals[0]) <= N_FRAME:  # which pystoi does not expect
        return [float("nan")] * len(ests)
    scores, ref_segments = [], None
    for est in signals[1:]:
        speech, est = remove_silent_frames(signals[0], est, DYN_RANGE, N_FRAME, N_FRAME // 2)
        if ref_segments is None:
            ref_segments = _estoi_segments(speech)
        if ref_segments is None:
            scores.append(float("nan"))
            continue
        est_segments = _estoi_segments(est)
        scores.append(float(np.sum(ref_segments * est_segments) / N / len(ref_segments)))
    return scores


def _estoi_segments(signal: np.ndarray) -> np.ndarray | None:
    """(segment, band, frame) normalised spectrograms that eSTOI correlates; None: not one segment.

    pystoi's own take most of its time: a Python loop over frames, and diagonal matrices to scale
    with. It adds random numbers of the size of rounding errors instead of looking for zeros.
    """
    from pystoi.stoi import N_FRAME, NFFT, OBM, N

    hop = N_FRAME // 2
    num_frames = -((N_FRAME - len(signal)) // hop)  # as pystoi, without a frame that ends with the signal
    if num_frames < N:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(signal, N_FRAME)[::hop][:num_frames]
    spectra = np.fft.rfft(np.hanning(N_FRAME + 2)[1:-1] * frames, NFFT)
    bands = np.sqrt(np.abs(spectra) ** 2 @ OBM.T)  # (frame, band)
    segments = np.lib.stride_tricks.sliding_window_view(bands, N, axis=0)
    for axis in (2, 1):  # every band over time, then every frame over bands
        segments = segments - segments.mean(axis=axis, keepdims=True)
        norm = np.sqrt(np.sum(segments**2, axis=axis, keepdims=True))
        segments = np.divide(segments, norm, out=np.zeros_like(segments), where=norm > 0)
    return segments


def best_permutation(refs: Sequence[ArrayLike], ests: Sequence[ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    """Which estimate belongs to which source: the assignment with the largest mean SI-SDR.

    Evaluates every pair once and solves the assignment, so many sources are no problem.

    Args:
        refs: (source, sample) real.
        ests: (estimate, sample) real, at least as many as sources; those left over are nobody's.
    Returns:
        permutation: (source,) int; estimate `permutation[n]` belongs to source n.
        pairwise: (source, estimate) SI-SDR in dB.
    Raises:
        ValueError: as `si_sdr`, or fewer estimates than sources.
    Example:
        >>> permutation, pairwise = best_permutation(refs=[[1, 0], [0, 1]], ests=[[0.1, 1], [1, 0.1], [1, 1]])
        >>> permutation.tolist()
        [1, 0]
        >>> pairwise.round()
        array([[-20.,  20.,   0.],
               [ 20., -20.,   0.]])
    """
    if len(ests) < len(refs):
        raise ValueError(f"{len(ests)} estimates cannot be assigned to {len(refs)} sources")
    pairwise = np.array([[si_sdr(ref, est) for est in ests] for ref in refs])
    _, permutation = scipy.optimize.linear_sum_assignment(pairwise, maximize=True)
    return permutation, pairwise


def score_pair(ref: ArrayLike, est: ArrayLike, sample_rate: int) -> dict[str, float]:
    """All METRICS of one estimate as {name: float}; PESQ is NaN at rates that it does not know.

    Args:
        ref, est: (sample,) real.
        sample_rate: in Hz.
    Returns:
        dict of float.
    Raises:
        ValueError: as `si_sdr`.
    Example:
        >>> ref = np.random.default_rng(0).standard_normal(16000)
        >>> {name: round(value, 1) for name, value in score_pair(ref, ref, sample_rate=16000).items()}
        {'si_sdr': 100.0, 'sdr': 100.0, 'pesq': 4.6, 'estoi': 1.0}
    """
    return score_estimates(ref, [est], sample_rate)[0]


def score_estimates(ref: ArrayLike, ests: Sequence[ArrayLike], sample_rate: int) -> list[dict[str, float]]:
    """`score_pair` of each of several estimates of one source, in less time than one by one.

    Args:
        ref: (sample,) real.
        ests: (estimate, sample) real.
        sample_rate: in Hz.
    Returns:
        list of dict, one an estimate.
    Raises:
        ValueError: as `si_sdr`.
    Example:
        >>> ref = np.random.default_rng(0).standard_normal(8000)
        >>> [round(scores["si_sdr"]) for scores in score_estimates(ref, [ref, 0 * ref], sample_rate=8000)]
        [100, -100]
    """
    pairs = [_pair(ref, est) for est in ests]
    ests, ref = [est for _, est in pairs], pairs[0][0]
    has_pesq = sample_rate in PESQ_MODES
    columns = {
        "si_sdr": [si_sdr(ref, est) for est in ests],
        "sdr": _sdrs(ref, ests),
        "pesq": [pesq(ref, est, sample_rate) if has_pesq else float("nan") for est in ests],
        "estoi": _estois(ref, ests, sample_rate),
    }
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def score_utterance(
    refs: Sequence[ArrayLike],
    ests: Sequence[ArrayLike],
    sample_rate: int,
    fixed_order: bool = True,
    mixture: ArrayLike | None = None,
) -> list[dict[str, int | float]]:
    """Scores of all sources of one utterance, in the best permutation and in the outputs' order.

    Args:
        refs: (source, sample) real.
        ests: (estimate, sample) real, at least as many as sources.
        sample_rate: in Hz.
        fixed_order: also score estimate n against source n.
        mixture: (sample,) to be scored against all sources as well, or None.
    Returns:
        list with a dict per source: "estimate", the index of the estimate that the best
        permutation gives it, the four METRICS, with `fixed_order` also "fixed_order_" + each, and
        with a mixture "mixture_" + each.
    Raises:
        ValueError: as `best_permutation`; a silent reference is named by its index.
    Example:
        >>> refs = np.random.default_rng(0).standard_normal((2, 8000))
        >>> scores = score_utterance(refs, refs[::-1], sample_rate=8000, mixture=refs.sum(axis=0))
        >>> [of_source["estimate"] for of_source in scores]
        [1, 0]
        >>> {name: round(value) for name, value in scores[0].items() if "si_sdr" in name}
        {'si_sdr': 100, 'fixed_order_si_sdr': -41, 'mixture_si_sdr': 0}
    """
    if len(np.shape(refs)) != 2 or len(np.shape(ests)) != 2:
        raise ValueError(f"refs {np.shape(refs)} and ests {np.shape(ests)} need the axes (source, sample)")
    for source, ref in enumerate(refs):
        if not np.any(ref):
            raise ValueError(f"the reference of source {source} is silent: no metric is defined")
    permutation, _ = best_permutation(refs, ests)
    rows = []
    for source, (ref, estimate) in enumerate(zip(refs, permutation)):
        signals = {"": ests[estimate]}
        if fixed_order and estimate != source:  # usually the same
            signals["fixed_order_"] = ests[source]
        if mixture is not None:
            signals["mixture_"] = mixture
        scores = dict(zip(signals, score_estimates(ref, list(signals.values()), sample_rate)))
        if fixed_order:
            scores.setdefault("fixed_order_", scores[""])
        named = {prefix + name: value for prefix, of_est in scores.items() for name, value in of_est.items()}
        rows.append({"estimate": int(estimate), **named})
    return rows
