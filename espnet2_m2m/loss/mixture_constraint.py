"""The mixture-constraint (MC) loss, eqs. (3)-(6), with the terms that its family adds to it."""

from numbers import Integral, Real

import torch
from torch import Tensor, nn

from espnet2_m2m.fcp import fcp_weight, forward_convolutive_prediction
from espnet2_m2m.loss.anchor import ORDERS, anchor_loss, faded_weight
from espnet2_m2m.loss.isms import isms
from espnet2_m2m.loss.ri_mag import ri_mag_l1
from espnet2_m2m.spectra import at_least_complex64, check_spectra, mask_frames, never_compiled


class MixtureConstraintLoss(nn.Module):
    """Filtered by FCP to each mic, the estimates of all sources must add up to that mic's mixture.

        L = sum_d MC_d + alpha sum_p a_p (MC_p + isms_weight ISMS_p) + anchor_weight sum_d A_d
        MC_r = F(Y_r, sum_c g_r(c)^H Z_tilde(c))                              eqs. (4), (5), (6)

    d runs over close-talk, p over far-field mics; a_p is `ref_mic_weight` at the reference mic and 1
    elsewhere; A_d is the anchor (loss/anchor.py). With the default weights this is eq. (3) exactly;
    without close-talk mixtures it is the loss of UNSSOR.

    Args:
        closetalk_past_taps, closetalk_future_taps: I, J of the paper, in frames.
        farfield_past_taps, farfield_future_taps: M, N of the paper, in frames.
        alpha: weight of the far-field mics. With one far-field mic at the input, alpha = 1 lets the
            network copy its input; the paper uses 1/5 to 1/8 there.
        anchor_weight: weight of the anchor term, 0 as in the paper.
        anchor_order: "fixed": source d belongs to headset d; "free": each utterance's best
            assignment, for recordings from which the headsets' order cannot be told.
        anchor_fade: (first, last) training step between which the anchor's weight falls linearly to
            zero; None keeps it. Steps are this module's calls in training mode. The loss then falls
            by itself, in validation too: compare epochs by `mc`.
        isms_weight: gamma of UNSSOR, on the far-field mics.
        ref_mic: reference far-field mic, from 0.
        ref_mic_weight: a_p of the reference mic; UNSSOR uses 1/5 with six mics.
        floor: xi of eqs. (8) and (9).
        diag_load: see `forward_convolutive_prediction`.
    Raises:
        ValueError: a value out of its range, by name.
    Example:
        >>> est = torch.tensor([[1, 0, 2, 0j], [0, 3, 0, 1]]).reshape(1, 2, 1, 4)  # two sources that take turns
        >>> far_field = est.sum(dim=1, keepdim=True)         # a mic that hears both alike: 1, 3, 2, 1
        >>> close_talk = est + 0.5 * est.flip(1)             # headsets: 1, 1.5, 2, 0.5 and 0.5, 3, 1, 1
        >>> loss = MixtureConstraintLoss(0, 0, 0, 0, anchor_weight=1.0)  # filters of one tap
        >>> value, parts = loss(est, far_field, close_talk)
        >>> print(f"{parts['mc'].item():.2f} {parts['anchor'].item():.2f}")  # 2 * 2 / 5 + 2 * 1.5 / 5.5
        0.00 1.35
        >>> value, parts = loss(est.flip(1), far_field, close_talk)  # exchanged, which eq. (3) cannot tell
        >>> print(f"{parts['mc'].item():.2f} {parts['anchor'].item():.2f}")  # 2 * 3 / 5 + 2 * 4 / 5.5
        0.00 2.65
    """

    def __init__(
        self,
        closetalk_past_taps: int = 19,
        closetalk_future_taps: int = 1,
        farfield_past_taps: int = 19,
        farfield_future_taps: int = 1,
        alpha: float = 1.0,
        anchor_weight: float = 0.0,
        anchor_order: str = "fixed",
        anchor_fade: tuple[int, int] | None = None,
        isms_weight: float = 0.0,
        ref_mic: int = 0,
        ref_mic_weight: float = 1.0,
        floor: float = 1e-4,
        diag_load: float = 1e-5,
    ) -> None:
        super().__init__()
        _check_options(
            whole=dict(
                closetalk_past_taps=closetalk_past_taps,
                closetalk_future_taps=closetalk_future_taps,
                farfield_past_taps=farfield_past_taps,
                farfield_future_taps=farfield_future_taps,
                ref_mic=ref_mic,
            ),
            real=dict(alpha=alpha, anchor_weight=anchor_weight, isms_weight=isms_weight, ref_mic_weight=ref_mic_weight),
            positive=dict(floor=floor, diag_load=diag_load),
            order=anchor_order,
            fade=anchor_fade,
        )
        self.closetalk_taps = (closetalk_past_taps, closetalk_future_taps)
        self.farfield_taps = (farfield_past_taps, farfield_future_taps)
        self.alpha = alpha
        self.anchor_weight = anchor_weight
        self.anchor_order = anchor_order
        self.anchor_fade = anchor_fade
        self.isms_weight = isms_weight
        self.ref_mic = ref_mic
        self.ref_mic_weight = ref_mic_weight
        self.floor = floor
        self.diag_load = diag_load
        # A buffer, so that a resumed training continues the fade where it stopped.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @never_compiled
    def forward(
        self, est: Tensor, far_field: Tensor, close_talk: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of each utterance.

        Args:
            est: (batch, source, freq, frame) complex STFT of the network's estimates Z.
            far_field: (batch, mic, freq, frame) complex STFT of the far-field mixtures.
            close_talk: (batch, headset, freq, frame) complex STFT of the close-talk mixtures. Eq. (3) takes
                any number of headsets, since all sources add up at each. The anchor wants a source for every
                headset: source d's for headset d, with `anchor_order="fixed"`. Sources beyond the headsets,
                noise or talkers without one, are not anchored.
            lengths: (batch,) frames of each utterance; the rest is padding and has no influence, be it NaN.
        Returns:
            loss: (batch,) real.
            stats: name -> (batch,) real, detached, unweighted sums over mics: `mc` is eq. (3),
                `mc_far_field`, `mc_close_talk`, `anchor`, `isms` its parts and additions.
        Raises:
            ValueError: shapes that do not fit, non-finite input (named), or fewer sources than headsets with
                an anchor.
        """
        spectra = dict(est=est, far_field=far_field, close_talk=close_talk)
        check_spectra(**spectra)
        if self.ref_mic >= far_field.shape[1]:
            raise ValueError(
                f"ref_mic is {self.ref_mic}, but there are only {far_field.shape[1]} far-field mics (counted from 0)"
            )
        if lengths is not None:
            _check_lengths(lengths, est)
        spectra = {
            name: None if spectrum is None else _prepared(spectrum, lengths) for name, spectrum in spectra.items()
        }
        _check_finite(**spectra)
        est, far_field, close_talk = spectra.values()
        images, closetalk_images = self._all_images(est, far_field, close_talk, lengths)

        stats = {}
        per_mic = ri_mag_l1(images.sum(dim=2), far_field)  # eq. (6), (batch, mic)
        stats["mc_far_field"] = per_mic.sum(-1)
        if self.isms_weight:
            scatter = isms(images, far_field)
            stats["isms"] = scatter.sum(-1)
            per_mic = per_mic + self.isms_weight * scatter
        mic_weight = torch.ones_like(per_mic)
        mic_weight[:, self.ref_mic] = self.ref_mic_weight
        loss = self.alpha * (mic_weight * per_mic).sum(-1)
        stats["mc"] = self.alpha * stats["mc_far_field"]

        if close_talk is not None:
            stats["mc_close_talk"] = ri_mag_l1(closetalk_images.sum(dim=2), close_talk).sum(-1)  # eq. (4)
            loss = loss + stats["mc_close_talk"]
            stats["mc"] = stats["mc"] + stats["mc_close_talk"]
            if self.anchor_weight:
                stats["anchor"] = anchor_loss(closetalk_images, close_talk, self.anchor_order).sum(-1)
                loss = loss + stats["anchor"] * faded_weight(self.anchor_weight, self.anchor_fade, int(self.step))
        if self.training:
            self.step += 1
        return loss, {name: value.detach() for name, value in stats.items()}

    def farfield_images(
        self, est: Tensor, far_field: Tensor, lengths: Tensor | None = None, target: Tensor | None = None
    ) -> Tensor:
        """FCP images at far-field mics, eq. (10): the output at run time is the reference mic's.

        Args:
            est, far_field, lengths: as in `forward`, with everything beyond `lengths` already zero.
            target: (batch, mic, freq, frame) mixtures at the mics to filter to; by default those of
                `far_field`, whose mean power weights the problem in either case, eq. (9).
        Returns:
            (batch, mic, source, freq, frame) complex, zero beyond `lengths`.
        """
        weight = fcp_weight(far_field, self.floor, shared=True)  # eq. (9)
        target = far_field if target is None else target
        return self._images(est, target, weight, self.farfield_taps, lengths)

    def closetalk_images(self, est: Tensor, close_talk: Tensor, lengths: Tensor | None = None) -> Tensor:
        """FCP images at the headsets, whose sum eq. (4) compares with the close-talk mixtures.

        Args:
            est, close_talk, lengths: as in `forward`, with everything beyond `lengths` already zero.
        Returns:
            (batch, headset, source, freq, frame) complex, zero beyond `lengths`.
        """
        return self._images(
            est, close_talk, fcp_weight(close_talk, self.floor), self.closetalk_taps, lengths
        )  # eq. (8)

    def _all_images(
        self, est: Tensor, far_field: Tensor, close_talk: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """FCP images at the far-field mics and at the headsets (None without)."""
        if close_talk is None:
            return self.farfield_images(est, far_field, lengths), None
        if self.closetalk_taps != self.farfield_taps:
            return self.farfield_images(est, far_field, lengths), self.closetalk_images(est, close_talk, lengths)
        # With the same taps, what depends on the estimates alone is computed once for all mics.
        num_mics = [far_field.shape[1], close_talk.shape[1]]
        weight = [fcp_weight(far_field, self.floor, shared=True), fcp_weight(close_talk, self.floor)]  # (9), (8)
        weight = torch.cat(weight, dim=1)
        images = self._images(
            est,
            torch.cat([far_field, close_talk], dim=1),
            weight,
            self.farfield_taps,
            lengths,
            mics_per_weight=(num_mics[0],) + (1,) * num_mics[1],
        )
        return images.split(num_mics, dim=1)

    def _images(
        self,
        est: Tensor,
        mix: Tensor,
        weight: Tensor,
        taps: tuple[int, int],
        lengths: Tensor | None,
        mics_per_weight: tuple[int, ...] | None = None,
    ) -> Tensor:
        if lengths is not None:
            weight = mask_frames(weight, lengths, fill=torch.inf)
        images, _ = forward_convolutive_prediction(est, mix, weight, *taps, self.diag_load, mics_per_weight)
        return images if lengths is None else mask_frames(images, lengths)


def _check_options(whole: dict, real: dict, positive: dict, order: str, fade: tuple[int, int] | None) -> None:
    """Raise ValueError for a value out of its range, by name; `whole` and `real` may be 0."""
    for name, value in {**whole, **real, **positive}.items():
        if not isinstance(value, Integral if name in whole else Real):
            raise ValueError(
                f"{name} must be a {'whole ' if name in whole else ''}number, found {value!r}"
                + " (to YAML 1e-4 is text, 1.0e-4 a number)" * isinstance(value, str)
            )
        if value < 0 or (value == 0 and name in positive):
            raise ValueError(f"{name} must be {'>' if name in positive else '>='} 0, found {value}")
    if fade is not None:
        steps = fade if isinstance(fade, (list, tuple)) else ()
        numbers = len(steps) == 2 and all(isinstance(step, Real) for step in steps)
        if not numbers or not 0 <= steps[0] < steps[1]:
            raise ValueError(f"anchor_fade must be two steps 0 <= first < last, found {fade}")
        if real["anchor_weight"] == 0:
            raise ValueError("anchor_fade does nothing with anchor_weight: 0; remove one of them")
    if order not in ORDERS:
        raise ValueError(f"anchor_order must be one of {ORDERS}, found {order!r}")


def _prepared(spectrum: Tensor, lengths: Tensor | None) -> Tensor:
    spectrum = at_least_complex64(spectrum)
    return spectrum if lengths is None else mask_frames(spectrum, lengths)


def _check_finite(**spectra: Tensor | None) -> None:
    for name, spectrum in spectra.items():
        if spectrum is not None:
            finite = torch.isfinite(spectrum.detach()).flatten(1).all(1)
            if not finite.all():
                bad = torch.nonzero(~finite).flatten().tolist()
                raise ValueError(f"{name} has NaN or infinite values in batch item(s) {bad}")


def _check_lengths(lengths: Tensor, est: Tensor) -> None:
    if lengths.shape != est.shape[:1] or lengths.min() < 1 or lengths.max() > est.shape[-1]:
        raise ValueError(
            f"lengths must be ({est.shape[0]},) frames within 1..{est.shape[-1]}, found {lengths.tolist()}"
        )
