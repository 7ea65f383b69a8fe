"""Forward convolutive prediction (FCP): the linear filter, per frequency, from an estimate to a mic.

Equations (7)-(10) of Z.-Q. Wang, "Mixture to Mixture", IEEE SPL 2024; FCP itself is Z.-Q. Wang,
G. Wichern, J. Le Roux, "Convolutive Prediction for Monaural Speech Dereverberation and
Noisy-Reverberant Speaker Separation", TASLP 2021. The paper's letters: Y mixture, Z estimate,
Z_tilde its stacked taps, g filter, lambda weight.
"""

import torch
from torch import Tensor

from espnet2_m2m.fir_least_squares import FIRLeastSquares, full_precision
from espnet2_m2m.spectra import at_least_complex64, check_spectra, faint, never_compiled


@never_compiled
def fcp_weight(mix: Tensor, floor: float = 1e-4, shared: bool = False) -> Tensor:
    """The weight lambda of the least-squares problem (7): the floored power of the mixture.

        lambda_r(t, f) = floor * max_{t', f'} Q_r(t', f') + Q_r(t, f)

    with Q_r = |Y_r|^2, eq. (8), or, when shared, Q = mean_p |Y_p|^2, eq. (9). The maximum is taken
    within each utterance (and each mic when not shared), never over the batch.

    Args:
        mix: (batch, mic, freq, frame) complex STFT of the mixtures.
        floor: xi, relative to the maximum, > 0 (no unit).
        shared: one weight for all mics, eq. (9), instead of one for each, eq. (8).
    Returns:
        (batch, mic, freq, frame) real, or (batch, 1, freq, frame) when shared. Zero only where the
        whole mixture is silent.
    Raises:
        ValueError: `floor` is not positive, or `mix` is no such spectrum.
    Example:
        >>> mix = torch.tensor([[[[3 + 4j, 0]], [[1 + 0j, 1j]]]])  # two mics, one frequency, two frames
        >>> fcp_weight(mix, floor=0.1)[0, :, 0]                    # |Y|^2 is (25, 0) and (1, 1)
        tensor([[27.5000,  2.5000],
                [ 1.1000,  1.1000]])
        >>> fcp_weight(mix, floor=0.1, shared=True)[0, :, 0]       # their mean is (13, 0.5)
        tensor([[14.3000,  1.8000]])
    """
    if floor <= 0:
        raise ValueError(f"floor must be > 0, found {floor}: without it quiet units divide by zero")
    check_spectra(mix=mix)
    power = mix.real.square() + mix.imag.square()
    if shared:
        power = power.mean(dim=1, keepdim=True)
    return floor * power.amax(dim=(-2, -1), keepdim=True) + power


@never_compiled
def forward_convolutive_prediction(
    est: Tensor,
    mix: Tensor,
    weight: Tensor,
    past_taps: int = 19,
    future_taps: int = 1,
    diag_load: float = 1e-5,
    mics_per_weight: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Filter every estimate to every mic by the least-squares filter that best explains the mixture.

        g_r(c, f) = argmin_g sum_t |Y_r(t, f) - g^H Z_tilde(c, t, f)|^2 / lambda_r(t, f)      (7)
        X_r(c, t, f) = g_r(c, f)^H Z_tilde(c, t, f)                                          (10)
        Z_tilde(c, t, f) = [Z(c, t - past_taps, f), ..., Z(c, t + future_taps, f)]^T

    Each source is solved for by itself against the whole mixture. Mics that share a weight share
    one covariance matrix and one factorisation. Gradients flow through the solve to all three tensors. The
    arithmetic is done in the precision of `est`, at least float32 (autocast and TF32 are off), the solve in
    float64. torch.compile leaves it as it is.

    Args:
        est: (batch, source, freq, frame) complex STFT Z of the estimates. Scaling it by any nonzero
            complex number per source and frequency leaves the images unchanged.
        mix: (batch, mic, freq, frame) complex STFT Y of the mixtures.
        weight: (batch, mic, freq, frame), (batch, 1, freq, frame) or, with `mics_per_weight`,
            (batch, weight, freq, frame) real, lambda of `fcp_weight`. A frame with infinite weight
            takes no part in the sum: so padding is left out.
        past_taps, future_taps: frames before / after the current one, >= 0. Frames outside the
            utterance count as zero.
        diag_load: added to the diagonal of the covariance, relative to its mean diagonal (no unit).
            It makes fewer frames than taps solvable; 1e-5 exceeds the float32 rounding of the
            covariance and typically changes an image by less than -50 dB.
        mics_per_weight: how many consecutive mics each weight is for; by default one, or all for one
            weight.
    Returns:
        images: (batch, mic, source, freq, frame) complex.
        filters: (batch, mic, source, freq, tap) complex, tap 0 the oldest frame, so that
            images(t) = sum_k filters[..., k] * est(t - past_taps + k): the conjugate of the
            paper's g.
    Raises:
        ValueError: shapes that do not fit, negative taps.
    Silence: a silent estimate or mic has zero filters and zero images, with finite gradients. An estimate counts as
        silent at a frequency where it stays below `faint` (1e-31 in float32).
    Source: eqs. (7) and (10).
    Example:
        >>> est = torch.tensor([1, 2, 3, 0, 0j]).reshape(1, 1, 1, 5)  # one source, one frequency, five frames
        >>> mix = torch.tensor([0, 2, 4, 6, 0j]).reshape(1, 1, 1, 5)  # a mic that hears it doubled, a frame later
        >>> images, filters = forward_convolutive_prediction(
        ...     est, mix, torch.ones(1, 1, 1, 5), past_taps=1, future_taps=1, diag_load=1e-12
        ... )
        >>> filters[0, 0, 0, 0].abs().round()          # taps: one frame ago, now, one frame ahead
        tensor([2., 0., 0.])
        >>> images[0, 0, 0, 0].abs().round()
        tensor([0., 2., 4., 6., 0.])
        >>> images.shape, filters.shape               # (batch, mic, source, freq, frame), ... tap)
        (torch.Size([1, 1, 1, 1, 5]), torch.Size([1, 1, 1, 1, 3]))
    """
    check_spectra(est=est, mix=mix)
    if min(past_taps, future_taps) < 0:
        raise ValueError(f"taps must be >= 0, found past_taps={past_taps}, future_taps={future_taps}")
    if weight.is_complex() or weight.dim() != 4:
        raise ValueError(f"weight must be real (batch, mic, freq, frame), found {weight.dtype} {tuple(weight.shape)}")
    num_mics, num_weights = mix.shape[1], weight.shape[1]
    if mics_per_weight is None:
        mics_per_weight = (num_mics,) if num_weights == 1 else (1,) * num_mics
    if (
        weight.shape[:1] + weight.shape[2:] != mix.shape[:1] + mix.shape[2:]
        or len(mics_per_weight) != num_weights
        or sum(mics_per_weight) != num_mics
        or min(mics_per_weight) < 1
    ):
        raise ValueError(
            f"weight {tuple(weight.shape)} must be as mix {tuple(mix.shape)}, with one mic, "
            f"or with a weight for each of mics_per_weight, found {mics_per_weight}"
        )
    with full_precision(est.device.type):
        est, mix = at_least_complex64(est), at_least_complex64(mix)
        # Dividing by the level changes neither images nor gradients (diag_load is relative), but
        # keeps the squares within range whatever the level of the network's output. Below `faint` digits are
        # lost, and before long the reciprocal, which the gradient holds, is infinite: that is silence.
        level = est.detach().abs().amax(-1, keepdim=True)
        silent = level < faint(level.dtype)
        level = torch.where(silent, 1.0, level)
        est = torch.where(silent, 0.0, est)
        # Scaled so that the largest 1 / lambda is 1, whatever the level of the recording; again a mere factor.
        # lambda is zero throughout for a silent mic, whose filter is zero with any weight. Nor has it meaning, or a
        # reciprocal, where it is denormal: a mixture of 1e-17 or less in float32, with the default floor.
        weight = weight.to(est.real.dtype)
        smallest = weight.detach().amin(dim=(-2, -1), keepdim=True)
        defined = smallest >= torch.finfo(weight.dtype).tiny
        inverse = torch.where(defined, smallest, 1.0) / torch.where(defined, weight, 1.0)
        inverse = torch.where(weight.isinf(), 0.0, inverse)
        images, filters = FIRLeastSquares.apply(
            est / level, mix.to(est.dtype), inverse, tuple(mics_per_weight), past_taps, future_taps, diag_load
        )
    return images, filters / level[:, None]
