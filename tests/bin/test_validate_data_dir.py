"""The data dir commands: output, exit status, start-up."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from espnet2_m2m.bin import filter_data_dir, format_data_dir, validate_data_dir
from espnet2_m2m.data_dir import read_table, write_table, write_wav

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Two utterances of two channels, 0.1 s and 0.3 s at 8 kHz, in data/train."""
    monkeypatch.chdir(tmp_path)
    data_dir = Path("data/train")
    durations = {"s-1": 0.1, "s-2": 0.3}
    for seed, (utt_id, duration) in enumerate(durations.items()):
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(8000 * duration), 2))
        write_wav(data_dir / "wav" / f"{utt_id}.wav", samples, 8000)
    write_table(data_dir / "wav.scp", {u: f"data/train/wav/{u}.wav" for u in durations})
    write_table(data_dir / "utt2spk", dict.fromkeys(durations, "s"))
    write_table(data_dir / "spk2utt", {"s": "s-1 s-2"})
    write_table(data_dir / "utt2dur", durations)
    return data_dir


def test_good_dirs(train, capsys):
    options = ["--sample_rate", "8000", "--num_channels", "2", "--nj", "2"]
    validate_data_dir.main([str(train), str(train), *options])
    desired = "data/train: OK: 2 utterances, 0.00 h, 2 channels, 8000 Hz\n"
    assert capsys.readouterr().out == 2 * desired


def test_all_problems_and_the_exit_status(train, capsys):
    (train / "utt2dur").write_text("s-1 0.1\ns-2 none\n")
    (train / "wav" / "s-2.wav").unlink()
    with pytest.raises(SystemExit) as exit_status:
        validate_data_dir.main([str(train), "data/none", "--require", "closetalk", "text"])
    assert exit_status.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "data/train/text: no such file; remedy: create it (stage 1)",
        "data/train/closetalk1.scp: expected closetalk1.scp, found no such file; remedy: create it",
        "data/train/utt2dur:2: expected a duration in seconds > 0, found `s-2 none`; remedy: correct the line",
        "data/train/wav.scp:2: utterance 's-2': data/train/wav/s-2.wav: no such audio file;"
        " remedy: correct the path (a relative one starts at the working directory)",
        "data/train: 4 problem(s): 2 utterances, 0.00 h, 2 channels, 8000 Hz",
        "data/none: no such data directory; remedy: create it (stage 1)",
        "data/none: 1 problem(s): 0 utterances",
    ]


def test_without_audio(train, capsys):
    (train / "wav" / "s-2.wav").unlink()
    validate_data_dir.main([str(train), "--no_audio"])
    assert capsys.readouterr().out == "data/train: OK: 2 utterances, audio not read\n"


def test_stages_3_and_4(train, capsys):
    format_data_dir.main(
        ["--data_dir", "data/train", "--out_dir", "dump/org", "--sample_rate", "16000"] + ["--channels", "1"]
    )
    assert capsys.readouterr().out == "dump/org: 0 files fit as they are, 2 in dump/org/wav\n"
    filter_data_dir.main(
        ["--data_dir", "dump/org", "--out_dir", "dump/train"] + ["--min_duration", "0.15", "--max_duration", "20"]
    )
    desired = "dump/train: kept 1 utterances, removed 1 (1 ('s-1') too short, 0 too long)\n"
    assert capsys.readouterr().out == desired
    assert read_table("dump/train/wav.scp") == {"s-2": "dump/org/wav/wav/s-2.wav"}
    validate_data_dir.main(["dump/train", "--sample_rate", "16000", "--num_channels", "1"])


@pytest.mark.parametrize("channels", ["0,0", "a", "-1", ""])
def test_wrong_channels(train, channels, capsys):
    with pytest.raises(SystemExit) as exit_status:
        format_data_dir.main(["--data_dir", "x", "--out_dir", "y", f"--channels={channels}"])
    assert exit_status.value.code == 1
    assert "expected different channels counted from 0" in capsys.readouterr().err


def run(module, *arguments):
    command = [sys.executable, "-m", f"espnet2_m2m.bin.{module}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_user_errors_are_one_line(train):
    done = run("filter_data_dir", "--data_dir", str(train), "--out_dir", "dump/train")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "data/train/utt2num_samples: no such file; format_data_dir" in done.stderr
    (train / "wav" / "s-2.wav").unlink()
    done = run("format_data_dir", "--data_dir", str(train), "--out_dir", "dump/train")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: utterance 's-2' of wav.scp: data/train/wav/s-2.wav: no such" in done.stderr


def test_starts_quickly_and_without_torch(train):
    """Importing torch or ESPnet takes seconds; these commands need neither."""
    started = time.monotonic()
    assert run("validate_data_dir", str(train)).returncode == 0
    assert time.monotonic() - started < 5  # 0.5 s on an idle machine
    code = (
        "import sys; from espnet2_m2m.bin import validate_data_dir as v; v.main(['data/train']);"
        "print({'torch', 'espnet2', 'scipy', 'kaldiio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stdout + done.stderr
