"""ESPnet's enhancement model, trained on spectra: by mixtures (M2M, UNSSOR), or by references (PIT)."""

import logging
import re

import torch
from espnet2.enh.espnet_model import ESPnetEnhancementModel
from torch import Tensor

from espnet2_m2m.enh.loss import LossInputs, MixtureConstraintCriterion, SpectraCriterion, SpectraWrapper
from espnet2_m2m.enh.separator.m2m_separator import SILENCE, M2MSeparator
from espnet2_m2m.spectra import mask_frames


class ESPnetM2MModel(ESPnetEnhancementModel):
    """An enhancement model whose estimates are judged by the mixtures they add up to.

    The plug-in's losses get the network's estimates Z as spectra. All other criteria of the config get
    the model's output at run time, which is the FCP images at the reference mic, so that e.g. `si_snr`
    with `only_for_test: true` shows in validation how well the training separates. A model that is
    trained by `ri_mag` alone (PIT) has the estimates themselves as output.

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
        self,
        encoder,
        separator,
        decoder,
        mask_module,
        loss_wrappers,
        input_mics: list[int] | None = None,
        loss_mics: list[int] | None = None,
        closetalk_from_ref: bool = False,
        **conf,
    ):
        criterions = [wrapper.criterion for wrapper in loss_wrappers if isinstance(wrapper.criterion, SpectraCriterion)]
        if len({criterion.loss.ref_mic for criterion in criterions}) > 1:
            raise ValueError("mixture_constraint and ri_mag need the same ref_mic")
        # With both losses, M2M decides on the output.
        criterion = max(criterions, key=lambda criterion: criterion.fcp_output)
        # The last one lets ESPnet's inference divide every mic by its own level, so that FCP's weight, eq. (9),
        # would be another one than in training; with normalize_variance it is one factor for all mics.
        for option in (
            "flexible_numspk",
            "always_forward_in_48k",
            "categories",
            "category_weights",
            "normalize_variance_per_ch",
        ):
            if conf.get(option):
                raise ValueError(f"{criterion.name} does not go with model_conf's {option}: {conf[option]}; remove it")
        for wrapper in loss_wrappers:
            if isinstance(wrapper.criterion, SpectraCriterion) and not isinstance(wrapper, SpectraWrapper):
                raise ValueError(
                    f"criterion {wrapper.criterion.name} does not go with wrapper "
                    f"{type(wrapper).__name__}: mixture_constraint has wrapper: mixture, "
                    "ri_mag has wrapper: pit_spectra"
                )
        if mask_module is not None:
            raise ValueError(f"{criterion.name} does not go with a mask_module")
        if closetalk_from_ref and not criterion.close_talk:
            raise ValueError(
                f"closetalk_from_ref: true takes speech_ref for close-talk mixtures, but "
                f"{criterion.name} is configured without any; remove it"
            )
        if closetalk_from_ref and len(loss_wrappers) > 1:
            raise ValueError(
                "with closetalk_from_ref: true there are no references, so "
                "mixture_constraint must be the only criterion"
            )
        separator = M2MSeparator(separator, encoder, criterion, input_mics, loss_mics)
        _check_coders(encoder, decoder)
        super().__init__(encoder, separator, decoder, mask_module, loss_wrappers, **conf)
        self.close_talk = criterion.close_talk
        self.closetalk_from_ref = closetalk_from_ref
        self._warned = set()  # utterances whose silence has been reported

    def forward(
        self, speech_mix: Tensor, speech_mix_lengths: Tensor | None = None, **kwargs
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
        utt_ids = kwargs.get("utt_id")
        lengths = speech_mix_lengths
        if lengths is None:
            lengths = torch.full((len(speech_mix),), speech_mix.shape[1], dtype=torch.long)
        speech_mix = speech_mix[:, : lengths.max()]
        close_talk = self._close_talk(speech_mix, kwargs)
        if close_talk is not None:
            _check_finite("a close-talk mixture", close_talk, utt_ids)
        references = self._references(speech_mix, kwargs)
        speech_mix, counted = self._checked(speech_mix, utt_ids)

        feature_mix, feature_lengths, estimates, est = self._estimates(speech_mix, lengths)
        inputs = self._loss_inputs(est, feature_mix, feature_lengths, counted, utt_ids)
        active = self._active_criterions()
        supervised = any(criterion.name == "ri_mag" for criterion in active)
        inputs = inputs._replace(
            close_talk=self._spectra(close_talk, lengths, inputs.lengths),
            references=(
                self._spectra(self._at_reference_mic(references), lengths, inputs.lengths) if supervised else None
            ),
        )

        if all(isinstance(criterion, SpectraCriterion) for criterion in active):
            # No criterion looks at waveforms now: ESPnet's loop only wants tensors.
            references = speech_pre = [speech_mix]
        else:
            if self.separator.fcp_output:
                outputs = self.separator.reference_images(inputs.est, feature_mix, feature_lengths)
            else:
                outputs = estimates
            speech_pre = [self.decoder(output, lengths)[0] for output in outputs]
        if counted.any() and not counted.all():  # the other criteria leave silent items out
            references = [reference[counted] for reference in references]
            speech_pre = [image[counted] for image in speech_pre]
            feature_mix, lengths = feature_mix[counted], lengths[counted.to(lengths.device)]
        loss, stats, weight, _ = self.forward_loss(
            speech_pre,
            lengths,
            feature_mix,
            None,
            {"loss_inputs": inputs, "est": est},
            references,
            num_spk=self.num_spk,
        )
        if not counted.any():
            loss, weight = 0 * loss, 0 * weight
        return loss, stats, weight

    def _estimates(self, speech_mix: Tensor, lengths: Tensor):
        """Far-field mixtures -> their features and these features' lengths; the estimates as features; and
        as spectra (batch, source, freq, frame), masked."""
        feature_mix, feature_lengths = self.encoder(speech_mix, lengths)
        network_input = feature_mix
        if self.normalize_variance:
            level = speech_mix.flatten(1).std(dim=1).clamp(min=SILENCE)
            level = level.reshape((-1,) + (1,) * (speech_mix.dim() - 1))
            network_input, _ = self.encoder(speech_mix / level, lengths)
        estimates = self.separator.estimate(network_input, feature_lengths, {})
        if network_input is not feature_mix:
            estimates = [z * level.reshape((-1,) + (1,) * (z.dim() - 1)) for z in estimates]
        est = torch.cat([self.separator.spectrum(z) for z in estimates], dim=1)
        est = mask_frames(est, self.separator.frame_lengths(feature_lengths))
        return feature_mix, feature_lengths, estimates, est

    def forward_enhance(
        self, speech_mix: Tensor, speech_lengths: Tensor, additional: dict | None = None, fs: int | None = None
    ):
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
        speech_mix, counted = self._checked(speech_mix, None)
        feature_mix, feature_lengths, estimates, est = self._estimates(speech_mix, speech_lengths)
        inputs = self._loss_inputs(est, feature_mix, feature_lengths, counted, None)
        if self.separator.fcp_output:
            outputs = self.separator.reference_images(inputs.est, feature_mix, feature_lengths)
        else:
            outputs = estimates
        finite = _finite(est)
        speech_pre = [
            torch.where((counted & finite)[:, None], self.decoder(output, speech_lengths)[0], 0) for output in outputs
        ]
        if est.requires_grad and not finite.all():
            for wave in speech_pre:
                wave.register_hook(lambda gradient: torch.nan * gradient)
        return speech_pre, feature_mix, None, {"loss_inputs": inputs, "est": est}

    def _loss_inputs(self, est, feature_mix, feature_lengths, counted, utt_ids) -> LossInputs:
        """What is known without headsets and references; estimates that are not finite become zero."""
        frames = self.separator.frame_lengths(feature_lengths)
        finite = _finite(est)
        if not finite.all():
            logging.warning(
                "the estimates of %s are not finite; in training this step is skipped", _names(utt_ids, ~finite)
            )
        return LossInputs(
            est=torch.where(finite[:, None, None, None], est, 0),
            far_field=self.separator.far_field_spectrum(feature_mix, frames),
            close_talk=None,
            references=None,
            lengths=frames,
            counted=counted,
        )

    def forward_loss(self, speech_pre, speech_lengths, feature_mix, feature_pre, others, speech_ref, *args, **kwargs):
        """ESPnet's loop over the criteria; what `forward_enhance` could not know is added from `speech_ref`.

        Args:
            others: "loss_inputs"; "est", (batch, source, freq, frame), the estimates as the network gave them.
            speech_ref: list of (batch, sample): the close-talk mixtures with closetalk_from_ref, else the
                references.
        Raises:
            ValueError: the loss needs headsets and gets references, says what to change; or recordings that are
                not finite.
        """
        inputs = others["loss_inputs"]
        if self.close_talk and inputs.close_talk is None:
            if not self.closetalk_from_ref:
                raise ValueError(
                    "a joint model gets the close-talk mixtures as speech_ref1, speech_ref2, ...; "
                    "set enh_model_conf's closetalk_from_ref: true"
                )
            names = [f"speech_ref{n}" for n in range(1, len(speech_ref) + 1)]
            close_talk = self._close_talk(speech_ref[0], dict(zip(names, speech_ref)))
            _check_finite("a close-talk mixture", close_talk, None)
            inputs = inputs._replace(close_talk=self._spectra(close_talk, speech_lengths, inputs.lengths))
        supervised = any(criterion.name == "ri_mag" for criterion in self._active_criterions())
        if supervised and inputs.references is None:
            references = self._at_reference_mic(speech_ref)
            _check_finite("a reference", references, None)
            inputs = inputs._replace(references=self._spectra(references, speech_lengths, inputs.lengths))
        loss, stats, weight, perm = super().forward_loss(
            speech_pre,
            speech_lengths,
            feature_mix,
            feature_pre,
            {**others, "loss_inputs": inputs},
            speech_ref,
            *args,
            **kwargs,
        )
        if not _finite(others["est"]).all():
            loss = loss + (torch.nan * others["est"].real).sum()  # NaN must reach the gradients as well
            stats = {name: torch.full_like(value, torch.nan) for name, value in stats.items()}
        return loss, stats, weight, perm

    def collect_feats(self, speech_mix: Tensor, speech_mix_lengths: Tensor, **kwargs):
        """Stage 5 of ESPnet's recipes: the waveforms themselves; nothing is normalised by them."""
        return {"feats": speech_mix[:, : speech_mix_lengths.max()], "feats_lengths": speech_mix_lengths}

    def _checked(self, speech_mix: Tensor, utt_ids: list[str] | None) -> tuple[Tensor, Tensor]:
        """Far-field mixtures with noise in place of silence, and which are heard, (batch,) bool."""
        _check_finite("speech_mix", speech_mix, utt_ids)
        heard = self._heard(speech_mix, utt_ids)
        return self.separator.replace_items(speech_mix, ~heard), heard

    def _heard(self, speech_mix: Tensor, utt_ids: list[str] | None) -> Tensor:
        """(batch,) bool: the far-field mixture is not silent; a warning names those that are, once."""
        mics = [self.separator.input_mics, self.separator.loss_mics]
        if any(criterion.name == "ri_mag" for criterion in self._active_criterions()):
            mics.append([self.separator.trained_ref_channel])  # its level divides the distance
        heard = torch.ones(len(speech_mix), dtype=torch.bool, device=speech_mix.device)
        for chosen in mics:
            wave = speech_mix
            if chosen is not None and wave.dim() == 3 and max(chosen) < wave.shape[2]:
                wave = wave[:, :, chosen]
            heard = heard & (wave.abs().flatten(1).amax(dim=1) > SILENCE)
        if not heard.all():
            new = ~heard
            if utt_ids is not None:
                new = new & heard.new_tensor([utt_id not in self._warned for utt_id in utt_ids])
                self._warned.update(utt_id for utt_id, is_new in zip(utt_ids, new.tolist()) if is_new)
            if new.any():
                logging.warning(
                    "%s: speech_mix is silent, at least a segment of it; such segments have no weight",
                    _names(utt_ids, new),
                )
        return heard

    def _close_talk(self, speech_mix: Tensor, data: dict) -> Tensor | None:
        """Stack the close-talk mixtures: (batch, sample, mic), or None for a far-field loss."""
        if not self.close_talk:
            return None
        prefix = "speech_ref" if self.closetalk_from_ref else "closetalk_mix"
        found = {name for name in data if re.fullmatch(rf"{prefix}\d+", name)}
        names = [f"{prefix}{n}" for n in range(1, len(found) + 1)]
        if not found:
            raise ValueError(
                f"the loss needs close-talk mixtures: pass closetalk.scp files as data {prefix}1, "
                f"{prefix}2, ..., or set close_talk: false in the conf of mixture_constraint to "
                "train on far-field mixtures alone (UNSSOR)"
            )
        if found != set(names):
            raise ValueError(
                f"the close-talk mixtures are numbered from 1 without a gap, found "
                f"{', '.join(sorted(found))}; name them {', '.join(names)}"
            )
        if len(names) > self.num_spk:
            raise ValueError(
                f"found {len(names)} close-talk mixtures for a separator with "
                f"{self.num_spk} sources; every headset needs a source"
            )
        for name in names:
            _check_mono(name, data[name])
        return torch.stack([data[name][:, : speech_mix.shape[1]] for name in names], dim=2)

    def _references(self, speech_mix: Tensor, data: dict) -> list[Tensor] | None:
        """References for the criteria that are computed now; None if there is none such."""
        names = [
            criterion.name
            for criterion in self._active_criterions()
            if not isinstance(criterion, MixtureConstraintCriterion)
        ]
        if not names:
            return None
        needed = [f"speech_ref{n}" for n in range(1, self.num_spk + 1)]
        missing = [name for name in needed if name not in data]
        if missing:
            phase = "training" if self.training else "validation"
            raise ValueError(
                f"criterion {', '.join(names)} needs references in {phase}, but {missing} are not "
                "among its data: pass them, set the criterion's only_for_test: true to compute it "
                "in validation only, or remove it"
            )
        return [data[name][:, : speech_mix.shape[1]] for name in needed]

    def _active_criterions(self) -> list:
        """The criteria that are computed in the present phase."""
        return [
            wrapper.criterion
            for wrapper in self.loss_wrappers
            if not (self.training and wrapper.criterion.only_for_test)
        ]

    def _at_reference_mic(self, references: list[Tensor]) -> Tensor:
        """Mono or multi-channel references -> (batch, sample, source)."""
        mic = self.separator.trained_ref_channel
        return torch.stack([ref if ref.dim() == 2 else ref[:, :, mic] for ref in references], dim=2)

    def _spectra(self, waves: Tensor | None, lengths: Tensor, frames: Tensor):
        if waves is None:
            return None
        feature, _ = self.encoder(waves, lengths)
        return mask_frames(self.separator.spectrum(feature), frames)


def _check_coders(encoder, decoder) -> None:
    """Training may never use the decoder, so that a wrong one would show in the output alone."""
    ours, theirs = (
        [getattr(getattr(coder, "stft", coder), name, None) for name in ("n_fft", "hop_length")]
        for coder in (encoder, decoder)
    )
    if ours != theirs:
        raise ValueError(
            f"encoder_conf and decoder_conf must be the same, found n_fft, hop_length = {ours} and {theirs}"
        )


def _check_mono(name: str, wave: Tensor) -> None:
    if wave.dim() != 2:
        raise ValueError(f"{name} must be one headset's mono recording (batch, sample), found {tuple(wave.shape)}")


def _finite(tensor: Tensor) -> Tensor:
    """(batch,) bool: no NaN or infinite value in it."""
    return torch.isfinite(tensor.detach()).flatten(1).all(dim=1)


def _check_finite(name: str, waves: Tensor, utt_ids: list[str] | None) -> None:
    finite = _finite(waves)
    if not finite.all():
        raise ValueError(f"{_names(utt_ids, ~finite)}: {name} has NaN or infinite samples")


def _names(utt_ids: list[str] | None, chosen: Tensor) -> str:
    utt_ids = utt_ids or [f"batch item {i}" for i in range(len(chosen))]
    return ", ".join(utt_id for utt_id, is_chosen in zip(utt_ids, chosen.tolist()) if is_chosen)
