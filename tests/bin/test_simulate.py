"""The command `simulate`: complete data dirs, kill and resume, one-line errors."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clean_speech import make_clean_speech
from data_dir_example import SCPS

from espnet2_m2m.bin import simulate
from espnet2_m2m.bin.simulate import main
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.data_dir.tables import read_table, write_table
from espnet2_m2m.data_dir.validate import validate_data_dir

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Kaldi data dir of 6 speakers with 3 utterances of noise each, 16 kHz."""
    rng = np.random.default_rng(0)
    return make_clean_speech(
        tmp_path_factory.mktemp("source"), 3, lambda _, utt: 0.05 * rng.standard_normal(8000 + 500 * utt), 16000
    )


def options(source, out_dir, nj=1, train=5, valid=1, test=1, seed=0, **others):
    words = f"--min_duration 0.6 --num_train {train} --num_valid {valid} --num_test {test} --nj {nj} --seed {seed}"
    words += "".join(f" --{name} {value}" for name, value in others.items())
    return ["--source_data", str(source), "--out_dir", str(out_dir), *words.split()]


def contents(out_dir):
    """Relative path -> bytes of all files; the folder's own name, in the scp files, masked."""
    return {
        str(path.relative_to(out_dir)): path.read_bytes().replace(str(out_dir).encode(), b"OUT")
        for path in Path(out_dir).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def simulated(source, tmp_path_factory):
    """Everything simulated by one process that nobody disturbed."""
    out_dir = tmp_path_factory.mktemp("simulated")
    main(options(source, out_dir))
    return out_dir


def test_complete_data_dirs(simulated):
    speakers = {}
    for name, num_mixtures in (("train", 5), ("valid", 1), ("test", 1)):
        set_dir = simulated / name
        assert not validate_data_dir(set_dir)
        scenes = read_scenes(set_dir / "scenes.jsonl").values()
        assert len(scenes) == num_mixtures
        tables = {path.name: read_table(path) for path in set_dir.glob("*.scp")}
        assert sorted(tables) == SCPS
        for scene in scenes:
            for scp, table in tables.items():
                info = soundfile.info(table[scene["utt_id"]])
                assert info.samplerate == 8000 and info.frames == scene["num_samples"]
                assert info.channels == (6 if scp == "wav.scp" else 1)
                assert info.subtype == "PCM_16"
            for n, speaker in enumerate(scene["speakers"], start=1):
                texts = read_table(set_dir / f"text_spk{n}")
                assert texts[scene["utt_id"]] == speaker["text"] != ""
            durations = read_table(set_dir / "utt2dur")
            assert round(float(durations[scene["utt_id"]]) * 8000) == scene["num_samples"]
        speakers[name] = {s["speaker_id"] for scene in scenes for s in scene["speakers"]}
    assert not speakers["train"] & speakers["valid"]
    assert not speakers["train"] & speakers["test"]
    assert not speakers["valid"] & speakers["test"]


def test_killed_and_resumed_is_bit_identical(source, simulated, tmp_path):
    """SIGKILL of the command while two workers render, then the same command again at once."""
    command = [sys.executable, "-m", "espnet2_m2m.bin.simulate", *options(source, tmp_path, nj=2)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("train/wav/*/[!.]*.wav"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "train" / "scenes.jsonl").exists()
    assert not (tmp_path / "train" / "wav.scp").exists()

    subprocess.run(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, check=True)
    actual, desired = contents(tmp_path), contents(simulated)
    assert sorted(actual) == sorted(desired)
    assert [name for name in actual if actual[name] != desired[name]] == []


def test_rerun_renders_nothing(source, simulated):
    before = {path: path.stat().st_mtime_ns for path in simulated.rglob("*.wav")}
    main(options(source, simulated))
    assert {path: path.stat().st_mtime_ns for path in simulated.rglob("*.wav")} == before


def test_rerun_reads_the_scenes_and_draws_none(source, simulated, monkeypatch):
    """Drawing tens of thousands takes a minute; every job and the last call would pay for it."""
    monkeypatch.setattr(simulate, "draw_scenes", None)
    before = contents(simulated)
    main(options(source, simulated))
    assert contents(simulated) == before


def test_jobs_in_any_order_and_again(source, simulated, tmp_path, monkeypatch):
    """Every job renders its share; the last call has nothing to render and writes the tables."""
    rendered = []
    for job in ("3/3", "1/3", "3/3", "2/3"):
        main([*options(source, tmp_path), "--job", job])
        assert not list(tmp_path.glob("*/wav.scp"))
        rendered.append(len(list(tmp_path.glob("train/wav/farfield/*.wav"))))
    assert rendered == [1, 3, 3, 5]  # of 5 mixtures in train
    monkeypatch.setattr("espnet2_m2m.simulation.render.render", None)
    main(options(source, tmp_path))
    assert contents(tmp_path) == contents(simulated)


def test_jobs_at_the_same_time_and_one_that_never_ran(source, simulated, tmp_path):
    command = [sys.executable, "-m", "espnet2_m2m.bin.simulate", *options(source, tmp_path)]
    jobs = [subprocess.Popen([*command, "--job", f"{k}/3"], cwd=REPOSITORY, stderr=subprocess.DEVNULL) for k in (1, 3)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert len(list(tmp_path.glob("train/wav/farfield/*.wav"))) == 3  # the 1st, 3rd, 4th of 5
    main(options(source, tmp_path))
    assert contents(tmp_path) == contents(simulated)


@pytest.mark.parametrize("job", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2"])
def test_wrong_job(source, tmp_path, capsys, job):
    with pytest.raises(SystemExit):
        main([*options(source, tmp_path), f"--job={job}"])
    assert f"expected k/n with 1 <= k <= n, found '{job}'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scenes_of_another_hand_are_not_trusted(source, simulated, tmp_path, capsys):
    """simulation.json tells what scenes.jsonl was drawn from, and the hash of what was written."""
    main([*options(source, tmp_path), "--job", "1/9"])
    path = tmp_path / "train" / "scenes.jsonl"
    path.write_text(path.read_text().replace('"snr_db": 2', '"snr_db": 3'))
    assert "holds another simulation" in failure(capsys, source, tmp_path)


def one_set(source, out_dir, speakers):
    """A data dir with some of the speakers."""
    utt2spk = {utt: spk for utt, spk in read_table(source / "utt2spk").items() if spk in speakers}
    for name in ("wav.scp", "utt2spk", "text"):
        table = read_table(source / name)
        write_table(out_dir / name, {utt_id: table[utt_id] for utt_id in utt2spk})
    return str(out_dir)


def test_a_data_dir_for_every_set(source, tmp_path):
    speakers = {"train": ["s0", "s3"], "valid": ["s1", "s5"], "test": ["s2", "s4"]}
    dirs = [one_set(source, tmp_path / name, chosen) for name, chosen in speakers.items()]
    command = options(source, tmp_path / "out", train=3, valid=0, test=2)
    command[1:2] = [*dirs[:1], str(tmp_path / "not needed"), *dirs[2:]]
    command[command.index("--min_duration") + 1] = "0"
    main(command)
    for name in ("train", "test"):
        scenes = read_scenes(tmp_path / "out" / name / "scenes.jsonl").values()
        found = {speaker["speaker_id"] for scene in scenes for speaker in scene["speakers"]}
        assert sorted(found) == speakers[name]
        assert not validate_data_dir(tmp_path / "out" / name)
    assert not (tmp_path / "out" / "valid").exists()


def test_sets_must_not_share_speakers(source, tmp_path, capsys):
    dirs = [one_set(source, tmp_path / "a", "s0 s1"), one_set(source, tmp_path / "b", "s1 s2")]
    command = options(source, tmp_path / "out", valid=0)
    for chosen, message in (
        ([dirs[0], dirs[0], dirs[1]], "speaker 's1' is in the source data of train and of test"),
        (dirs, "--source_data takes one data dir or three (for train, valid, test), found 2"),
    ):
        with pytest.raises(SystemExit):
            main([command[0], *chosen, *command[2:]])
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def failure(capsys, *args, **kwargs):
    """The command's last line on stderr; no traceback, exit status 1."""
    with pytest.raises(SystemExit) as exit_info:
        main(options(*args, **kwargs))
    stderr = capsys.readouterr().err
    message = stderr.splitlines()[-1]
    assert exit_info.value.code == 1
    assert message.startswith("simulate: error: ") and "Traceback" not in stderr, stderr
    return message


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 6}])
def test_other_simulation_in_the_same_folder(source, simulated, capsys, change):
    before = contents(simulated)
    message = failure(capsys, source, simulated, **change)
    assert f"{simulated / 'train'} holds another simulation" in message
    assert "choose another --out_dir (--datadir of run.sh) or remove the folder" in message
    assert contents(simulated) == before


def test_wrong_options(source, tmp_path, capsys):
    assert "no such directory" in failure(capsys, tmp_path / "none", tmp_path)
    assert "nothing to do" in failure(capsys, source, tmp_path, train=0, valid=0, test=0)
    assert "--num_test: expected a whole number from 0 to 2,147,483,647, found '-1'" in failure(
        capsys, source, tmp_path, test=-1
    )
    assert "--nj: expected a whole number from 1 to 2,147,483,647, found '0'" in failure(capsys, source, tmp_path, nj=0)
    assert "--min_duration: expected a number from 0 to" in failure(capsys, source, tmp_path, min_duration=-0.5)
    assert "--closetalk_gain_db: expected a number from -200 to 200, found 'nan'" in failure(
        capsys, source, tmp_path, closetalk_gain_db="nan"
    )
    assert not list(tmp_path.iterdir())


def test_too_few_speakers(source, tmp_path, capsys):
    few = tmp_path / "few"
    utt2spk = {utt: spk for utt, spk in read_table(source / "utt2spk").items() if spk < "s4"}
    wav = read_table(source / "wav.scp")
    write_table(few / "utt2spk", utt2spk)
    write_table(few / "wav.scp", {utt: wav[utt] for utt in utt2spk})
    assert "--split_by utterance" in failure(capsys, few, tmp_path / "out")


def test_silent_or_unreadable_source_names_the_utterance(source, tmp_path, capsys):
    """Silence shows when rendering, below the progress bar; a broken file when drawing."""
    broken = tmp_path / "broken"
    wav = {utt_id: tmp_path / f"{utt_id}.wav" for utt_id in read_table(source / "wav.scp")}
    for path in wav.values():
        soundfile.write(path, np.zeros(8000), 16000)
    write_table(broken / "wav.scp", wav)
    write_table(broken / "utt2spk", read_table(source / "utt2spk"))
    message = failure(capsys, broken, tmp_path / "out", train=1, valid=0, test=0)
    assert "is silent; remove it" in message and "utterance 's" in message
    wav["s0-u0"].write_bytes(b"RIFF")
    assert "'s0-u0'" in failure(capsys, broken, tmp_path / "out2", train=6, valid=6, test=6)
    assert not (tmp_path / "out2").exists()
