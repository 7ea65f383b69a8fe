"""Merging of training configs, and that every config of the repository is what its row says."""

import argparse
import re
from pathlib import Path

import pytest
import torch
import yaml

from espnet2_m2m.bin import enh_train
from espnet2_m2m.enh.config import merge, read_config

ROOT = Path(__file__).parents[2]
TUNING = ROOT / "conf" / "tuning"
ROWS = sorted(path.stem for path in TUNING.glob("table*.yaml"))


def write(path, **content):
    path.write_text(yaml.safe_dump(content))
    return path


def test_later_files_and_the_file_itself_win_over_its_bases(tmp_path):
    write(tmp_path / "a.yaml", x=1, y=1, z=1, deep={"p": 1, "q": 1})
    write(tmp_path / "b.yaml", y=2, z=2, deep={"q": 2})
    (tmp_path / "sub").mkdir()
    c = write(tmp_path / "sub" / "c.yaml", base=["../a.yaml", "../b.yaml"], z=3)
    d = write(tmp_path / "d.yaml", deep={"r": 4})
    assert read_config(c, d) == {"x": 1, "y": 2, "z": 3, "deep": {"p": 1, "q": 2, "r": 4}}
    assert read_config() == {}


def test_options_go_with_their_choice():
    config = {"optim": "adam", "optim_conf": {"lr": 1}, "scheduler": "a", "scheduler_conf": {"p": 1}}
    assert merge(config, {"optim_conf": {"eps": 2}})["optim_conf"] == {"lr": 1, "eps": 2}
    assert merge(config, {"optim": "adam", "optim_conf": {"eps": 2}})["optim_conf"] == {"lr": 1, "eps": 2}
    assert merge(config, {"scheduler": "b", "scheduler_conf": {"q": 1}})["scheduler_conf"] == {"q": 1}
    assert "scheduler_conf" not in merge(config, {"scheduler": "b"})
    assert config["scheduler_conf"] == {"p": 1}, "the original is not altered"


def test_criterions_are_merged_by_name_and_other_lists_replaced():
    config = {"criterions": [{"name": "a", "conf": {"p": 1}}, {"name": "b"}], "mics": [1, 2]}
    changes = {"criterions": [{"name": "a", "conf": {"q": 2}}, {"name": "c"}], "mics": [3]}
    assert merge(config, changes) == {
        "criterions": [{"name": "a", "conf": {"p": 1, "q": 2}}, {"name": "b"}, {"name": "c"}],
        "mics": [3],
    }
    assert merge(config, {"criterions": [], "mics": []}) == {"criterions": [], "mics": []}


def test_a_criterion_of_the_base_can_be_removed():
    config = {"criterions": [{"name": "a"}, {"name": "b", "wrapper": "pit"}]}
    assert merge(config, {"criterions": [{"name": "b", "remove": True}]}) == {"criterions": [{"name": "a"}]}


def test_mistakes_are_named(tmp_path):
    loop = write(tmp_path / "loop.yaml", base="other.yaml")
    write(tmp_path / "other.yaml", base=["loop.yaml"])
    with pytest.raises(ValueError, match="loop.yaml.*base.*of itself"):
        read_config(loop)
    with pytest.raises(FileNotFoundError, match="gone.yaml: no such config, the base of .*user.yaml"):
        read_config(write(tmp_path / "user.yaml", base="gone.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="list.yaml: expected a mapping"):
        read_config(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a: 1\nb: [1\nc: 2\n", r":3: not plain YAML \(expected ',' or '\]'"),
        (b"a: 1\n\tb: 2\n", r":2: not plain YAML \(found character '\\t'"),
        (b"a: !!python/object:os.x 1\n", r":1: not plain YAML \(could not determine a constructor"),
        (b"a: \0\n", r": not plain YAML \(unacceptable character #x0000"),
        (b"# fine\na: J\xfcrgen\n", r":2: not UTF-8 .*; convert the file with iconv"),
        (b"base: 3\n", ": `base` is a file or a list of files, relative to this one, found 3"),
        (b"base: {a.yaml: b.yaml}\n", ": `base` is a file or a list"),
        (b"base: [a.yaml, 3]\n", ": `base` is a file or a list"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_the_line(tmp_path, content, message):
    """Also where it is another's base: the file at fault, not the one that was asked for."""
    (tmp_path / "wrong.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"wrong\.yaml{message}"):
        read_config(write(tmp_path / "user.yaml", base="wrong.yaml"))


def test_the_command_hands_espnet_one_file(tmp_path):
    base = write(tmp_path / "base.yaml", batch_size=4, criterions=[])
    row = write(tmp_path / "row.yaml", base="base.yaml", batch_size=1)
    exp = tmp_path / "exp"
    command = enh_train.espnet_command(["--config", str(row), "--output_dir", str(exp), "--ngpu", "0"])
    assert command == ["--ngpu", "0", "--output_dir", str(exp), "--config", str(exp / "train_config.yaml")]
    assert yaml.safe_load((tmp_path / "exp" / "train_config.yaml").read_text())["batch_size"] == 1
    assert enh_train.espnet_command(["--config", str(base)]) == ["--config", str(base)]


def test_several_configs_need_a_place_for_the_merged_one(tmp_path, capsys):
    base = str(write(tmp_path / "base.yaml", batch_size=4))
    with pytest.raises(SystemExit):
        enh_train.espnet_command(["--config", base, "--config", base])
    assert "need --output_dir" in capsys.readouterr().err


@pytest.mark.parametrize("row", ROWS)
def test_rows_are_those_of_the_paper(row):
    """Taps, alpha and mics as the first line of the file has them, or as the table does."""
    config = read_config(TUNING / f"{row}.yaml")
    assert "base" not in config
    table = int(row[5])
    assert config["separator_conf"]["n_imics"] == (6 if table == 2 else 1)
    mics = {name: (None if table == 2 else [0]) for name in ("input_mics", "loss_mics")}
    assert {name: config.get("model_conf", {}).get(name) for name in mics} == mics
    (loss, valid) = config["criterions"]
    assert valid["name"] == "si_snr" and valid["conf"]["only_for_test"]
    if "pit" in row:
        assert (loss["name"], loss["wrapper"]) == ("ri_mag", "pit_spectra")
        return
    conf = loss["conf"]
    taps = [conf[f"{place}_{side}_taps"] for place in ("closetalk", "farfield") for side in ("past", "future")]
    first_line = (TUNING / f"{row}.yaml").read_text().splitlines()[0]
    stated = re.search(r"= (\d+)/(\d+)/(\d+)/(\d+)", first_line)
    assert taps == ([int(n) for n in stated.groups()] if stated else [19, 1, 19, 1])
    stated = re.search(r"alpha = 1/(\d)", first_line)
    ours = 7 if row == "table3_ours_m2m_anchor" else 1
    assert conf["alpha"] == pytest.approx(1 / (int(stated.group(1)) if stated else ours))
    assert bool(conf.get("anchor_weight")) == ("ours" in row)
    assert conf.get("close_talk", True) == ("unssor" not in row)


@pytest.mark.parametrize("row", ["table2_1a_m2m", "table2_4a_unssor", "table2_4b_pit", "table3_ours_m2m_anchor"])
@pytest.mark.parametrize(
    "sizes, millions", [([], (5, 12)), (["size_small"], (0.1, 0.13)), (["size_small", "rate_16k"], (0.1, 0.13))]
)
def test_rows_build_in_all_sizes(row, sizes, millions):
    from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    paths = [TUNING / f"{name}.yaml" for name in (row, *sizes)]
    defaults = M2MEnhancementTask.get_default_config()
    model = M2MEnhancementTask.build_model(argparse.Namespace(**merge(defaults, read_config(*paths))))
    assert isinstance(model, ESPnetM2MModel)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions[0] < parameters < millions[1]
    assert model.separator.fcp_output == ("pit" not in row)
    samples, freqs = (256, 257) if "rate_16k" in sizes else (128, 129)
    spectra, frames = model.encoder(torch.randn(1, 4 * samples), torch.tensor([4 * samples]))
    assert spectra.shape == (1, int(frames), freqs) and int(frames) == 4 * samples // (samples // 2) + 1
