"""ESPnet's enhancement model, trained by mixtures."""

from typing import Dict, List, Optional, Tuple

import torch
from espnet2.enh.espnet_model import ESPnetEnhancementModel
from torch import Tensor

from espnet2_m2m.enh.loss import MixtureConstraintCriterion, MixtureInputs
from espnet2_m2m.enh.separator.m2m_separator import M2MSeparator
from espnet2_m2m.loss.mixture_constraint import mask_frames


class ESPnetM2MModel(ESPnetEnhancementModel):
    """An enhancement model whose estimates are judged by the mixtures they add up to.

    The mixture-constraint loss gets the network's estimates Z. All other criteria of the config get
    the FCP images at the reference mic, the model's output at run time, so that e.g. `si_snr` with
    `only_for_test: true` shows in validation how well the training separates.

    Args:
        encoder, separator, decoder, mask_module, loss_wrappers, conf: as `ESPnetEnhancementModel`.
        input_mics: far-field mics that the network gets, from 0; None for all.
        loss_mics: far-field mics that the loss sums over, from 0; None for all.
        closetalk_from_ref: take speech_ref{n} as the close-talk mixtures, for data dirs that ESPnet's
            enh.sh has prepared from real recordings (spk{n}.scp is then headset n).
    Raises:
        ValueError: a config that does not fit; says what to change.
    """

    def __init__(
        self, encoder, separator, decoder, mask_module, loss_wrappers,
        input_mics: Optional[List[int]] = None, loss_mics: Optional[List[int]] = None,
        closetalk_from_ref: bool = False, **conf,
    ):
        criterion = next(wrapper.criterion for wrapper in loss_wrappers
                         if isinstance(wrapper.criterion, MixtureConstraintCriterion))
        for option in ("flexible_numspk", "always_forward_in_48k"):
            if conf.get(option):
                raise ValueError(f"mixture_constraint does not go with model_conf's {option}: true")
        if mask_module is not None:
            raise ValueError("mixture_constraint does not go with a mask_module")
        if closetalk_from_ref and len(loss_wrappers) > 1:
            raise ValueError("with closetalk_from_ref: true there are no references, so "
                             "mixture_constraint must be the only criterion")
        separator = M2MSeparator(separator, encoder, criterion, input_mics, loss_mics)
        super().__init__(encoder, separator, decoder, mask_module, loss_wrappers, **conf)
        self.close_talk = criterion.close_talk
        self.closetalk_from_ref = closetalk_from_ref

    def forward(
        self, speech_mix: Tensor, speech_mix_lengths: Optional[Tensor] = None, **kwargs,
    ) -> Tuple[Tensor, Dict[str, Tensor], Tensor]:
        """Compute the training loss, a scalar, its parts by name, and the batch size.

        Args:
            speech_mix: (batch, sample[, mic]) far-field mixtures.
            speech_mix_lengths: (batch,) samples; None if all are full.
            kwargs: closetalk_mix1 .. (batch, sample) close-talk mixtures; speech_ref1 ..
                (batch, sample[, mic]) references for the other criteria; utt_id, list of str.
        Raises:
            ValueError: missing or misshapen data, named.
        """
        utt_ids = kwargs.get("utt_id", [f"batch item {i}" for i in range(len(speech_mix))])
        lengths = speech_mix_lengths
        if lengths is None:
            lengths = torch.full((len(speech_mix),), speech_mix.shape[1], dtype=torch.long)
        speech_mix = speech_mix[:, :lengths.max()]
        for utt_id, wave in zip(utt_ids, speech_mix):
            if not wave.any():
                raise ValueError(f"{utt_id}: speech_mix is silent; remove this utterance or trim its "
                                 "silence, so that no training segment is all zero")
        close_talk = self._close_talk(speech_mix, kwargs)
        references = self._references(speech_mix, kwargs)

        feature_mix, feature_lengths = self.encoder(speech_mix, lengths)
        network_input = feature_mix
        if self.normalize_variance or self.normalize_variance_per_ch:
            # For the network only: the loss does not depend on the level of a recording, and the
            # images are filtered to the recording as it is.
            axes = 1 if self.normalize_variance_per_ch or speech_mix.dim() == 2 else (1, 2)
            level = speech_mix.std(dim=axes, keepdim=True)
            network_input, _ = self.encoder(speech_mix / level, lengths)
        estimates = self.separator.estimate(network_input, feature_lengths, {})
        frames = self.separator.frame_lengths(feature_lengths)
        inputs = MixtureInputs(
            est=torch.cat([self.separator.spectrum(z) for z in estimates], dim=1),
            far_field=self.separator.far_field_spectrum(feature_mix, frames),
            close_talk=self._spectra(close_talk, lengths, frames),
            lengths=frames)

        if references is None:
            # No criterion looks at references or estimates now: ESPnet's loop only wants tensors.
            references = speech_pre = [speech_mix]
        else:
            images = self.separator.reference_images(inputs.est, feature_mix, feature_lengths)
            speech_pre = [self.decoder(image, lengths)[0] for image in images]
        loss, stats, weight, _ = self.forward_loss(
            speech_pre, lengths, feature_mix, None, {"mixture_inputs": inputs}, references,
            num_spk=self.num_spk)
        return loss, stats, weight

    def collect_feats(self, speech_mix: Tensor, speech_mix_lengths: Tensor, **kwargs):
        """Stage 5 of ESPnet's recipes: the waveforms themselves; nothing is normalised by them."""
        return {"feats": speech_mix[:, :speech_mix_lengths.max()],
                "feats_lengths": speech_mix_lengths}

    def _close_talk(self, speech_mix: Tensor, data: Dict) -> Optional[Tensor]:
        """Stack the close-talk mixtures: (batch, sample, mic), or None for a far-field loss."""
        if not self.close_talk:
            return None
        prefix = "speech_ref" if self.closetalk_from_ref else "closetalk_mix"
        waves = []
        while f"{prefix}{len(waves) + 1}" in data:
            waves.append(data[f"{prefix}{len(waves) + 1}"])
        if not waves:
            raise ValueError(
                f"the loss needs close-talk mixtures: pass closetalk.scp files as data {prefix}1, "
                f"{prefix}2, ..., or set close_talk: false in the conf of mixture_constraint to "
                "train on far-field mixtures alone (UNSSOR)")
        if len(waves) > self.num_spk:
            raise ValueError(f"found {len(waves)} close-talk mixtures for a separator with "
                             f"{self.num_spk} sources; every headset needs a source")
        for number, wave in enumerate(waves, start=1):
            _check_mono(f"{prefix}{number}", wave)
        return torch.stack([wave[:, :speech_mix.shape[1]] for wave in waves], dim=2)

    def _references(self, speech_mix: Tensor, data: Dict) -> Optional[List[Tensor]]:
        """References for the criteria that are computed now; None if there is none such."""
        names = [wrapper.criterion.name for wrapper in self.loss_wrappers
                 if not isinstance(wrapper.criterion, MixtureConstraintCriterion)
                 and not (self.training and wrapper.criterion.only_for_test)]
        if not names:
            return None
        needed = [f"speech_ref{n}" for n in range(1, self.num_spk + 1)]
        missing = [name for name in needed if name not in data]
        if missing:
            phase = "training" if self.training else "validation"
            raise ValueError(
                f"criterion {', '.join(names)} needs references in {phase}, but {missing} are not "
                "among its data: pass them, set the criterion's only_for_test: true to compute it "
                "in validation only, or remove it")
        return [data[name][:, :speech_mix.shape[1]] for name in needed]

    def _spectra(self, waves: Optional[Tensor], lengths: Tensor, frames: Tensor):
        if waves is None:
            return None
        feature, _ = self.encoder(waves, lengths)
        return mask_frames(self.separator.spectrum(feature), frames)


def _check_mono(name: str, wave: Tensor) -> None:
    if wave.dim() != 2:
        raise ValueError(f"{name} must be one headset's mono recording (batch, sample), found "
                         f"{tuple(wave.shape)}")
