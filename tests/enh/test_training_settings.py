"""A folder holds one training: which changes are another one, and what is said of it."""

import os
import subprocess
import sys

import pytest

from espnet2_m2m.enh.training_settings import keep_settings, other_training, training_settings

BASES = [
    "base: b.yaml",
    "base: [b.yaml]",
    "base:\n- b.yaml",
    "base:\n  - 'b.yaml'",
    'base: "b.yaml"',
    "base:   b.yaml #",
]


@pytest.fixture(autouse=True)
def configs(tmp_path, monkeypatch):
    """a.yaml is based on b.yaml, and that on c.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("base: b.yaml\nmodel_conf: {x: 1, y: 2}\n")
    (tmp_path / "b.yaml").write_text("base:\n- 'c.yaml'\noptim: adam\n")
    (tmp_path / "c.yaml").write_text("batch_size: 4\nmax_epoch: 100\n")
    return tmp_path


def settings(*configs, enh_args="", dumpdir="dump"):
    return training_settings(configs or ("a.yaml",), enh_args, dumpdir)


@pytest.mark.parametrize("base", BASES)
def test_a_base_that_was_changed_is_another_training_however_it_is_written(configs, base):
    """sed read what the shipped configs write, `base: b.yaml` and `[b.yaml]`; other bases could change unseen."""
    (configs / "a.yaml").write_text(f"{base}\n")
    before = settings()
    (configs / "c.yaml").write_text("batch_size: 8\n")
    assert settings() != before


def test_every_config_counts_and_what_they_add_up_to(configs):
    (configs / "last.yaml").write_text("grad_clip: 1.0\n")
    both, through_args = settings("a.yaml", "last.yaml"), settings(enh_args="--config last.yaml")
    (configs / "last.yaml").write_text("grad_clip: 5.0\n")
    assert settings("a.yaml", "last.yaml") != both and settings(enh_args="--config last.yaml") != through_args
    (configs / "last.yaml").write_text("grad_clip: 1.0\nbatch_size: 4    # as in c.yaml\n")
    assert settings("a.yaml", "last.yaml") == both


def test_comments_order_form_and_epochs_do_not_count(configs):
    before = settings(enh_args="--seed 1 --max_epoch 9")
    (configs / "a.yaml").write_text("# Why.\nmodel_conf:\n  y: 2\n  x: 1   # this\nbase: [b.yaml]\nmax_epoch: 7\n")
    assert settings(enh_args="--max_epoch=3   --seed 1") == before


def test_options_and_data_count(configs):
    assert len({settings(), settings(enh_args="--seed 1"), settings(dumpdir="other")}) == 3
    (configs / "linked").symlink_to("dump")
    assert settings(dumpdir="linked") == settings(), "the same data"


def stage_6(*arguments):
    command = [sys.executable, "-X", "importtime", "-m", "espnet2_m2m.enh.training_settings", *arguments]
    done = subprocess.run(command, text=True, capture_output=True)
    lines = done.stderr.splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return done.returncode, [line for line in lines if not line.startswith("import time:")], loaded


def test_a_training_is_noted_and_another_refused_in_one_line_without_espnet(configs):
    status, printed, loaded = stage_6("exp/x", "dump", "--seed 1", "a.yaml")
    assert (status, printed) == (0, []) and not loaded & {"torch", "espnet", "espnet2"}
    assert (configs / "exp/x/train.settings").read_text() == settings(enh_args="--seed 1") + "\n"
    assert stage_6("exp/x", "dump", "--seed 2", "a.yaml")[0] == 0, "nothing was trained yet"
    (configs / "exp/x/checkpoint.pth").touch()
    assert stage_6("exp/x", "dump", "--seed 2 --max_epoch 9", "a.yaml")[0] == 0
    status, (line,), _ = stage_6("exp/x", "dump", "--seed 3", "a.yaml")
    assert status == 1 and "exp/x is a training with other options (a.yaml --seed 2 /" in line
    assert "now they are (a.yaml --seed 3 /" in line and "remove exp/x/train.settings" in line
    (configs / "c.yaml").write_text("batch_size: [4\n")
    status, (line,), _ = stage_6("exp/x", "dump", "--seed 2", "a.yaml")
    assert status == 1 and "c.yaml:2: not plain YAML" in line


def test_settings_of_an_earlier_version_say_how_to_go_on(configs):
    """It noted a hash of the configs' text, which nobody can compare with that of what they add up to."""
    (configs / "checkpoint.pth").touch()
    (configs / "train.settings").write_text(f"a.yaml --seed 1 {os.path.realpath('dump')} 0123456789abcdef\n")
    reason = other_training(configs, settings(enh_args="--seed 1"))
    assert "was written by an earlier version and cannot be compared" in reason
    assert "If the training was made with these, remove the file and run again" in reason
    (configs / "train.settings").unlink()
    keep_settings(configs, settings(enh_args="--seed 1"))
    assert other_training(configs, settings(enh_args="--seed 1")) is None
