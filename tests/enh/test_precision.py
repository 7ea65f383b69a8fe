"""The network in bfloat16, everything else as exact as ever; `auto` asks the CPU."""

import argparse
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from espnet_configs import M2M, SEPARATORS, SINGLE_CHANNEL, config, save

from espnet2_m2m import MixtureConstraintLoss
from espnet2_m2m.data_dir import write_table, write_wav
from espnet2_m2m.enh import precision
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask
from espnet2_m2m.tasks.separate_speech import SeparateSpeech

SAMPLES = 800
EXACT = ("tfgridnetv3", "dccrn")  # fail in bfloat16


def batch(mics=3):
    torch.manual_seed(1)
    names = {"speech_mix": (2, SAMPLES, mics), "closetalk_mix1": (2, SAMPLES), "closetalk_mix2": (2, SAMPLES)}
    data = {name: torch.randn(shape) for name, shape in names.items()}
    return data | {"speech_mix": data["speech_mix"][..., 0] if mics == 1 else data["speech_mix"]}


def build(separator="tfgridnet_spectra", **model_conf):
    torch.manual_seed(0)
    return M2MEnhancementTask.build_model(config(separator, criterions=[M2M], model_conf=model_conf))


@pytest.fixture(params=[True, False], ids=["with units", "without units"])
def units(request, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: request.param)
    return request.param


# ---- Which it is -------------------------------------------------------------------------------------


def test_auto_separates_in_bfloat16_where_the_cpu_has_units(units, tmp_path, caplog):
    paths = save(tmp_path, config("tfgridnet_spectra", criterions=[M2M]))
    with caplog.at_level(logging.INFO):
        chosen = SeparateSpeech(*paths).enh_model.separator.precision
    assert chosen == ("bfloat16" if units else "float32")
    assert f"precision: auto is {chosen}: this CPU has {'' if units else 'no '}units for bfloat16" in caplog.text
    for asked in ("float32", "bfloat16"):
        assert SeparateSpeech(*paths, precision=asked).enh_model.separator.precision == asked
    assert SeparateSpeech(*paths, dtype="float64").enh_model.separator.precision == "float32"
    with pytest.raises(ValueError, match="precision is one of auto, float32, bfloat16, found 'half'"):
        SeparateSpeech(*paths, precision="half")


@pytest.mark.parametrize("separator", ["tfgridnetv2", "dccrn"])
def test_auto_leaves_networks_alone_whose_scores_have_not_been_compared(separator, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: True)
    network = build(separator).separator.separator
    assert precision.separation_precision("auto", network, "cpu") == "float32"
    ours = build().separator.separator
    assert precision.separation_precision("auto", ours, "cuda:0") == "float32"


def test_a_trained_config_says_what_it_was_trained_with(units):
    for asked, desired in [({}, "float32"), ({"precision": "auto"}, "float32"), ({"precision": "bfloat16"},) * 2]:
        args = config("tfgridnet_spectra", criterions=[M2M], model_conf=dict(asked))
        model = M2MEnhancementTask.build_model(args)
        desired = desired["precision"] if isinstance(desired, dict) else desired
        assert args.model_conf["precision"] == model.separator.precision == desired


def test_the_units_are_those_that_torch_uses(monkeypatch):
    """torch's own switch makes a CPU one without; AVX-512 alone is not enough."""
    program = "from espnet2_m2m.enh.precision import has_bfloat16_units; print(has_bfloat16_units())"
    env = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for found in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=found: found)
        assert precision.has_bfloat16_units() == found


# ---- What it changes ---------------------------------------------------------------------------------


def test_only_the_network_works_in_bfloat16():
    """The loss is that of its estimates to the last bit; spectra, parameters and their gradients are float32."""
    model, seen = build(precision="bfloat16"), {}
    network = model.separator.separator
    network.blocks[0].register_forward_hook(lambda _, args, output: seen.update(features=(*args, output)))
    loss_module = model.separator.mixture_constraint
    loss_module.register_forward_pre_hook(lambda _, args: seen.update(autocast=torch.is_autocast_enabled("cpu")))
    loss_module.register_forward_hook(lambda _, args, output: seen.update(loss=(args, output)))
    loss, _, _ = model(**batch())
    loss.backward()
    assert {x.dtype for x in seen["features"]} == {torch.bfloat16}
    assert not seen["autocast"]
    args, (actual, _) = seen["loss"]
    assert all(x.dtype == torch.complex64 for x in args if torch.is_tensor(x) and x.is_complex())
    desired, _ = MixtureConstraintLoss(closetalk_past_taps=3, farfield_past_taps=4)(*args)
    assert torch.equal(actual, desired) and loss.dtype == torch.float32
    for parameter in model.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32 and torch.isfinite(parameter.grad).all()


def test_estimates_are_nearly_those_of_float32():
    mix = batch()["speech_mix"]
    spectra = []
    for chosen in ("float32", "bfloat16"):
        model = build(precision=chosen)
        with torch.no_grad():
            mixture = model.separator.domain.mixture(mix, torch.tensor([SAMPLES, SAMPLES]), False)
            spectra.append(model.separator.estimate(mixture).spectra)
    error = (spectra[1] - spectra[0]).norm() / spectra[0].norm()
    assert 1e-5 < error < 0.02  # bfloat16 rounds to 2^-9


@pytest.mark.parametrize("separator", [name for name in SEPARATORS if name not in EXACT])
def test_other_networks_train_in_bfloat16(separator):
    model = build(separator, precision="bfloat16")
    loss, _, _ = model(**batch(mics=1 if separator in SINGLE_CHANNEL else 3))
    loss.backward()
    assert torch.isfinite(loss) and loss.dtype == torch.float32


@pytest.mark.parametrize("separator", EXACT)
def test_networks_that_need_float32_are_refused_in_bfloat16(separator, tmp_path):
    """Their own code fails in it; where it no longer does, the list in precision.py is out of date."""
    with pytest.raises(ValueError, match="precision: bfloat16 does not go with"):
        build(separator, precision="bfloat16")
    model = build(separator)
    with pytest.raises(ValueError, match="precision: bfloat16 does not go with"):
        precision.separation_precision("bfloat16", model.separator.separator, "cpu")
    model.separator.precision = "bfloat16"
    with pytest.raises(RuntimeError):
        model(**batch(mics=1))


# ---- The commands ------------------------------------------------------------------------------------


def test_separated_files_say_their_precision(tmp_path, monkeypatch, capsys):
    """Another one changes the output, so that files are made anew or not replaced."""
    import soundfile

    from espnet2_m2m.bin import enh_inference, separate

    torch.manual_seed(0)
    config_path, weights = save(tmp_path, config("tfgridnet_spectra", criterions=[M2M], sample_rate=8000))
    recording = 0.1 * np.random.default_rng(0).standard_normal((8000, 3)).astype(np.float32)
    write_wav(tmp_path / "utt.wav", recording, 8000)
    write_table(tmp_path / "wav.scp", {"utt": str(tmp_path / "utt.wav")})
    options = ["--train_config", config_path, "--model_file", weights, "--fs", "8000", "--num_workers", "0"]
    data = ["--data_path_and_name_and_type", f"{tmp_path}/wav.scp,speech_mix,sound", "--output_dir", f"{tmp_path}/enh"]
    waves = {}
    for units in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16_units", lambda units=units: units)
        desired = "bfloat16" if units else "float32"
        enh_inference.main([*options, *data])
        assert f"the network works in {desired}" in capsys.readouterr().out
        assert json.loads((tmp_path / "enh/settings.json").read_text())["precision"] == desired
        waves[desired] = soundfile.read(tmp_path / "enh/wavs/1/utt.wav")[0]
        enh_inference.main([*options, *data, "--precision", desired])
        assert "1 of 1 utterances are done already" in capsys.readouterr().out
        command = ["--model", weights, f"{tmp_path}/utt.wav", "-o", f"{tmp_path}/{desired}"]
        separate.main(command)
        assert f"network in {desired}" in capsys.readouterr().out
        np.testing.assert_array_equal(soundfile.read(f"{tmp_path}/{desired}/utt_spk1.wav")[0], waves[desired])
        with pytest.raises(SystemExit):
            separate.main([*command, "--precision", "float32" if units else "bfloat16"])
        assert "was not made from this recording with this model and these options" in capsys.readouterr().err
    assert not np.array_equal(waves["float32"], waves["bfloat16"])


def test_models_of_espnet_have_no_such_option(tmp_path):
    args = config("tfgridnetv2", criterions=[{"name": "si_snr", "conf": {}, "wrapper": "pit", "wrapper_conf": {}}])
    paths = save(tmp_path, argparse.Namespace(**vars(args)))
    SeparateSpeech(*paths)
    with pytest.raises(ValueError, match="--precision is for models that were trained by a criterion of the plug-in"):
        SeparateSpeech(*paths, precision="bfloat16")
