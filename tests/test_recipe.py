"""The whole demo recipe on a tiny set, as a user runs it; then what a user may do to it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import recipes
import soundfile
import torch
import yaml
from tiny_asr import make_asr

from espnet2_m2m.data_dir import read_table, validate_data_dir
from espnet2_m2m.enh.config import read_config

CONFIG = "train_enh_m2m_tfgridnet_small"
DATA_OPTIONS = "--num_train 4 --num_valid 2 --num_test 2 --num_talkers 6 --num_sentences 4".split()
ONE_EPOCH = "--max_epoch 1 --num_iters_per_epoch 4"
TWO_EPOCHS = "--max_epoch 2 --num_iters_per_epoch 4"


def run(*options, folder, check=True, **env):
    """./run.sh with its outputs in `folder`; returns what it printed."""
    return recipes.run("./run.sh", *recipes.folders_in(folder), *options, check=check, **env)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of all stages: 4 training, 2 validation, 2 test mixtures, one epoch."""
    folder = tmp_path_factory.mktemp("meeting demo")  # a path with a space
    run(*DATA_OPTIONS, "--enh_args", ONE_EPOCH, "--num_examples", "1", folder=folder)
    return folder


def experiment(folder):
    return folder / "exp" / CONFIG


def test_all_stages_leave_what_the_readme_lists(folder):
    exp = experiment(folder)
    assert (exp / "RESULTS.md").is_file() and (exp / "enhanced_test" / "report" / "index.html").is_file()
    with open(exp / "enhanced_test" / "scoring" / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4, "two utterances of two talkers"
    outputs, mixtures = read_table(exp / "enhanced_test" / "spk1.scp"), read_table(folder / "data/test/wav.scp")
    assert outputs.keys() == mixtures.keys() and len(outputs) == 2
    utt_id = min(outputs)
    info, mixture = soundfile.info(outputs[utt_id]), soundfile.info(mixtures[utt_id])
    assert (info.frames, info.samplerate, info.subtype) == (mixture.frames, 8000, "FLOAT")


def test_separated_speech_is_a_data_dir_and_is_recognised(folder):
    """Stage 7 leaves a line per talker for asr.sh; stages 9 and 10 decode, here with an untrained model."""
    talkers = experiment(folder) / "enhanced_test" / "talkers"
    assert not validate_data_dir(talkers, sample_rate=8000, num_channels=1, require=["text"])
    assert set(read_table(talkers / "utt2stream").values()) == {"1", "2"}
    make_asr(folder / "asr tiny")
    (folder / "decode.yaml").write_text("{beam_size: 1, maxlenratio: -3}\n")
    options = ["--asr_exp", f"{folder}/asr tiny", "--inference_asr_config", f"{folder}/decode.yaml"]
    run("--stage", "9", "--stop_stage", "10", *options, folder=folder)
    results = (folder / "exp" / "decode_asr tiny" / "RESULTS_ASR.md").read_text()
    rows = [line.split("|")[1] for line in results.splitlines() if line.count("|") == 10]
    conditions = [row for row in rows if row not in ("dataset", "---")]
    assert conditions == 2 * ["mixture", CONFIG, "closetalk", "cleaned", "clean"]
    printed = run("--stage", "9", "--stop_stage", "9", folder=folder, check=False)
    assert "--asr_exp or --asr_tag" in printed


def test_the_packed_model_separates_a_recording_elsewhere(folder, tmp_path):
    """By the command as its card shows it; a test mixture is shorter than a segment."""
    exp = experiment(folder)
    packed = shutil.copy(exp / f"{CONFIG}_valid.loss.best.zip", tmp_path)
    assert "meeting_demo" in (exp / "README.md").read_text() and "SI-SDR" in (exp / "README.md").read_text()
    utt_id, recording = (folder / "dump/raw/test/wav.scp").read_text().splitlines()[0].split(maxsplit=1)
    done = subprocess.run(
        [sys.executable, "-m", "espnet2_m2m.bin.separate", "--model", packed, recording, "-o", str(tmp_path / "out")],
        cwd=tmp_path,
        env=recipes.environment(),
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0 and "real-time factor" in done.stdout, done.stderr
    for n in (1, 2):
        actual, _ = soundfile.read(tmp_path / "out" / f"{Path(recording).stem}_spk{n}.wav")
        desired, _ = soundfile.read(exp / "enhanced_test" / "wavs" / str(n) / f"{utt_id}.wav")
        assert np.abs(actual - desired).max() < 1e-5 * np.abs(desired).max()


def test_training_read_no_references(folder):
    config = yaml.safe_load((experiment(folder) / "config.yaml").read_text())
    names = [name for _, name, _ in config["train_data_path_and_name_and_type"]]
    assert names == ["speech_mix", "closetalk_mix1", "closetalk_mix2"]
    names = [name for _, name, _ in config["valid_data_path_and_name_and_type"]]
    assert names[3:] == ["speech_ref1", "speech_ref2"]
    checkpoint = torch.load(experiment(folder) / "checkpoint.pth", weights_only=False)
    stats = checkpoint["reporter"]["stats"]
    assert "si_snr_loss" in stats[1]["valid"] and "si_snr_loss" not in stats[1]["train"]


def test_recordings_without_references_have_no_scores(folder, tmp_path):
    real = tmp_path / "dump/raw/real"
    shutil.copytree(folder / "dump/raw/test", real, ignore=shutil.ignore_patterns("*spk[12].scp"))
    printed = run(
        "--stage", "8", "--stop_stage", "8", "--test_sets", "real", "--dumpdir", f"{tmp_path}/dump", folder=folder
    )
    assert "no scores of real, whose recordings have no references (spk1.scp ...)" in printed


def test_a_rerun_does_nothing_twice(folder):
    wavs = sorted((folder / "data").rglob("*.wav")) + sorted(experiment(folder).rglob("*.wav"))
    before = [path.stat().st_mtime_ns for path in wavs]
    printed = run(*DATA_OPTIONS, "--stop_stage", "4", folder=folder)
    printed += run("--stage", "7", "--stop_stage", "8", folder=folder)
    assert [path.stat().st_mtime_ns for path in wavs] == before
    assert "2 of 2 utterances are done already" in printed


def test_training_continues_after_a_kill(folder):
    """Killed in its second epoch, the training resumes from the first."""
    log = experiment(folder) / "train.log"
    stage = ["--stage", "6", "--stop_stage", "6", "--enh_args"]
    process = subprocess.Popen(
        ["./run.sh", *recipes.folders_in(folder), *stage, TWO_EPOCHS],
        cwd=recipes.DEMO,
        env=recipes.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline, content = time.time() + 300, ""
    while "2/2epoch started" not in content:
        assert process.poll() is None and time.time() < deadline, content[-3000:]
        time.sleep(0.1)
        with suppress(FileNotFoundError):  # the launcher renames that of the run before
            content = log.read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    printed = run(*stage, f"{TWO_EPOCHS} --seed 9", folder=folder, check=False)
    assert "is a training with other options" in printed
    run(*stage, TWO_EPOCHS, folder=folder)
    contents = [path.read_text() for path in sorted(experiment(folder).glob("train*.log"))]
    assert len(contents) == 3, "of the killed training, of the first and of the last"
    assert sum("The training was resumed using" in content for content in contents) == 2
    assert sum(f" {epoch}epoch results" in content for content in contents for epoch in (1, 2)) == 2


def test_run_table_trains_separates_and_scores_a_row(folder):
    """PIT with one mic: trained by references, its estimates scored as they are and after FCP."""
    command = ["./run_table.sh", "--rows", "table3_3_pit", "--seeds", "0", "--max_epoch", "1"]
    command += ["--enh_args", "--num_iters_per_epoch 4", *recipes.folders_in(folder), "--expdir", f"{folder}/study"]
    recipes.run(*command)
    exp = folder / "study" / "small_1ep" / "table3_3_pit_seed0"
    summaries = [
        json.loads((exp / name / "scoring" / "summary.json").read_text())
        for name in ("enhanced_test", "enhanced_test_fcp")
    ]
    si_sdr = [summary["mean"]["separated"]["si_sdr"] for summary in summaries]
    assert si_sdr[0] != si_sdr[1]
    tables = (exp.parent / "TABLES.md").read_text()
    assert f"{si_sdr[0]:.1f}" in tables and f"{si_sdr[1]:.1f}" in tables
    assert "finished before" in recipes.run(*command)


def test_two_processes_train_with_ddp_and_both_know_the_plug_in(folder, tmp_path):
    """gloo on the CPU, ESPnet's stock task in spawned processes; headsets passed as speech_ref."""
    config = read_config(recipes.DEMO / "conf" / "tuning" / f"{CONFIG}.yaml")
    config["criterions"] = config["criterions"][:1]
    config["model_conf"] = {"closetalk_from_ref": True}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "espnet2_m2m.run", "ddp_driver"]
    command += ["--config", tmp_path / "train.yaml", "--output_dir", tmp_path / "exp", "--ngpu", "0"]
    command += "--max_epoch 1 --batch_size 2 --num_workers 0 --num_iters_per_epoch 4".split()
    for phase, name in (("train", "train"), ("valid", "valid")):
        data_dir = folder / "dump" / "raw" / name
        for scp, data in (("wav", "speech_mix"), ("closetalk1", "speech_ref1"), ("closetalk2", "speech_ref2")):
            command += [f"--{phase}_data_path_and_name_and_type", f"{data_dir}/{scp}.scp,{data},sound"]
    recipes.run(*command)
    ranks = [json.loads((tmp_path / "exp" / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [rank["rank"] for rank in ranks] == [0, 1]
    assert all(rank["registered"] and rank["world_size"] == 2 and rank["steps"] >= 1 for rank in ranks)
    assert ranks[0]["weights_sha256"] == ranks[1]["weights_sha256"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--stage", "3", "--stop_stage", "3", "--datadir", "nowhere"], "nowhere/train"),
        (["--stagee", "3"], "unknown option --stagee"),
        (["--inference_nj", "0"], "--inference_nj is a number above 0, found '0'"),
        (["--stage=3"], "expected '--name value'"),
        (["--source_data", "nowhere", "--stop_stage", "1"], "nowhere"),
        (["--stage", "7", "--stop_stage", "7", "--enh_tag", "nothing"], "nothing"),
    ],
)
def test_mistakes_end_in_one_clear_line(folder, options, message):
    printed = run(*options, folder=folder, check=False)
    assert message in printed and "Traceback" not in printed, printed[-2000:]


SCRIPTS = ("meeting_demo_data.sh", "librispeech_data.sh", "sms_wsj_data.sh", "train_demo_asr.sh")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--nj", "0"], "option --nj is a number above 0, found '0'"),
        (["--nj", "08"], "option --nj is a number above 0, found '08'"),  # an octal number to bash
        (["--fs", "8k"], "option --fs is a number above 0, found '8k'"),
        (["--num-train", "-1"], "option --num-train is a number, found '-1'"),
        (["--num_train", "99999999999999999999"], "option --num_train is a number, found"),
    ],
)
def test_every_script_checks_counts_alike_and_at_once(options, message):
    """Some passed anything on to commands, which met it in their own ways, after others had worked for an hour."""
    for script in SCRIPTS:
        printed = recipes.run(f"local/{script}", *options, check=False)
        assert message in printed and printed.count("\n") == 1, printed


def test_a_variable_of_the_environment_is_no_option(folder):
    """An exported `seed` made `--seed` an option of the stages, and the data script's was lost."""
    assert "x5" in run("--seed", "x5", "--stop_stage", "1", folder=folder / "new", check=False, seed="3")


def test_a_truncated_recording_is_found_before_training(folder, tmp_path):
    shutil.copytree(folder / "dump" / "raw" / "valid", tmp_path / "valid")
    scp = (tmp_path / "valid" / "closetalk2.scp").read_text().splitlines()
    utt_id, path = scp[0].split(maxsplit=1)
    (tmp_path / "cut.wav").write_bytes(Path(path).read_bytes()[:-2000])
    scp[0] = f"{utt_id} {tmp_path / 'cut.wav'}"
    (tmp_path / "valid" / "closetalk2.scp").write_text("\n".join(scp) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "espnet2_m2m.bin.validate_data_dir", str(tmp_path / "valid")],
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1 and "closetalk2.scp:1" in done.stdout and utt_id in done.stdout
