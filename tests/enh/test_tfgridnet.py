"""TF-GridNet on spectra against ESPnet's tfgridnetv2, and where that one fails."""

import pytest
import torch
from espnet2.enh.separator.tfgridnetv2_separator import TFGridNetV2

from espnet2_m2m.enh.separator.tfgridnet import TFGridNet, from_espnet

FREQS = 17


def ours(emb_ks=2, emb_hs=2, n_imics=3, **sizes):
    torch.manual_seed(0)
    sizes = {"n_layers": 2, "emb_dim": 8, "lstm_hidden_units": 6, "attn_n_head": 2, "attn_qk_dim": 3, **sizes}
    return TFGridNet(FREQS, n_imics=n_imics, emb_ks=emb_ks, emb_hs=emb_hs, **sizes)


def recording(frames, mics=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, mics, FREQS, dtype=torch.complex64, generator=generator)


def espnet_estimates(net, spectra):
    """The network of ESPnet between its STFT and its inverse: (batch, source, frame, freq)."""
    x = spectra.transpose(1, 2)
    x = net.conv(torch.cat((x.real, x.imag), dim=1))
    for block in net.blocks:
        x = block(x)
    x = net.deconv(x).unflatten(1, (net.n_srcs, 2))
    return torch.complex(x[:, :, 0], x[:, :, 1])


@pytest.mark.parametrize("emb_ks, emb_hs", [(1, 1), (2, 2), (4, 4), (3, 1), (4, 2)])
@pytest.mark.parametrize("frames", [20, 21])
def test_same_function_as_espnets(emb_ks, emb_hs, frames):
    torch.manual_seed(1)
    theirs = TFGridNetV2(
        None,
        n_srcs=2,
        n_fft=2 * (FREQS - 1),
        stride=8,
        n_imics=3,
        n_layers=2,
        lstm_hidden_units=6,
        attn_n_head=2,
        attn_approx_qk_dim=3 * FREQS,
        emb_dim=8,
        emb_ks=emb_ks,
        emb_hs=emb_hs,
    )
    with torch.no_grad():  # fresh norms and slopes are all alike
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    net = ours(emb_ks, emb_hs)
    net.load_state_dict(from_espnet(theirs.state_dict(), emb_hs))
    spectra = recording(frames, batch=2)
    spectra /= spectra.abs().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    expected = espnet_estimates(theirs, spectra)
    actual = torch.stack(net(spectra, torch.full((2,), frames))[0], dim=1)
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()
    direction = torch.randn_like(expected)
    weights = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    theirs_grad = torch.autograd.grad((expected * direction).real.sum(), weights["conv.0.weight"])[0]
    ours_grad = torch.autograd.grad((actual * direction).real.sum(), net.conv_in.weight)[0]
    assert (ours_grad - theirs_grad).abs().max() < 1e-4 * theirs_grad.abs().max()


def test_silence_gives_silence_and_finite_gradients():
    net = ours()
    spectra = recording(12, batch=2)
    spectra[1] = 0
    estimates, _, _ = net(spectra, torch.tensor([12, 12]))
    total = sum(torch.view_as_real(z).square().sum() for z in estimates)
    total.backward()
    assert all(not z[1].any() for z in estimates) and all(z[0].any() for z in estimates)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_padding_has_no_influence():
    net = ours()
    spectra = recording(15, batch=2)
    spectra[1, 9:] = 1e3  # whatever stands there
    together = net(spectra, torch.tensor([15, 9]))[0]
    alone = net(spectra[1:, :9], torch.tensor([9]))[0]
    for both, one in zip(together, alone):
        torch.testing.assert_close(both[1, :9], one[0])
        assert not both[1, 9:].any()


def test_level_of_the_recording_is_the_level_of_the_estimates():
    net, spectra = ours(), recording(12)
    loud = net(1e3 * spectra, torch.tensor([12]))[0]
    for z, z_loud in zip(net(spectra, torch.tensor([12]))[0], loud):
        torch.testing.assert_close(1e3 * z, z_loud, rtol=1e-4, atol=1e-1)


def test_one_mic_needs_no_mic_axis():
    net, spectra = ours(n_imics=1), recording(12, mics=1)
    with_axis, without = (net(x, torch.tensor([12]))[0] for x in (spectra, spectra[:, :, 0]))
    torch.testing.assert_close(with_axis, without)


def test_checkpointing_changes_memory_alone():
    def numbers_kept_and_gradients(activation_checkpointing):
        net, kept = ours(activation_checkpointing=activation_checkpointing), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            estimates = net(recording(12), torch.tensor([12]))[0]
        sum(torch.view_as_real(z).square().sum() for z in estimates).backward()
        return sum(kept), [p.grad for p in net.parameters()]

    all_kept, desired = numbers_kept_and_gradients(False)
    few_kept, actual = numbers_kept_and_gradients(True)
    assert few_kept < 0.5 * all_kept
    torch.testing.assert_close(actual, desired)


@pytest.mark.parametrize("sizes, named", [({"emb_ks": 3, "emb_hs": 2}, "emb_hs"), ({"attn_n_head": 3}, "attn_n_head")])
def test_sizes_that_do_not_fit_are_refused(sizes, named):
    with pytest.raises(ValueError, match=named):
        ours(**sizes)


def test_half_precision_autocast_gives_complex64():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        estimate = ours()(recording(12), torch.tensor([12]))[0][0]
    assert estimate.dtype == torch.complex64
