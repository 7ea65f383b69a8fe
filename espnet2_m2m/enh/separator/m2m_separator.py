"""Any ESPnet separator as M2M estimator: Z(c) in training, its FCP image at run time."""

from collections import OrderedDict

import torch
from espnet2.enh.encoder.null_encoder import NullEncoder
from espnet2.enh.encoder.stft_encoder import STFTEncoder
from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor
from torch_complex.tensor import ComplexTensor

from espnet2_m2m.enh.loss import SpectraCriterion
from espnet2_m2m.enh.spectra import SpectraEncoder
from espnet2_m2m.spectra import mask_frames
from espnet2_m2m.stft import STFT

# ESPnet's separators that fail somewhere inside on a recording of several mics.
SINGLE_MIC = (
    "AsteroidModel_Converter",
    "BSRNNSeparator",
    "ConformerSeparator",
    "DCCRNSeparator",
    "DPCLE2ESeparator",
    "DPRNNSeparator",
    "DPTNetSeparator",
    "RNNSeparator",
    "SkiMSeparator",
    "SVoiceSeparator",
    "TCNSeparator",
    "TFGridNetV3",
    "TransformerSeparator",
)
SILENCE = 1e-12  # amplitudes up to this (-240 dB re full scale) are silence: their square, which
# networks divide by, is zero in float32 before long


class M2MSeparator(AbsSeparator):
    """Wraps an ESPnet separator; called as ESPnet's inference does, it returns the model's output.

    A signal in the network's domain ("feature") is either a waveform (batch, sample[, mic]), with
    `encoder: same`, or an STFT (batch, frame[, mic], freq), with `encoder: spectra` or `stft`. The loss
    works on spectra (batch, mic | source, freq, frame); `spectrum` and `feature` go from one to the
    other.

    Args:
        separator: the network; estimates of its speakers are the sources.
        encoder: the model's encoder, which decides on the domain.
        criterion: holds the loss and with it taps, weights and reference mic of FCP, and whether
            the output is filtered by it: attribute `fcp_output`.
        input_mics: far-field mics that the network gets, from 0; None for all.
        loss_mics: far-field mics that the loss sums over, from 0; None for all.
    Raises:
        ValueError: an encoder or separator whose estimates are neither waveforms nor spectra, or
            mics that cannot be.
    """

    def __init__(
        self,
        separator: AbsSeparator,
        encoder,
        criterion: SpectraCriterion,
        input_mics: list[int] | None = None,
        loss_mics: list[int] | None = None,
    ):
        super().__init__()
        if isinstance(encoder, NullEncoder):
            self.stft = STFT(criterion.n_fft, criterion.hop_length)
        elif isinstance(encoder, SpectraEncoder):
            self.stft = None
        elif isinstance(encoder, STFTEncoder):
            if encoder.spec_transform_type not in (None, "none"):
                raise ValueError(
                    "FCP is linear and needs plain spectra: remove encoder_conf's "
                    f"spec_transform_type: {encoder.spec_transform_type}"
                )
            self.stft = None
        else:
            raise ValueError(
                f"{criterion.name} works on spectra, so it needs `encoder: spectra` (with `decoder: "
                "spectra`) or ESPnet's `stft`, or `encoder: same` (with `decoder: same`) for a "
                f"separator that works on waveforms; found {type(encoder).__name__}, whose features "
                "are not spectra"
            )
        for option in ("predict_noise", "predict_dereverb"):
            if getattr(separator, option, False):
                raise ValueError(
                    f"{criterion.name} takes the estimates of the speakers alone: set separator_conf's {option}: false"
                )
        _check_separator(separator)
        check_mics("input_mics", input_mics)
        check_mics("loss_mics", loss_mics)
        if loss_mics is not None and criterion.loss.ref_mic >= len(loss_mics):
            raise ValueError(
                f"ref_mic: {criterion.loss.ref_mic} of {criterion.name} counts within "
                f"model_conf's loss_mics: {loss_mics}, so it must be below "
                f"{len(loss_mics)}"
            )
        self.separator = separator
        self.mixture_constraint = criterion.loss
        self.fcp_output = criterion.fcp_output
        self.input_mics = input_mics
        self.loss_mics = loss_mics
        # ESPnet's SeparateSpeech(ref_channel=...) sets this attribute.
        self.ref_channel = loss_mics[criterion.loss.ref_mic] if loss_mics else criterion.loss.ref_mic
        self.trained_ref_channel = self.ref_channel

    @property
    def num_spk(self) -> int:
        return self.separator.num_spk

    def estimate(self, feature: Tensor, lengths: Tensor, additional: dict | None = None) -> list[Tensor]:
        """The network's estimates Z of all sources: features (batch, sample) or (batch, frame, freq)."""
        feature = self.select_mics(feature, self.input_mics)
        name = type(self.separator).__name__
        expected = getattr(self.separator, "n_imics", None)
        found = self.num_mics(feature)
        if found > 1 and name in SINGLE_MIC:
            raise ValueError(
                f"{name} takes one mic only, the recording has {found}: choose one by model_conf's input_mics: [0]"
            )
        if expected is not None and expected != found:
            raise ValueError(
                f"the separator was configured for n_imics: {expected} mics, found "
                f"{found}; change separator_conf's n_imics or model_conf's input_mics"
            )
        if found == 1:
            feature = self._without_mic_axis(feature)
        estimates, _, _ = self.separator(feature, lengths, additional)
        found = len(estimates) if isinstance(estimates, (list, tuple)) else type(estimates).__name__
        if found != self.num_spk:
            raise ValueError(
                f"mixture_constraint needs the estimates of {self.num_spk} speakers "
                f"from {name}, found {found}; choose another separator"
            )
        if isinstance(estimates[0], (list, tuple)):
            raise ValueError(f"{name} returns the estimates of several layers, which mixture_constraint does not take")
        estimates = [self._without_mic_axis(self.select_mics(z, [0])) for z in estimates]
        expected = tuple(self._without_mic_axis(feature).shape)
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
        """The sources at far-field mic `ref_channel`: M2M at run time.

        With `fcp_output` these are the estimates' FCP images, eq. (10), else the estimates.

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
        input = self._zero_for_nan_mics(input)
        silent = self.silent_items(input)
        heard = self.replace_items(input, silent)
        estimates = self.estimate(heard, ilens, additional)
        outputs = self.outputs(estimates, heard, ilens)
        silent = silent.to(outputs[0].device).reshape((-1,) + (1,) * (outputs[0].dim() - 1))
        return [torch.where(silent, 0, output) for output in outputs], ilens, OrderedDict()

    def outputs(self, estimates: list[Tensor], feature: Tensor, ilens: Tensor) -> list[Tensor]:
        """Estimates (features) of a recording -> the model's output (features); see `forward`."""
        if self.fcp_output:
            est = torch.cat([self.spectrum(z) for z in estimates], dim=1)
            return self.reference_images(est, feature, ilens)
        if self.ref_channel != self.trained_ref_channel:
            raise ValueError(
                f"the network estimates the speech at mic {self.trained_ref_channel}, but "
                f"ref_channel is {self.ref_channel}; only --fcp_output true filters the "
                "estimates to other mics"
            )
        return list(estimates)

    def silent_items(self, feature: Tensor) -> Tensor:
        """(batch,) bool: nothing is heard at the mics of the network, or of the loss."""
        silent = torch.zeros(len(feature), dtype=torch.bool, device=feature.device)
        for mics in (self.input_mics, self.loss_mics):
            level = abs(self.select_mics(feature, mics)).flatten(1).amax(dim=1)
            silent = silent | (level <= SILENCE)
        return silent

    def replace_items(self, feature: Tensor, items: Tensor) -> Tensor:
        """Put noise into these items of a batch; for silent ones, on which networks give NaN."""
        if not items.any():
            return feature
        if isinstance(feature, ComplexTensor):
            return ComplexTensor(self.replace_items(feature.real, items), self.replace_items(feature.imag, items))
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(tuple(feature.shape[1:]), generator=generator)
        items = items.reshape((-1,) + (1,) * (feature.dim() - 1)).to(feature.device)
        return torch.where(items, noise.to(feature), feature)

    def _zero_for_nan_mics(self, feature: Tensor) -> Tensor:
        """ESPnet's normalize_variance turns a silent mic into 0 / 0; put the silence back."""
        if isinstance(feature, ComplexTensor):
            return ComplexTensor(self._zero_for_nan_mics(feature.real), self._zero_for_nan_mics(feature.imag))
        axes = (1, 3) if feature.dim() == 4 else (1,) if self.stft is not None else (1, 2)
        nothing = (torch.isnan(feature) | (feature == 0)).all(axes[-1], keepdim=True)
        if len(axes) == 2:
            nothing = nothing.all(axes[0], keepdim=True)
        return torch.where(nothing, 0, feature)

    def reference_images(self, est: Tensor, feature: Tensor, ilens: Tensor) -> list[Tensor]:
        """FCP images, eq. (10), at mic `ref_channel` of estimates whose spectra are known.

        Args:
            est: (batch, source, freq, frame) spectra.
            feature: the far-field mixtures, as in `forward`.
        """
        lengths = self.frame_lengths(ilens)
        far_field = self.far_field_spectrum(feature, lengths)
        target = self.spectrum(self.select_mics(feature, [self.ref_channel]))
        images = self.mixture_constraint.farfield_images(
            mask_frames(est, lengths), far_field, lengths, mask_frames(target, lengths)
        )
        return [self.feature(image, feature) for image in images[:, 0].unbind(1)]

    def far_field_spectrum(self, feature: Tensor, lengths: Tensor) -> Tensor:
        """Spectra (batch, mic, freq, frame) of the mics that the loss sums over."""
        return mask_frames(self.spectrum(self.select_mics(feature, self.loss_mics)), lengths)

    def spectrum(self, feature: Tensor) -> Tensor:
        """Feature -> (batch, mic, freq, frame) complex; one mic if the feature has no mic axis."""
        if self.stft is not None:
            wave = feature if feature.dim() == 3 else feature[..., None]
            return self.stft(wave.transpose(1, 2).to(torch.promote_types(wave.dtype, torch.float32)))
        if isinstance(feature, ComplexTensor):  # encoder_conf's use_builtin_complex: false
            at_least_float32 = torch.promote_types(feature.real.dtype, torch.float32)
            feature = torch.complex(feature.real.to(at_least_float32), feature.imag.to(at_least_float32))
        spectrum = feature if feature.dim() == 4 else feature[:, :, None]
        return spectrum.permute(0, 2, 3, 1)

    def feature(self, spectrum: Tensor, like: Tensor) -> Tensor:
        """Spectrum (batch, freq, frame) -> feature without mic axis, of the length of `like`."""
        if self.stft is not None:
            return self.stft.inverse(spectrum, like.shape[1])
        return spectrum.transpose(1, 2)

    def frame_lengths(self, ilens: Tensor) -> Tensor:
        """Lengths of features -> frames of their spectra."""
        return ilens if self.stft is None else self.stft.num_frames(ilens)

    def select_mics(self, feature: Tensor, mics: list[int] | None) -> Tensor:
        """Keep only these mics of a feature; None keeps all."""
        if mics is None:
            return feature
        num_mics = self.num_mics(feature)
        check_mics("ref_channel, input_mics or loss_mics", mics)
        if max(mics) >= num_mics:
            raise ValueError(
                f"mic {max(mics)} (counted from 0) was asked for by ref_channel, "
                f"input_mics or loss_mics, but the recording has {num_mics} mic(s)"
            )
        return feature[:, :, mics] if self._has_mic_axis(feature) else feature

    def check_array(self, name: str, num_mics: int, ref_channel: int, options: tuple[str, str]) -> None:
        """Refuse a recording before work on it begins.

        Args:
            name: of the recording.
            num_mics: that it has.
            ref_channel: mic that the output is to be at, from 0.
            options: what the user's command calls `ref_channel`, and a choice among the recording's mics.
        Raises:
            ValueError: it has too few mics, or too many; says what to do.
        """
        named = [self.trained_ref_channel, *(self.input_mics or []), *(self.loss_mics or [])]
        needed, exactly = max(named) + 1, False
        if self.input_mics is None:
            taken = 1 if type(self.separator).__name__ in SINGLE_MIC else getattr(self.separator, "n_imics", None)
            if taken is not None:
                needed, exactly = taken, True
        ref_option, choice = options
        if num_mics < needed or (num_mics > needed and exactly):
            remedy = (
                "it was trained for another array"
                if num_mics < needed
                else "choose those of the array that it was trained for, in its order, e.g. "
                f"{choice} {','.join(map(str, range(needed)))}"
            )
            raise ValueError(
                f"{name}: has {num_mics} channel(s), the model needs {needed}{'' if exactly else ' or more'}; {remedy}"
            )
        if not 0 <= ref_channel < num_mics:
            raise ValueError(f"{name}: has {num_mics} channel(s), but {ref_option} is {ref_channel}, counted from 0")

    def num_mics(self, feature: Tensor) -> int:
        return feature.shape[2] if self._has_mic_axis(feature) else 1

    def _has_mic_axis(self, feature: Tensor) -> bool:
        return feature.dim() == (3 if self.stft is not None else 4)

    def _without_mic_axis(self, feature: Tensor) -> Tensor:
        return feature[:, :, 0] if self._has_mic_axis(feature) else feature


def check_mics(name: str, mics: list[int] | None) -> None:
    """Mics are counted from 0, each named once; None is all of them.

    Raises:
        ValueError: anything else.
    """
    if mics is None:
        return
    good = (
        isinstance(mics, (list, tuple))
        and len(mics) > 0
        and len(set(mics)) == len(mics)
        and all(isinstance(mic, int) and not isinstance(mic, bool) and mic >= 0 for mic in mics)
    )
    if not good:
        raise ValueError(f"{name} must be different mics, counted from 0, at least one, found {mics}")


def _check_separator(separator: AbsSeparator) -> None:
    """Refuse separators that give no estimates in training without references."""
    name = type(separator).__name__
    if name in ("DANSeparator", "DPCLSeparator"):
        raise ValueError(
            f"{name} needs references in training, which mixture_constraint does without; choose another separator"
        )
    if name == "iNeuBe":  # the encoder's dimension, 1, takes the place of n_spk
        raise ValueError(
            "ESPnet's task builds iNeuBe with one source, which separates nothing; choose another separator"
        )
    if name == "NeuralBeamformer" and str(separator.loss_type).startswith("mask"):
        raise ValueError(
            "in training NeuralBeamformer gives masks but no estimates with "
            f"separator_conf's loss_type: {separator.loss_type}; set loss_type: "
            "spectrum, or choose another separator"
        )
