"""What a config says of its training, with the criterions themselves as the authority on their defaults."""

import argparse
import inspect
from pathlib import Path

import pytest

from espnet2_m2m.bin import enh_train
from espnet2_m2m.enh.training_config import DEFAULTS, TrainingConfig

TUNING = Path(__file__).parents[2] / "conf" / "tuning"


def test_defaults_are_those_of_the_signatures():
    """The table is a copy, so that commands need no torch; a default that is changed in one place only must show."""
    from espnet2_m2m.enh.loss import MixtureConstraintCriterion, RIMagCriterion
    from espnet2_m2m.loss import MixtureConstraintLoss

    def defaults(*functions):
        parameters = {name: p for f in functions for name, p in inspect.signature(f).parameters.items()}
        return {name: p.default for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}

    assert DEFAULTS["mixture_constraint"] == defaults(MixtureConstraintCriterion, MixtureConstraintLoss)
    assert DEFAULTS["ri_mag"] == defaults(RIMagCriterion)


def test_the_table_names_the_criterions_of_the_task():
    from espnet2_m2m.enh.loss import CRITERIONS

    assert DEFAULTS.keys() == CRITERIONS.keys()


@pytest.mark.parametrize("form", [dict, argparse.Namespace], ids=["a file's content", "ESPnet's args"])
@pytest.mark.parametrize(
    "name, conf, model_conf, desired",
    [
        # is ours, uses headsets, family of the headsets, has fixed order
        ("mixture_constraint", None, None, (True, True, "closetalk", False)),
        ("mixture_constraint", {"anchor_weight": 5}, {}, (True, True, "closetalk", True)),
        ("mixture_constraint", {"anchor_weight": 5, "anchor_order": "free"}, {}, (True, True, "closetalk", False)),
        ("mixture_constraint", {"close_talk": False}, {}, (True, False, "closetalk", False)),
        ("mixture_constraint", {}, {"closetalk_from_ref": True}, (True, True, "spk", False)),
        ("ri_mag", {}, {}, (True, False, "closetalk", False)),
        ("si_snr", {}, {}, (False, False, "closetalk", False)),
    ],
)
def test_answers(name, conf, model_conf, desired, form):
    criterions = [{"name": "snr", "wrapper": "pit"}, {"name": name, "conf": conf}]
    config = TrainingConfig(form(criterions=criterions, model_conf=model_conf))
    actual = (config.is_ours, config.uses_headsets, config.closetalk_family, config.has_fixed_order)
    assert actual == desired and config.sample_rate is None


def test_options_that_are_not_written_are_the_defaults(tmp_path):
    (tmp_path / "base.yaml").write_text("sample_rate: 16000\ncriterions: [{name: mixture_constraint, conf: null}]")
    (tmp_path / "config.yaml").write_text(
        "base: base.yaml\ncriterions: [{name: mixture_constraint, conf: {alpha: 0.2}}]\n"
    )
    config = TrainingConfig.load(tmp_path / "config.yaml")
    assert config.loss == DEFAULTS["mixture_constraint"] | {"alpha": 0.2} and config.sample_rate == 16000
    assert TrainingConfig({"criterions": [{"name": "ri_mag"}]}).loss == DEFAULTS["mixture_constraint"]


def test_the_rows_of_the_repository():
    configs = {path.stem: TrainingConfig.load(path) for path in TUNING.glob("table*.yaml")}
    assert all(config.is_ours for config in configs.values())
    supervised = {name for name, config in configs.items() if config.criterion is None}
    assert supervised == {"table2_4b_pit", "table3_3_pit"}
    assert {name for name, config in configs.items() if not config.uses_headsets} - supervised == {"table2_4a_unssor"}
    assert not any(config.has_fixed_order for config in configs.values())
    assert TrainingConfig.load(TUNING / "train_enh_m2m_tfgridnet_small.yaml").has_fixed_order


@pytest.mark.parametrize(
    "text, message",
    [
        ("criterions: 3", "criterions must be a list .* found 3$"),
        ("criterions: {name: ri_mag}", "criterions must be a list .* found {'name': 'ri_mag'}$"),
        ("criterions: [ri_mag]", r"criterions must be a list .* found \['ri_mag'\]$"),
        ("criterions: [{conf: {}}]", "criterions must be a list whose entries have a name"),
        ("criterions: [{name: 3}]", "criterions must be a list whose entries have a name"),
        ("criterions: [{name: ri_mag, conf: 3}]", "have a name and, as a mapping, conf"),
        ("model_conf: [1]", r"model_conf must be a mapping of options, found \[1\]$"),
        ("a: [1", "not plain YAML"),
        ("a: !!python/name:os.remove", "not plain YAML"),
        ("3", "expected a mapping of options, `name: value`, found int"),
    ],
)
def test_a_malformed_config_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path}:.*{message}") as error:
        TrainingConfig.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "# nothing", "criterions: []", "criterions:"])
def test_a_config_may_name_no_criterion(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    config = TrainingConfig.load(tmp_path / "config.yaml")
    assert config.criterions == () and not config.is_ours


def test_the_command_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "train.yaml").write_text("criterions: [{conf: {alpha: 1.0}}]")
    with pytest.raises(SystemExit):
        enh_train.espnet_command(["--config", str(tmp_path / "train.yaml"), "--train_dir", "x"])
    printed = capsys.readouterr().err
    assert "train.yaml: criterions must be a list" in printed and len(printed.splitlines()) == 1
