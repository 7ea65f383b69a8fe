"""Models are found in folders, zips and on Hugging Face; zips that reach out of their folder are refused."""

import stat
import tracemalloc
import zipfile

import pytest
import torch
import yaml

from espnet2_m2m.model_files import model_files

CONTENTS = {"yaml_files": {"train_config": "exp/X/config.yaml"}, "files": {"model_file": "exp/X/2epoch.pth"}}
MEMBERS = {"exp/X/config.yaml": "sample_rate: 8000\n", "exp/X/2epoch.pth": "weights"}


def pack(path, contents=CONTENTS, members=MEMBERS):
    with zipfile.ZipFile(path, "w") as packed:
        if contents is not None:
            packed.writestr("meta.yaml", contents if isinstance(contents, str) else yaml.safe_dump(contents))
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def texts(model):
    with model_files(model) as paths:
        return [path.read_text() for path in paths]


def test_a_zip_and_the_folder_it_was_unpacked_to_are_the_same(tmp_path):
    packed = pack(tmp_path / "model.zip")
    with zipfile.ZipFile(packed) as file:
        file.extractall(tmp_path / "unpacked")
    assert texts(packed) == texts(tmp_path / "unpacked") == list(MEMBERS.values())
    with model_files(packed) as (config, weights):
        assert config.parent == weights.parent
    assert not config.parent.exists(), "nothing is left behind"


def test_a_training_is_a_model(tmp_path):
    (tmp_path / "config.yaml").write_text("config")
    for name in ("1epoch.pth", "2epoch.pth", "checkpoint.pth"):
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "1epoch.pth") == ["config", "1epoch.pth"]
    (tmp_path / ".3epoch.0123456789ab.pth").touch()  # half-written when a training was killed
    with pytest.raises(FileNotFoundError, match="exactly one other .* found 1epoch.pth, 2epoch.pth;"):
        texts(tmp_path)
    (tmp_path / "valid.loss.best.pth").symlink_to("2epoch.pth")
    assert texts(tmp_path) == ["config", "2epoch.pth"]
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="config.yaml: no such file"):
        texts(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "exp/../../outside.txt",
        "/tmp/outside.txt",
        "C:/outside.txt",
        "..\\outside.txt",
        "\\outside.txt",
    ],
)
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path, name):
    packed = pack(tmp_path / "model.zip", members={**MEMBERS, name: "evil"})
    with pytest.raises(ValueError, match="refused, because its member"):
        texts(packed)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model.zip"]


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("exp/X/2epoch.pth")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    packed = pack(tmp_path / "model.zip", members={"exp/X/config.yaml": ""})
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="refused, because its member 'exp/X/2epoch.pth' is a link"):
        texts(packed)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", 5])
def test_contents_that_point_elsewhere_are_refused(tmp_path, path):
    contents = {**CONTENTS, "files": {"model_file": path}}
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump(contents))
    for model in (tmp_path, pack(tmp_path / "model.zip", contents)):
        with pytest.raises(ValueError, match="is not a file of this model"):
            texts(model)


@pytest.mark.parametrize(
    "contents, members, message",
    [
        (None, MEMBERS, "has no meta.yaml"),
        (CONTENTS, {}, "lacks 'exp/X/config.yaml'"),
        ({"files": {}}, MEMBERS, "what ESPnet's packer writes for enh"),
        ("!!python/object/apply:os.system [touch executed]", MEMBERS, "what ESPnet's packer writes"),
    ],
)
def test_a_zip_of_something_else(tmp_path, monkeypatch, contents, members, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        texts(pack(tmp_path / "model.zip", contents, members))
    assert not (tmp_path / "executed").exists()


def test_a_broken_zip_and_a_name_that_is_nothing(tmp_path):
    packed = pack(tmp_path / "model.zip")
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not readable as a packed model"):
        texts(packed)
    for name in ("no/such/model", "exp/model.zip", "model"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file or folder; expected"):
            texts(name)


def test_a_tag_without_its_client_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="pip install huggingface_hub"):
        texts("user/name")


@pytest.mark.parametrize("name", ["meta.yaml", *MEMBERS, "exp/X/image.png"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, name):
    """100 kB that would become 100 MB, in memory or on the disk."""
    members = {"meta.yaml": yaml.safe_dump(CONTENTS), **MEMBERS, name: 100_000_000 * "0"}
    packed = tmp_path / "model.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members.items():
            file.writestr(member, content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"model.zip: refused, because its member '{name}' would grow from"):
        texts(packed)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "config, message",
    [
        (100_000 * "[", "config.yaml:1: refused, because its YAML has more than 50 levels"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{9 * f'*a{n - 1}, '}]\n" for n in range(1, 9)),
            "config.yaml:7: refused",
        ),
        ("a: &a [1, *a]\n", "config.yaml:1: refused"),
        (11_000_000 * " ", "config.yaml: refused, because its YAML has more than 10000000 bytes"),
    ],
    ids=["deep", "aliases", "endless", "long"],
)
def test_yaml_that_becomes_much_more_than_it_is(tmp_path, config, message):
    """As config and as list of contents, in a folder and in a zip."""
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "valid.loss.best.pth").touch()
    packed = pack(tmp_path / "config.zip", members={**MEMBERS, "exp/X/config.yaml": config})
    for model in (tmp_path, packed):
        with pytest.raises(ValueError, match=message):
            texts(model)
    message = message.replace("config.yaml", "meta.yaml")
    with pytest.raises(ValueError, match=message):
        texts(pack(tmp_path / "meta.zip", contents=config))
    (tmp_path / "meta.yaml").write_text(config)
    with pytest.raises(ValueError, match=message):
        texts(tmp_path)


def test_weights_that_are_a_bomb_themselves(tmp_path):
    """torch.save packs nothing, torch.load would unpack all the same."""
    (tmp_path / "config.yaml").write_text("a: &a [1]\nb: *a\n")  # aliases are no harm by themselves
    weights = tmp_path / "valid.loss.best.pth"
    torch.save({"a": torch.zeros(1000)}, weights)
    with model_files(tmp_path) as paths:
        assert paths[1] == weights
    with zipfile.ZipFile(weights, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", 1_000_000 * "0")
    with pytest.raises(ValueError, match="valid.loss.best.pth: refused, because its .* bytes would become 1000000"):
        texts(tmp_path)
