"""Intra-source magnitude scattering (ISMS): UNSSOR's remedy for frequency permutation.

Z.-Q. Wang, S. Watanabe, "UNSSOR: Unsupervised Neural Speech Separation by Leveraging
Over-determined Training Mixtures", NeurIPS 2023.
"""

import torch
from torch import Tensor

from espnet2_m2m.spectra import magnitude


def isms(images: Tensor, mix: Tensor) -> Tensor:
    """How much the log magnitudes of the sources scatter over frequency, relative to the mixture's.

        sum_t (1 / C) sum_c var_f( log|X_p(c, t, f)| )  /  sum_t var_f( log|Y_p(t, f)| )

    A source put together from several talkers' frequencies scatters more than a talker does.
    Magnitudes are taken relative to the mixture's maximum and floored at -160 dB, so the value does
    not depend on the recording's level, and silent frames (padding) count as zero scatter.

    Args:
        images: (..., source, freq, frame) complex FCP images at one mic.
        mix: (..., freq, frame) complex mixture at that mic.
    Returns:
        (...) real, >= 0 (no unit); zero where the mixture is silent (below 1e-19 in float32).
    Raises:
        ValueError: shapes that do not fit.
    Source: UNSSOR, the ISMS loss; the variance is the unbiased one.
    Example:
        >>> mix = torch.tensor([[1 + 0j], [0.1]])           # two frequencies, one frame: 20 dB apart
        >>> flat = torch.tensor([[1 + 0j], [1.0]])          # the same level at both
        >>> steep = torch.tensor([[1 + 0j], [0.01]])        # 40 dB apart: four times the mixture's variance
        >>> isms(torch.stack([flat, steep]), mix)
        tensor(2.0000)
    """
    if images.dim() < 3 or images.shape[:-3] + images.shape[-2:] != mix.shape:
        raise ValueError(
            f"images (..., source, freq, frame) {tuple(images.shape)} and mix "
            f"(..., freq, frame) {tuple(mix.shape)} do not fit"
        )
    if mix.shape[-2] < 2:
        return 0.0 * images.real.sum(dim=(-3, -2, -1))  # one frequency does not scatter
    peak = magnitude(mix).amax(dim=(-2, -1), keepdim=True)
    silent = peak < torch.finfo(peak.dtype).tiny ** 0.5  # the gradient, up to 1e8 / peak, would be infinite
    peak = torch.where(silent, 1.0, peak)
    mix_scatter = _log_magnitude(torch.where(silent, 0.0, mix), peak).var(dim=-2).sum(-1)
    scatter = _log_magnitude(images, peak[..., None, :, :]).var(dim=-2).mean(-2).sum(-1)
    return torch.where(mix_scatter > 0, scatter / torch.where(mix_scatter > 0, mix_scatter, 1.0), 0.0)


def _log_magnitude(spectrum: Tensor, peak: Tensor) -> Tensor:
    return torch.log(magnitude(spectrum) / peak + 1e-8)
