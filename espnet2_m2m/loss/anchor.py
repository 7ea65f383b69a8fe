"""The anchor: output d of the network belongs to the wearer of headset d. Ours, not the paper's.

The mixture constraint (3) is a sum over frequencies in which every filter is free: exchanging the
speakers in any subset of frequencies leaves it unchanged. A headset hears its wearer best at all
frequencies, so asking that source d alone explain close-talk mixture d ties the frequencies together
and fixes the order of the outputs. It also pulls the cross-talk of the headset into source d, which
is why its weight may fade once the assignment is made.
"""

from torch import Tensor

from espnet2_m2m.loss.ri_mag import ri_mag_l1


def anchor_loss(closetalk_images: Tensor, close_talk: Tensor) -> Tensor:
    """L_anchor,d = F(Y_d, g_d(d)^H Z_tilde(d)), with the filters that (4) already solved for.

    Args:
        closetalk_images: (batch, mic, source, freq, frame) FCP images at the headsets; mic d is
            worn by source d. There may be more sources than mics: those are not anchored.
        close_talk: (batch, mic, freq, frame) close-talk mixtures.
    Returns:
        (batch, mic) real.
    Raises:
        ValueError: more headsets than sources.
    """
    num_mics, num_sources = closetalk_images.shape[1:3]
    if num_mics > num_sources:
        raise ValueError(f"the anchor needs a source for every headset, found {num_sources} sources "
                         f"and {num_mics} close-talk mixtures")
    wearer = closetalk_images.diagonal(dim1=1, dim2=2).movedim(-1, 1)   # (batch, mic, freq, frame)
    return ri_mag_l1(wearer, close_talk)


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
