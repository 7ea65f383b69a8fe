"""The plug-in's losses as ESPnet criterions and loss wrappers; both work on the network's spectra.

Mixture constraint (M2M, UNSSOR), in a training config:

    criterions:
      - name: mixture_constraint
        conf: {alpha: 1.0, anchor_weight: 1.0}    # options of MixtureConstraintLoss, and below
        wrapper: mixture
        wrapper_conf: {weight: 1.0}

Supervised (PIT), which needs references:

    criterions:
      - name: ri_mag
        wrapper: pit_spectra
        wrapper_conf: {weight: 1.0}
"""

import logging
from typing import Any, NamedTuple

import torch
from espnet2.enh.loss.criterions.time_domain import TimeDomainLoss
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from torch import Tensor

from espnet2_m2m.enh.batch import SILENCE, finite_items, item_names
from espnet2_m2m.loss import MixtureConstraintLoss, pit_ri_mag


class LossInputs(NamedTuple):
    """What the losses need beyond ESPnet's references and estimates; see `MixtureConstraintLoss`."""

    est: Tensor  # (batch, source, freq, frame)
    far_field: Tensor  # (batch, mic, freq, frame)
    close_talk: Tensor | None  # (batch, mic, freq, frame)
    references: Tensor | None  # (batch, source, freq, frame), at the reference mic
    lengths: Tensor  # (batch,) frames
    counted: Tensor  # (batch,) bool; the other items have no weight

    @classmethod
    def of_finite(cls, est: Tensor, *others: Tensor | None, utt_ids: list[str] | None) -> "LossInputs":
        """With zeros for estimates that are not finite; a warning names them."""
        finite = finite_items(est)
        if not finite.all():
            logging.warning(
                "the estimates of %s are not finite; in training this step is skipped", item_names(utt_ids, ~finite)
            )
        return cls(torch.where(finite[:, None, None, None], est, 0), *others)


def nan_unless_finite(loss: Tensor, stats: dict[str, Tensor], est: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss and its parts, NaN if any estimate (the network's spectra) is not finite, so that the step is skipped."""
    if finite_items(est).all():
        return loss, stats
    # NaN must reach the gradients as well.
    return loss + (torch.nan * est.real).sum(), {name: torch.full_like(part, torch.nan) for name, part in stats.items()}


class SpectraCriterion(TimeDomainLoss):
    """Configuration of a loss on spectra; ESPnet's model sees a time-domain criterion and passes it by.

    Attributes:
        loss: MixtureConstraintLoss, whose FCP makes the images at the reference mic.
        n_fft, hop_length: STFT in samples, for separators that work on waveforms (`encoder: same`).
        fcp_output: the model's output is the FCP image of an estimate, not the estimate itself.
    """

    def forward(self, ref: Tensor, inf: Tensor) -> Tensor:
        raise NotImplementedError("the wrapper computes this loss")


class MixtureConstraintCriterion(SpectraCriterion):
    """The mixture-constraint loss.

    Args:
        close_talk: the data hold close-talk mixtures (M2M); false trains on far-field mixtures
            alone (UNSSOR).
        n_fft, hop_length: STFT of the loss in samples, for separators that work on waveforms
            (`encoder: same`); with spectra the encoder's STFT is used.
        conf: options of `MixtureConstraintLoss`.
    """

    fcp_output = True

    def __init__(self, close_talk: bool = True, n_fft: int = 256, hop_length: int = 64, **conf: Any) -> None:
        super().__init__("mixture_constraint")
        self.close_talk = close_talk
        self.n_fft = n_fft
        self.hop_length = hop_length
        if not close_talk and conf.get("anchor_weight"):
            raise ValueError(
                "criterion mixture_constraint: anchor_weight needs close-talk "
                "mixtures; set anchor_weight: 0 or close_talk: true"
            )
        try:
            self.loss = MixtureConstraintLoss(**conf)
        except TypeError as error:
            raise ValueError(f"criterion mixture_constraint: {error}") from None


class RIMagCriterion(SpectraCriterion):
    """The supervised loss on the true images at the reference mic (PIT of Tables II and III).

    The network's estimates are the model's output. `enh_inference --fcp_output true` filters them
    like those of M2M instead, with the paper's taps.

    Args:
        n_fft, hop_length: as for `MixtureConstraintCriterion`.
        ref_mic: far-field mic of the references, from 0.
        only_for_test: compute it in validation only.
    """

    close_talk = False
    fcp_output = False

    def __init__(self, n_fft: int = 256, hop_length: int = 64, ref_mic: int = 0, only_for_test: bool = False) -> None:
        super().__init__("ri_mag", only_for_test=only_for_test)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.loss = MixtureConstraintLoss(ref_mic=ref_mic)


class WithReferences(AbsLossWrapper):
    """Another criterion of the config, which may be undefined: `si_snr` of a silent reference is.

    Where the loss of a batch is not finite, items with a silent reference are left out. If none is left, the loss is
    zero and what is reported is NaN, which ESPnet's averages leave out. With weight 0 it adds nothing to the model's
    loss, whatever it is.
    """

    def __init__(self, wrapper: AbsLossWrapper) -> None:
        super().__init__()
        self.wrapper = wrapper
        self.criterion = wrapper.criterion
        self.weight = wrapper.weight

    def forward(self, ref: list[Tensor], inf: list[Tensor], others: dict) -> tuple[Tensor, dict[str, Tensor], dict]:
        loss, stats, others_after = self.wrapper(ref, inf, others)
        if not torch.isfinite(loss).all():
            silent = torch.stack([abs(wave).flatten(1).amax(dim=1) <= SILENCE for wave in ref]).any(dim=0)
            if silent.all():
                stats = {name: torch.full_like(loss.detach(), torch.nan) for name in stats}
                loss, others_after = sum(0 * wave.sum() for wave in inf), {}
            elif silent.any():
                heard = [[wave[~silent] for wave in waves] for waves in (ref, inf)]
                loss, stats, _ = self.wrapper(*heard, {k: v for k, v in others.items() if k != "perm"})
                others_after = {}  # an order for some of the items is none for the next criterion
        return torch.zeros_like(loss) if self.weight == 0 else loss, stats, others_after


class SpectraWrapper(AbsLossWrapper):
    """Takes the spectra that `ESPnetM2MModel` leaves in `others`, and averages over the batch."""

    criterion_type = SpectraCriterion

    def __init__(self, criterion: SpectraCriterion, weight: float = 1.0) -> None:
        super().__init__()
        if not isinstance(criterion, self.criterion_type):
            raise ValueError(f"wrapper {self.name} goes with criterion {self.goes_with}, found {criterion.name}")
        self.criterion = criterion
        self.weight = weight

    def forward(self, ref: list[Tensor], inf: list[Tensor], others: dict) -> tuple[Tensor, dict[str, Tensor], dict]:
        """Return the mean of the loss and of its parts over the items that are `counted`.

        It is zero, with zero gradient, if there is none; `ref` and `inf` are not used.
        """
        inputs = others["loss_inputs"]
        loss, stats = self.loss_of_items(inputs)
        weight = inputs.counted.to(loss)
        weight = weight / weight.sum().clamp(min=1)
        stats = {name: (weight * value).sum() for name, value in stats.items()}
        loss = (weight * loss).sum()
        stats[self.criterion.name] = loss.detach()
        return loss, stats, {}

    def loss_of_items(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (batch,) and its parts by name, (batch,) each."""
        raise NotImplementedError


class MixtureSolver(SpectraWrapper):
    """`wrapper: mixture`"""

    criterion_type, name, goes_with = MixtureConstraintCriterion, "mixture", "mixture_constraint"

    def loss_of_items(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        return self.criterion.loss(inputs.est, inputs.far_field, inputs.close_talk, inputs.lengths)


class SpectraPITSolver(SpectraWrapper):
    """`wrapper: pit_spectra`"""

    criterion_type, name, goes_with = RIMagCriterion, "pit_spectra", "ri_mag"

    def loss_of_items(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        mix = inputs.far_field[:, self.criterion.loss.ref_mic]
        return pit_ri_mag(inputs.est, inputs.references, mix)[0], {}


# What a config calls them.
CRITERIONS = {"mixture_constraint": MixtureConstraintCriterion, "ri_mag": RIMagCriterion}
WRAPPERS = {"mixture": MixtureSolver, "pit_spectra": SpectraPITSolver}
