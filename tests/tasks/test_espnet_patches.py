"""docs/espnet.md lists what is replaced in ESPnet and torch: that, and nothing else, and for no longer than it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from espnet2_m2m.espnet_imports import DEFERRED

ROOT = Path(__file__).parents[2]
LATER = "## What is imported later"
PROGRAM = """
import importlib, json, sys
import torch
import typeguard
from espnet2.bin import enh_inference as stock
from espnet2.tasks import abs_task, enh, enh_s2t

PLACES = {"torch": torch, "torch.compiler": torch.compiler, "typeguard": typeguard}
PLACES |= {module.__name__: module for module in (stock, enh, enh_s2t, abs_task)}
for name in ("EnhancementTask", "AbsTask"):
    PLACES[f"espnet2.tasks.enh.{name}"] = getattr(enh, name, None) or getattr(abs_task, name)
PLACES["espnet2.bin.enh_inference.SeparateSpeech"] = stock.SeparateSpeech
STATIC = {place: dict(vars(holder)) for place, holder in PLACES.items()}


def replaced():
    return sorted(
        f"{place}.{name}"
        for place, holder in PLACES.items()
        for name, before in STATIC[place].items()
        if name != "__warningregistry__" and vars(holder).get(name) is not before
    )


found = {}
for command in sys.argv[1:]:
    importlib.import_module(f"espnet2_m2m.bin.{command}")
from espnet2_m2m.tasks import enh_m2m, separate_speech
from espnet2_m2m.espnet_imports import deferred
from espnet2_m2m.tasks.espnet_patches import atomic_torch_save
found["imported"] = replaced()
with deferred():
    found["importing"] = replaced()
enh_m2m.register()
enh_m2m.register()
found["registered"] = replaced()
with atomic_torch_save():
    found["training"] = replaced()

from espnet2_m2m.bin import enh_inference
stock.inference = lambda **options: found.update(separating=replaced())
STATIC[stock.__name__]["inference"] = stock.inference
enh_inference.check_trained_rate = lambda *args: None
enh_inference.main(["--output_dir", "out", "--data_path_and_name_and_type", "wav.scp,speech_mix,sound",
                    "--train_config", "config.yaml", "--model_file", "config.yaml"])
found["afterwards"] = replaced()
print("\\n" + json.dumps(found))
"""


def test_what_is_replaced_is_what_the_page_lists(tmp_path):
    commands = sorted(path.stem for path in (ROOT / "espnet2_m2m/bin").glob("[!_]*.py"))
    (tmp_path / "config.yaml").write_text("sample_rate: 8000\ncriterions: [{name: mixture_constraint}]\n")
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *commands],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    page = (ROOT / "docs/espnet.md").read_text(encoding="utf-8")
    replaced, later = (set(re.findall(r"^\| `([\w.]+)` \|", part, flags=re.MULTILINE)) for part in page.split(LATER))
    for_good = ["espnet2.tasks.enh.EnhancementTask.build_model"]
    assert found["imported"] == []
    assert found["registered"] == found["afterwards"] == for_good
    assert set(found["importing"]) | set(found["training"]) | set(found["separating"]) == replaced
    assert later == set(DEFERRED)
