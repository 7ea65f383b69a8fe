"""Mixture consistency: what the images leave of the mixture is given back to them.

S. Wisdom, J. R. Hershey, K. Wilson, J. Thorpe, M. Chinen, B. Patton, R. A. Saurous, "Differentiable Consistency
Constraints for Improved Deep Speech Enhancement", ICASSP 2019, the weighted form.
"""

import torch
from torch import Tensor

from espnet2_m2m.spectra import at_least_complex64, check_spectra, magnitude, never_compiled


@never_compiled
def mixture_consistency(images: Tensor, mix: Tensor, power: float = 1.0, active: Tensor | None = None) -> Tensor:
    """Add to every image its share of what all of them leave of the mixture.

        X'(c, t, f) = X(c, t, f) + |X(c, t, f)|^p / sum_k |X(k, t, f)|^p (Y(t, f) - sum_k X(k, t, f))

    The results add up to the mixture. FCP images do not: reverberation beyond the taps and the network's errors
    are missing in all of them.

    Args:
        images: (batch, source, freq, frame) complex X, at one mic.
        mix: (batch, freq, frame) complex Y, the mixture at that mic.
        power: p, >= 0 (no unit). 0 gives every source the same share, a large one gives all to the loudest.
        active: (batch, source) or (batch, source, frame) bool; a source takes no share where it is known to be
            silent. By default all are active.
    Returns:
        (batch, source, freq, frame) complex X', in the precision of `images`, at least float32. Where no source is
        active it is X.
    Raises:
        ValueError: shapes that do not fit, or a negative power.
    Silence: a silent image takes no share beside one that is heard (unless p = 0). Where all active images are
        silent they share alike.
    Source: Wisdom et al., 2019; the shares are theirs with the magnitudes of the estimates as weights.
    Example:
        >>> images = torch.tensor([3, 1 + 0j]).reshape(1, 2, 1, 1)  # two sources, which add up to 4 ...
        >>> mix = torch.tensor([6 + 0j]).reshape(1, 1, 1)           # ... where the mic heard 6
        >>> mixture_consistency(images, mix).flatten()
        tensor([4.5000+0.j, 1.5000+0.j])
    """
    check_spectra(images=images)
    if not mix.is_complex() or mix.shape != images[:, 0].shape:
        raise ValueError(
            f"mix must be complex (batch, freq, frame) as images {tuple(images.shape)}, found {mix.dtype}"
            f" {tuple(mix.shape)}"
        )
    if not power >= 0:
        raise ValueError(f"power must be >= 0, found {power}")
    images = at_least_complex64(images)
    mix = mix.to(images.dtype)
    if active is None:
        active = images.new_ones(images.shape[:2], dtype=torch.bool)
    if active.dtype != torch.bool or active.shape not in (images.shape[:2], images.shape[:2] + images.shape[-1:]):
        raise ValueError(
            f"active must be bool (batch, source) or (batch, source, frame) as images {tuple(images.shape)}, found"
            f" {active.dtype} {tuple(active.shape)}"
        )
    active = (active if active.dim() == 3 else active[..., None])[:, :, None]  # (batch, source, 1, frame | 1)
    level = torch.where(active, magnitude(images), 0.0)
    loudest = level.detach().amax(dim=1, keepdim=True)
    heard = loudest >= torch.finfo(loudest.dtype).tiny  # below, the quotient has no digits, or is 0 / 0
    share = torch.where(heard, level / torch.where(heard, loudest, 1.0), 1.0)
    share = torch.where(active, share if power == 1 else share.pow(power), 0.0)
    share = share / share.sum(dim=1, keepdim=True).clamp(
        min=0.5
    )  # the loudest has 1 of the sum: only without is it less
    return images + share * (mix - images.sum(dim=1))[:, None]
