"""The tables of docs/separators.md are true: what is said to train does, what is said not to is refused.

The page is the only place where the separators' options are written down. Each row is run with two and with six mics,
a network of a few hundred weights and a tenth of a second of noise.
"""

import argparse
import re
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from espnet2.enh.layers.dnn_beamformer import BEAMFORMER_TYPES
from espnet2.tasks.enh import separator_choices
from espnet_configs import M2M, STFT_CODER

from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

PAGE = (Path(__file__).parents[2] / "docs/separators.md").read_text(encoding="utf-8")
SAMPLES = 800
CODERS = {"same": {}, "conv": {"channel": 12, "kernel_size": 16, "stride": 8}}
GRID = {
    "n_srcs": 2,
    "n_layers": 1,
    "emb_dim": 4,
    "emb_ks": 2,
    "emb_hs": 2,
    "lstm_hidden_units": 6,
    "attn_n_head": 2,
}
WAVE_GRID = {**GRID, "n_fft": 64, "stride": 16, "attn_approx_qk_dim": 33}
RECURRENT = {"num_spk": 2, "layer": 1, "unit": 6}
TRANSFORMER = {"num_spk": 2, "adim": 8, "aheads": 2, "layers": 1, "linear_units": 8}
CONVOLUTIONAL = {"layer": 2, "stack": 1, "bottleneck_dim": 4, "hidden_dim": 6}
USES = {
    "num_spk": 2,
    "enc_channels": 4,
    "bottleneck_size": 4,
    "num_blocks": 1,
    "num_spatial_blocks": 1,
    "segment_size": 16,
    "memory_size": 2,
    "hidden_size": 4,
    "att_heads": 2,
    "ch_att_dim": 4,
}
# What makes the networks small; which option makes them train stands in the page.
TINY = {
    "asteroid": {"model_name": "ConvTasNet", "num_spk": 2},
    "bsrnn": {"num_spk": 2, "num_channels": 4, "num_layers": 1, "target_fs": 8000, "subbands": [[0, 15], [16, 32]]},
    "conformer": TRANSFORMER,
    "dan": {**RECURRENT, "emb_D": 4},
    "dc_crn": {"num_spk": 2, "enc_hid_channels": 4},
    "dccrn": {"num_spk": 2, "kernel_num": [4, 8], "rnn_units": 8, "rnn_layer": 1},
    "diffusion_model: sgmse": RECURRENT,
    "dpcl": {**RECURRENT, "emb_D": 4},
    "dpcl_e2e": {**RECURRENT, "emb_D": 4, "max_iteration": 3},
    "dprnn": {**RECURRENT, "segment_size": 10},
    "dptnet": {**RECURRENT, "segment_size": 10, "att_heads": 1},
    "fasnet": {
        "num_spk": 2,
        "enc_dim": 8,
        "feature_dim": 8,
        "hidden_dim": 8,
        "layer": 1,
        "segment_size": 10,
        "win_len": 4,
        "context_len": 16,
        "sr": 8000,
    },
    "ineube": {"hid_chans": 4, "hid_chans_dense": 4, "tcn_repeats": 1, "tcn_blocks": 1, "tcn_channels": 8},
    "rnn": RECURRENT,
    "skim": {**RECURRENT, "segment_size": 10},
    "svoice": {"num_spk": 2, "enc_dim": 8, "kernel_size": 8, "hidden_size": 8, "num_layers": 2, "segment_size": 10},
    "tcn": {**CONVOLUTIONAL, "num_spk": 2},
    "tcn_nomask": CONVOLUTIONAL,
    "tfgridnet": WAVE_GRID,
    "tfgridnetv2": WAVE_GRID,
    "tfgridnetv3": {**GRID, "attn_qk_output_channel": 2},
    "tfgridnet_spectra": {**GRID, "n_imics": 3, "attn_qk_dim": 1},
    "transformer": TRANSFORMER,
    "uses": USES,
    "uses2": USES,
    "wpe_beamformer": {"num_spk": 2, **dict.fromkeys(("bunits", "bprojs", "badim", "wunits", "wprojs"), 6)},
}
# Kinds of one separator, each of which the page says to train.
KINDS = {
    "fasnet": [{"fasnet_type": "fasnet"}, {"fasnet_type": "ifasnet"}],
    "uses2": [
        {"tf_mode": "comp", "input_resolution": [33, 51], "window_size": [3, 3]},
        {"tf_mode": "swin", "input_resolution": [33, 51], "window_size": [3, 3], "swin_block_depth": [1]},
    ],
    "wpe_beamformer": [{"beamformer_type": kind} for kind in BEAMFORMER_TYPES]
    + [{"beamformer_type": "mvdr_souden", "use_wpe": True}],
}
# Words of the message by which a separator that cannot be trained is refused.
REFUSED = {
    "dan": "DANSeparator needs references in training",
    "dpcl": "DPCLSeparator needs references in training",
    "svoice": "SVoiceSeparator returns the estimates of several layers",
    "tcn_nomask": "does not go with a mask_module",
    "ineube": "builds iNeuBe with one source",
    "diffusion_model: sgmse": "does not go with diffusion_model: sgmse",
}


def rows(heading):
    """Cells of the table under a heading: separator, encoders that it goes with, and others without backticks."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL).group(1)
    lines = re.findall(r"^\| (`.*) \|$", section, flags=re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    return [
        [name.strip("`"), re.findall("`(.*?)`", coders), *(c.strip("`") for c in rest)] for name, coders, *rest in cells
    ]


TRAINED, NOT_TRAINED = rows("Separators that can be trained"), rows("Separators that cannot be trained")
CASES = [
    pytest.param(name, coder, mics, cell, kind, id="-".join([name, coder, *map(str, kind.values()), f"{mics}mics"]))
    for name, coders, *cells in TRAINED
    for coder in coders
    for mics, cell in zip((2, 6), cells, strict=True)
    for kind in KINDS.get(name, [{}])
]


def options_of(cell):
    """What a cell says to add -> separator_conf, model_conf."""
    options = {} if cell == "as it is" else yaml.safe_load(cell)
    model_conf = {name: options.pop(name) for name in ("input_mics",) if name in options}
    return options, model_conf


def build(name, coder, separator_conf, model_conf):
    """As ESPnet's training builds it: its defaults, with what a config sets."""
    coder_conf = CODERS.get(coder, STFT_CODER)
    options = {
        "encoder": coder,
        "decoder": coder,
        "encoder_conf": coder_conf,
        "decoder_conf": coder_conf,
        "separator": name,
        "separator_conf": {**TINY[name], **separator_conf},
        "model_conf": model_conf,
        "criterions": [M2M],
    }
    if name.startswith("diffusion_model"):
        score = {"score_model": "dcunet", "score_model_conf": {"dcunet_architecture": "DCUNet-10"}}
        sde = {"sde": "ouve", "sde_conf": {}}
        options.update(separator="rnn", diffusion_model="sgmse", diffusion_model_conf={**score, **sde})
    return M2MEnhancementTask.build_model(argparse.Namespace(**{**M2MEnhancementTask.get_default_config(), **options}))


def step(model, mics):
    """The loss of a batch of two recordings with two headsets."""
    headsets = {f"closetalk_mix{n}": torch.randn(2, SAMPLES) for n in (1, 2)}
    loss, _, _ = model(torch.randn(2, SAMPLES, mics), **headsets)
    return loss


@pytest.fixture
def asteroid(monkeypatch):
    """A package of that name with one model, which has the interface that ESPnet's wrapper expects."""

    class ConvTasNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 2, 5, padding="same")

        def forward(self, wave):  # (batch, sample) -> (batch, source, sample)
            return self.conv(wave[:, None])

    package = types.ModuleType("asteroid")
    package.models = types.SimpleNamespace(ConvTasNet=ConvTasNet)
    monkeypatch.setitem(sys.modules, "asteroid", package)


def test_the_page_has_every_separator_once():
    named = [row[0] for row in TRAINED + NOT_TRAINED]
    assert len(named) == len(set(named))
    assert set(named) == set(separator_choices.classes) | {"diffusion_model: sgmse"}


@pytest.mark.parametrize(("name", "coder", "mics", "cell", "kind"), CASES)
def test_a_separator_trains_with_the_option_of_the_page(name, coder, mics, cell, kind, asteroid):
    """Some weights have a reason to get no gradient: a beamformer's mask for the noise is not used by every kind."""
    torch.manual_seed(0)
    separator_conf, model_conf = options_of(cell)
    model = build(name, coder, {**kind, **separator_conf}, model_conf)
    loss = step(model, mics)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)
    reached = sum(bool(gradient.any()) for gradient in gradients)
    assert reached >= 0.75 * len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "coder", "cell"), [(row[0], coder, row[2]) for row in TRAINED if row[2] != "as it is" for coder in row[1]]
)
def test_without_that_option_the_message_names_it(name, coder, cell, asteroid):
    (option,) = yaml.safe_load(cell)
    with pytest.raises(ValueError, match=option):
        step(build(name, coder, {}, {}), mics=2)


@pytest.mark.parametrize("name", [row[0] for row in NOT_TRAINED])
def test_a_separator_that_cannot_be_trained_is_refused(name):
    (coder,) = dict(row[:2] for row in NOT_TRAINED)[name]
    with pytest.raises(ValueError, match=REFUSED[name]):
        build(name, coder, {}, {"input_mics": [0]})


@pytest.mark.parametrize("name", ["fasnet", "wpe_beamformer"])
def test_a_separator_of_several_mics_says_so(name):
    """ESPnet would fail inside, by an AssertionError or a missing estimate."""
    kind = {**KINDS[name][0], **({"loss_type": "spectrum"} if name == "wpe_beamformer" else {})}
    model = build(name, dict(row[:2] for row in TRAINED)[name][0], kind, {"input_mics": [1]})
    with pytest.raises(ValueError, match="needs 2 mics at least, found 1"):
        step(model, mics=2)


@pytest.mark.parametrize("name", [row[0] for row in TRAINED])
def test_an_encoder_that_the_page_does_not_name_is_refused(name):
    named = dict(row[:2] for row in TRAINED)[name]
    unfit = {"same", "stft", "conv"} - set(named) - ({"stft"} if named == ["spectra"] else set())
    for coder in unfit:
        with pytest.raises(ValueError, match=f"separator: {name} does not go with encoder: {coder}"):
            build(name, coder, {}, {})


@pytest.mark.parametrize("name", ["uses", "uses2"])
@pytest.mark.parametrize(
    "option",
    [{"categories": ["1ch_8k"]}, {"always_forward_in_48k": True}, {"normalize_variance_per_ch": True}],
    ids=lambda option: next(iter(option)),
)
def test_options_that_the_page_says_to_remove_are_refused(name, option):
    with pytest.raises(ValueError, match=f"does not go with model_conf's {next(iter(option))}.*remove it"):
        build(name, "stft", KINDS.get(name, [{}])[0], option)
