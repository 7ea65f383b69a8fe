"""Close-talk mixtures without cross-talk: the headsets of the others, filtered to a headset and subtracted there."""

import torch
from torch import Tensor

from espnet2_m2m.fcp import forward_convolutive_prediction
from espnet2_m2m.spectra import check_spectra

SMOOTHED = 3  # frames over which the power of the weight is averaged


@torch.no_grad()
def clean_headsets(
    close_talk: Tensor,
    past_taps: int = 19,
    future_taps: int = 1,
    passes: int = 3,
    floor: float = 1e-5,
    diag_load: float = 1e-5,
) -> Tensor:
    """Every close-talk mixture less what the other headsets explain of it.

        Y_d^(n+1)(t, f) = Y_d(t, f) - sum_{c != d} g_d(c, f)^H Y~_c^(n)(t, f)        Y^(0) = Y
        g_d(c, f) = argmin_g sum_t |Y_d(t, f) - g^H Y~_c^(n)(t, f)|^2 / lambda_d^(n)(t, f)

    A headset hears its wearer best, so it is the best estimate of his speech that there is: filtered by FCP, eqs. (7)
    and (10), it predicts the cross-talk of the wearer at the other headsets. It holds cross-talk itself, which each
    pass removes for the next one. lambda is the floored power of the cleaned headset (over three frames), since its
    wearer's own speech is what disturbs the fit. The wearer's speech is not filtered.

    Args:
        close_talk: (batch, headset, freq, frame) complex STFT of the close-talk mixtures, with headsets that are
            about equally sensitive; one that is dead is left as it is.
        past_taps, future_taps: of the filters, in frames.
        passes: n, > 0.
        floor: of lambda, relative to its maximum (no unit).
        diag_load: as for `forward_convolutive_prediction`.
    Returns:
        (batch, headset, freq, frame) complex.
    Raises:
        ValueError: shapes or options that do not fit.
    Silence: where a wearer is silent, his headset holds the others alone, and would explain all that they say. So
        what a headset is to explain of another one is not subtracted, frequency by frequency, where it is louder
        there than in the headset itself: no cross-talk is.
    Source: ours. With two headsets it is the classical cross-talk canceller, with FCP for its filters.
    Example:
        >>> speech = torch.randn(2, 5, 400, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        >>> speech *= torch.tensor([1.0, 0.01]).repeat_interleave(50).repeat(4)  # two talkers with pauses, in turn ...
        >>> speech[1] = speech[1].roll(30, -1)                                   # ... but for some overlap
        >>> headsets = speech + 0.2 * speech.flip(0)                             # cross-talk 14 dB below the wearer
        >>> left = clean_headsets(headsets[None])[0] - speech
        >>> bool(left.norm() < 0.3 * (headsets - speech).norm())
        True
    """
    check_spectra(close_talk=close_talk)
    if passes < 1 or floor <= 0:
        raise ValueError(f"passes and floor must be > 0, found passes={passes}, floor={floor}")
    cleaned = close_talk
    for _ in range(passes):
        weight = _smoothed(cleaned.abs().square())
        weight = floor * weight.amax(dim=(-2, -1), keepdim=True) + weight
        images, _ = forward_convolutive_prediction(cleaned, close_talk, weight, past_taps, future_taps, diag_load)
        at_own = _energy(cleaned)[:, None]  # (batch, 1, headset, freq, 1)
        images = torch.where(_energy(images) < at_own, images, 0)  # (batch, headset, headset of the source, ...)
        images.diagonal(dim1=1, dim2=2).zero_()
        cleaned = close_talk - images.sum(dim=2)
    return cleaned


def _energy(spectra: Tensor) -> Tensor:
    """Over frames, in float64, so that faint recordings do not underflow."""
    return spectra.abs().double().square().sum(-1, keepdim=True)


def _smoothed(power: Tensor) -> Tensor:
    """Moving average over frames, of those that there are at the ends."""
    mean = torch.nn.functional.avg_pool1d(
        power.flatten(0, -2)[:, None], SMOOTHED, stride=1, padding=SMOOTHED // 2, count_include_pad=False
    )
    return mean.reshape(power.shape)
