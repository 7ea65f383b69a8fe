"""ESPnet's enhancement model, trained on spectra: by mixtures (M2M, UNSSOR), or by references (PIT)."""

import logging
import re
from typing import Any

import torch
from espnet2.diar.layers.abs_mask import AbsMask
from espnet2.enh.decoder.abs_decoder import AbsDecoder
from espnet2.enh.decoder.null_decoder import NullDecoder
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from espnet2.enh.encoder.conv_encoder import ConvEncoder
from espnet2.enh.encoder.null_encoder import NullEncoder
from espnet2.enh.espnet_model import ESPnetEnhancementModel
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor

from espnet2_m2m.enh.batch import check_finite, finite_items, item_names, replace_items, silent_items, zero_padding
from espnet2_m2m.enh.loss import (
    LossInputs,
    MixtureConstraintCriterion,
    RIMagCriterion,
    SpectraCriterion,
    SpectraWrapper,
    WithReferences,
    nan_unless_finite,
)
from espnet2_m2m.enh.separator.conv_coded import ConvCodedSeparator
from espnet2_m2m.enh.separator.m2m_separator import Estimates, M2MSeparator
from espnet2_m2m.enh.signal_domain import Mixture


class ESPnetM2MModel(ESPnetEnhancementModel):
    """An enhancement model whose estimates are judged by the mixtures they add up to.

    The plug-in's losses get the network's estimates Z as spectra. All other criteria of the config get
    the model's output at run time, which is the FCP images at the reference mic, so that e.g. `si_snr`
    with `only_for_test: true` shows in validation how well the training separates. A model that is
    trained by `ri_mag` alone (PIT) has the estimates themselves as output. `mixture_consistency` makes
    either add up to the mixture.

    Args:
        encoder, separator, decoder, mask_module, loss_wrappers, conf: as `ESPnetEnhancementModel`.
        input_mics: far-field mics that the network gets, from 0; None for all.
        loss_mics: far-field mics that the loss sums over, from 0; None for all.
        closetalk_from_ref: take speech_ref{n} as the close-talk mixtures, for data dirs that ESPnet's
            enh.sh has prepared from real recordings (spk{n}.scp is then headset n).
        mixture_consistency: give back to the output what its sources leave of the mixture (consistency.py).
        precision: in which the network works, "float32" or "bfloat16" (precision.py).
    Whether the parts fit each other, tasks/unfit_options.py has checked.
    """

    def __init__(
        self,
        encoder: AbsEncoder,
        separator: AbsSeparator,
        decoder: AbsDecoder,
        mask_module: AbsMask | None,
        loss_wrappers: list[AbsLossWrapper],
        input_mics: list[int] | None = None,
        loss_mics: list[int] | None = None,
        closetalk_from_ref: bool = False,
        mixture_consistency: bool = False,
        precision: str = "float32",
        **conf: Any,
    ) -> None:
        criterions = [wrapper.criterion for wrapper in loss_wrappers if isinstance(wrapper.criterion, SpectraCriterion)]
        # With both losses, M2M decides on the output.
        criterion = max(criterions, key=lambda criterion: criterion.fcp_output)
        if isinstance(encoder, ConvEncoder):  # to all others it is a separator of waveforms
            separator = ConvCodedSeparator(encoder, separator, decoder)
            encoder, decoder = NullEncoder(), NullDecoder()
        separator = M2MSeparator(separator, encoder, criterion, input_mics, loss_mics, mixture_consistency, precision)
        loss_wrappers = [
            wrapper if isinstance(wrapper, SpectraWrapper) else WithReferences(wrapper) for wrapper in loss_wrappers
        ]
        super().__init__(encoder, separator, decoder, mask_module, loss_wrappers, **conf)
        self.close_talk = criterion.close_talk
        self.closetalk_from_ref = closetalk_from_ref
        self._warned = set()  # utterances whose silence has been reported

    def forward(
        self, speech_mix: Tensor, speech_mix_lengths: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the training loss, a scalar, its parts by name, and the batch size.

        Args:
            speech_mix: (batch, sample[, mic]) far-field mixtures.
            speech_mix_lengths: (batch,) samples; None if all are full.
            kwargs: closetalk_mix1 .. (batch, sample) close-talk mixtures; speech_ref1 ..
                (batch, sample[, mic]) references for the other criteria; utt_id, list of str.
        Raises:
            ValueError: missing or misshapen data, or recordings that are not finite, named.
        Silence: an utterance whose far-field mixture is silent has no weight; a warning names it.
        Estimates that are not finite (overflow in half precision) make the loss NaN, so that
        ESPnet's trainer skips the step.
        """
        utt_ids, lengths = kwargs.get("utt_id"), speech_mix_lengths
        if lengths is None:
            lengths = torch.full((len(speech_mix),), speech_mix.shape[1], dtype=torch.long)
        speech_mix = zero_padding(speech_mix[:, : lengths.max()], lengths)
        for name in _numbered(kwargs, "closetalk_mix") + _numbered(kwargs, "speech_ref"):
            kwargs[name] = zero_padding(kwargs[name], lengths)
        close_talk = self._close_talk(kwargs, speech_mix.shape[1], utt_ids)
        references = self._references(kwargs, speech_mix.shape[1])
        at_ref_mic = self._at_ref_mic(references, utt_ids)
        speech_mix, counted = self._checked(speech_mix, utt_ids)
        waveforms = not all(isinstance(criterion, SpectraCriterion) for criterion in self._active_criterions())

        mixture, estimates, inputs = self._separated(speech_mix, close_talk, at_ref_mic, lengths, counted, utt_ids)
        if waveforms:
            outputs = self.separator.outputs(mixture, estimates.features, inputs.est)
            speech_pre = [self.decoder(output, lengths)[0] for output in outputs]
        else:  # ESPnet's loop over the criteria only wants tensors
            references = speech_pre = [speech_mix]
        feature_mix = mixture.feature
        if counted.any() and not counted.all():  # the other criteria leave silent items out
            references = [reference[counted] for reference in references]
            speech_pre = [output[counted] for output in speech_pre]
            feature_mix, lengths = feature_mix[counted], lengths[counted.to(lengths.device)]
        loss, stats, weight, _ = super().forward_loss(
            speech_pre, lengths, feature_mix, None, {"loss_inputs": inputs}, references, num_spk=self.num_spk
        )
        loss, stats = nan_unless_finite(loss, stats, estimates.spectra)
        if not counted.any():
            loss, weight = 0 * loss, 0 * weight
        return loss, stats, weight

    def _separated(
        self,
        speech_mix: Tensor,
        close_talk: Tensor | None,
        references: Tensor | None,
        lengths: Tensor,
        counted: Tensor,
        utt_ids: list[str] | None,
    ) -> tuple[Mixture, Estimates, LossInputs]:
        """All waveforms become spectra here, once; from here on the work only goes down: network, outputs, losses."""
        domain = self.separator.domain
        mixture = domain.mixture(speech_mix, lengths, self.normalize_variance)
        close_talk, references = (domain.spectra_of_waves(waves, lengths) for waves in (close_talk, references))
        try:
            estimates = self.separator.estimate(mixture)
        except ValueError as error:  # a recording with other mics than the network takes
            raise ValueError(f"{', '.join(utt_ids)}: {error}" if utt_ids else str(error)) from error
        inputs = LossInputs.of_finite(
            estimates.spectra, mixture.spectra, close_talk, references, mixture.frames, counted, utt_ids=utt_ids
        )
        return mixture, estimates, inputs

    def forward_enhance(
        self, speech_mix: Tensor, speech_lengths: Tensor, additional: dict | None = None, fs: int | None = None
    ) -> tuple[list[Tensor], Tensor, None, dict]:
        """The model's output within ESPnet's joint models (enh_s2t), which call this, then `forward_loss`.

        Args:
            speech_mix: (batch, sample[, mic]) far-field mixtures.
            speech_lengths: (batch,) samples.
        Returns:
            the sources at the reference mic, (batch, sample) each; the features of the mixtures; None; and
            what `forward_loss` needs.
        Raises:
            ValueError: recordings that are not finite, by their place in the batch: names are not known here.
        Silence: a recording whose far-field mixture is silent gives silence, without a loss.
        Estimates that are not finite give silence, with gradients that make ESPnet's trainer skip the step: its
        assignment of transcripts does not take an output, and so a loss, that is NaN.
        """
        speech_mix, counted = self._checked(zero_padding(speech_mix, speech_lengths), None)
        mixture, estimates, inputs = self._separated(speech_mix, None, None, speech_lengths, counted, None)
        outputs = self.separator.outputs(mixture, estimates.features, inputs.est)
        finite = finite_items(estimates.spectra)
        speech_pre = [
            torch.where((counted & finite)[:, None], self.decoder(output, speech_lengths)[0], 0) for output in outputs
        ]
        if estimates.spectra.requires_grad and not finite.all():
            for wave in speech_pre:
                wave.register_hook(lambda gradient: torch.nan * gradient)
        return speech_pre, mixture.feature, None, {"loss_inputs": inputs, "estimates": estimates}

    def forward_loss(
        self,
        speech_pre: list[Tensor],
        speech_lengths: Tensor,
        feature_mix: Tensor,
        feature_pre: None,
        others: dict,
        speech_ref: list[Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor | None]:
        """The loss within ESPnet's joint models.

        Args:
            speech_pre, feature_mix, feature_pre, others: of `forward_enhance`.
            speech_lengths: (batch,) samples.
            speech_ref: list of (batch, sample[, mic]): the close-talk mixtures with closetalk_from_ref, else the
                references.
        Raises:
            ValueError: the loss needs headsets and gets references, says what to change; or recordings that are
                not finite.
        """
        if self.close_talk and not self.closetalk_from_ref:
            raise ValueError(
                "a joint model gets the close-talk mixtures as speech_ref1, speech_ref2, ...; "
                "set enh_model_conf's closetalk_from_ref: true"
            )
        speech_ref = [zero_padding(wave, speech_lengths) for wave in speech_ref]
        data = {f"speech_ref{n}": wave for n, wave in enumerate(speech_ref, start=1)}
        num_samples = speech_ref[0].shape[1]
        close_talk = self._close_talk(data, num_samples, None)
        at_ref_mic = self._at_ref_mic(self._references(data, num_samples), None)
        spectra_of_waves = self.separator.domain.spectra_of_waves
        inputs = others["loss_inputs"]._replace(
            close_talk=spectra_of_waves(close_talk, speech_lengths),
            references=spectra_of_waves(at_ref_mic, speech_lengths),
        )
        others = {**others, "loss_inputs": inputs}
        loss, stats, weight, perm = super().forward_loss(
            speech_pre, speech_lengths, feature_mix, feature_pre, others, speech_ref, *args, **kwargs
        )
        return *nan_unless_finite(loss, stats, others["estimates"].spectra), weight, perm

    def collect_feats(self, speech_mix: Tensor, speech_mix_lengths: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Stage 5 of ESPnet's recipes: the waveforms themselves; nothing is normalised by them."""
        return {"feats": speech_mix[:, : speech_mix_lengths.max()], "feats_lengths": speech_mix_lengths}

    def _active_criterions(self) -> list:
        """The criteria that are computed in the present phase."""
        return [
            wrapper.criterion
            for wrapper in self.loss_wrappers
            if not (self.training and wrapper.criterion.only_for_test)
        ]

    @property
    def _supervised(self) -> bool:
        """Whether the spectra are compared with references in the present phase."""
        return any(isinstance(criterion, RIMagCriterion) for criterion in self._active_criterions())

    def _checked(self, speech_mix: Tensor, utt_ids: list[str] | None) -> tuple[Tensor, Tensor]:
        """Far-field mixtures with noise in place of silence, and which are heard, (batch,) bool.

        A warning names those that are silent, once.
        """
        check_finite("speech_mix", speech_mix, utt_ids)
        array = self.separator.array
        # The level at the reference mic divides the distance from the references.
        mics = [array.input_mics, array.loss_mics] + [[array.ref_mic]] * self._supervised
        silent = silent_items(speech_mix, speech_mix.dim() == 3, *mics)
        new = silent
        if utt_ids is not None:
            new = silent & silent.new_tensor([utt_id not in self._warned for utt_id in utt_ids])
            self._warned.update(utt_id for utt_id, is_new in zip(utt_ids, new.tolist()) if is_new)
        if new.any():
            logging.warning(
                "%s: speech_mix is silent, at least a segment of it; such segments have no weight",
                item_names(utt_ids, new),
            )
        return replace_items(speech_mix, silent), ~silent

    def _close_talk(self, data: dict, num_samples: int, utt_ids: list[str] | None) -> Tensor | None:
        """Stack the close-talk mixtures: (batch, sample, mic), or None for a far-field loss.

        There may be fewer headsets than sources (talkers without one, noise), or more (who wears one need not speak).
        """
        if not self.close_talk:
            return None
        prefix = "speech_ref" if self.closetalk_from_ref else "closetalk_mix"
        names = _numbered(data, prefix)
        if not names:
            raise ValueError(
                f"the loss needs close-talk mixtures: pass closetalk.scp files as data {prefix}1, "
                f"{prefix}2, ..., or set close_talk: false in the conf of mixture_constraint to "
                "train on far-field mixtures alone (UNSSOR)"
            )
        for name in names:
            if data[name].dim() != 2:
                raise ValueError(
                    f"{name} must be one headset's mono recording (batch, sample), found {tuple(data[name].shape)}"
                )
        close_talk = torch.stack([data[name][:, :num_samples] for name in names], dim=2)
        check_finite("a close-talk mixture", close_talk, utt_ids)
        return close_talk

    def _references(self, data: dict, num_samples: int) -> list[Tensor] | None:
        """References for the criteria that are computed now, one a source; None if there is none such."""
        names = [
            criterion.name
            for criterion in self._active_criterions()
            if not isinstance(criterion, MixtureConstraintCriterion)
        ]
        if not names:
            return None
        needed, found = [f"speech_ref{n}" for n in range(1, self.num_spk + 1)], _numbered(data, "speech_ref")
        if len(found) > len(needed):
            raise ValueError(
                f"criterion {', '.join(names)} compares every source with a reference, found {len(found)} references "
                f"for a separator of {self.num_spk} sources; change its number of sources, or remove the criterion"
            )
        missing = [name for name in needed if name not in found]
        if missing:
            phase = "training" if self.training else "validation"
            raise ValueError(
                f"criterion {', '.join(names)} needs references in {phase}, but {missing} are not "
                "among its data: pass them, set the criterion's only_for_test: true to compute it "
                "in validation only, or remove it"
            )
        return [data[name][:, :num_samples] for name in needed]

    def _at_ref_mic(self, references: list[Tensor] | None, utt_ids: list[str] | None) -> Tensor | None:
        """Mono or multi-channel references -> (batch, sample, source); None if no spectra are compared with them."""
        if not self._supervised:
            return None
        mic = self.separator.array.ref_mic
        waves = torch.stack([ref if ref.dim() == 2 else ref[:, :, mic] for ref in references], dim=2)
        check_finite("a reference", waves, utt_ids)
        return waves


def _numbered(data: dict, stem: str) -> list[str]:
    """Names STEM1, STEM2, ... of what there is; a gap is refused, as what is missing would go unnoticed."""
    found = {name for name in data if re.fullmatch(rf"{stem}\d+", name)}
    names = [f"{stem}{n}" for n in range(1, len(found) + 1)]
    if found != set(names):
        raise ValueError(
            f"{stem}1, {stem}2, ... are numbered from 1 without a gap, found {', '.join(sorted(found))}; "
            f"name them {', '.join(names)}"
        )
    return names
