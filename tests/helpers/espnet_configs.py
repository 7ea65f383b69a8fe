"""Small ESPnet enh configs that the tests build models from."""

import argparse

import torch
import yaml

from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

M2M = {
    "name": "mixture_constraint",
    "conf": {"n_fft": 64, "hop_length": 16, "closetalk_past_taps": 3, "farfield_past_taps": 4},
    "wrapper": "mixture",
    "wrapper_conf": {"weight": 1.0},
}
VALID_SI_SNR = {"name": "si_snr", "conf": {"only_for_test": True}, "wrapper": "pit", "wrapper_conf": {"weight": 0.0}}

STFT_CODER = {"n_fft": 64, "hop_length": 16}
STFT = {"encoder": "stft", "decoder": "stft", "encoder_conf": STFT_CODER, "decoder_conf": STFT_CODER}
PIT = {"name": "ri_mag", "conf": {"n_fft": 64, "hop_length": 16}, "wrapper": "pit_spectra", "wrapper_conf": {}}
# What the three versions of TF-GridNet have in common.
TFGRIDNET = {
    "n_srcs": 2,
    "n_layers": 1,
    "emb_dim": 4,
    "emb_ks": 2,
    "emb_hs": 2,
    "lstm_hidden_units": 6,
    "attn_n_head": 2,
}
SEPARATORS = {
    "tfgridnet_spectra": {
        **STFT,
        "encoder": "spectra",
        "decoder": "spectra",
        "separator_conf": {**TFGRIDNET, "n_imics": 3, "attn_qk_dim": 1},
    },
    "tfgridnetv2": {
        "encoder": "same",
        "decoder": "same",
        "separator_conf": {**TFGRIDNET, "n_imics": 3, "n_fft": 64, "stride": 16, "attn_approx_qk_dim": 33},
    },
    "tfgridnetv3": {**STFT, "separator_conf": {**TFGRIDNET, "attn_qk_output_channel": 2}},
    "tcn": {
        **STFT,
        "separator_conf": {"num_spk": 2, "layer": 2, "stack": 1, "bottleneck_dim": 4, "hidden_dim": 6},
    },
    "rnn": {**STFT, "separator_conf": {"num_spk": 2, "layer": 1, "unit": 6}},
    # An estimate of the complex spectrum through torch_complex instead of torch's own dtype.
    "dccrn": {
        **STFT,
        "encoder_conf": dict(STFT_CODER, use_builtin_complex=False),
        "separator_conf": {"num_spk": 2, "kernel_num": [4, 8], "rnn_units": 8, "rnn_layer": 1},
    },
}
SINGLE_CHANNEL = ("tfgridnetv3", "tcn", "rnn", "dccrn")  # as in stock ESPnet


def config(separator="tfgridnetv2", criterions=(M2M, VALID_SI_SNR), **changes):
    """What `Task.build_model` takes."""
    options = {
        "encoder_conf": {},
        "decoder_conf": {},
        "separator": separator,
        "model_conf": {},
        "init": None,
        "mask_module": None,
        "mask_module_conf": {},
        "criterions": list(criterions),
    }
    return argparse.Namespace(**{**options, **SEPARATORS[separator], **changes})


def criterion(**conf):
    """The M2M criterion with other options."""
    return dict(M2M, conf={**M2M["conf"], **conf})


def save(folder, args):
    """A config.yaml and weights as a training leaves them."""
    model = M2MEnhancementTask.build_model(args)
    content = M2MEnhancementTask.get_default_config()
    content.update(vars(args))
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    torch.save(model.state_dict(), folder / "model.pth")
    return str(folder / "config.yaml"), str(folder / "model.pth")
