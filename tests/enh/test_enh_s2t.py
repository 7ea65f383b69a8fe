"""M2M and ASR in one model: ESPnet's enh_s2t task trains a step by command, and decodes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from espnet2.bin import asr_inference
from espnet2.tasks.enh_s2t import EnhS2TTask
from espnet_configs import M2M, PIT, SEPARATORS
from tiny_asr import DECODER, ENCODER, TOKENS

from espnet2_m2m.data_dir import write_table, write_wav
from espnet2_m2m.enh.config import read_config
from espnet2_m2m.tasks.enh_m2m import register

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "conf" / "tuning" / "train_enh_asr_m2m_demo.yaml"


def joint_config(criterion=M2M, **enh_model_conf):
    """The documented config with a network and an ASR of a few weights."""
    config = read_config(CONFIG)
    separator = SEPARATORS["tfgridnet_spectra"]
    config.update({f"enh_{name}": value for name, value in separator.items()})
    config.update(
        token_list=TOKENS,
        enh_criterions=[criterion],
        enh_model_conf=enh_model_conf,
        num_workers=0,
        max_epoch=1,
        frontend_conf={"fs": 8000, "n_fft": 128, "hop_length": 64, "n_mels": 16},
        asr_encoder="transformer",
        asr_encoder_conf=ENCODER,
        asr_decoder="transformer",
        asr_decoder_conf=DECODER,
    )
    return config


def build(config):
    register()
    args = EnhS2TTask.get_parser().parse_args(["--output_dir", "unused"])
    vars(args).update(config)
    return EnhS2TTask.build_model(args)


def batch(num_samples=4000, silent=()):
    generator = torch.Generator().manual_seed(0)
    speech = 0.1 * torch.randn(2, num_samples, 3, generator=generator)
    speech[list(silent)] = 0
    text, lengths = torch.tensor([[2, 3, 4], [4, 2, -1]]), torch.tensor([3, 2])
    data = {"speech": speech, "speech_lengths": torch.tensor([num_samples, num_samples - 500])}
    for n in (1, 2):
        data[f"speech_ref{n}"] = 0.1 * torch.randn(2, num_samples, generator=generator)
        data |= {f"text_spk{n}": text, f"text_spk{n}_lengths": lengths}
    return data


def test_the_separator_learns_from_headsets_and_from_transcripts():
    torch.manual_seed(0)
    model = build(joint_config(closetalk_from_ref=True))
    loss, stats, _ = model(**batch())
    assert stats["loss"] == pytest.approx(stats["loss_enh"] + stats["loss_asr"])
    weight = next(model.enh_model.separator.separator.parameters())
    gradients = [torch.autograd.grad(part, weight, retain_graph=True)[0] for part in (loss, loss - stats["loss_enh"])]
    assert all(torch.isfinite(gradient).all() and gradient.any() for gradient in gradients)

    # The mixture-constraint loss is the one of the enhancement task.
    data = batch()
    enh = model.enh_model.train()
    headsets = {name: data[name] for name in ("speech_ref1", "speech_ref2")}
    desired, _, _ = enh(data["speech"], data["speech_lengths"], **headsets)
    assert stats["loss_enh"].item() == pytest.approx(desired.item(), rel=1e-5)

    model.calc_enh_loss = False
    loss, stats, _ = model(**batch())
    assert stats["loss_enh"] is None and torch.autograd.grad(loss, weight)[0].any(), "the ASR alone trains it"


def test_outputs_are_those_of_separation_and_silence_stays_silent():
    torch.manual_seed(0)
    enh = build(joint_config(closetalk_from_ref=True)).enh_model.eval()
    data = batch(silent=[1])
    with torch.no_grad():
        outputs, _, _, others = enh.forward_enhance(data["speech"], data["speech_lengths"])
        feature, lengths = enh.encoder(data["speech"], data["speech_lengths"])
        images, _, _ = enh.separator(feature, lengths)
        desired = [enh.decoder(image, data["speech_lengths"])[0] for image in images]
    assert not outputs[0][1].any() and outputs[0][0].any()
    assert others["loss_inputs"].counted.tolist() == [True, False]
    for output, image in zip(outputs, desired):
        torch.testing.assert_close(output, image, atol=1e-5, rtol=1e-3)


def test_supervised_and_mistaken_configs():
    loss, stats, _ = build(joint_config(PIT))(**batch())
    assert torch.isfinite(loss) and stats["loss_enh"] > 0
    with pytest.raises(ValueError, match="closetalk_from_ref: true"):
        build(joint_config())(**batch())


@pytest.mark.parametrize(
    "criterion, name, message",
    [
        (M2M, "speech", "batch item 1: speech_mix has NaN"),
        (M2M, "speech_ref2", "batch item 1: a close-talk mixture has NaN"),
        (PIT, "speech_ref1", "batch item 1: a reference has NaN"),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_recordings_that_are_not_finite_are_refused(criterion, name, message, value):
    data = batch()
    data[name][1, 7] = value
    with pytest.raises(ValueError, match=message):
        build(joint_config(criterion, closetalk_from_ref=criterion is M2M))(**data)


def test_estimates_that_overflow_skip_the_step_only():
    torch.manual_seed(0)
    model = build(joint_config(closetalk_from_ref=True))
    network = model.enh_model.separator.separator
    network.register_forward_hook(
        lambda module, args, output: ([z + torch.tensor([0, torch.inf])[:, None, None] for z in output[0]], *output[1:])
    )
    for model.calc_enh_loss in (True, False):
        model.zero_grad()
        loss, _, _ = model(**batch())
        loss.backward()
        assert not torch.isfinite(torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0))


def test_every_silent_batch_is_reported(caplog):
    enh = build(joint_config(closetalk_from_ref=True)).enh_model
    caplog.clear()
    data = batch(silent=[1])
    for _ in range(2):
        enh.forward_enhance(data["speech"], data["speech_lengths"])
    assert [record.message.split(":")[0] for record in caplog.records] == ["batch item 1"] * 2


def test_names_are_known_whichever_module_is_imported_first(monkeypatch):
    from espnet2.tasks import enh_s2t

    for choices in (enh_s2t.enh_separator_choices, enh_s2t.enh_encoder_choices, enh_s2t.enh_decoder_choices):
        monkeypatch.setattr(choices, "classes", {})
    register()
    assert "tfgridnet_spectra" in enh_s2t.enh_separator_choices.classes
    assert "spectra" in enh_s2t.enh_encoder_choices.classes and "spectra" in enh_s2t.enh_decoder_choices.classes


def test_the_documented_config_builds():
    config = read_config(CONFIG)
    config["token_list"] = TOKENS
    model = build(config)
    assert sum(p.numel() for p in model.parameters()) > 1e6


def test_training_and_decoding_by_command(tmp_path):
    rng = np.random.default_rng(0)
    tables = {}
    for utt_id in ("a-b-1", "a-b-2"):
        for name, channels in (("wav", 3), ("closetalk1", 1), ("closetalk2", 1)):
            path = tmp_path / name / f"{utt_id}.wav"
            write_wav(path, 0.1 * rng.standard_normal((4000, channels)).clip(-5, 5), 8000)
            tables.setdefault(f"{name}.scp", {})[utt_id] = str(path)
        tables.setdefault("text", {})[utt_id] = "one two"
        tables.setdefault("shape", {})[utt_id] = "4000"
    for name, table in tables.items():
        write_table(tmp_path / name, table)
    (tmp_path / "joint.yaml").write_text(yaml.safe_dump(joint_config(closetalk_from_ref=True)))
    data = {
        "speech": "wav.scp,speech,sound",
        "ref1": "closetalk1.scp,speech_ref1,sound",
        "ref2": "closetalk2.scp,speech_ref2,sound",
        "text1": "text,text_spk1,text",
        "text2": "text,text_spk2,text",
    }
    command = [
        sys.executable,
        "-m",
        "espnet2_m2m.run",
        "-m",
        "espnet2.bin.enh_s2t_train",
        "--config",
        str(tmp_path / "joint.yaml"),
        "--use_preprocessor",
        "true",
        "--output_dir",
        str(tmp_path / "exp"),
    ]
    for phase in ("train", "valid"):
        command += [f"--{phase}_shape_file", str(tmp_path / "shape")]
        for value in data.values():
            command += [f"--{phase}_data_path_and_name_and_type", f"{tmp_path}/{value}"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    # In this process, where the plug-in is registered too: another import of ESPnet takes long.
    asr_inference.main(
        [
            "--enh_s2t_task",
            "true",
            "--asr_train_config",
            str(tmp_path / "exp/config.yaml"),
            "--asr_model_file",
            str(tmp_path / "exp/valid.acc.best.pth"),
            "--data_path_and_name_and_type",
            f"{tmp_path}/wav.scp,speech,sound",
            "--output_dir",
            str(tmp_path / "out"),
            "--beam_size",
            "2",
            "--maxlenratio",
            "-3",
            "--num_workers",
            "0",
        ]
    )
    for n in (1, 2):
        lines = (tmp_path / "out" / "1best_recog" / f"text_spk{n}").read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["a-b-1", "a-b-2"]
