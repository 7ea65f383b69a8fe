"""local/train_demo_asr.sh, as docs/asr.md shows it, with a few sentences and one epoch."""

import os
import subprocess
import sys
from pathlib import Path

from espnet2_m2m.data_dir import read_table

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "egs2" / "meeting_demo" / "enh1"


def test_a_recogniser_is_trained_and_a_rerun_continues(tmp_path):
    folder = tmp_path / "a study"
    command = [
        "local/train_demo_asr.sh",
        "--num_talkers",
        "4",
        "--num_sentences",
        "6",
        "--num_train",
        "2",
        "--num_valid",
        "1",
        "--nj",
        "1",
        "--datadir",
        folder / "data",
        "--dumpdir",
        folder / "dump",
        "--expdir",
        folder / "exp",
        "--asr_args",
        "--max_epoch 1",
    ]
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run():
        done = subprocess.run(
            command, cwd=RECIPE, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    exp = folder / "exp" / "asr_train_asr_demo"
    assert f"--asr_exp {exp}" in run()
    text = read_table(folder / "dump" / "train" / "text")
    assert len(text) == 4 * 6 + 2 * 2, "dry sentences, and both talkers' images of two mixtures"
    assert {utt_id[:3] for utt_id in text} <= {"f13", "f14", "m13", "m14"}, "talkers 25 to 28"
    model = (exp / "valid.acc.ave.pth").stat().st_mtime_ns
    run()
    assert (exp / "valid.acc.ave.pth").stat().st_mtime_ns == model
