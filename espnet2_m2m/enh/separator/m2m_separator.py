"""Any ESPnet separator as M2M estimator: Z(c) in training, its FCP image at run time."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor

from espnet2_m2m.consistency import mixture_consistency
from espnet2_m2m.enh.batch import per_item, replace_items, silent_items, zero_padding
from espnet2_m2m.enh.loss import SpectraCriterion
from espnet2_m2m.enh.mics import MicArray
from espnet2_m2m.enh.precision import check_precision, network_context
from espnet2_m2m.enh.signal_domain import Mixture, SignalDomain, at_least_float32
from espnet2_m2m.spectra import mask_frames

# ESPnet's separators that fail somewhere inside on a recording of several mics.
SINGLE_MIC = (
    "AsteroidModel_Converter",
    "BSRNNSeparator",
    "ConformerSeparator",
    "ConvCodedSeparator",
    "DCCRNSeparator",
    "DPCLE2ESeparator",
    "DPRNNSeparator",
    "DPTNetSeparator",
    "RNNSeparator",
    "SkiMSeparator",
    "TCNSeparator",
    "TFGridNetV3",
    "TransformerSeparator",
)
SEVERAL_MICS = ("FaSNetSeparator", "NeuralBeamformer")


class Estimates(NamedTuple):
    """The network's estimates Z of all sources."""

    features: list[Tensor]  # one a source, (batch, sample) or (batch, frame, freq)
    spectra: Tensor  # (batch, source, freq, frame), zero beyond the lengths


class M2MSeparator(AbsSeparator):
    """Wraps an ESPnet separator; called as ESPnet's inference does, it returns the model's output.

    Args:
        separator: the network; estimates of its speakers are the sources.
        encoder: the model's encoder, which decides on the domain (`SignalDomain`).
        criterion: holds the loss and with it taps, weights and reference mic of FCP, and whether
            the output is filtered by it: attribute `fcp_output`.
        input_mics: far-field mics that the network gets, from 0; None for all.
        loss_mics: far-field mics that the loss sums over, from 0; None for all.
        mixture_consistency: give back to the output what its sources leave of the mixture (consistency.py).
        precision: of the network, "float32" or "bfloat16" (precision.py); its estimates are float32 or better.
    """

    def __init__(
        self,
        separator: AbsSeparator,
        encoder: AbsEncoder,
        criterion: SpectraCriterion,
        input_mics: list[int] | None = None,
        loss_mics: list[int] | None = None,
        mixture_consistency: bool = False,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        check_precision(precision, type(separator).__name__)
        ref_mic = criterion.loss.ref_mic
        self.domain = SignalDomain(encoder, criterion, loss_mics)
        self.stft = self.domain.stft  # its window moves to the model's device
        num_inputs, self.if_other_mics = _inputs_of(separator)
        least_inputs = 2 if type(separator).__name__ in SEVERAL_MICS else 1
        ref_mic = loss_mics[ref_mic] if loss_mics else ref_mic
        self.array = MicArray(input_mics, loss_mics, ref_mic, num_inputs, least_inputs)
        self.separator = separator
        self.mixture_constraint = criterion.loss
        self.fcp_output = criterion.fcp_output
        self.mixture_consistency = mixture_consistency
        self.precision = precision
        self.ref_channel = self.array.ref_mic  # ESPnet's SeparateSpeech(ref_channel=...) sets this attribute

    @property
    def num_spk(self) -> int:
        return self.separator.num_spk

    def estimate(self, mixture: Mixture, additional: dict | None = None) -> Estimates:
        """The network's estimates of all sources, at the level of the mixtures."""
        features = self.run_network(mixture.network_input, mixture.lengths, additional)
        if mixture.level is not None:
            features = [z * per_item(mixture.level, z) for z in features]
        if self.stft is not None:  # else windows at the end would reach into the padding
            features = [zero_padding(z, mixture.lengths) for z in features]
        spectra = torch.cat([self.domain.spectrum(z) for z in features], dim=1)
        return Estimates(features, mask_frames(spectra, mixture.frames))

    def run_network(self, feature: Tensor, lengths: Tensor, additional: dict | None = None) -> list[Tensor]:
        """Features of all mics -> what the network makes of its own, checked: one feature a source."""
        domain, name = self.domain, type(self.separator).__name__
        feature = domain.select_mics(feature, self.array.input_mics)
        expected, found = self.array.num_inputs, domain.num_mics(feature)
        if expected not in (None, found):
            raise ValueError(f"{name} was configured for {expected} mic(s), found {found}; {self.if_other_mics}")
        if found < self.array.least_inputs:
            raise ValueError(
                f"{name} needs {self.array.least_inputs} mics at least, found {found}; record or choose more "
                "(model_conf's input_mics), or choose another separator"
            )
        if found == 1:
            feature = domain.first_mic(feature)
        with network_context(self.precision, feature.device):
            estimates, _, _ = self.separator(feature, lengths, additional)
        found = len(estimates) if isinstance(estimates, (list, tuple)) else type(estimates).__name__
        if found != self.num_spk:
            raise ValueError(
                f"mixture_constraint needs the estimates of {self.num_spk} speakers "
                f"from {name}, found {found}; choose another separator"
            )
        if isinstance(estimates[0], (list, tuple)):
            raise ValueError(f"{name} returns the estimates of several layers, which mixture_constraint does not take")
        estimates = [at_least_float32(domain.first_mic(z)) for z in estimates]
        expected = tuple(domain.first_mic(feature).shape)
        for z in estimates:
            if tuple(z.shape) != expected:
                raise ValueError(
                    f"mixture_constraint needs estimates of shape {expected} from "
                    f"{name}, found {tuple(z.shape)}; choose another separator"
                )
        return estimates

    def forward(
        self, input: Tensor, ilens: Tensor, additional: dict | None = None
    ) -> tuple[list[Tensor], Tensor, OrderedDict]:
        """The sources at far-field mic `ref_channel`: M2M at run time; see `outputs`.

        Args:
            input: (batch, sample[, mic]) or (batch, frame[, mic], freq), the far-field mixtures.
            ilens: (batch,) samples or frames.
        Returns:
            outputs: one (batch, sample) or (batch, frame, freq) a source; at the level they have in
                the mixture.
            ilens: as given.
            others: empty.
        Raises:
            ValueError: a recording with too few mics, or a `ref_channel` that the estimates, without
                FCP, are not for.
        Silence: a recording that is silent at the network's or the loss's mics gives silence.
        """
        input = self.domain.zero_for_nan_mics(input)
        silent = silent_items(input, self.domain.has_mic_axis(input), self.array.input_mics, self.array.loss_mics)
        heard = replace_items(input, silent)
        mixture = self.domain.mixture_of_feature(heard, ilens)
        estimates = self.estimate(mixture, additional)
        outputs = self.outputs(mixture, estimates.features, estimates.spectra)
        silent = silent.to(outputs[0].device)
        return [torch.where(per_item(silent, output), 0, output) for output in outputs], ilens, OrderedDict()

    def outputs(self, mixture: Mixture, features: list[Tensor], spectra: Tensor) -> list[Tensor]:
        """The model's output, as features: with `fcp_output` FCP images, eq. (10), else the estimates themselves.

        With `mixture_consistency` they then get what they leave of the mixture.

        Args:
            features, spectra: as in `Estimates`.
        Raises:
            ValueError: `ref_channel` is none that this output can be at.
        """
        if not self.fcp_output:
            if self.ref_channel != self.array.ref_mic:
                raise ValueError(
                    f"the network estimates the speech at mic {self.array.ref_mic}, but "
                    f"ref_channel is {self.ref_channel}; only --fcp_output true filters the "
                    "estimates to other mics"
                )
            if not self.mixture_consistency:
                return list(features)
        at_ref_channel = self.domain.select_mics(mixture.feature, [self.ref_channel])
        target = self.domain.spectra(at_ref_channel, mixture.lengths)
        images = spectra
        if self.fcp_output:
            images = self.mixture_constraint.farfield_images(spectra, mixture.spectra, mixture.frames, target)[:, 0]
        if self.mixture_consistency:
            images = mixture_consistency(images, target[:, 0])
        return [self.domain.feature(image, mixture.feature) for image in images.unbind(1)]


def _inputs_of(separator: AbsSeparator) -> tuple[int | None, str]:
    """How many mics a separator takes, None for any number, and what to do with a recording of others."""
    name = type(separator).__name__
    if name in SINGLE_MIC:
        return 1, "choose one by model_conf's input_mics: [0]"
    if name == "DC_CRNSeparator":  # keeps its input_channels in its layers only: real and imaginary part of every mic
        first = next(layer for layer in separator.modules() if isinstance(layer, torch.nn.Conv2d))
        return first.in_channels // 2, (
            "the first of separator_conf's input_channels must be twice the number of mics, or choose mics by "
            "model_conf's input_mics"
        )
    num_inputs = getattr(separator, "n_imics", None)
    return num_inputs, f"change separator_conf's n_imics: {num_inputs} or model_conf's input_mics"
