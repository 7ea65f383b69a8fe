"""The benchmark for a GPU, on the CPU and with tiny sizes: on a GPU nothing may be missing but the numbers."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clean_speech import make_clean_speech

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import on_gpu

ROOT = Path(__file__).parents[1]
TINY = ["--device", "cpu", "--size", "small", "--seconds", "0.4", "--batches", "1", "--repeats", "1"]
TINY += ["--train_batch", "1", "--num_valid", "1", "--workers", "1", "--minutes", "10"]
# What this package requires but the benchmark does not take along (nor ESPnet 202511 import by itself).
LEFT_BEHIND = ["editdistance", "fast_bss_eval", "pesq", "pystoi", "matplotlib", "PIL", "humanfriendly", "tqdm"]
LEFT_BEHIND += ["espeakng_loader", "huggingface_hub", "meeteval", "pyroomacoustics"]
WITHOUT_THEM = "import sys; sys.modules.update(dict.fromkeys({0})); import on_gpu; on_gpu.main(sys.argv[1:])"


@pytest.fixture(scope="module")
def speech_dir(tmp_path_factory):
    rng = np.random.default_rng(0)
    return make_clean_speech(
        tmp_path_factory.mktemp("speech"), 2, lambda *_: 0.1 * rng.standard_normal(4000), 8000, text=False
    )


def run(out_dir, speech_dir, *options):
    """The benchmark as a command, with nothing that does not travel; returns its rows and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THEM.format(LEFT_BEHIND)]
        + [*TINY, "--out_dir", out_dir, "--speech", speech_dir, *options],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((out_dir / "results.json").read_text()), done.stdout


def test_all_parts_with_what_travels(tmp_path, speech_dir):
    rows, printed = run(tmp_path, speech_dir, "--max_steps", "2")
    assert printed.rstrip("\n") == (tmp_path / "results.md").read_text().rstrip("\n")
    assert [row["device"] for row in rows if "device" in row]
    measured = {(row["work"], row["way"], row["precision"]): row for row in rows if "work" in row}
    for precision in on_gpu.PRECISIONS:
        assert measured["loss", "ours", precision]["seconds"] > 0
        for work in ("network", "training step"):
            for way in on_gpu.network.WAYS:
                assert measured[work, way, precision]["seconds"] > 0
        # The loss keeps its precision with TF32 and in autocast, which a CPU's bfloat16 shows.
        loss = measured["loss, compared with the CPU", "ours", precision]
        assert 0 < max(loss["loss_error"], loss["grad_error"]) < 1e-4
    compared = [measured["network, compared with the CPU", "ours", name] for name in on_gpu.PRECISIONS]
    assert compared[0]["grad_error"] < 1e-3 < 1e-2 < compared[2]["grad_error"]
    ddp = measured["network, DDP", "ours in DDP, one rank, gloo", "float32"]
    assert ddp["seconds"] > 0 and ddp["grad_error"] < 1e-6
    assert [row["step"] for row in rows if "step" in row] == [0, 2]
    assert (tmp_path / "training.pth").is_file()


def train(out_dir, speech_dir, *options):
    """The training alone, in this process; returns its rows."""
    paths = ["--out_dir", str(out_dir), "--speech", str(speech_dir)]
    on_gpu.main([*TINY, *paths, "--parts", "training", *options])
    return [row for row in json.loads((out_dir / "results.json").read_text()) if "step" in row]


def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path, speech_dir, capfd):
    first = train(tmp_path / "twice", speech_dir, "--max_steps", "1")
    results = on_gpu.Results(tmp_path / "twice")
    results.add(**{**first[-1], "step": 2})  # of a call that was killed before its checkpoint
    desired, actual = (train(tmp_path / name, speech_dir, "--max_steps", "3") for name in ("once", "twice"))
    assert [row["step"] for row in actual] == [0, 1, 3] and actual[:2] == first
    for name in ("mc", "mixture", "image", "consistent"):
        assert actual[-1][name] == desired[-1][name]
    assert actual[-1]["mc"] != first[-1]["mc"]
    with pytest.raises(SystemExit):
        train(tmp_path / "twice", speech_dir, "--seed", "1")
    printed = capfd.readouterr()
    assert "is of a training with" in printed.err and "failed (status 1)" in printed.out


def test_a_job_that_fails_or_lasts_too_long_takes_nothing_else_away(tmp_path):
    results = on_gpu.Results(tmp_path)

    def lacks_memory(record):
        record(work="loss", way="ours", precision="float32", batch=1, seconds=0.5)
        raise MemoryError

    record = partial(results.add, "job")
    assert on_gpu.run(lacks_memory, record, time.monotonic() + 60) == "failed (status 1)"
    assert on_gpu.run(lambda record: time.sleep(60), record, time.monotonic() - on_gpu.GRACE_S + 0.1) == "out of time"
    assert on_gpu.run(lacks_memory, record, time.monotonic() - 1) == "out of time"
    assert [row["seconds"] for row in results.rows()] == [0.5]
    results.add("job", work="network, ours", failed="out of time")
    assert "| network, ours |  |  |  | out of time |" in (tmp_path / "results.md").read_text()


def test_without_speech_nothing_is_begun(tmp_path, capsys):
    with pytest.raises(SystemExit):
        on_gpu.main([*TINY, "--out_dir", str(tmp_path / "results"), "--speech", str(tmp_path / "none")])
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "results/results.json").exists()


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_what_differs_from_the_cpu_is_marked_and_fails(tmp_path, monkeypatch, capsys, error):
    row = dict(work="loss, compared with the CPU", way="ours", precision="TF32", batch=1, tolerance=on_gpu.TOLERANCE)
    monkeypatch.setattr(on_gpu, "jobs", lambda *_: [("equality", lambda record: record(**row, grad_error=error))])
    with pytest.raises(SystemExit):
        on_gpu.main([*TINY, "--out_dir", str(tmp_path)])
    assert f"{error:.0e} > 1e-04 |" in capsys.readouterr().out
    monkeypatch.setattr(on_gpu, "jobs", lambda *_: [("equality", lambda record: record(**row, grad_error=5e-5))])
    on_gpu.main([*TINY, "--out_dir", str(tmp_path)])
