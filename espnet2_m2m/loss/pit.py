"""Permutation-invariant training (PIT), the supervised baseline of Tables II and III."""

from torch import Tensor

from espnet2_m2m.loss.assignment import best_assignment
from espnet2_m2m.loss.ri_mag import ri_mag_l1


def pit_ri_mag(est: Tensor, ref: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    """L1 distance on real part, imaginary part and magnitude to the true images, best order.

        min over permutations pi of  sum_c |X(c) - Z(pi(c))|_RI+Mag / sum_{t,f} |Y|

    M. Kolbaek et al., "Multitalker Speech Separation With Utterance-Level Permutation Invariant
    Training of Deep Recurrent Neural Networks", TASLP 2017, with the distance of eq. (5). Dividing by the
    mixture's magnitude, not by the source's own, keeps a talker who is silent in a segment harmless.

    Args:
        est: (batch, source, freq, frame) complex STFT of the estimates.
        ref: (batch, source, freq, frame) complex STFT of the true images at the reference mic.
        mix: (batch, freq, frame) complex STFT of the mixture at the reference mic.
    Returns:
        loss: (batch,) real (no unit).
        order: (batch, source) long, the estimate that belongs to each reference.
    Raises:
        ValueError: shapes that do not fit.
    Example:
        >>> ref = torch.tensor([1, 2, 3 + 0j]).reshape(1, 3, 1, 1)  # three sources of one T-F unit
        >>> est = torch.tensor([3, 1, 2 + 0j]).reshape(1, 3, 1, 1)
        >>> pit_ri_mag(est, ref, mix=ref.sum(1))
        (tensor([0.]), tensor([[1, 2, 0]]))
    """
    if est.shape != ref.shape or mix.shape != ref[:, 0].shape:
        raise ValueError(
            f"est {tuple(est.shape)} and ref {tuple(ref.shape)} must both be (batch, source, "
            f"freq, frame), and mix {tuple(mix.shape)} (batch, freq, frame)"
        )
    pairwise = ri_mag_l1(est[:, None], ref[:, :, None], level=mix[:, None, None])  # (batch, ref, est)
    order = best_assignment(pairwise)
    return pairwise.gather(2, order[..., None])[..., 0].sum(-1), order
