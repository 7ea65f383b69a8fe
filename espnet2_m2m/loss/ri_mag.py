"""The distance F of eq. (5): L1 on real part, imaginary part and magnitude."""

import torch
from torch import Tensor

from espnet2_m2m.spectra import magnitude


def ri_mag_l1(est: Tensor, ref: Tensor, level: Tensor | None = None) -> Tensor:
    """Distance between two spectra, relative to the reference's magnitude.

        sum_{t,f} ( |Re(ref - est)| + |Im(ref - est)| + ||ref| - |est|| ) / sum_{t,f} |ref|

    Args:
        est: (..., freq, frame) complex STFT.
        ref: (..., freq, frame) complex STFT; of a shape that broadcasts with `est`.
        level: (..., freq, frame) spectrum by whose magnitude to divide; `ref` by default.
    Returns:
        (...) real, >= 0 (no unit). The distance to a silent reference is zero when the estimate is
        silent too, else very large, but finite.
    Raises:
        ValueError: freq or frame differ.
    Source: eq. (5), summed over t and f as in (4) and (6).
    Example:
        >>> ref = torch.tensor([[3 + 4j, 5]])              # magnitudes 5 and 5
        >>> est = torch.tensor([[3 + 0j, 5]])
        >>> ri_mag_l1(est, ref)                            # (0 + 4 + |5 - 3|) / 10
        tensor(0.6000)
    """
    if est.shape[-2:] != ref.shape[-2:]:
        raise ValueError(f"est {tuple(est.shape)} and ref {tuple(ref.shape)} need the same freq and frame")
    ref_magnitude = magnitude(ref)
    distance = torch.view_as_real(ref - est).abs().sum(dim=(-3, -2, -1))
    distance = distance + (ref_magnitude - magnitude(est)).abs().sum(dim=(-2, -1))
    total = (ref_magnitude if level is None else magnitude(level)).sum(dim=(-2, -1))
    tiny = torch.finfo(total.dtype).tiny ** 0.5  # its reciprocal is still far from overflow
    return distance / total.clamp(min=tiny)
