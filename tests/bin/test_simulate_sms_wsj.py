"""The command `simulate_sms_wsj`: complete data dirs, jobs, resume, one-line errors; the recipe's stage 1."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import recipes
import sms_wsj_tree
import soundfile
from data_dir_example import SCPS

from espnet2_m2m.bin.simulate_sms_wsj import main
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.data_dir.tables import read_table
from espnet2_m2m.data_dir.validate import validate_data_dir

RECIPE = recipes.ROOT / "egs2" / "sms_wsj_ff_ct" / "enh1"
SETS = {"train": "train_si284", "valid": "cv_dev93", "test": "test_eval92"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return sms_wsj_tree.make(tmp_path_factory.mktemp("sms wsj"))  # a path with a space


def options(tree, out_dir, *more):
    return ["--sms_wsj", str(tree), "--out_dir", str(out_dir), "--nj", "1", "--num_checks", "1", *more]


def contents(out_dir):
    """Relative path -> content of all files; the folder's own name, in the scp files, masked.

    Of wav files the samples: a header of floats holds the time of writing.
    """
    return {
        str(path.relative_to(out_dir)): soundfile.read(path)[0].tobytes()
        if path.suffix == ".wav"
        else path.read_bytes().replace(str(out_dir).encode(), b"OUT")
        for path in Path(out_dir).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def simulated(tree, tmp_path_factory):
    """Everything made by one process that nobody disturbed; the database's files as before."""
    out_dir = tmp_path_factory.mktemp("simulated")
    before = contents(tree.parent)
    main(options(tree, out_dir))
    assert contents(tree.parent) == before
    return out_dir


def test_complete_data_dirs(tree, simulated):
    datasets = json.loads(tree.read_text())["datasets"]
    for name, dataset in SETS.items():
        set_dir = simulated / name
        assert not validate_data_dir(set_dir, sample_rate=8000, num_channels=2, num_speakers=2)
        scenes = read_scenes(set_dir / "scenes.jsonl")
        assert {scene["example_id"] for scene in scenes.values()} == set(datasets[dataset])
        tables = {
            path.name: read_table(path) for path in set_dir.iterdir() if path.is_file() and path.suffix != ".jsonl"
        }
        others = ["spk2utt", "text_spk1", "text_spk2", "utt2dur", "utt2spk"]
        assert sorted(tables) == sorted([*SCPS, *others])
        for utt_id, scene in scenes.items():
            example = datasets[dataset][scene["example_id"]]
            paths = example["audio_path"]
            assert tables["wav.scp"][utt_id] == paths["observation"]
            assert tables["utt2spk"][utt_id] == "-".join(example["speaker_id"])
            assert utt_id == f"{tables['utt2spk'][utt_id]}-{scene['example_id']}"
            for n in (1, 2):
                assert tables[f"text_spk{n}"][utt_id] == example["kaldi_transcription"][n - 1]
                early, tail = (
                    soundfile.read(paths[f"speech_reverberation_{part}"][n - 1])[0][:, 0] for part in ("early", "tail")
                )
                image, sample_rate = soundfile.read(tables[f"spk{n}.scp"][utt_id])
                assert image.ndim == 1 and sample_rate == 8000
                np.testing.assert_allclose(image, early + tail, rtol=0, atol=1e-8)
                for scp in (f"closetalk{n}.scp", f"closetalk_spk{n}.scp"):
                    assert soundfile.info(tables[scp][utt_id]).subtype == "FLOAT"


def test_jobs_make_the_same_and_the_call_without_job_the_tables(tree, simulated, tmp_path):
    main(options(tree, tmp_path, "--job", "2/2"))
    assert not list(tmp_path.rglob("wav.scp")) and (tmp_path / "train" / "scenes.jsonl").exists()
    assert len(list(tmp_path.rglob("closetalk1/*.wav"))) == 1
    utt_ids = sorted(read_scenes(tmp_path / "train" / "scenes.jsonl"), key=str.encode)
    leftover = tmp_path / "train" / "wav" / "spk1" / f".{utt_ids[0]}.tmp.wav"  # of this job, when it was killed
    leftover.write_bytes(b"half a fi")
    main(options(tree, tmp_path, "--job", "1/2"))
    assert not leftover.exists()
    assert not list(tmp_path.rglob("wav.scp"))
    main(options(tree, tmp_path))
    assert contents(tmp_path) == contents(simulated)


def test_headsets_of_other_farfield_files_are_not_taken_for_finished(tree, simulated, tmp_path, capsys):
    """SMS-WSJ made again, with other noise say, after the headsets exist."""
    out_dir = tmp_path / "copy"
    shutil.copytree(simulated, out_dir)
    stored = min(out_dir.glob("test/wav/spk1/*.wav"))
    samples, rate = soundfile.read(stored)
    soundfile.write(stored, 0.9 * samples, rate, subtype="FLOAT")
    with pytest.raises(SystemExit):
        main(options(tree, out_dir))
    printed = capsys.readouterr().err
    assert f"{stored} was made from other far-field files" in printed and printed.count("\n") == 1


def test_resumed_makes_only_what_is_missing(tree, simulated, tmp_path):
    out_dir = tmp_path / "copy"
    shutil.copytree(simulated, out_dir)
    for scp in out_dir.rglob("*.scp"):
        scp.unlink()
    lost = sorted(out_dir.glob("train/wav/closetalk2/*.wav"))[1]
    lost.unlink()
    utt_id = lost.stem
    before = {p: p.stat().st_mtime_ns for p in out_dir.rglob("*.wav") if p.stem != utt_id}
    main(options(tree, out_dir))
    assert {p: p.stat().st_mtime_ns for p in out_dir.rglob("*.wav") if p.stem != utt_id} == before
    assert contents(out_dir) == contents(simulated)


def failure(capsys, *args):
    """The command's last line on stderr; no traceback, exit status 1."""
    with pytest.raises(SystemExit) as exit_info:
        main(options(*args))
    stderr = capsys.readouterr().err
    message = stderr.splitlines()[-1]
    assert exit_info.value.code == 1
    assert message.startswith("simulate_sms_wsj: error: ") and "Traceback" not in stderr, stderr
    return message


def changed(tree, folder, change):
    """The database's json after `change(datasets)`, in another folder."""
    database = json.loads(tree.read_text())
    change(database["datasets"])
    path = folder / "changed.json"
    path.write_text(json.dumps(database))
    return path


def test_selfcheck_stops_before_anything_is_written(tree, tmp_path, capsys):
    """T60 of another room in the last set; the sets before it are right."""

    def change(datasets):
        next(iter(datasets["test_eval92"].values()))["sound_decay_time"] = 0.17

    out_dir = tmp_path / "out"
    message = failure(capsys, changed(tree, tmp_path, change), out_dir)
    example_id = next(iter(json.loads(tree.read_text())["datasets"]["test_eval92"]))
    assert f"example '{example_id}', talker 1" in message and "60 dB are expected" in message
    assert not out_dir.exists()


def test_every_mixture_is_checked(tree, tmp_path, capsys):
    """A wrong one that the self-check did not choose."""

    def change(datasets):
        last = max(datasets["train_si284"])
        datasets["train_si284"][last]["sound_decay_time"] = 0.17

    only_train = ("--num_checks", "0", "--num_valid", "0", "--num_test", "0")
    message = failure(capsys, changed(tree, tmp_path, change), tmp_path / "out", *only_train)
    assert "talker 1" in message
    assert not (tmp_path / "out" / "train" / "wav.scp").exists()


def test_database_that_moved(tree, simulated, tmp_path, capsys):
    """The files are below another folder, as the json does not know."""
    moved = tmp_path / "moved"
    shutil.copytree(tree.parent, moved)
    text = tree.read_text().replace(str(tree.parent), "/old/place")
    (moved / "sms_wsj.json").write_text(text)
    message = failure(capsys, moved, tmp_path / "out")
    assert "/old/place/" in message and "give --reroot OLD=NEW" in message
    small = ("--num_train", "1", "--num_valid", "0", "--num_test", "0", "--num_checks", "0")
    main(options(moved, tmp_path / "out", *small, "--reroot", "/elsewhere=/x", f"/old/place={moved}"))
    ((utt_id, path),) = read_table(tmp_path / "out" / "train" / "wav.scp").items()
    assert Path(path).is_file() and path.startswith(str(moved))
    made = {name: c for name, c in contents(tmp_path / "out").items() if name.endswith(f"{utt_id}.wav")}
    desired = contents(simulated)
    assert len(made) == 6 and all(desired[name] == content for name, content in made.items())


def test_wrong_options_and_databases(tree, simulated, tmp_path, capsys):
    out_dir = tmp_path / "out"
    assert "no such file" in failure(capsys, tmp_path / "none.json", out_dir)
    assert f"{tmp_path / 'sms_wsj.json'}: no such file" in failure(capsys, tmp_path, out_dir)
    for text, found in (("{", "found something else"), ('{"datasets": {}}', "holds no examples")):
        (tmp_path / "sms_wsj.json").write_text(text)
        assert found in failure(capsys, tmp_path, out_dir)
    without = changed(tree, tmp_path, lambda datasets: datasets.pop("cv_dev93"))
    assert "expected the dataset cv_dev93" in failure(capsys, without, out_dir)

    def without_audio(datasets):
        for example in datasets["train_si284"].values():
            del example["audio_path"]["speech_reverberation_tail"]

    message = failure(capsys, changed(tree, tmp_path, without_audio), out_dir)
    assert "audio_path must list" in message and "write_all" in message
    assert "--num_train is 4" in failure(capsys, tree, out_dir, "--num_train", "4")
    assert "--nj: expected a whole number from 1" in failure(capsys, tree, out_dir, "--nj", "0")
    assert "--reroot expects OLD=NEW" in failure(capsys, tree, out_dir, "--reroot", "old")
    nothing = ("--num_train", "0", "--num_valid", "0", "--num_test", "0")
    assert "nothing to do" in failure(capsys, tree, out_dir, *nothing)
    assert "holds another simulation" in failure(capsys, tree, simulated, "--closetalk_gain_db", "0")
    for job in ("3/2", "0/2", "1"):
        with pytest.raises(SystemExit):
            main(options(tree, out_dir, "--job", job))
        assert "expected k/n" in capsys.readouterr().err
    assert not out_dir.exists()


def recipe(*options, **how):
    return recipes.run("./run.sh", "--stop_stage", "1", "--nj", "1", *options, recipe=RECIPE, **how)


def test_stage_1_of_the_recipe(tree, simulated, tmp_path):
    recipe("--sms_wsj", tree, "--num_checks", "1", "--datadir", tmp_path / "data")
    assert (tmp_path / "data" / "log" / "simulate.log").is_file()
    shutil.rmtree(tmp_path / "data" / "log")
    assert contents(tmp_path / "data") == contents(simulated)


def test_recipe_without_a_database(tmp_path):
    printed = recipe("--datadir", tmp_path / "data", check=False)
    assert "--sms_wsj is missing" in printed.splitlines()[-1]
