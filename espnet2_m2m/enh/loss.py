"""The mixture-constraint loss as ESPnet criterion and loss wrapper.

In a training config:

    criterions:
      - name: mixture_constraint
        conf: {alpha: 1.0, anchor_weight: 1.0}    # options of MixtureConstraintLoss, and below
        wrapper: mixture
        wrapper_conf: {weight: 1.0}
"""

from typing import Dict, List, NamedTuple, Optional, Tuple

from espnet2.enh.loss.criterions.time_domain import TimeDomainLoss
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from torch import Tensor

from espnet2_m2m.loss import MixtureConstraintLoss


class MixtureInputs(NamedTuple):
    """What the loss needs beyond ESPnet's references and estimates; see `MixtureConstraintLoss`."""

    est: Tensor                     # (batch, source, freq, frame)
    far_field: Tensor               # (batch, mic, freq, frame)
    close_talk: Optional[Tensor]    # (batch, mic, freq, frame)
    lengths: Tensor                 # (batch,) frames
    counted: Tensor                 # (batch,) bool; the other items have no weight


class MixtureConstraintCriterion(TimeDomainLoss):
    """Configuration of the loss; ESPnet's model sees a time-domain criterion and passes it through.

    Args:
        close_talk: the data hold close-talk mixtures (M2M); false trains on far-field mixtures
            alone (UNSSOR).
        n_fft, hop_length: STFT of the loss in samples, for separators that work on waveforms
            (`encoder: same`); with `encoder: stft` the encoder's STFT is used.
        conf: options of `MixtureConstraintLoss`.
    """

    def __init__(self, close_talk: bool = True, n_fft: int = 256, hop_length: int = 64, **conf):
        super().__init__("mixture_constraint")
        self.close_talk = close_talk
        self.n_fft = n_fft
        self.hop_length = hop_length
        if not close_talk and conf.get("anchor_weight"):
            raise ValueError("criterion mixture_constraint: anchor_weight needs close-talk "
                             "mixtures; set anchor_weight: 0 or close_talk: true")
        try:
            self.loss = MixtureConstraintLoss(**conf)
        except TypeError as error:
            raise ValueError(f"criterion mixture_constraint: {error}") from None

    def forward(self, ref, inf):
        raise NotImplementedError("the mixture wrapper computes this loss")


class MixtureSolver(AbsLossWrapper):
    """Hands the mixtures, which ESPnet's model leaves in `others`, to the loss."""

    def __init__(self, criterion: MixtureConstraintCriterion, weight: float = 1.0):
        super().__init__()
        if not isinstance(criterion, MixtureConstraintCriterion):
            raise ValueError("wrapper mixture goes with criterion mixture_constraint, found "
                             f"{criterion.name}")
        self.criterion = criterion
        self.weight = weight

    def forward(
        self, ref: List[Tensor], inf: List[Tensor], others: Dict,
    ) -> Tuple[Tensor, Dict[str, Tensor], Dict]:
        """Return the mean of the loss and of its parts over the items that are `counted`.

        It is zero, with zero gradient, if there is none; `ref` and `inf` are not used.
        """
        inputs = others["mixture_inputs"]
        loss, stats = self.criterion.loss(
            inputs.est, inputs.far_field, inputs.close_talk, inputs.lengths)
        weight = inputs.counted.to(loss)
        weight = weight / weight.sum().clamp(min=1)
        stats = {name: (weight * value).sum() for name, value in stats.items()}
        loss = (weight * loss).sum()
        stats[self.criterion.name] = loss.detach()
        return loss, stats, {}
