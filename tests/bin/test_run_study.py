"""run_table.sh in a small recipe whose stages' script only pretends: order, resumption, failures."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_study import write_run

from espnet2_m2m.bin import run_study

ROOT = Path(__file__).parents[2]
ROWS = "table2_1a_m2m table2_4b_pit"
# What local/m2m.sh is asked for goes to calls.log. `behaviour/<tag>` makes a run misbehave.
STAGES = r"""#!/usr/bin/env bash
set -eu
while [ $# -gt 0 ]; do declare "${1#--}=$2"; shift 2; done
exp=${expdir}/${enh_tag}
echo "${enh_tag} ${stage}-${stop_stage} ${inference_tag:-}|${enh_config}|${enh_args}|${inference_args:-}|\
${OMP_NUM_THREADS:-}|${fs}|${test_sets}" >> calls.log
mkdir -p "${exp}"
behaviour=$(cat "behaviour/${enh_tag}" 2> /dev/null || true)
if [ "${stage}" = 6 ]; then
    python3 -m espnet2_m2m.enh.training_settings "${exp}" "${dumpdir}" "${enh_args}" ${enh_config}
    echo "${CUDA_VISIBLE_DEVICES:-}" > "${exp}/gpus"
    mkdir "active/${enh_tag}"
    if [ "${behaviour}" = together ]; then      # goes on only when two are at work
        for _ in {1..200}; do [ "$(ls active | wc -l)" -lt 2 ] || touch "met/${enh_tag}"; sleep 0.02; done
    fi
    [ "$(ls active | wc -l)" -le 2 ] || touch met/too_many
    [ "${behaviour}" != slow ] || sleep 300
    rmdir "active/${enh_tag}"
    [ "${behaviour}" != broken ] || { echo "out of memory"; exit 1; }
    [ "${behaviour}" = diverged ] || echo "The training was finished at 2 epochs " >> "${exp}/train.log"
    cp template/checkpoint.pth template/config.yaml "${exp}"
    touch "${exp}/valid.loss.best.pth"
else
    out=${exp}/enhanced_${test_sets}${inference_tag:+_${inference_tag}}
    rm -rf "${out}"
    mkdir "${out}"
    cp -r template/enhanced_test/scoring "${out}/scoring"
fi
"""
# Only the study itself is run; what comes after it goes to python.log.
PYTHON = f"""#!/bin/sh
case "$2" in *.run_study) exec {shlex.quote(sys.executable)} "$@" ;; esac
echo "$*" >> python.log
"""


@pytest.fixture
def recipe(tmp_path):
    """egs2/<corpus>/enh1 after stages 1 to 4."""
    folder = tmp_path / "my recipe"
    for name in ("local", "conf/tuning", "behaviour", "active", "met"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "local/run_table.sh", folder / "local")
    for name in ("path.sh", "cmd.sh"):
        shutil.copy(ROOT / "egs2/meeting_demo/enh1" / name, folder)
    (folder / "run_table.sh").symlink_to("local/run_table.sh")
    for path, content in ((folder / "local/m2m.sh", STAGES), (folder / "python", PYTHON)):
        path.write_text(content)
        path.chmod(0o755)
    for row in ROWS.split():
        (folder / f"conf/tuning/{row}.yaml").write_text("base: size_paper.yaml\n")
    (folder / "conf/tuning/size_paper.yaml").write_text("scheduler: reducelronplateau\nmax_epoch: 2   # all\n")
    (folder / "conf/tuning/size_small.yaml").write_text("scheduler: cosineannealinglr\nmax_epoch: 2\n")
    (folder / "conf/tuning/rate_16k.yaml").write_text("chunk_length: 64000\n")
    for name in ("train", "valid", "test"):
        (folder / "dump/raw" / name).mkdir(parents=True)
        for table in ("utt2spk", "wav.scp"):
            (folder / "dump/raw" / name / table).write_text("a a\n")
    write_run(folder, "template", 0, 10.0)
    (folder / "template_seed0").rename(folder / "template")
    return folder


def start(recipe, *options, python="./python", before=(), **env):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    if "OMP_NUM_THREADS" not in env:
        environment.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        [*before, "./run_table.sh", "--python", python, *options],
        cwd=recipe,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(recipe, *options, desired=0, **env):
    """./run_table.sh until its end; returns what it printed and the calls of m2m.sh."""
    (recipe / "calls.log").write_text("")
    process = start(recipe, *options, **env)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == desired, printed
    return printed, calls(recipe)


def calls(recipe):
    return (recipe / "calls.log").read_text().splitlines()


def test_order_and_options(recipe):
    """All rows of a seed before the next seed; every output of a row is separated and scored."""
    printed, called = run(recipe, "--seeds", "0 7", "--fs", "16000", "--enh_args", '--optim_conf "lr=1" --x \\')
    assert [call.partition("|")[0] for call in called] == [
        f"{row}_seed{seed} {stages}"
        for seed in (0, 7)
        for row, stages in (
            ("table2_1a_m2m", "6-6 "),
            ("table2_1a_m2m", "7-8 "),
            ("table2_1a_m2m", "7-8 consistent"),
            ("table2_4b_pit", "6-6 "),
            ("table2_4b_pit", "7-8 "),
            ("table2_4b_pit", "7-8 consistent"),
            ("table2_4b_pit", "7-8 fcp"),
        )
    ]
    configs, args, inference_args, threads, fs, test_sets = called[-1].split("|")[1:]
    assert configs == "conf/tuning/table2_4b_pit.yaml conf/tuning/size_small.yaml conf/tuning/rate_16k.yaml"
    assert args == '--seed 7 --max_epoch 2 --scheduler_conf T_max=2 --optim_conf "lr=1" --x \\'
    desired = "--fcp_output true --mixture_consistency false"
    assert (inference_args, threads, fs, test_sets) == (desired, "", "16000", "test")
    assert called[2].split("|")[3] == "--mixture_consistency true"
    assert "[4 of 4] table2_4b_pit seed 7: finished after" in printed
    assert (recipe / "python.log").read_text() == (
        "-m espnet2_m2m.bin.make_tables --study_dir exp/small_2ep --test_set test\n"
        "-m espnet2_m2m.bin.report --study_dir exp/small_2ep --test_set test --data_dir dump/raw/test"
        " --out_dir exp/small_2ep/report\n"
    )
    record = (recipe / "exp/small_2ep/table2_1a_m2m_seed7/run_table.jsonl").read_text()
    record = json.loads(record)
    assert (record["seed"], record["status"], record["resumed"], record["commit"]) == (7, "finished", False, None)
    assert 0 <= record["training_seconds"] <= record["seconds"] < 60
    assert record["command"].endswith("""'--optim_conf "lr=1" --x \\'""")


def test_paper_size_and_other_budget(recipe):
    _, called = run(recipe, "--size", "paper", "--rows", "table2_1a_m2m", "--seeds", "0", "--jobs", "1")
    assert called[0].split("|")[1:3] == ["conf/tuning/table2_1a_m2m.yaml", "--seed 0 --max_epoch 2"]
    assert (recipe / "exp/paper_2ep/table2_1a_m2m_seed0/enhanced_test/scoring/summary.json").is_file()
    # The pretended log ends at epoch 2, so a budget of 3 is not reached.
    printed, _ = run(recipe, "--max_epoch", "3", "--rows", "table2_1a_m2m", "--seeds", "0", desired=1)
    assert (recipe / "exp/small_3ep/table2_1a_m2m_seed0").is_dir()
    log = (recipe / "exp/small_3ep/table2_1a_m2m_seed0/run_table.log").read_text()
    assert "the training ended before epoch 3" in log


def test_finished_runs_are_skipped_until_their_input_changes(recipe):
    run(recipe, "--seeds", "0")
    printed, called = run(recipe, "--seeds", "0", "--nj", "1", "--jobs", "2")
    assert called == [] and printed.count("finished before") == 2
    os.utime(recipe / "exp/small_2ep/table2_1a_m2m_seed0/valid.loss.best.pth")  # trained on by hand
    _, called = run(recipe, "--seeds", "0")
    assert {call.split()[0] for call in called} == {"table2_1a_m2m_seed0"}
    shutil.rmtree(recipe / "exp/small_2ep/table2_4b_pit_seed0/enhanced_test_fcp")
    _, called = run(recipe, "--seeds", "0")
    assert {call.split()[0] for call in called} == {"table2_4b_pit_seed0"}
    (recipe / "exp/small_2ep/table2_4b_pit_seed0/train.log").write_text("1epoch results")  # scored by hand
    _, called = run(recipe, "--seeds", "0")
    assert {call.split()[0] for call in called} == {"table2_4b_pit_seed0"}
    os.utime(recipe / "dump/raw/test/wav.scp")  # another test set
    _, called = run(recipe, "--seeds", "0")
    assert len(called) == 7


def test_runs_at_the_same_time_have_gpus_of_their_own(recipe):
    (recipe / "nvidia-smi").write_text('#!/bin/sh\nfor n in 0 1 2 3; do echo "GPU $n: A100 (UUID: 1)"; done')
    (recipe / "nvidia-smi").chmod(0o755)
    path = f"{recipe}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for row in ROWS.split():
        (recipe / f"behaviour/{row}_seed0").write_text("together")

    def gpus():
        return sorted((recipe / f"exp/small_2ep/{row}_seed0/gpus").read_text().strip() for row in ROWS.split())

    run(recipe, "--seeds", "0", "--jobs", "2", "--ngpu", "2", PATH=path)
    assert gpus() == ["0,1", "2,3"]
    shutil.rmtree(recipe / "exp")
    run(recipe, "--seeds", "0", "--jobs", "2", "--ngpu", "1", PATH=path, CUDA_VISIBLE_DEVICES="5,3")
    assert gpus() == ["3", "5"]
    printed, called = run(recipe, "--seeds", "0", "--jobs", "2", "--ngpu", "3", desired=1, PATH=path)
    assert called == [] and "need 6 GPUs, found 4 (0 1 2 3)" in printed


@pytest.mark.parametrize("behaviour", ["broken", "diverged"])
def test_others_go_on_when_a_run_fails(recipe, behaviour):
    (recipe / "behaviour/table2_1a_m2m_seed0").write_text(behaviour)
    printed, called = run(recipe, "--seeds", "0 1", desired=1)
    assert sum("7-8 |" in call for call in called) == 3, "the failed one is not separated"
    assert "[1 of 4] table2_1a_m2m seed 0: failed after" in printed
    log = "exp/small_2ep/table2_1a_m2m_seed0/run_table.log"
    assert f"table2_1a_m2m seed 0 failed; see {log}" in printed and printed.count("failed;") == 1
    desired = {"broken": "out of memory", "diverged": "the training ended before epoch 2"}[behaviour]
    assert desired in (recipe / log).read_text()
    assert "make_tables" in (recipe / "python.log").read_text(), "the tables show the others"
    (recipe / "behaviour/table2_1a_m2m_seed0").unlink()
    _, called = run(recipe, "--seeds", "0 1")
    assert {call.split()[0] for call in called} == {"table2_1a_m2m_seed0"}


def test_a_training_with_other_options_is_not_taken_for_this_one(recipe):
    run(recipe, "--seeds", "0")
    printed, called = run(recipe, "--seeds", "0", "--enh_args", "--batch_size 2", desired=1)
    assert called == [] and printed.count("is a training with other options") == 2
    printed, called = run(recipe, "--seeds", "0", "--enh_args", "--batch_size 2", "--expdir", "other")
    assert len(called) == 7


def test_a_config_that_was_changed_is_another_training(recipe):
    tuning, row = recipe / "conf/tuning", "table2_1a_m2m"
    (tuning / "far.yaml").write_text("alpha: 1\n")
    (tuning / "near.yaml").write_text("base: [far.yaml]  # comment\n")
    (tuning / f"{row}.yaml").write_text("base: near.yaml\n")
    options = ["--seeds", "0", "--rows", row]
    run(recipe, *options)
    (tuning / "near.yaml").write_text("# Another comment.\nbase: [far.yaml]\n")
    printed, called = run(recipe, *options)
    assert called == [] and "finished before" in printed
    (tuning / "far.yaml").write_text("alpha: 2\n")
    printed, called = run(recipe, *options, desired=1)
    assert called == [] and "is a training with other options" in printed


def test_a_training_of_an_earlier_version_can_be_taken_over(recipe):
    """Its train.settings cannot be compared; the message says to remove it, and then nothing is trained anew."""
    options = ["--seeds", "0", "--rows", "table2_1a_m2m"]
    run(recipe, *options)
    noted = recipe / "exp/small_2ep/table2_1a_m2m_seed0/train.settings"
    noted.write_text("conf/tuning/table2_1a_m2m.yaml --seed 0 /data/dump 0123456789abcdef\n")
    printed, called = run(recipe, *options, desired=1)
    assert (
        called == [] and "train.settings was written by an earlier version" in printed and "remove the file" in printed
    )
    noted.unlink()
    printed, called = run(recipe, *options)
    assert called == [] and "finished before" in printed


def test_a_config_that_cannot_be_read_is_found_before_anything_is_trained(recipe):
    (recipe / "conf/tuning/table2_4b_pit.yaml").write_text("base: size_paper.yaml\nencoder: [\n")
    printed, called = run(recipe, desired=1)
    assert "run_study: error: conf/tuning/table2_4b_pit.yaml:3: not plain YAML" in printed and called == []


def test_a_value_may_begin_with_dashes_and_a_name_may_have_them():
    args = run_study.parse(["--enh-args", "--ngpu=1", "--rows", "a  b", "--max_epoch", "3"])
    assert (args.enh_args, args.ngpu, args.rows, args.max_epoch, args.seeds) == (
        "--ngpu=1",
        0,
        ["a", "b"],
        3,
        [0, 1, 2],
    )


def test_options_may_be_mended_when_nothing_was_trained(recipe):
    options = ["--seeds", "0", "--rows", "table2_1a_m2m"]
    (recipe / "behaviour/table2_1a_m2m_seed0").write_text("broken")
    run(recipe, *options, "--enh_args", "--batch_sise 2", desired=1)
    (recipe / "behaviour/table2_1a_m2m_seed0").unlink()
    run(recipe, *options, "--enh_args", "--batch_size 2")


def test_two_runs_at_the_same_time_with_one_thread_each(recipe):
    for row in ROWS.split():
        (recipe / f"behaviour/{row}_seed0").write_text("together")
    _, called = run(recipe, "--jobs", "2")
    assert sorted(path.name for path in (recipe / "met").iterdir()) == [f"{row}_seed0" for row in ROWS.split()]
    assert len(called) == 21 and all(call.split("|")[4] == "1" for call in called)
    shutil.rmtree(recipe / "exp")
    _, called = run(recipe, "--jobs", "2", "--seeds", "1", OMP_NUM_THREADS="3")
    assert all(call.split("|")[4] == "3" for call in called)


def test_kill_ends_the_training_too_and_a_second_call_waits_for_nobody(recipe):
    (recipe / "behaviour/table2_1a_m2m_seed0").write_text("slow")
    options = ["--seeds", "0", "--rows", "table2_1a_m2m"]
    (recipe / "calls.log").write_text("")
    process = start(recipe, *options)
    wait_for((recipe / "active/table2_1a_m2m_seed0").exists)
    other = start(recipe, *options)
    printed, _ = other.communicate(timeout=30)
    assert other.returncode == 1 and "another run_table.sh is at work" in printed, printed
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=30)  # returns once all that hold its stdout have ended
    assert process.returncode == 130, printed
    (recipe / "behaviour/table2_1a_m2m_seed0").unlink()
    (recipe / "active/table2_1a_m2m_seed0").rmdir()
    command = ["flock", "-n", recipe / "exp/small_2ep/table2_1a_m2m_seed0/.lock", "true"]
    wait_for(lambda: subprocess.run(command).returncode == 0)
    run(recipe, *options)


def wait_for(condition):
    deadline = time.time() + 30
    while not condition():
        assert time.time() < deadline
        time.sleep(0.02)


def test_a_run_ends_although_the_terminal_is_closed_or_its_parent_killed(recipe):
    """nohup has SIGHUP ignored, which must not be undone; and a killed run_table.sh leaves no half a run behind."""
    row = "table2_1a_m2m"
    (recipe / f"behaviour/{row}_seed0").write_text("together")  # waits for a second one until its time is up
    process = start(recipe, "--seeds", "0", "--rows", row, before=["nohup"])
    wait_for((recipe / f"active/{row}_seed0").exists)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=30)
    (record,) = (recipe / f"exp/small_2ep/{row}_seed0/run_table.jsonl").read_text().splitlines()
    assert json.loads(record)["status"] == "finished"


def test_tables_come_at_the_end(recipe):
    printed, _ = run(recipe, "--seeds", "0 1", "--python", sys.executable)
    text = (recipe / "exp/small_2ep/TABLES.md").read_text()
    assert text in printed
    assert "10.0 ± 0.0 |  -6.9" in text


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dumpdir", "nowhere"], "nowhere/raw/train: no finished data dir; make it with ./run.sh --stop_stage 4"),
        (["--rows", "table2_1a_m2m table2_9"], "no row 'table2_9'; conf/tuning has table2_1a_m2m table2_4b_pit"),
        (["--rows", "size_small"], "no row 'size_small'"),
        (["--size", "medium"], "--size: invalid choice: 'medium' (choose from "),
        (["--seeds", "one"], "--seeds: expected numbers, e.g. \"0 1 2\", found 'one'"),
        (["--seeds", ""], "--seeds: expected numbers, e.g. \"0 1 2\", found ''"),
        (["--jobs", "0"], "--jobs: expected a whole number from 1 to 2,147,483,647, found '0'"),
        (["--max_epoch", "2.5"], "--max_epoch: expected a whole number from 1 to 2,147,483,647, found '2.5'"),
        (["--row", "x"], "unrecognized arguments: --row"),
        (["--jobs"], "--jobs: expected one argument"),
        (["x"], "unrecognized arguments: x"),
        (["--ngpu", "-1"], "--ngpu: expected a whole number from 0 to 2,147,483,647, found '-1'"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(recipe, options, message):
    printed, called = run(recipe, *options, desired=1)
    assert message in printed and called == [] and not (recipe / "exp").exists()
