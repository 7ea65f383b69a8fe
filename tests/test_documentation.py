"""What the README and the docstrings show works as it stands there."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent


def blocks(language):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", readme, flags=re.DOTALL)


def test_python_of_the_readme():
    (code,) = blocks("python")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["loss"].shape == (4,) and names["separated"].shape == (4, 2, 32000)
    assert torch.isfinite(names["est"].grad).all()


def test_yaml_of_the_readme_is_a_criterions_block_that_builds():
    from espnet_configs import config

    from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    (block,) = blocks("yaml")
    model = M2MEnhancementTask.build_model(config(**yaml.safe_load(block)))
    assert isinstance(model, ESPnetM2MModel)


@pytest.mark.parametrize("module", ["stft", "fcp", "simulation.scene"])
def test_docstring_examples(module):
    imported = importlib.import_module(f"espnet2_m2m.{module}")
    result = doctest.testmod(imported, extraglobs={"torch": torch, "np": np})
    assert result.attempted and not result.failed


def test_files_and_folders_that_the_documents_name_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("egs2/*/*/README.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"
