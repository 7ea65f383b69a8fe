"""Around the model: separating by command, data options of training, checkpoints, sample rates."""

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.bin import enh_inference as stock
from espnet2.tasks.enh import EnhancementTask
from espnet2.train.reporter import Reporter
from espnet_configs import M2M, VALID_SI_SNR, config, save

from espnet2_m2m.bin import enh_inference, enh_train
from espnet2_m2m.data_dir import read_table
from espnet2_m2m.enh.config import check_numbers
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.tasks.checkpoints import repair_checkpoints
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask, common_sample_rate
from espnet2_m2m.tasks.espnet_patches import atomic_torch_save
from espnet2_m2m.tasks.separate_speech import SeparateSpeech

ROOT = Path(__file__).parents[2]
UTTERANCES = ("utt1", "utt2", "utt3")  # utt3 is silent


@pytest.fixture
def experiment(tmp_path):
    """A model of random weights and three recordings of 0.1 s at 8 kHz with three mics."""
    torch.manual_seed(0)
    train_config, model_file = save(tmp_path, config())
    random = np.random.default_rng(0)
    lines = []
    for utt_id in UTTERANCES:
        mix = random.normal(size=(800, 3)) * (0.1 if utt_id != "utt3" else 0)
        soundfile.write(tmp_path / f"{utt_id}.wav", mix, 8000, subtype="FLOAT")
        lines.append(f"{utt_id} {tmp_path / utt_id}.wav\n")
    (tmp_path / "wav.scp").write_text("".join(lines))
    options = [
        "--train_config",
        train_config,
        "--model_file",
        model_file,
        "--fs",
        "8000",
        "--data_path_and_name_and_type",
        f"{tmp_path / 'wav.scp'},speech_mix,sound",
        "--output_dir",
        str(tmp_path / "out"),
        "--num_workers",
        "0",
    ]
    return argparse.Namespace(folder=tmp_path, out=tmp_path / "out", options=options, model=(train_config, model_file))


def times(experiment):
    return {
        path.relative_to(experiment.out).as_posix(): path.stat().st_mtime_ns for path in experiment.out.rglob("*.wav")
    }


def done_already(capsys):
    return capsys.readouterr().out.split("enh_inference: ")[1][0]


def test_the_command_separates_what_is_missing_and_nothing_else(experiment, capsys):
    """The command as ESPnet's enh.sh gives it, then what a user may do to its output."""
    command = [sys.executable, "-m", "espnet2_m2m.run", "-m", "espnet2.bin.enh_inference"]
    done = subprocess.run(
        command + experiment.options, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]
    first = times(experiment)
    assert sorted(first) == [f"wavs/{n}/{utt_id}.wav" for n in (1, 2) for utt_id in UTTERANCES]
    mix, _ = soundfile.read(experiment.folder / "utt1.wav", dtype="float32")
    images = SeparateSpeech(*experiment.model)(mix[None], fs=8000)
    for n, image in enumerate(images, start=1):
        entries = read_table(experiment.out / f"spk{n}.scp")
        assert sorted(entries) == list(UTTERANCES)
        actual, rate = soundfile.read(entries["utt1"], dtype="float32")
        np.testing.assert_allclose(actual, image[0], atol=1e-5)
        assert rate == 8000 and not soundfile.read(entries["utt3"])[0].any(), "still silent"

    os.utime(experiment.model[0])  # ESPnet rewrites config.yaml at every resume
    os.utime(experiment.folder / "wav.scp")
    enh_inference.main(experiment.options)
    assert done_already(capsys) == "3" and times(experiment) == first

    (experiment.out / "wavs/2/utt2.wav").unlink()
    enh_inference.main(experiment.options)
    assert done_already(capsys) == "2"
    assert {path for path, time in times(experiment).items() if time != first[path]} == {
        "wavs/1/utt2.wav",
        "wavs/2/utt2.wav",
    }

    first = times(experiment)
    os.utime(experiment.folder / "utt1.wav")  # rendered anew under its old path
    enh_inference.main(experiment.options)
    assert done_already(capsys) == "2"
    assert {path for path, time in times(experiment).items() if time != first[path]} == {
        "wavs/1/utt1.wav",
        "wavs/2/utt1.wav",
    }

    enh_inference.main([*experiment.options, "--ref_channel", "1"])
    second = times(experiment)
    assert done_already(capsys) == "0" and all(second[path] > first[path] for path in first)

    weights = torch.load(experiment.model[1])
    torch.save(weights, experiment.model[1])  # another training step would do the same
    enh_inference.main([*experiment.options, "--ref_channel", "1"])
    assert done_already(capsys) == "0"


def test_what_was_made_of_another_recording_is_made_anew(experiment, capsys):
    """Also where the new one has an older time: by `cp -p` or `rsync -a`, say."""
    enh_inference.main(experiment.options)
    recording = experiment.folder / "utt1.wav"
    soundfile.write(recording, np.random.default_rng(1).normal(size=(700, 3)) * 0.1, 8000, subtype="FLOAT")
    os.utime(recording, (1.6e9, 1.6e9))
    capsys.readouterr()
    enh_inference.main(experiment.options)
    assert done_already(capsys) == "2"
    assert [soundfile.info(experiment.out / f"wavs/{n}/utt1.wav").frames for n in (1, 2)] == [700, 700]


def test_a_pipe_is_refused(experiment, capsys):
    """ESPnet takes it for a path."""
    (experiment.folder / "wav.scp").write_text(f"utt1 cat {experiment.folder}/utt1.wav |\n")
    with pytest.raises(SystemExit):
        enh_inference.main(experiment.options)
    assert "utt1: expected the path of a file, found `cat " in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--hop_size", "2", "--segment_size", "1"], "--hop_size must be more than 0 s and at most --segment_size"),
        (["--hop_size", "0", "--segment_size", "1"], "--hop_size must be more than 0 s and at most --segment_size"),
        (["--output_format", "au"], "--output_format must be one of wav, flac, ogg, mp3, found au"),
        (["--ngpu", "2"], "--ngpu: expected a whole number from 0 to 1, found '2'"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see --help"),
    ],
)
def test_options_with_which_espnet_ends_in_a_traceback(experiment, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        enh_inference.main([*experiment.options, *options])
    assert end.value.code == 1 and message in capsys.readouterr().err


@pytest.mark.parametrize("output_format, step", [("wav", 2**-40), ("flac", 2**-23)])
def test_outputs_have_as_many_bits_as_their_format(tmp_path, output_format, step):
    """The stream of a distant talker at -80 dB; in 16 bits it would have three steps."""
    writer = enh_inference.AtomicWriter(tmp_path, None, output_format, keys={"utt": "key"}, streams=[])
    signal = 1e-4 * np.random.default_rng(0).uniform(-1, 1, 800).astype(np.float32)
    writer["utt"] = 8000, signal
    actual, _ = soundfile.read(tmp_path / f"utt.{output_format}")
    np.testing.assert_allclose(actual, signal, atol=step)


def test_a_key_file_of_bare_ids_limits_the_run(experiment, capsys):
    (experiment.folder / "keys").write_text("utt2\n")
    soundfile.write(experiment.folder / "utt1.wav", np.ones((800, 3)), 16000)  # not asked for
    enh_inference.main([*experiment.options, "--key_file", str(experiment.folder / "keys")])
    assert sorted(times(experiment)) == ["wavs/1/utt2.wav", "wavs/2/utt2.wav"]
    assert (experiment.out / "spk2.scp").read_text().split()[0] == "utt2"


def test_jobs_separate_their_shares_and_the_last_call_lists_them(experiment, capsys):
    enh_inference.main([*experiment.options, "--job", "2/2"])
    assert sorted(times(experiment)) == ["wavs/1/utt2.wav", "wavs/2/utt2.wav"]
    enh_inference.main([*experiment.options, "--job", "1/2"])
    before = times(experiment)
    assert len(before) == 6 and not list(experiment.out.glob("*.scp"))
    capsys.readouterr()
    enh_inference.main(experiment.options)
    assert done_already(capsys) == "3" and times(experiment) == before
    assert list(read_table(experiment.out / "spk2.scp")) == list(UTTERANCES)


def test_data_that_is_named_already_is_not_passed_twice(tmp_path):
    """ESPnet's enh.sh names far-field recordings and references; --train_dir adds the headsets."""
    for name in ("wav.scp", "spk1.scp", "closetalk1.scp"):
        (tmp_path / name).touch()
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"criterions": [M2M]}))
    named = [f"{tmp_path}/wav.scp,speech_mix,sound", f"{tmp_path}/spk1.scp,speech_ref1,sound"]
    command = enh_train.espnet_command(
        [
            "--config",
            str(tmp_path / "train.yaml"),
            "--train_dir",
            str(tmp_path),
            *(part for data in named for part in ("--train_data_path_and_name_and_type", data)),
        ]
    )
    actual = [command[i + 1] for i, part in enumerate(command) if part == "--train_data_path_and_name_and_type"]
    assert actual == [*named, f"{tmp_path}/closetalk1.scp,closetalk_mix1,sound"]


@pytest.mark.parametrize("preprocessor, desired", [(None, []), ("enh", ["fs", "category"])])
def test_tables_that_only_a_preprocessor_understands(tmp_path, preprocessor, desired):
    """enh.sh passes utt2fs and utt2category, and the training ended in "sequences must has same length: 1 != 48664"."""
    for name in ("wav.scp", "closetalk1.scp"):
        (tmp_path / name).touch()
    config = {"criterions": [M2M], "preprocessor": preprocessor}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    command = ["--config", str(tmp_path / "train.yaml"), "--train_dir", str(tmp_path)]
    for data in ("utt2fs,fs,text_int", "utt2category,category,text"):
        command += ["--train_data_path_and_name_and_type", f"{tmp_path}/{data}"]
    command = enh_train.espnet_command(command)
    actual = [
        command[i + 1].split(",")[1] for i, part in enumerate(command) if part == "--train_data_path_and_name_and_type"
    ]
    assert actual == [*desired, "speech_mix", "closetalk_mix1"]


def test_a_killed_rerun_leaves_no_scp_and_old_streams_are_not_listed(experiment, monkeypatch):
    (experiment.out / "wavs/3").mkdir(parents=True)
    (experiment.out / "spk3.scp").write_text("utt1 old.wav\n")
    with monkeypatch.context() as patch:
        patch.setattr(stock, "inference", lambda **options: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            enh_inference.main(experiment.options)
    assert not list(experiment.out.glob("*.scp"))
    enh_inference.main(experiment.options)
    assert sorted(path.name for path in experiment.out.glob("*.scp")) == ["spk1.scp", "spk2.scp"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--fs", "16000"], "the model was trained at 8000 Hz"),
        (["--segment_size", "0.05", "--hop_size", "0.02", "--normalize_segment_scale", "true"], "utt1 has 3 channels"),
        (["--key_file", "KEYS"], "no utterance 'utt9'"),
    ],
)
def test_options_that_do_not_fit_end_in_one_line(experiment, capsys, options, message):
    (experiment.folder / "keys").write_text("utt9\n")
    options = [str(experiment.folder / "keys") if o == "KEYS" else o for o in options]
    with pytest.raises(SystemExit):
        enh_inference.main([*experiment.options, *options])
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    "mics, options, message",
    [
        (2, [], "wav.scp: utt3: has 2 channel(s), the model needs 3; it was trained for another array"),
        (
            4,
            [],
            "wav.scp: utt3: has 4 channel(s), the model needs 3; choose those of the array that it was "
            "trained for, in its order, e.g. espnet2_m2m format_data_dir --channels 0,1,2",
        ),
        (3, ["--ref_channel", "3"], "wav.scp: utt1: has 3 channel(s), but --ref_channel is 3"),
    ],
)
def test_a_recording_of_another_array_is_named_before_work_begins(experiment, capsys, mics, options, message):
    soundfile.write(experiment.folder / "utt3.wav", np.zeros((800, mics)), 8000)
    with pytest.raises(SystemExit):
        enh_inference.main([*experiment.options, *options])
    assert message in capsys.readouterr().err and not times(experiment)


def test_an_id_stays_in_its_folder(experiment, capsys):
    """`utt/../../../../x` was written outside of --output_dir."""
    scp = experiment.folder / "wav.scp"
    scp.write_text(scp.read_text().replace("utt1 ", "utt1/../../../../x "))
    with pytest.raises(SystemExit):
        enh_inference.main(experiment.options)
    assert "utterance 'utt1/../../../../x': expected an id that can be the name of a file" in capsys.readouterr().err
    assert not list(experiment.folder.rglob("x*"))
    with pytest.raises(ValueError, match="expected an id"):
        writer = enh_inference.AtomicWriter(experiment.out / "wavs" / "1", None, keys={"../x": "key"}, streams=[])
        writer["../x"] = (8000, np.zeros(8))


def test_a_non_finite_signal_is_not_written(tmp_path):
    writer = enh_inference.AtomicWriter(tmp_path / "wavs" / "1", None, keys={"utt1": "key"}, streams=[])
    with pytest.raises(ValueError, match="^utt1: stream 1"):
        writer["utt1"] = (8000, np.array([0.0, np.nan]))
    assert not list(tmp_path.rglob("*.wav"))


def test_headsets_stand_in_spk_scp_with_closetalk_from_ref(tmp_path):
    for name in ("wav.scp", "spk1.scp", "spk2.scp", "closetalk1.scp"):
        (tmp_path / name).touch()
    content = {"criterions": [M2M], "model_conf": {"closetalk_from_ref": True}}
    actual = enh_train.data_options(tmp_path, TrainingConfig(content), validation=False)
    assert actual == [
        f"{tmp_path}/wav.scp,speech_mix,sound",
        f"{tmp_path}/spk1.scp,speech_ref1,sound",
        f"{tmp_path}/spk2.scp,speech_ref2,sound",
    ]
    training = TrainingConfig({"criterions": [M2M, VALID_SI_SNR]})
    actual = enh_train.data_options(tmp_path, training, validation=False)
    assert actual[1:] == [f"{tmp_path}/closetalk1.scp,closetalk_mix1,sound"]


def test_train_dir_follows_the_model_conf(tmp_path):
    for name in ("wav.scp", "spk1.scp", "spk2.scp"):
        (tmp_path / name).touch()
    content = {"criterions": [M2M], "model_conf": {"closetalk_from_ref": True}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(content))
    command = enh_train.espnet_command(
        ["--config", str(tmp_path / "train.yaml"), "--valid_dir", str(tmp_path), "--ngpu", "0"]
    )
    assert f"{tmp_path}/spk2.scp,speech_ref2,sound" in command and "--ngpu" in command


def test_without_references_validation_goes_without_scores(tmp_path, capsys):
    for name in ("wav.scp", "closetalk1.scp", "closetalk2.scp"):
        (tmp_path / name).touch()
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"criterions": [M2M, VALID_SI_SNR]}))
    options = [
        "--config",
        str(tmp_path / "train.yaml"),
        "--valid_dir",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "exp"),
    ]
    command = enh_train.espnet_command(options)
    assert f"{tmp_path} has no references" in capsys.readouterr().err
    config_used = yaml.safe_load(Path(command[command.index("--config") + 1]).read_text())
    assert config_used == {"criterions": [M2M]}
    assert not any("speech_ref" in part for part in command)
    for n in (1, 2):
        (tmp_path / f"spk{n}.scp").touch()
    command = enh_train.espnet_command(options)
    assert command[command.index("--config") + 1] == str(tmp_path / "train.yaml")
    assert f"{tmp_path}/spk2.scp,speech_ref2,sound" in command and not capsys.readouterr().err


def test_training_and_validation_need_one_sample_rate(tmp_path):
    data = {}
    for name, rate in (("train", 8000), ("valid", 16000)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), rate)
        (tmp_path / f"{name}.scp").write_text(f"utt {tmp_path / name}.wav\n")
        data[name] = [(str(tmp_path / f"{name}.scp"), "speech_mix", "sound")]
    args = argparse.Namespace(
        train_data_path_and_name_and_type=data["train"], valid_data_path_and_name_and_type=data["train"]
    )
    assert common_sample_rate(args) == 8000
    args.valid_data_path_and_name_and_type = data["valid"]
    with pytest.raises(ValueError, match="valid.scp 16000 Hz"):
        common_sample_rate(args)


def test_a_gap_in_the_headsets_is_not_passed_over(tmp_path):
    for name in ("wav.scp", "closetalk1.scp", "closetalk3.scp"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="without a gap, found closetalk1.scp, closetalk3.scp"):
        enh_train.data_options(tmp_path, TrainingConfig({"criterions": [M2M]}), validation=False)


def test_numbers_that_are_text_to_yaml_are_named():
    command = ["--output_dir", "1e-3", "--optim_conf", "lr=2e-3"]
    with pytest.raises(ValueError, match="^optim_conf.lr is text to YAML, found 2e-3; .* 1.0e-4$"):
        check_numbers(vars(M2MEnhancementTask.get_parser().parse_args(command)))
    with pytest.raises(ValueError, match="^criterions.0.conf.floor is text to YAML, found 1.0e4"):
        check_numbers(yaml.safe_load("criterions: [{name: mixture_constraint, conf: {floor: 1.0e4}}]"))
    check_numbers(yaml.safe_load("{optim_conf: {lr: 1.0e-3, name: e5}, output_dir: 1e-3}"))


def test_what_a_kill_after_the_checkpoint_leaves_undone_is_done_before_resuming(tmp_path):
    """Epoch 2 is the best, but only checkpoint.pth was written when the training was killed."""
    reporter = Reporter()
    for epoch, loss in ((1, 2.0), (2, 1.0)):
        reporter.set_epoch(epoch)
        for phase in ("train", "valid"):
            with reporter.observe(phase) as sub_reporter:
                sub_reporter.register({"loss": loss, "snr": loss})
                sub_reporter.next()
    weights = {"weight": torch.arange(3.0)}
    torch.save({"model": weights, "reporter": reporter.state_dict()}, tmp_path / "checkpoint.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "1epoch.pth")
    for link in ("latest.pth", "valid.loss.best.pth", "valid.snr.best.pth"):
        (tmp_path / link).symlink_to("1epoch.pth")
    (tmp_path / "latest.pth").unlink()
    criterion = [("valid", "loss", "min"), ("valid", "snr", "max"), ("valid", "sdr", "max")]
    for _ in range(2):
        repair_checkpoints(tmp_path, criterion)
        for link in ("2epoch.pth", "latest.pth", "valid.loss.best.pth"):
            torch.testing.assert_close(torch.load(tmp_path / link), weights)
        assert os.readlink(tmp_path / "valid.snr.best.pth") == "1epoch.pth"
        assert not (tmp_path / "valid.sdr.best.pth").is_symlink()
    repair_checkpoints(tmp_path / "new", criterion)


@pytest.mark.parametrize("installed", [True, False])
def test_tensorboard_is_off_and_wandb_refused_where_they_are_not_installed(tmp_path, monkeypatch, capsys, installed):
    """ESPnet's default is use_tensorboard: true: a config that does not name it ended in ModuleNotFoundError."""
    args = argparse.Namespace(
        output_dir=str(tmp_path), resume=False, criterions=[], use_tensorboard=True, use_wandb=False
    )
    passed_on = []
    monkeypatch.setattr(EnhancementTask, "main_worker", lambda args: passed_on.append(args.use_tensorboard))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    M2MEnhancementTask.main_worker(args)
    assert passed_on == [installed]
    assert ("pip install tensorboard" in capsys.readouterr().err) is not installed
    args.use_wandb = True
    with contextlib.nullcontext() if installed else pytest.raises(ValueError, match="pip install wandb"):
        M2MEnhancementTask.main_worker(args)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """torch names the content of a file by the path that it was given, here a temporary one."""
    with atomic_torch_save():
        for name in ("1epoch.pth", "checkpoint.pth"):
            torch.save({"weight": torch.ones(3)}, tmp_path / name)
    assert (tmp_path / "1epoch.pth").read_bytes() == (tmp_path / "checkpoint.pth").read_bytes()
    assert torch.load(tmp_path / "1epoch.pth")["weight"].tolist() == [1, 1, 1]
