"""Waveforms or spectra: what a signal is to the network, and the way from there to the spectra of the loss.

A signal in the network's domain ("feature") is either a waveform (batch, sample[, mic]), with `encoder: same` or `conv`
(separator/conv_coded.py), or an STFT (batch, frame[, mic], freq), with `encoder: spectra` or `stft`. Losses and FCP
work on spectra (batch, mic | source, freq, frame).
"""

from typing import NamedTuple

import torch
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from espnet2.enh.encoder.null_encoder import NullEncoder
from torch import Tensor
from torch_complex.tensor import ComplexTensor

from espnet2_m2m.enh.batch import SILENCE, per_item, select_mics
from espnet2_m2m.enh.loss import SpectraCriterion
from espnet2_m2m.spectra import mask_frames
from espnet2_m2m.stft import STFT


class Mixture(NamedTuple):
    """Far-field mixtures, as the network gets them and as the loss and FCP do."""

    feature: Tensor
    lengths: Tensor  # (batch,) samples or frames of the feature
    spectra: Tensor  # (batch, mic, freq, frame), the mics of the loss, zero beyond the lengths
    frames: Tensor  # (batch,) of the spectra
    network_input: Tensor  # the feature, or another one
    level: Tensor | None = None  # (batch,), by which the network's estimates are to be multiplied


class SignalDomain:
    """The domain that an encoder leads to.

    Args:
        encoder: the model's, whose features are waveforms (`NullEncoder`) or plain spectra.
        criterion: its n_fft and hop_length are the STFT of the loss where features are waveforms.
        loss_mics: far-field mics that the loss sums over, from 0; None for all.
    Not a module: the encoder's weights are the model's, and in its checkpoints once.
    """

    def __init__(self, encoder: AbsEncoder, criterion: SpectraCriterion, loss_mics: list[int] | None) -> None:
        self.encoder = encoder
        self.loss_mics = loss_mics
        self.stft = STFT(criterion.n_fft, criterion.hop_length) if isinstance(encoder, NullEncoder) else None

    # ---- At the top: from waveforms to spectra -------------------------------------------------------

    def mixture(self, waves: Tensor, lengths: Tensor, normalize: bool) -> Mixture:
        """Far-field mixtures (batch, sample[, mic]), of `lengths` (batch,) samples.

        Args:
            normalize: the network gets them at a standard deviation of 1 (ESPnet's normalize_variance).
        """
        mixture = self.mixture_of_feature(*self.encoder(waves, lengths))
        if not normalize:
            return mixture
        level = waves.flatten(1).std(dim=1).clamp(min=SILENCE)
        network_input, _ = self.encoder(waves / per_item(level, waves), lengths)
        return mixture._replace(network_input=network_input, level=level)

    def mixture_of_feature(self, feature: Tensor, lengths: Tensor) -> Mixture:
        """The same of features, and their lengths, at the level they have."""
        spectra = self.spectra(self.select_mics(feature, self.loss_mics), lengths)
        return Mixture(feature, lengths, spectra, self.frame_lengths(lengths), network_input=feature)

    def spectra_of_waves(self, waves: Tensor | None, lengths: Tensor) -> Tensor | None:
        """(batch, sample[, signal]) -> (batch, signal, freq, frame), zero beyond the lengths; None of None."""
        return None if waves is None else self.spectra(*self.encoder(waves, lengths))

    # ---- From features to spectra, and back ----------------------------------------------------------

    def spectra(self, feature: Tensor, lengths: Tensor) -> Tensor:
        """Features, and their lengths -> (batch, mic, freq, frame) complex, zero beyond the lengths."""
        return mask_frames(self.spectrum(feature), self.frame_lengths(lengths))

    def spectrum(self, feature: Tensor) -> Tensor:
        """Feature -> (batch, mic, freq, frame) complex; one mic if the feature has no mic axis."""
        if self.stft is not None:
            wave = feature if feature.dim() == 3 else feature[..., None]
            return self.stft(at_least_float32(wave).transpose(1, 2))
        if isinstance(feature, ComplexTensor):  # encoder_conf's use_builtin_complex: false
            feature = at_least_float32(feature)
            feature = torch.complex(feature.real, feature.imag)
        spectrum = feature if feature.dim() == 4 else feature[:, :, None]
        return spectrum.permute(0, 2, 3, 1)

    def feature(self, spectrum: Tensor, like: Tensor) -> Tensor:
        """Spectrum (batch, freq, frame) -> feature without mic axis, of the length of `like`."""
        if self.stft is not None:
            return self.stft.inverse(spectrum, like.shape[1])
        return spectrum.transpose(1, 2)

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths of features -> frames of their spectra."""
        return lengths if self.stft is None else self.stft.num_frames(lengths)

    # ---- The mics of a feature -----------------------------------------------------------------------

    def has_mic_axis(self, feature: Tensor) -> bool:
        return feature.dim() == (3 if self.stft is not None else 4)

    def num_mics(self, feature: Tensor) -> int:
        return feature.shape[2] if self.has_mic_axis(feature) else 1

    def select_mics(self, feature: Tensor, mics: list[int] | None) -> Tensor:
        """Keep only these mics of a feature; None keeps all."""
        return select_mics(feature, mics, self.has_mic_axis(feature))

    def first_mic(self, feature: Tensor) -> Tensor:
        """The first mic of a feature, without mic axis."""
        return feature[:, :, 0] if self.has_mic_axis(feature) else feature

    def zero_for_nan_mics(self, feature: Tensor) -> Tensor:
        """ESPnet's inference, with normalize_variance, turns a silent mic into 0 / 0; put the silence back."""
        if isinstance(feature, ComplexTensor):
            return ComplexTensor(self.zero_for_nan_mics(feature.real), self.zero_for_nan_mics(feature.imag))
        of_one_mic = 1 if self.stft is not None else (1, feature.dim() - 1)  # samples, or frames and frequencies
        nothing = (torch.isnan(feature) | (feature == 0)).all(of_one_mic, keepdim=True)
        return torch.where(nothing, 0, feature)


def at_least_float32(feature: Tensor) -> Tensor:
    """What is in half precision, as networks leave it under autocast, becomes float32."""
    if isinstance(feature, ComplexTensor):
        return ComplexTensor(at_least_float32(feature.real), at_least_float32(feature.imag))
    return feature.to(torch.promote_types(feature.dtype, torch.float32))
