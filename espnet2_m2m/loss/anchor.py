"""The anchor: each headset is explained by one source, its wearer. Ours, not the paper's.

The mixture constraint (3) is a sum over frequencies in which every filter is free: exchanging the
speakers in any subset of frequencies leaves it unchanged. A headset hears its wearer best at all
frequencies, so asking that one source alone explain each close-talk mixture ties the frequencies
together. It also pulls the cross-talk of the headset into that source, which is why its weight may
fade once the assignment is made.
"""

from torch import Tensor

from espnet2_m2m.loss.assignment import best_assignment
from espnet2_m2m.loss.ri_mag import ri_mag_l1

ORDERS = ("fixed", "free")


def anchor_loss(closetalk_images: Tensor, close_talk: Tensor, order: str = "fixed") -> Tensor:
    """L_anchor,d = F(Y_d, g_d(c)^H Z_tilde(c)) with c = d, or the best assignment of c to d.

    "fixed": source d belongs to headset d. This fixes the order of the network's outputs too, and so
    needs headsets whose number can be told from the far-field recording: fixed seats, say. "free":
    each utterance gets the one assignment of sources to headsets, the same for all frequencies, that
    makes the sum over d smallest. Where any talker may wear any headset, as in random rooms, a
    network cannot know the order, and "fixed" is a target that cannot be learnt.

    Args:
        closetalk_images: (batch, mic, source, freq, frame) FCP images at the headsets, with the
            filters that (4) already solved for. There may be more sources than mics.
        close_talk: (batch, mic, freq, frame) close-talk mixtures.
        order: "fixed" or "free".
    Returns:
        (batch, mic) real.
    Raises:
        ValueError: more headsets than sources.
    """
    num_mics, num_sources = closetalk_images.shape[1:3]
    if num_mics > num_sources:
        raise ValueError(
            f"the anchor needs a source for every headset, found {num_sources} sources "
            f"and {num_mics} close-talk mixtures"
        )
    if order == "fixed":
        wearer = closetalk_images.diagonal(dim1=1, dim2=2).movedim(-1, 1)  # (batch, mic, freq, frame)
        return ri_mag_l1(wearer, close_talk)
    pairwise = ri_mag_l1(closetalk_images, close_talk[:, :, None])  # (batch, mic, source)
    return pairwise.gather(2, best_assignment(pairwise)[..., None])[..., 0]


def faded_weight(weight: float, fade: tuple[int, int] | None, step: int) -> float:
    """The anchor's weight at a training step: constant, then falling linearly to zero.

    Args:
        weight: full weight (no unit).
        fade: (first step at which it falls, step from which it is zero); None never fades.
        step: training steps done so far.
    """
    if fade is None:
        return weight
    start, end = fade
    return weight * min(1.0, max(0.0, (end - step) / (end - start)))
