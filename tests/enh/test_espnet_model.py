"""M2M inside ESPnet: models built from configs, trained one step, asked for their images."""

import argparse

import numpy as np
import oracle
import pytest
import torch
from espnet2.enh.espnet_model import ESPnetEnhancementModel
from espnet2.tasks.enh import EnhancementTask
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from espnet_configs import M2M, PIT, SEPARATORS, SINGLE_CHANNEL, VALID_SI_SNR, config, criterion, save
from torch_complex.tensor import ComplexTensor

from espnet2_m2m import MixtureConstraintLoss, pit_ri_mag, register
from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
from espnet2_m2m.stft import STFT
from espnet2_m2m.tasks.checkpoints import STEP
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask
from espnet2_m2m.tasks.separate_speech import SeparateSpeech

SAMPLES = 800


def make_batch(batch=2, mics=3, seed=0):
    """speech_mix, closetalk_mix{n}, speech_ref{n} of noise."""
    torch.manual_seed(seed)
    data = {"speech_mix": torch.randn(batch, SAMPLES, mics)}
    if mics == 1:
        data["speech_mix"] = data["speech_mix"][..., 0]
    for n in (1, 2):
        data[f"closetalk_mix{n}"] = torch.randn(batch, SAMPLES)
        data[f"speech_ref{n}"] = torch.randn(batch, SAMPLES)
    return data


def without_references(data):
    return {name: value for name, value in data.items() if not name.startswith("speech_ref")}


@pytest.mark.parametrize("separator", SEPARATORS)
def test_any_spectral_config_becomes_m2m_by_its_criterions(separator):
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config(separator))
    data = make_batch(mics=1 if separator in SINGLE_CHANNEL else 3)
    loss, stats, weight = model(**without_references(data))  # training never sees references
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert weight == 2 and gradients and all(torch.isfinite(g).all() for g in gradients)
    assert stats["mc"] == pytest.approx(loss.item(), rel=1e-6)
    assert "si_snr_loss" not in stats and "si_snr" not in stats
    model.eval()
    with torch.no_grad():
        _, stats, _ = model(**data)
    name = next(w.criterion.name for w in model.loss_wrappers if "snr" in w.criterion.name)
    assert torch.isfinite(stats[name]).all(), "validation shows the SI-SNR of the FCP images"


def test_the_loss_is_that_of_the_estimates_and_the_recorded_mixtures():
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config())
    data = make_batch()
    actual, _, _ = model(**without_references(data))
    stft, loss = STFT(64, 16), MixtureConstraintLoss(closetalk_past_taps=3, farfield_past_taps=4)
    est, _, _ = model.separator.separator(data["speech_mix"], torch.tensor([SAMPLES] * 2))
    close_talk = torch.stack([data["closetalk_mix1"], data["closetalk_mix2"]], dim=1)
    desired, _ = loss(stft(torch.stack(est, 1)), stft(data["speech_mix"].transpose(1, 2)), stft(close_talk))
    torch.testing.assert_close(actual.squeeze(), desired.mean())


@pytest.mark.parametrize("num_headsets", [1, 2, 3])
@pytest.mark.parametrize("num_sources", [2, 3])
def test_sources_and_headsets_may_differ_in_number(num_sources, num_headsets):
    """A talker without a headset, a source for noise, or a wearer who listens: eq. (3) adds up sources at every mic."""
    torch.manual_seed(0)
    conf = dict(SEPARATORS["tfgridnetv2"]["separator_conf"], n_srcs=num_sources)
    model = M2MEnhancementTask.build_model(config(criterions=[M2M], separator_conf=conf))
    data = {"speech_mix": make_batch()["speech_mix"]}
    headsets = torch.randn(2, num_headsets, SAMPLES)
    data |= {f"closetalk_mix{n}": wave for n, wave in enumerate(headsets.unbind(1), start=1)}
    actual, _, _ = model(**data)
    stft, loss = STFT(64, 16), MixtureConstraintLoss(closetalk_past_taps=3, farfield_past_taps=4)
    est, _, _ = model.separator.separator(data["speech_mix"], torch.tensor([SAMPLES] * 2))
    desired, _ = loss(stft(torch.stack(est, 1)), stft(data["speech_mix"].transpose(1, 2)), stft(headsets))
    torch.testing.assert_close(actual.squeeze(), desired.mean())


def test_what_needs_a_source_for_everyone_says_so():
    data = make_batch()
    anchored = M2MEnhancementTask.build_model(config(criterions=[criterion(anchor_weight=1.0)]))
    with pytest.raises(ValueError, match="a source for every headset, found 2 sources and 3 close-talk mixtures"):
        anchored(**without_references(data), closetalk_mix3=data["closetalk_mix1"])
    supervised = M2MEnhancementTask.build_model(config(criterions=[PIT]))
    with pytest.raises(ValueError, match="found 3 references for a separator of 2 sources"):
        supervised(**data, speech_ref3=data["speech_ref1"])


@pytest.mark.parametrize("ref_channel", [None, 2])
@pytest.mark.parametrize("consistent", [False, True])
def test_separate_speech_gives_fcp_images_at_the_reference_mic(tmp_path, ref_channel, consistent):
    """Against the literal equations in float64, applied to the network's estimates."""
    train_config, model_file = save(tmp_path, config(model_conf={"mixture_consistency": consistent}))
    separate = SeparateSpeech(train_config, model_file, ref_channel=ref_channel)
    mix = make_batch(batch=1)["speech_mix"] * 0.01  # the level must come out again
    actual = separate(mix, fs=8000)
    stft = STFT(64, 16)
    with torch.no_grad():
        est, _, _ = separate.enh_model.separator.separator(mix, torch.tensor([SAMPLES]))
    est = stft(torch.stack(est, 1))[0].numpy().astype(complex)
    far_field = stft(mix.transpose(1, 2))[0].numpy().astype(complex)
    weight = oracle.farfield_weight(far_field)
    mixture = far_field[ref_channel or 0]
    filters = [oracle.fcp_filter(z, mixture, weight, 4, 1, 1e-5) for z in est]
    images = np.stack([oracle.fcp_image(z, g, 4, 1) for z, g in zip(est, filters)])
    if consistent:
        images = oracle.mixture_consistency(images, mixture)
    for source, image in enumerate(images):
        desired = stft.inverse(torch.from_numpy(image), SAMPLES).numpy()
        # The network runs in float32; the images are compared relative to their level.
        error = np.abs(actual[source][0] - desired).max() / np.abs(desired).max()
        assert error < 1e-3, (source, error)


def test_stock_espnet_code_builds_the_same_model_after_register(tmp_path):
    register()
    register()
    train_config, model_file = save(tmp_path, config())
    model, _ = EnhancementTask.build_model_from_file(train_config, model_file)
    assert isinstance(model, ESPnetM2MModel)
    stock = EnhancementTask.build_model(config(criterions=[dict(VALID_SI_SNR, conf={})]))
    assert type(stock) is ESPnetEnhancementModel


def test_weights_of_another_model_are_refused(tmp_path):
    train_config, model_file = save(tmp_path, config())
    stock = EnhancementTask.build_model(config(criterions=[dict(VALID_SI_SNR, conf={})]))
    torch.save(stock.state_dict(), model_file)
    with pytest.raises(ValueError, match="does not fit its config"):
        M2MEnhancementTask.build_model_from_file(train_config, model_file)


def test_weights_in_a_deepspeed_checkpoint_are_found(tmp_path):
    train_config, model_file = save(tmp_path, config())
    torch.save({"module": torch.load(model_file)}, model_file)
    M2MEnhancementTask.build_model_from_file(train_config, model_file)


def test_one_far_field_mic_of_six_is_the_same_as_a_recording_with_one():
    """P = 1 by model_conf: input_mics and loss_mics choose from the recorded mics."""
    torch.manual_seed(0)
    conf = dict(SEPARATORS["tfgridnetv2"]["separator_conf"], n_imics=1)
    chosen = M2MEnhancementTask.build_model(
        config(separator_conf=conf, model_conf={"input_mics": [1], "loss_mics": [1]})
    )
    single = M2MEnhancementTask.build_model(config(separator_conf=conf))
    single.load_state_dict(chosen.state_dict())
    data = without_references(make_batch())
    actual, _, _ = chosen(**data)
    desired, _, _ = single(**{**data, "speech_mix": data["speech_mix"][..., 1]})
    torch.testing.assert_close(actual, desired)
    assert chosen.separator.ref_channel == 1


def test_variance_normalisation_changes_nothing_for_a_network_that_does_it_itself():
    torch.manual_seed(0)
    plain = M2MEnhancementTask.build_model(config())
    normalised = M2MEnhancementTask.build_model(config(model_conf={"normalize_variance": True}))
    normalised.load_state_dict(plain.state_dict())
    data = without_references(make_batch())
    torch.testing.assert_close(normalised(**data)[0], plain(**data)[0], rtol=1e-4, atol=1e-4)


def test_unssor_and_closetalk_from_ref():
    torch.manual_seed(0)
    data = make_batch()
    unssor = M2MEnhancementTask.build_model(
        config(criterions=[criterion(close_talk=False, isms_weight=0.02, ref_mic_weight=0.2)])
    )
    _, stats, _ = unssor(speech_mix=data["speech_mix"])
    assert "isms" in stats and "mc_close_talk" not in stats
    names = {f"speech_ref{n}": data[f"closetalk_mix{n}"] for n in (1, 2)}
    from_ref = M2MEnhancementTask.build_model(config(criterions=[M2M], model_conf={"closetalk_from_ref": True}))
    named = M2MEnhancementTask.build_model(config(criterions=[M2M]))
    named.load_state_dict(from_ref.state_dict())
    torch.testing.assert_close(
        from_ref(speech_mix=data["speech_mix"], **names)[0], named(**without_references(data))[0]
    )


def test_padding_of_a_batch_has_no_influence_on_the_loss_of_given_estimates():
    """A separator that copies mics, so that only the model's own handling of lengths is tested."""

    class Copy(torch.nn.Module):
        num_spk = 2

        def forward(self, input, ilens, additional=None):
            return [input[..., 0], input[..., 1]], ilens, {}

    model = M2MEnhancementTask.build_model(config(criterions=[M2M]))
    model.separator.separator = Copy()
    model.eval()  # in training ESPnet insists on a loss with a gradient
    data = without_references(make_batch(batch=1))
    desired, _, _ = model(**data)
    padded = {name: torch.cat([value, torch.zeros_like(value[:, :160])], 1) for name, value in data.items()}
    long = {name: torch.randn(1, *value.shape[1:]) for name, value in padded.items()}
    both = {name: torch.cat([padded[name], long[name]]) for name in padded}
    lengths = torch.tensor([SAMPLES, SAMPLES + 160])
    of_both, _, _ = model(**both, speech_mix_lengths=lengths)
    of_long, _, _ = model(**long)
    torch.testing.assert_close(2 * of_both - of_long, desired, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "separator, builtin_complex", [("tfgridnetv2", None), ("tcn", True), ("tcn", False), ("rnn", True), ("rnn", False)]
)  # ESPnet's dccrn and tfgridnetv3 themselves fail in bfloat16
def test_separators_train_under_autocast(separator, builtin_complex):
    """bfloat16 has no complex dtype, so parts of spectra become float32 before they are joined."""
    torch.manual_seed(0)
    args = config(separator, criterions=[M2M])
    if builtin_complex is not None:
        args.encoder_conf = dict(args.encoder_conf, use_builtin_complex=builtin_complex)
    model = M2MEnhancementTask.build_model(args)
    data = without_references(make_batch(mics=1 if separator in SINGLE_CHANNEL else 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = model(**data)
    loss.backward()
    assert torch.isfinite(loss).all()


def test_complex_parts_in_half_precision_are_joined_in_float32():
    model = M2MEnhancementTask.build_model(config("dccrn", criterions=[M2M]))
    part = torch.randn(1, 5, 33, dtype=torch.bfloat16)
    actual = model.separator.domain.spectrum(ComplexTensor(part, -part))
    assert actual.dtype == torch.complex64
    torch.testing.assert_close(actual[0, 0].T, torch.complex(part[0].float(), -part[0].float()))


@pytest.mark.parametrize("separator", SINGLE_CHANNEL)
def test_a_separator_of_one_mic_says_so_and_takes_one_of_several(separator):
    data = without_references(make_batch())
    model = M2MEnhancementTask.build_model(config(separator, criterions=[M2M]))
    with pytest.raises(ValueError, match=r"input_mics: \[0\]"):
        model(**data)
    model = M2MEnhancementTask.build_model(config(separator, criterions=[M2M], model_conf={"input_mics": [0]}))
    assert torch.isfinite(model(**data)[0]).all()


@pytest.mark.parametrize(
    "estimates, message",
    [
        (None, "found NoneType"),
        ([torch.zeros(2, SAMPLES)], "found 1"),
        ([torch.zeros(2, SAMPLES // 2)] * 2, "estimates of shape"),
        ([[torch.zeros(2, SAMPLES)] * 2] * 2, "several layers"),
    ],
)
def test_a_separator_without_estimates_is_refused(estimates, message):
    model = M2MEnhancementTask.build_model(config(criterions=[M2M]))
    model.separator.separator.forward = lambda *args: (estimates, None, {})
    with pytest.raises(ValueError, match=message):
        model(**without_references(make_batch()))


@pytest.mark.parametrize("ref_channel", [-1, 3])
def test_a_reference_mic_that_does_not_exist_is_refused(tmp_path, ref_channel):
    separate = SeparateSpeech(*save(tmp_path, config()), ref_channel=ref_channel)
    with pytest.raises(ValueError, match="ref_channel"):
        separate(make_batch(batch=1)["speech_mix"], fs=8000)


NORMALISATIONS = ({}, {"normalize_variance": True})


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("model_conf", NORMALISATIONS)
def test_a_silent_segment_has_no_weight_in_training(caplog, model_conf):
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config(criterions=[M2M], model_conf=model_conf))
    data = without_references(make_batch())
    desired, _, _ = model(**{name: value[:1] for name, value in data.items()})
    desired.backward()
    desired_gradients = gradients(model)
    model.zero_grad()
    data["speech_mix"][1] = 0
    for _ in range(2):
        actual, stats, weight = model(**data, utt_id=["utt-a", "utt-b"])
    actual.backward()
    torch.testing.assert_close(actual, desired)
    torch.testing.assert_close(gradients(model), desired_gradients, rtol=1e-3, atol=1e-4)
    assert weight == 1 and stats["mc"] == pytest.approx(actual.item(), rel=1e-6)
    assert [r.message.split(":")[0] for r in caplog.records] == ["utt-b"], "one warning, by name"


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_batch_of_silence_has_neither_loss_nor_gradient(separator):
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config(separator))
    data = make_batch(mics=1 if separator in SINGLE_CHANNEL else 3)
    data["speech_mix"].zero_()
    loss, stats, weight = model(**data)
    loss.backward()
    assert loss == 0 and weight == 0 and not gradients(model).any()
    model.eval()
    with torch.no_grad():
        assert model(**data)[0] == 0


def test_validation_leaves_silent_utterances_out_of_all_criteria():
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config()).eval()
    data = make_batch()
    data["speech_mix"][0] = 0
    with torch.no_grad():
        _, actual, weight = model(**data)
        _, desired, _ = model(**{name: value[1:] for name, value in data.items()})
    assert weight == 1
    for name in desired:
        torch.testing.assert_close(actual[name], desired[name])


@pytest.mark.parametrize("silent", [[], [1], [0, 1]])
def test_a_silent_reference_leaves_its_utterance_out_of_the_criteria_it_is_undefined_for(silent):
    """SI-SNR, of weight 0, is NaN for it: once the loss of the batch was NaN too, and left out of the epoch's mean."""
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config()).eval()
    data = make_batch()
    with torch.no_grad():
        _, of_first, _ = model(**{name: value[:1] for name, value in data.items()})
        _, of_both, _ = model(**data)
        data["speech_ref2"][silent] = 0
        loss, stats, weight = model(**data)
    assert weight == 2 and loss == stats["loss"] == stats["mixture_constraint"] == of_both["mixture_constraint"]
    desired = [of_both["si_snr_loss"], of_first["si_snr_loss"], torch.tensor(torch.nan)][len(silent)]
    torch.testing.assert_close(stats["si_snr_loss"].reshape(()), desired.reshape(()), equal_nan=True)


@pytest.mark.parametrize("silent", [[1], [0, 1]])
def test_a_silent_reference_gives_finite_gradients_where_the_criterion_has_a_weight(silent):
    torch.manual_seed(0)
    si_snr = dict(VALID_SI_SNR, conf={}, wrapper_conf={"weight": 0.1})
    model = M2MEnhancementTask.build_model(config(criterions=[M2M, si_snr]))
    data = make_batch()
    data["speech_ref1"][silent] = 0
    loss, stats, _ = model(**data)
    loss.backward()
    assert torch.isfinite(gradients(model)).all()
    of_si_snr = 0.1 * stats["si_snr_loss"].item() if len(silent) == 1 else 0
    assert loss.item() == pytest.approx(stats["mixture_constraint"].item() + of_si_snr, rel=1e-5)


@pytest.mark.parametrize("separator", ["tfgridnet_spectra", "tfgridnetv2"])
def test_anything_may_stand_in_the_padding_of_a_batch(separator):
    """Also NaN, in the recordings and in what a network that works on waveforms makes of it."""
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config(separator)).eval()
    lengths = torch.tensor([SAMPLES, SAMPLES // 2])
    results = []
    for value in (0, torch.nan, 1e30):
        data = make_batch()
        for wave in data.values():
            wave[1, SAMPLES // 2 :] = value
        with torch.no_grad():
            loss, stats, _ = model(**data, speech_mix_lengths=lengths)
        results.append([loss, *stats.values()])
        assert all(torch.isfinite(part).all() for part in results[-1])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("bad_items", [[0], [0, 1]])
def test_estimates_that_overflow_skip_the_step_only(bad_items):
    """ESPnet's trainer skips a step whose gradient norm is not finite; an exception would end it."""
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config(criterions=[M2M]))
    separator = model.separator.separator

    class Overflow(torch.nn.Module):
        num_spk = 2

        def __init__(self):
            super().__init__()
            self.separator = separator

        def forward(self, *args):
            estimates, lengths, others = self.separator(*args)
            factor = torch.ones(2, 1)
            factor[bad_items] = torch.inf
            return [z * factor for z in estimates], lengths, others

    model.separator.separator = Overflow()
    loss, stats, _ = model(**without_references(make_batch()))
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    assert not torch.isfinite(loss).any() and not torch.isfinite(norm)
    assert not torch.isfinite(stats["loss"]), "ESPnet's averages leave it out"


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("model_conf", NORMALISATIONS)
def test_a_silent_recording_or_segment_gives_silence(tmp_path, separator, model_conf):
    args = config(separator, model_conf=model_conf)
    separate = SeparateSpeech(*save(tmp_path, args), segment_size=0.04, hop_size=0.02)
    separate.normalize_output_wav = True
    mix = make_batch(batch=1, mics=1 if separator in SINGLE_CHANNEL else 3)["speech_mix"]
    mix = torch.cat([mix, torch.zeros_like(mix)], dim=1)
    for wave in separate(mix, fs=8000):
        assert np.isfinite(wave).all() and wave.any() and not wave[0, -SAMPLES // 2 :].any()
    for wave in separate(0 * mix, fs=8000):
        assert wave.shape == (1, 2 * SAMPLES) and not wave.any()
    separate.segmenting = False
    for wave in separate(0 * mix, fs=8000):
        assert not wave.any()


def test_autocast_leaves_fcp_in_full_precision():
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(config(criterions=[M2M]))
    data = without_references(make_batch())
    seen = []
    loss_module = model.separator.mixture_constraint
    loss_module.register_forward_hook(lambda module, args, output: seen.append((args, output)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**data)
    ((args, (loss, _)),) = seen
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, MixtureConstraintLoss(closetalk_past_taps=3, farfield_past_taps=4)(*args)[0])


def test_the_fade_of_the_anchor_continues_after_a_restart():
    model = M2MEnhancementTask.build_model(config(criterions=[criterion(anchor_weight=1.0, anchor_fade=[1, 3])]))
    data = without_references(make_batch())
    for _ in range(3):
        loss, stats, _ = model(**data)
    resumed = M2MEnhancementTask.build_model(config(criterions=[criterion(anchor_weight=1.0, anchor_fade=[1, 3])]))
    resumed.load_state_dict(model.state_dict())
    loss, stats, _ = resumed(**data)
    assert loss.item() == pytest.approx(stats["mc"].item()), "the anchor has faded away"


@pytest.mark.parametrize(
    "init_param, prefix",
    [("{}", ""), ("{}:separator:separator", ""), ("{}:::encoder", ""), ("{}:enh_model", "enh_model.")],
)
def test_a_training_that_starts_from_a_model_starts_the_fade_anew(tmp_path, monkeypatch, init_param, prefix):
    model, new = (M2MEnhancementTask.build_model(config(criterions=[criterion(anchor_weight=1.0)])) for _ in range(2))
    model.separator.mixture_constraint.step.fill_(5000)
    torch.save({prefix + name: value for name, value in model.state_dict().items()}, tmp_path / "model.pth")
    options = {**M2MEnhancementTask.get_default_config(), **vars(config(criterions=[M2M])), "iterator_type": "chunk"}
    args = argparse.Namespace(**{**options, "init_param": [init_param.format(tmp_path / "model.pth")]})
    monkeypatch.setattr(EnhancementTask, "main_worker", classmethod(lambda cls, args: None))
    M2MEnhancementTask.main_worker(args)
    load_pretrained_model(*args.init_param, new, ignore_init_mismatch=False)
    desired, actual = model.state_dict(), new.state_dict()
    assert desired.pop(STEP) == 5000 and actual.pop(STEP) == 0
    for name, value in desired.items():
        torch.testing.assert_close(actual[name], value)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(separator="rnn", encoder_conf={"n_fft": 64, "spec_transform_type": "exponent"}), "spec_transform_type"),
        (dict(criterions=[criterion(close_talk=False, anchor_weight=1.0)]), "anchor_weight"),
        (dict(criterions=[criterion(alpha=-1.0)]), "alpha must be >= 0"),
        (dict(criterions=[criterion(alfa=1.0)]), "alfa"),
        (dict(criterions=[dict(VALID_SI_SNR, wrapper="mixture", wrapper_conf={}), M2M]), "wrapper mixture goes with"),
        (dict(model_conf={"flexible_numspk": True}), "flexible_numspk"),
        (dict(model_conf={"normalize_variance_per_ch": True}), "normalize_variance_per_ch: True; remove it"),
        (dict(model_conf={"categories": ["real"]}), "categories"),
        (dict(model_conf={"input_mics": []}), "input_mics must be different mics"),
        (dict(model_conf={"input_mics": [0, 0]}), "input_mics must be different mics"),
        (dict(model_conf={"loss_mics": [-1]}), "loss_mics must be different mics"),
        (dict(model_conf={"loss_mics": [0, 1]}, criterions=[criterion(ref_mic=2)]), "ref_mic: 2"),
        (dict(criterions=[dict(M2M, wrapper="fixed_order", wrapper_conf={})]), "wrapper: mixture"),
        (dict(separator="rnn", separator_type="dan", separator_conf={"num_spk": 2}), "DANSeparator"),
        (
            dict(separator="rnn", separator_type="wpe_beamformer", separator_conf={"num_spk": 2}),
            "gives masks but no estimates",
        ),
        (dict(model_conf={"closetalk_from_ref": True}), "only criterion"),
        (dict(model_conf={"closetalk_from_ref": True}, criterions=[PIT]), "without any"),
        (dict(separator="tfgridnet_spectra", decoder_conf={"n_fft": 64, "hop_length": 8}), "must be the same"),
        (
            dict(separator="rnn", separator_conf={"num_spk": 2, "layer": 1, "unit": 6, "predict_noise": True}),
            "predict_noise: false",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused_with_what_to_change(changes, message):
    changes = dict(changes)
    name = changes.pop("separator_type", None)
    args = config(**changes)
    args.separator = name or args.separator
    with pytest.raises(ValueError, match=message):
        M2MEnhancementTask.build_model(args)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda d: [d.pop("closetalk_mix1"), d.pop("closetalk_mix2")], "closetalk_mix1"),
        (lambda d: d.update(closetalk_mix3=d.pop("closetalk_mix2")), "found closetalk_mix1, closetalk_mix3;"),
        (lambda d: d.pop("closetalk_mix1"), "without a gap, found closetalk_mix2; name them closetalk_mix1"),
        (lambda d: d.update(speech_mix=d["speech_mix"][..., :2]), "n_imics: 3"),
        (lambda d: d["speech_mix"][1].fill_(torch.nan), "^utt-b: speech_mix has NaN"),
        (lambda d: d["closetalk_mix2"][0, 3:5].fill_(torch.inf), "^utt-a: a close-talk mixture has NaN"),
        (lambda d: d.update(closetalk_mix2=torch.randn(2, SAMPLES, 2)), "closetalk_mix2 must be one"),
    ],
)
def test_data_that_do_not_fit_are_refused_by_name(spoil, message):
    model = M2MEnhancementTask.build_model(config(criterions=[M2M]))
    data = without_references(make_batch())
    spoil(data)
    with pytest.raises(ValueError, match=message):
        model(**data, utt_id=["utt-a", "utt-b"])


def test_a_criterion_without_its_references_says_so():
    model = M2MEnhancementTask.build_model(config()).eval()
    with pytest.raises(ValueError, match="needs references in validation"):
        model(**without_references(make_batch()))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda d: d.update(closetalk_mix1=d["closetalk_mix1"][:-1]), "utt1: closetalk_mix1 has 799"),
        (lambda d: d["speech_mix"].__setitem__((3, 0), np.nan), "utt1: speech_mix has NaN"),
        (lambda d: d.update(closetalk_mix1=np.zeros((SAMPLES, 2), np.float32)), "utt1: .* mono"),
    ],
)
def test_the_preprocessor_names_the_utterance(spoil, message):
    args = argparse.Namespace(preprocessor=None, criterions=[M2M])
    check = M2MEnhancementTask.build_preprocess_fn(args, True)
    data = {name: value[0].numpy() for name, value in make_batch().items()}
    assert check("utt1", data) is data
    spoil(data)
    with pytest.raises(ValueError, match=message):
        check("utt1", data)


class TestPIT:
    """Supervised models: the plug-in's loss on the estimates themselves, which are also the output."""

    @pytest.mark.parametrize("separator", ["tfgridnet_spectra", "tfgridnetv2"])
    def test_the_loss_compares_the_estimates_with_the_references(self, separator):
        torch.manual_seed(0)
        model = M2MEnhancementTask.build_model(config(separator, [PIT, VALID_SI_SNR]))
        data = make_batch()
        actual, stats, _ = model(**data)
        assert set(stats) == {"ri_mag", "loss"}, "SI-SNR is for validation"
        stft = STFT(64, 16)
        mix = stft(data["speech_mix"].transpose(1, 2))
        lengths = torch.tensor([SAMPLES] * 2)
        if separator == "tfgridnetv2":
            est = stft(torch.stack(model.separator.separator(data["speech_mix"], lengths)[0], 1))
        else:
            est = torch.stack(model.separator.separator(mix.permute(0, 3, 1, 2), lengths)[0], 1).mT
        refs = stft(torch.stack([data["speech_ref1"], data["speech_ref2"]], dim=1))
        torch.testing.assert_close(actual.squeeze(), pit_ri_mag(est, refs, mix[:, 0])[0].mean())
        exchanged = dict(data, speech_ref1=data["speech_ref2"], speech_ref2=data["speech_ref1"])
        torch.testing.assert_close(model(**exchanged)[0], actual)

    def test_references_of_all_mics_are_those_of_the_reference_mic(self):
        torch.manual_seed(0)
        model = M2MEnhancementTask.build_model(config("tfgridnet_spectra", [PIT]))
        data = make_batch()
        all_mics = dict(data)
        for n in (1, 2):
            all_mics[f"speech_ref{n}"] = torch.stack([data[f"speech_ref{n}"], *torch.randn(2, 2, SAMPLES)], dim=2)
        torch.testing.assert_close(model(**all_mics)[0], model(**data)[0])

    def test_output_is_the_estimate_or_on_request_its_fcp_image(self, tmp_path):
        separate = SeparateSpeech(*save(tmp_path, config("tfgridnet_spectra", [PIT])), precision="float32")
        mix = make_batch(batch=1)["speech_mix"] * 0.01
        stft = STFT(64, 16)
        spectra = stft(mix.transpose(1, 2))
        with torch.no_grad():
            est = separate.enh_model.separator.separator(
                spectra.permute(0, 3, 1, 2), torch.tensor([spectra.shape[-1]])
            )[0]
        direct = separate(mix, fs=8000)
        for source in range(2):
            wave = stft.inverse(est[source].mT, SAMPLES)
            np.testing.assert_allclose(direct[source], wave, atol=1e-4 * wave.abs().max())
        separate.enh_model.separator.fcp_output = True
        far_field = spectra[0].numpy().astype(complex)
        filtered = separate(mix, fs=8000)[0][0]
        est = est[0][0].T.numpy().astype(complex)
        filters = oracle.fcp_filter(est, far_field[0], oracle.farfield_weight(far_field), 19, 1, 1e-5)
        desired = stft.inverse(torch.from_numpy(oracle.fcp_image(est, filters, 19, 1)), SAMPLES).numpy()
        assert np.abs(filtered - desired).max() < 1e-3 * np.abs(desired).max()

    @pytest.mark.parametrize("fcp_output", [False, True])
    def test_on_request_the_output_adds_up_to_the_mixture(self, tmp_path, fcp_output):
        paths, mix = save(tmp_path, config("tfgridnet_spectra", [PIT])), make_batch(batch=1)["speech_mix"]
        plain, consistent = (
            SeparateSpeech(*paths, fcp_output=fcp_output, mixture_consistency=value)(mix, fs=8000)
            for value in (None, True)
        )
        scale = mix[0, :, 0].abs().max()
        np.testing.assert_allclose(sum(consistent)[0], mix[0, :, 0], atol=1e-5 * scale)
        assert np.abs(sum(plain)[0] - mix[0, :, 0].numpy()).max() > 0.1 * scale

    def test_another_reference_mic_needs_fcp(self, tmp_path):
        separate = SeparateSpeech(*save(tmp_path, config("tfgridnet_spectra", [PIT])), ref_channel=1)
        mix = make_batch(batch=1)["speech_mix"]
        with pytest.raises(ValueError, match="estimates the speech at mic 0, but ref_channel is 1"):
            separate(mix, fs=8000)
        separate.enh_model.separator.fcp_output = True
        assert np.isfinite(separate(mix, fs=8000)).all()

    def test_references_are_needed_in_training(self):
        model = M2MEnhancementTask.build_model(config("tfgridnet_spectra", [PIT]))
        with pytest.raises(ValueError, match="ri_mag needs references in training"):
            model(**without_references(make_batch()))

    def test_with_mixture_constraint_besides_both_count_and_the_output_is_filtered(self):
        torch.manual_seed(0)
        both = M2MEnhancementTask.build_model(config("tfgridnet_spectra", [PIT, M2M]))
        data = make_batch()
        loss, stats, _ = both(**data)
        torch.testing.assert_close(loss.flatten(), (stats["ri_mag"] + stats["mixture_constraint"]).flatten())
        assert both.separator.fcp_output

    def test_silent_utterances_do_not_count(self):
        torch.manual_seed(0)
        model = M2MEnhancementTask.build_model(config("tfgridnet_spectra", [PIT]))
        data = make_batch()
        alone = {name: value[:1] for name, value in data.items()}
        data["speech_mix"][1] = 0
        torch.testing.assert_close(model(**data)[0], model(**alone)[0])

    def test_level_of_the_recording_does_not_matter_when_espnet_normalises(self):
        losses = []
        for level in (1.0, 1e-2):
            torch.manual_seed(0)
            model = M2MEnhancementTask.build_model(
                config("tfgridnetv2", [PIT], model_conf={"normalize_variance": True})
            )
            data = {name: level * value for name, value in make_batch().items()}
            losses.append(model(**data)[0])
        torch.testing.assert_close(*losses, rtol=1e-4, atol=0)

    def test_padding_does_not_count(self):
        torch.manual_seed(0)
        model = M2MEnhancementTask.build_model(config("tfgridnet_spectra", [PIT]))
        data = make_batch()
        half = SAMPLES // 2
        for value in data.values():
            value[1, half:] = 0
        whole, short = (
            {name: value[item : item + 1, :length] for name, value in data.items()}
            for item, length in ((0, SAMPLES), (1, half))
        )
        together, _, _ = model(**data, speech_mix_lengths=torch.tensor([SAMPLES, half]))
        torch.testing.assert_close(together, (model(**whole)[0] + model(**short)[0]) / 2)

    def test_a_silent_reference_mic_has_no_weight(self):
        torch.manual_seed(0)
        model = M2MEnhancementTask.build_model(config("tfgridnet_spectra", [PIT]))
        data = make_batch()
        alone = {name: value[:1] for name, value in data.items()}
        data["speech_mix"][1, :, 0] = 0
        torch.testing.assert_close(model(**data)[0], model(**alone)[0])

    @pytest.mark.parametrize(
        "criterions, message",
        [
            ([dict(PIT, conf=dict(PIT["conf"], ref_mic=1)), M2M], "same ref_mic"),
            ([dict(PIT, wrapper="pit", wrapper_conf={})], "ri_mag has wrapper: pit_spectra"),
            ([dict(PIT, wrapper="mixture", wrapper_conf={})], "wrapper mixture goes with"),
            ([dict(M2M, wrapper="pit_spectra", wrapper_conf={})], "wrapper pit_spectra goes with"),
        ],
    )
    def test_wrappers_that_do_not_fit_are_refused(self, criterions, message):
        with pytest.raises(ValueError, match=message):
            M2MEnhancementTask.build_model(config("tfgridnet_spectra", criterions))
