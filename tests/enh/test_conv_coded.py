"""`encoder: conv`: the network separates in a learned domain, losses and FCP get the STFT of what is decoded."""

import numpy as np
import oracle
import pytest
import torch
from espnet2.enh.decoder.null_decoder import NullDecoder
from espnet2.enh.encoder.null_encoder import NullEncoder
from espnet_configs import M2M, PIT, SEPARATORS, VALID_SI_SNR, config, save

from espnet2_m2m import SeparateRecording
from espnet2_m2m.loss import MixtureConstraintLoss, pit_ri_mag
from espnet2_m2m.spectra import mask_frames
from espnet2_m2m.stft import STFT
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask
from espnet2_m2m.tasks.separate_speech import SeparateSpeech

CONV = {"channel": 12, "kernel_size": 16, "stride": 8}
SAMPLES = 803  # the last three are beyond the last frame of the encoder


def conv_config(criterions=(M2M,), separator="tcn", **changes):
    coders = {"encoder": "conv", "decoder": "conv", "encoder_conf": CONV, "decoder_conf": CONV}
    return config(separator, criterions, **{**coders, "model_conf": {"input_mics": [1]}, **changes})


def by_hand(model, speech_mix, lengths):
    """Waveforms (batch, source, sample) of the model's parts: encode, separate, decode."""
    parts = model.separator.separator
    feature, frames = parts.encoder(speech_mix[..., 1], lengths)
    estimates, _, _ = parts.separator(feature, frames)
    return torch.stack([parts.decoder(estimate, lengths)[0] for estimate in estimates], 1)


def batch():
    data = {"speech_mix": torch.randn(2, SAMPLES, 3)}
    data |= {f"closetalk_mix{n}": torch.randn(2, SAMPLES) for n in (1, 2)}
    return data, torch.tensor([SAMPLES, SAMPLES - 100])


@pytest.mark.parametrize("separator", ["tcn", "rnn"])
def test_the_loss_is_that_of_the_decoded_estimates(separator):
    """With an utterance that is shorter than the other: what the network makes of the padding does not count."""
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(conv_config(separator=separator))
    data, lengths = batch()
    actual, _, _ = model(**data, speech_mix_lengths=lengths)
    inside = torch.arange(SAMPLES) < lengths[:, None]
    data = {name: wave * inside.reshape(2, SAMPLES, *[1] * (wave.dim() - 2)) for name, wave in data.items()}
    stft, loss = STFT(64, 16), MixtureConstraintLoss(closetalk_past_taps=3, farfield_past_taps=4)
    est = by_hand(model, data["speech_mix"], lengths) * inside[:, None]
    headsets = torch.stack([data["closetalk_mix1"], data["closetalk_mix2"]], 1)
    frames = stft.num_frames(lengths)
    waves = (est, data["speech_mix"].mT, headsets)
    desired, _ = loss(*(mask_frames(stft(wave), frames) for wave in waves), frames)
    torch.testing.assert_close(actual.squeeze(), desired.mean())


def test_pit_compares_the_decoded_estimates_with_the_references():
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(conv_config([PIT]))
    mix, refs, stft = torch.randn(2, SAMPLES, 3), torch.randn(2, 2, SAMPLES), STFT(64, 16)
    actual, _, _ = model(mix, speech_ref1=refs[:, 0], speech_ref2=refs[:, 1])
    est = by_hand(model, mix, torch.tensor([SAMPLES] * 2))
    desired, _ = pit_ri_mag(stft(est), stft(refs), stft(mix[..., 0]))
    torch.testing.assert_close(actual.squeeze(), desired.mean())


def test_it_trains_and_every_weight_moves():
    torch.manual_seed(0)
    model = M2MEnhancementTask.build_model(conv_config())
    data, _ = batch()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss, _, _ = model(**data)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_a_trained_model_gives_fcp_images_of_the_decoded_estimates(tmp_path):
    """Against the literal equations in float64, as ESPnet's command and as `separate` load it."""
    torch.manual_seed(0)
    paths = save(tmp_path, conv_config([M2M, VALID_SI_SNR]))
    separate = SeparateSpeech(*paths)
    assert isinstance(separate.enh_model.encoder, NullEncoder) and isinstance(separate.enh_model.decoder, NullDecoder)
    num_samples, stft = 5000, STFT(64, 16)
    mix = 0.1 * torch.randn(1, num_samples, 3)
    with torch.no_grad():
        est = stft(by_hand(separate.enh_model, mix, torch.tensor([num_samples])))[0].numpy().astype(complex)
    far_field = stft(mix.mT)[0].numpy().astype(complex)
    weight = oracle.farfield_weight(far_field)
    of_recording = SeparateRecording.from_pretrained(paths[1])(mix[0].numpy(), 8000)
    for source, actual in enumerate(separate(mix, fs=8000)):
        filters = oracle.fcp_filter(est[source], far_field[0], weight, 4, 1, 1e-5)
        image = torch.from_numpy(oracle.fcp_image(est[source], filters, 4, 1))
        desired = stft.inverse(image, num_samples).numpy()
        for wave in (actual[0], of_recording[source]):
            assert np.abs(wave - desired).max() < 1e-3 * np.abs(desired).max()


def test_a_recording_of_several_mics_needs_a_choice():
    model = M2MEnhancementTask.build_model(conv_config(model_conf={}))
    with pytest.raises(ValueError, match=r"1 mic\(s\), found 3; choose one by model_conf's input_mics: \[0\]"):
        model(**batch()[0])


def test_encoder_same_has_no_coders_but_its_own():
    model = M2MEnhancementTask.build_model(config("tfgridnetv2", [M2M]))
    assert type(model.separator.separator).__name__ == "TFGridNetV2"
    assert "conv" not in SEPARATORS["tfgridnetv2"].values()
