"""Packing a training, its model card, and the way to Hugging Face and back (against a local stand-in)."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from espnet2.main_funcs.pack_funcs import unpack

from espnet2_m2m.bin import pack_model, upload_model
from espnet2_m2m.model_card import model_card

ROOT = Path(__file__).parents[2]
ZIP = "m2m_valid.loss.best.zip"
RESULTS = """# Results

An introduction.

## enhanced_test

| | SI-SDR (dB) |
|:--|--:|
| separated | 10.5 |
"""
CONFIG = {
    "sample_rate": 8000,
    "separator": "tfgridnet_spectra",
    "separator_conf": {"n_srcs": 2, "n_imics": 6},
    "model_conf": {},
    "criterions": [{"name": "mixture_constraint", "conf": {"alpha": 1.0}}],
}


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    """What a training and its scoring leave, as far as packing looks at it, in a path with a space; packed."""
    exp = tmp_path_factory.mktemp("my exp") / "m2m"
    (exp / "images").mkdir(parents=True)
    (exp / "images" / "loss.png").write_bytes(b"png")
    (exp / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (exp / "RESULTS.md").write_text(RESULTS)
    torch.save({"weight": torch.ones(3)}, exp / "2epoch.pth")
    (exp / "valid.loss.best.pth").symlink_to("2epoch.pth")
    (exp / ZIP).write_text("of an earlier time")
    pack_model.main(["--exp_dir", str(exp), "--dataset", "meeting_demo", "--hf_repo", "someone/m2m"])
    return exp


def test_the_zip_holds_the_model_and_what_belongs_to_it(exp):
    with zipfile.ZipFile(exp / ZIP) as file:
        assert sorted(file.namelist()) == [
            "m2m/2epoch.pth",
            "m2m/README.md",
            "m2m/RESULTS.md",
            "m2m/config.yaml",
            "m2m/images/loss.png",
            "meta.yaml",
        ]
        meta = yaml.safe_load(file.read("meta.yaml"))
    assert meta["files"] == {"model_file": "m2m/2epoch.pth"}
    assert meta["yaml_files"] == {"train_config": "m2m/config.yaml"} and "espnet" in meta


def test_espnets_own_unpacker_takes_it(exp, tmp_path):
    files = unpack(exp / ZIP, tmp_path / "unpacked")
    assert yaml.safe_load(Path(files["train_config"]).read_text()) == CONFIG
    torch.testing.assert_close(torch.load(files["model_file"]), {"weight": torch.ones(3)})


def test_the_card_says_what_and_how(exp):
    assert 'from_pretrained("someone/m2m")' in (exp / "README.md").read_text()
    card = model_card(exp, "other/name", "de", "meeting_demo", "mit")
    _, front_matter, body = card.split("---\n", 2)
    assert yaml.safe_load(front_matter) == {
        "tags": ["espnet", "audio", "audio-to-audio", "source-separation"],
        "language": "de",
        "datasets": ["meeting_demo"],
        "license": "mit",
    }
    lines = body.splitlines()
    for line in (
        "# m2m",
        "### enhanced_test",
        "| separated | 10.5 |",
        "- sample rate: 8000 Hz",
        "- talkers: 2",
        'separate = SeparateRecording.from_pretrained("other/name")',
        "separator: tfgridnet_spectra",
    ):
        assert line in lines, line
    assert "An introduction" not in body and "Mixture to Mixture" in body and "watanabe2018espnet" in body


@pytest.mark.parametrize(
    "criterion, words",
    [
        ({"name": "mixture_constraint"}, "headset recordings"),
        ({"name": "mixture_constraint", "conf": {"close_talk": False}}, "UNSSOR"),
        ({"name": "ri_mag"}, "PIT"),
    ],
)
def test_the_card_says_how_it_was_trained(tmp_path, criterion, words):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "criterions": [criterion]}))
    description, _, rest = model_card(tmp_path, "m2m.zip", "en", "x", "mit").partition("## Use")
    assert words in description and "Not scored." in rest


def test_nothing_to_pack_ends_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        pack_model.main(["--exp_dir", str(tmp_path), "--dataset", "x"])
    assert "config.yaml: no such file; train first (stage 6)" in capsys.readouterr().err


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The environment of a process that takes the stand-in for Hugging Face."""
    log = open(tmp_path / "hub.log", "w+")
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "helpers" / "hub_stand_in.py", tmp_path / "hub"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{process.stdout.readline().strip()}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": "good",
        "NO_PROXY": "127.0.0.1",
    }
    process.kill()
    process.wait()
    log.close()


def run(env, *command):
    done = subprocess.run(
        [sys.executable, *command],
        env=env,
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_up_to_the_hub_and_down_again(exp, tmp_path, hub):
    upload = ("-m", "espnet2_m2m.bin.upload_model", "--packed", str(exp / ZIP), "--hf_repo", "someone/m2m")
    code, _, printed = run({**hub, "HF_TOKEN": "wrong"}, *upload)
    assert code == 1 and "hf auth login" in printed and "Traceback" not in printed
    code, printed, errors = run(hub, *upload)
    assert code == 0 and "someone/m2m" in printed, errors
    repository = tmp_path / "hub" / "someone" / "m2m"
    assert (repository / "README.md").read_text() == (exp / "README.md").read_text(), "the card, on top"
    assert sorted(path.name for path in (repository / "m2m").iterdir()) == [
        "2epoch.pth",
        "README.md",
        "RESULTS.md",
        "config.yaml",
        "images",
    ]
    program = (
        "import sys, yaml\nfrom espnet2_m2m.model_files import model_files\n"
        "with model_files(sys.argv[1]) as (config, weights):\n"
        "    print(yaml.safe_load(config.read_text())['separator'], weights.stat().st_size)"
    )
    code, printed, errors = run(hub, "-c", program, "someone/m2m")
    assert printed.split() == ["tfgridnet_spectra", str((exp / "2epoch.pth").stat().st_size)], errors
    code, _, errors = run(hub, "-c", program, "someone/else")
    assert "someone/else: no such file or folder here, and meta.yaml of a Hugging Face model" in errors


@pytest.mark.parametrize(
    "repository, message",
    [("someone/other", "pack it again with --hf_repo someone/other"), ("m2m", "--hf_repo is user/name, found 'm2m'")],
)
def test_an_upload_under_another_name_is_refused(exp, capsys, repository, message):
    with pytest.raises(SystemExit):
        upload_model.main(["--packed", str(exp / ZIP), "--hf_repo", repository])
    assert message in capsys.readouterr().err
