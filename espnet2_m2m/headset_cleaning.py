"""Close-talk mixtures without cross-talk: what a model separates at the array, subtracted at the headsets."""

import torch
from torch import Tensor

from espnet2_m2m.loss import MixtureConstraintLoss
from espnet2_m2m.loss.assignment import best_assignment
from espnet2_m2m.loss.ri_mag import ri_mag_l1


@torch.no_grad()
def without_crosstalk(
    est: Tensor,
    close_talk: Tensor,
    loss: MixtureConstraintLoss,
    lengths: Tensor | None = None,
    fixed_order: bool = False,
) -> Tensor:
    """Every close-talk mixture less the FCP images of all sources but its wearer's.

        Y'_d(t, f) = Y_d(t, f) - sum_{c != c_d} X_d(c, t, f)          c_d: the source of headset d's wearer

    The wearer's own speech is not filtered, so the errors of its estimate do not reach it.

    Args:
        est: (batch, source, freq, frame) complex STFT Z of the network's estimates, zero beyond `lengths`.
        close_talk: (batch, headset, freq, frame) complex STFT of the close-talk mixtures, likewise; not more headsets
            than sources. Sources beyond them, noise or talkers without a headset, are cross-talk at every one.
        loss: gives taps, floor and diagonal load of FCP.
        lengths: (batch,) frames of each utterance; None if all are full.
        fixed_order: source d is the wearer of headset d, as with the anchor's fixed order. Else the sources are
            assigned, in each utterance by itself, in the way that fits the headsets best: the anchor's free order.
    Returns:
        (batch, headset, freq, frame) complex, zero beyond `lengths`.
    Raises:
        ValueError: more headsets than sources.
    Source: X_d of eqs. (7), (8) and (10). The subtraction is ours; CTRnet of the same author trains a network for it.
    """
    num_sources, num_headsets = est.shape[1], close_talk.shape[1]
    if num_headsets > num_sources:
        raise ValueError(
            f"expected a source for every headset, found {num_sources} sources and {num_headsets} headsets"
        )
    images = loss.closetalk_images(est, close_talk, lengths)  # (batch, headset, source, freq, frame)
    if fixed_order:
        own = torch.arange(num_headsets, device=est.device).expand(len(est), -1)
    else:
        own = best_assignment(ri_mag_l1(images, close_talk[:, :, None]))
    crosstalk = images.sum(2) - images.take_along_dim(own[..., None, None, None], dim=2)[:, :, 0]
    return close_talk - crosstalk
