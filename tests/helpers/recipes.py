"""Recipes run as a user runs them: a script in its folder, with the Python of the tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "egs2" / "meeting_demo" / "enh1"


def environment(**changes):
    """Of the script: the package is installed, one thread for each process, and `changes`."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **changes,
    }


def folders_in(folder):
    """Options that put all outputs of run.sh in `folder`."""
    return ["--datadir", f"{folder}/data", "--dumpdir", f"{folder}/dump", "--expdir", f"{folder}/exp"]


def run(*command, recipe=DEMO, check=True, **changes):
    """Run a command in the folder of a recipe; returns what it printed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=recipe,
        env=environment(**changes),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert not check or done.returncode == 0, done.stdout[-5000:]
    return done.stdout
