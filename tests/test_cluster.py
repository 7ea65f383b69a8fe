"""The stages as jobs of a real Slurm: arrays, failures, reruns, kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import recipes
import slurm_cluster
import torch
from recipes import DEMO, ROOT
from tiny_study import DATA_OPTIONS, STAGE_OPTIONS, TRAINING, make_clean_speech
from warm_python import warm_python

from espnet2_m2m.data_dir import read_table

JOBS = ROOT / "local" / "parallel"
EXPERIMENT = "train_enh_m2m_tfgridnet_small"
needs_slurm = pytest.mark.skipif(slurm_cluster.why_not() is not None, reason=str(slurm_cluster.why_not()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Environment of a user of the cluster."""
    with slurm_cluster.slurm(tmp_path_factory.mktemp("cluster") / "slurm") as env:
        path = f"{Path(sys.executable).parent}:{env['PATH']}"
        yield {**env, "PYTHONPATH": str(ROOT), "PATH": path}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    with warm_python(tmp_path_factory.mktemp("python")) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a study")
    make_clean_speech(folder / "clean")
    return folder


def start(folder, cluster, python, *options):
    # As the page shows it, with other numbers.
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    (cmd_backend=slurm \./run\.sh .*)", page, flags=re.MULTILINE)
    for option, number in (("--nj", "2"), ("--inference_nj", "2"), ("--ngpu", "0")):
        command, count = re.subn(f"{option} \\d+", f"{option} {number}", command)
        assert count == 1
    options = [
        "--python",
        python,
        "--source_data",
        f"{folder}/clean",
        *DATA_OPTIONS,
        *STAGE_OPTIONS,
        *recipes.folders_in(folder),
        *options,
    ]
    command = ["bash", "-c", f'{command} "$@"', "bash", *options]
    return subprocess.Popen(
        command,
        cwd=DEMO,
        env=cluster,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # Whoever runs these tests in the background of a shell has SIGINT ignored, and so would bash.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*args, desired=0):
    process = start(*args)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == desired, printed[-5000:]
    return printed


def wait_for(condition, what):
    deadline = time.time() + 300
    while not condition():
        assert time.time() < deadline, what
        time.sleep(0.05)


def finished_mixtures(set_dir):
    """Utterance -> times of its files, of those that have all seven."""
    times = {}
    for path in sorted(set_dir.glob("wav/*/[!.]*.wav")):
        times.setdefault(path.stem, []).append(path.stat().st_mtime_ns)
    return {utt_id: of_files for utt_id, of_files in times.items() if len(of_files) == 7}


def epochs_of(exp):
    return torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["epoch"]


def training_process(python):
    """Id of the process that the training's job runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if command[2:5] == [python.encode(), b"-m", b"espnet2_m2m.bin.enh_train"]:
            return int(path.parent.name)
    raise AssertionError("no training runs")


def running_jobs(env):
    done = subprocess.run(["squeue", "--noheader", "--format", "%A"], env=env, text=True, capture_output=True)
    return done.stdout.split()


@needs_slurm
def test_stages_as_arrays_with_kills_in_simulation_and_training(cluster, python, folder):
    stages = ("--stop_stage", "1", "--num_train", "300")  # seconds to be killed in
    data = folder / "data"
    process = start(folder, cluster, python, *stages)
    wait_for(lambda: finished_mixtures(data / "train"), "the simulation begins")
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C cancels the jobs
    process.communicate(timeout=60)
    wait_for(lambda: not running_jobs(cluster), "the jobs are gone")
    before = finished_mixtures(data / "train")
    assert not (data / "train" / "wav.scp").exists()
    run(folder, cluster, python, *stages)
    assert len(read_table(data / "train" / "wav.scp")) == 300
    assert before.items() <= finished_mixtures(data / "train").items(), "nothing is rendered twice"
    assert {path.name for path in (data / "log").iterdir()} == {"simulate.1.log", "simulate.2.log", "simulate.log"}

    exp = folder / "exp" / EXPERIMENT
    stages = ("--stage", "3", "--stop_stage", "6", "--enh_args")
    process = start(folder, cluster, python, *stages, f"--max_epoch 1000 {TRAINING}")
    wait_for(lambda: (exp / "checkpoint.pth").exists(), "one epoch")
    os.kill(training_process(python), signal.SIGKILL)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "stage 6 failed" in printed, printed
    epoch = epochs_of(exp)
    run(folder, cluster, python, *stages, f"--max_epoch {epoch + 1} {TRAINING}")
    log = (exp / "train.log").read_text()
    assert "The training was resumed using" in log and f" {epoch}epoch results" not in log
    assert epochs_of(exp) == epoch + 1

    enhanced = exp / "enhanced_test"
    printed = run(folder, cluster, python, "--stage", "7", "--stop_stage", "8")
    logs = {path.name for path in (enhanced / "log").iterdir()}
    assert logs == {"talkers.log"} | {
        f"{stage}{job}.log" for stage in ("separate", "score") for job in ("", ".1", ".2")
    }
    assert "0 of 1 utterances are done already" in (enhanced / "log" / "separate.2.log").read_text()
    assert "2 of 2 utterances are done already" in (enhanced / "log" / "separate.log").read_text()
    assert json.loads((enhanced / "scoring" / "summary.json").read_text())["num_utterances"] == 2
    assert [path.name for path in (enhanced / "scoring").glob("*.jsonl")] == ["utterances.jsonl"]


def test_training_on_two_nodes_is_one_job_that_starts_it_by_srun(tmp_path):
    """What reaches sbatch; a node of two GPUs is not at hand."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        f'#!/bin/sh\necho 1\nprintf "%s\\n" "$*" > {tmp_path}/options\ncat > {tmp_path}/script\n'
        'while [ $# -gt 0 ]; do [ "$1" != --output ] || echo "# Ended (code 1)" > "$2"; shift; done\n'
    )
    sbatch.chmod(0o755)
    env = {**os.environ, "cmd_backend": "slurm", "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(
        ["./run.sh", "--stage", "6", "--stop_stage", "6", "--ngpu", "2", "--num_nodes", "2", "--expdir", tmp_path],
        cwd=DEMO,
        env=env,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1 and "# Ended (code 1)" in done.stderr, done.stderr
    options = (tmp_path / "options").read_text()
    assert "--wait --gres gpu:2 --cpus-per-task 2 --nodes 2 --ntasks-per-node 1" in options
    script = (tmp_path / "script").read_text()
    assert "command=('srun' '--export=ALL' 'python3' '-m' 'espnet2_m2m.bin.enh_train'" in script
    assert "'--dist_launcher' 'slurm' '--dist_init_method' 'file://" in script
    # The launcher's thread a GPU does not replace what cmd.sh asks for.
    subprocess.run(
        [ROOT / "local/parallel/slurm.pl", "--cpus-per-task", "16", "--num_threads", "2", tmp_path / "x.log", "true"],
        env=env,
    )
    options = (tmp_path / "options").read_text()
    assert "--cpus-per-task 16 " in options and options.count("--cpus-per-task") == 1


@needs_slurm
def test_a_failing_job_fails_the_array_and_shows_its_log(cluster, tmp_path):
    log = f"{tmp_path}/a log/x.JOB.log"
    script = "echo \"job JOB says 'hi'\"; [ JOB -ne 2 ]"
    done = subprocess.run(
        [JOBS / "slurm.pl", "--mem", "10", "JOB=1:2", log, "bash", "-c", script],
        env=cluster,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1 and "1 of 2 jobs failed" in done.stderr
    assert "job 2 says 'hi'\n# Ended (code 1)" in done.stderr and "job 1 says" not in done.stderr
    done = subprocess.run(
        [JOBS / "slurm.pl", "--partition", "none", log, "true"], env=cluster, text=True, capture_output=True
    )
    assert done.returncode == 1 and "invalid partition" in done.stderr


def test_jobs_on_this_machine(tmp_path):
    """The same with run.pl: its arrays, and what a single command prints."""
    command = [JOBS / "run.pl", "--gpu", "1", "--max_jobs_run", "2", "JOB=1:3", f"{tmp_path}/a log/x.JOB.log"]
    script = 'echo "job JOB"; [ JOB -ne 2 ]'
    done = subprocess.run([*command, "bash", "-c", script], text=True, capture_output=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "1 of 3 jobs failed" in done.stderr and "job 2\n# Ended (code 1)" in done.stderr
    assert subprocess.run([*command, "true", "JOB"]).returncode == 0
    assert "# true 3\n" in (tmp_path / "a log" / "x.3.log").read_text()
    done = subprocess.run(
        [JOBS / "run.pl", f"{tmp_path}/y.log", "bash", "-c", "echo '# JOB  x'; exit 3"], text=True, capture_output=True
    )
    assert (done.returncode, done.stdout) == (3, "# JOB  x\n")
    assert "# JOB  x\n# Ended (code 3)" in (tmp_path / "y.log").read_text()


def test_an_array_on_this_machine_ends_with_its_script(tmp_path):
    sleep = ["sleep", f"{os.getpid() + 1000000}.JOB"]
    command = [JOBS / "run.pl", "--max_jobs_run", "2", "JOB=1:2", f"{tmp_path}/JOB.log", *sleep]
    process = subprocess.Popen(command)
    wait_for(lambda: len(sleepers()) == 2, "both run")
    process.terminate()
    assert process.wait(30) == 130
    wait_for(lambda: not sleepers(), "both have ended")


def sleepers():
    """Command lines of the processes of the test above."""
    wanted, found = f"{os.getpid() + 1000000}.".encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            command = path.read_bytes().split(b"\0")
            if command[0] == b"sleep" and command[1].startswith(wanted):
                found.append(command)
    return found


def test_cmd_sh_knows_its_backends():
    done = subprocess.run(
        ["./run.sh", "--stop_stage", "1"],
        cwd=DEMO,
        text=True,
        capture_output=True,
        env={**os.environ, "cmd_backend": "sge"},
    )
    assert done.returncode == 1 and "cmd_backend is local or slurm, found 'sge'" in done.stderr
