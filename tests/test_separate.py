"""Separating recordings with a trained model: the class and the command."""

import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
import yaml
from espnet2.bin import pack
from espnet_configs import M2M, PIT, config, save

from espnet2_m2m import SeparateRecording
from espnet2_m2m.bin import enh_inference
from espnet2_m2m.bin import separate as command
from espnet2_m2m.tasks.separate_speech import SeparateSpeech

ROOT = Path(__file__).parent.parent
RATE, MICS = 8000, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A training's folder: random weights, three mics, 8 kHz."""
    folder = tmp_path_factory.mktemp("exp")
    torch.manual_seed(0)
    _, weights = save(folder, config("tfgridnet_spectra", [M2M]))
    Path(weights).rename(folder / "valid.loss.best.pth")
    return folder


@pytest.fixture(scope="module")
def separate(model):
    # In float32, as tolerances are those of it.
    return SeparateRecording.from_pretrained(model, precision="float32", segment_size=1.0, hop_size=0.75)


def noise(seconds, mics=MICS, rate=RATE, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=(round(seconds * rate), mics))).astype(np.float32)


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def read(path):
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE and soundfile.info(path).subtype == "FLOAT"
    return samples


def infer(folder, *options):
    """Separate `folder`/wav.scp to `folder`/enhanced by enh_inference."""
    data = ["--data_path_and_name_and_type", f"{folder}/wav.scp,speech_mix,sound", "--num_workers", "0"]
    enh_inference.main([*options, *data, "--output_dir", f"{folder}/enhanced", "--log_level", "WARNING"])


def errors(capsys, *arguments):
    """What the command says when it refuses."""
    with pytest.raises(SystemExit) as exit:
        command.main([str(argument) for argument in arguments])
    printed = capsys.readouterr().err
    assert exit.value.code == 1 and len(printed.splitlines()) == 1, printed
    return printed


def test_a_recording_shorter_than_a_segment_is_what_enh_inference_gives(model, tmp_path, capsys):
    recording = write(tmp_path / "meeting.wav", noise(2.2))
    (tmp_path / "wav.scp").write_text(f"utt {recording}\n")
    trained = ["--train_config", f"{model}/config.yaml", "--model_file", f"{model}/valid.loss.best.pth"]
    infer(tmp_path, *trained, "--fs", "8000")
    command.main(["--model", str(model), str(recording), "-o", f"{tmp_path}/out"])
    assert "real-time factor" in capsys.readouterr().out
    for n in (1, 2):
        desired = read(tmp_path / f"enhanced/wavs/{n}/utt.wav")
        actual = read(tmp_path / f"out/meeting_spk{n}.wav")
        np.testing.assert_array_equal(actual, desired)
        assert np.abs(actual).max() > 0.01


def test_a_file_gives_what_its_samples_give(separate, tmp_path):
    """In segments that overlap by a quarter of a second; what lies before the first seam is the segment's."""
    recording = noise(3.3)
    done = separate.file(write(tmp_path / "a.b.wav", recording), tmp_path / "out")
    assert [path.name for path in done.paths] == ["a.b_spk1.wav", "a.b_spk2.wav"] and not done.existed
    actual = np.stack([read(path) for path in done.paths])
    np.testing.assert_array_equal(actual, separate(recording, RATE))
    first = np.concatenate(separate.model(recording[None, :RATE], fs=RATE))
    np.testing.assert_array_equal(actual[:, :4000], first[:, :4000])
    assert actual.shape == (2, len(recording)) and done.duration_s == pytest.approx(3.3)


def test_level_of_the_recording_comes_out_again_and_silence_stays(separate):
    recording = noise(2.5)
    loud, soft = separate(recording, RATE), separate(0.01 * recording, RATE)
    np.testing.assert_allclose(soft, 0.01 * loud, atol=2e-5 * np.abs(loud).max())
    assert not separate(0 * recording, RATE).any()


def test_mics_and_ref_mic_are_channels_of_the_recording(model):
    recording = noise(0.8, mics=5)
    chosen = SeparateRecording.from_pretrained(model, mics=[4, 0, 2], ref_mic=2)
    desired = SeparateSpeech(f"{model}/config.yaml", f"{model}/valid.loss.best.pth", ref_channel=2)(
        recording[None][:, :, [4, 0, 2]], fs=RATE
    )
    np.testing.assert_array_equal(chosen(recording, RATE), np.concatenate(desired))
    with pytest.raises(ValueError, match=r"ref_mic 1 must be one of the mics \[4, 0, 2\]"):
        SeparateRecording.from_pretrained(model, mics=[4, 0, 2], ref_mic=1)
    with pytest.raises(ValueError, match=r"mics \[4, 0\]: has 2 channel\(s\), the model needs 3"):
        SeparateRecording.from_pretrained(model, mics=[4, 0])


def test_recordings_that_share_a_model_keep_their_reference_mics(separate):
    recording = noise(0.8)
    desired = separate(recording, RATE)
    other = SeparateRecording(separate.model, ref_mic=1)
    assert np.abs(other(recording, RATE) - desired).max() > 1e-3
    for one in (separate, SeparateRecording(separate.model)):
        np.testing.assert_array_equal(one(recording, RATE), desired)


def test_consistent_streams_add_up_to_the_mixture(separate, model, tmp_path, capsys):
    """Also where segments are faded into each other, and whatever others do with the same model."""
    recording = noise(2.5)
    consistent = SeparateRecording(separate.model, ref_mic=1, segment_size=1.0, hop_size=0.75, mixture_consistency=True)
    for _ in range(2):
        np.testing.assert_allclose(consistent(recording, RATE).sum(0), recording[:, 1], atol=1e-5)
        assert np.abs(separate(recording, RATE).sum(0) - recording[:, 0]).max() > 0.01
    path = write(tmp_path / "a.wav", recording)
    command.main(["--model", str(model), str(path), "-o", str(tmp_path), "--mixture_consistency", "true"])
    streams = [read(tmp_path / f"a_spk{n}.wav") for n in (1, 2)]
    np.testing.assert_allclose(sum(streams), recording[:, 0], atol=1e-5)
    capsys.readouterr()
    assert "was not made from this recording with this model and these options" in errors(
        capsys, "--model", model, path, "-o", tmp_path
    )


def test_one_mic(tmp_path):
    """A model of one mic takes it from a recording of several."""
    conf = dict(config("tfgridnet_spectra").separator_conf, n_imics=1)
    save(
        tmp_path,
        config("tfgridnet_spectra", [M2M], separator_conf=conf, model_conf={"input_mics": [1], "loss_mics": [1]}),
    )
    separate = SeparateRecording.from_pretrained(tmp_path)
    recording = noise(0.7, mics=2)
    est = separate(recording, RATE)
    other = recording.copy()
    other[:, 0] = 0
    np.testing.assert_array_equal(separate(other, RATE), est)
    with pytest.raises(ValueError, match=r"has 1 channel\(s\), the model needs 2 or more"):
        separate(recording[:, 0], RATE)


def test_pit_models_know_one_reference_mic(tmp_path):
    save(tmp_path, config("tfgridnet_spectra", [PIT]))
    assert SeparateRecording.from_pretrained(tmp_path)(noise(0.6), RATE).shape == (2, 4800)
    with pytest.raises(ValueError, match="gives the speech at mic 0 only"):
        SeparateRecording.from_pretrained(tmp_path, ref_mic=1)
    save(tmp_path, config("tfgridnet_spectra", [PIT | {"conf": PIT["conf"] | {"ref_mic": 2}}]))
    with pytest.raises(ValueError, match=r"mics \[0, 1\]: has 2 channel\(s\), the model needs 3"):
        SeparateRecording.from_pretrained(tmp_path, mics=[0, 1], ref_mic=1)


def test_a_higher_rate_is_converted_when_asked(separate, tmp_path):
    recording = noise(2.6, rate=44100)
    path = write(tmp_path / "high.wav", recording, 44100)
    with pytest.raises(ValueError, match="has 44100 Hz, the model works at 8000 Hz; with --resample"):
        separate.file(path, tmp_path)
    done = separate.file(path, tmp_path, resample=True)
    desired = separate(soxr.resample(recording, 44100, RATE, quality="HQ"), RATE)
    actual = np.stack([read(path) for path in done.paths])
    assert actual.shape == desired.shape
    np.testing.assert_allclose(actual, desired, atol=1e-3 * np.abs(desired).max())
    with pytest.raises(ValueError, match="has 4000 Hz, the model was trained at 8000 Hz"):
        separate.file(write(tmp_path / "low.wav", noise(1, rate=4000), 4000), tmp_path, resample=True)


def test_a_rerun_does_what_is_missing_and_overwrites_nothing_of_others(separate, model, tmp_path):
    recording = write(tmp_path / "a.wav", noise(0.6))
    first = separate.file(recording, tmp_path)
    assert separate.file(recording, tmp_path) == first._replace(existed=True, uncertain_s=None)
    first.paths[1].unlink()
    assert not separate.file(recording, tmp_path).existed
    write(recording, noise(0.6, seed=1))
    with pytest.raises(FileExistsError, match="a_spk1.wav: exists, and was not made from this recording"):
        separate.file(recording, tmp_path)
    assert not separate.file(recording, tmp_path, overwrite=True).existed
    other = SeparateRecording.from_pretrained(model, ref_mic=1)
    with pytest.raises(FileExistsError):
        other.file(recording, tmp_path)


def test_an_interrupted_run_leaves_no_file(separate, tmp_path, monkeypatch):
    recording = write(tmp_path / "a.wav", noise(5))
    calls = iter([separate.model] * 3)
    monkeypatch.setattr(separate, "_separate", lambda mix: np.concatenate(next(calls)(mix[None], fs=RATE)))
    with pytest.raises(RuntimeError):  # no more calls, in the middle of the recording
        separate.file(recording, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_diverged_model_is_named_and_writes_nothing(separate, tmp_path, monkeypatch):
    monkeypatch.setattr(SeparateSpeech, "__call__", lambda self, mix, fs: [np.full(mix.shape[:2], np.nan)] * 2)
    with pytest.raises(ValueError, match="weights may be those of a training that diverged"):
        separate._separate(noise(1))


def test_recordings_that_cannot_be_separated(model, tmp_path, capsys):
    spoilt = noise(1.5)
    spoilt[9000] = np.nan
    good, nan, short, wide, few = (
        write(tmp_path / f"{name}.wav", samples)
        for name, samples in (
            ("good", noise(0.6)),
            ("nan", spoilt),
            ("short", noise(0.4)),
            ("wide", noise(0.6, mics=4)),
            ("few", noise(0.6, mics=2)),
        )
    )
    cut, text = tmp_path / "cut.wav", tmp_path / "text.wav"
    cut.write_bytes(good.read_bytes()[:-100])
    text.write_text("no audio")
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other" / "good.wav", noise(0.6))
    options = ["--model", model, "-o", tmp_path / "out"]
    for arguments, message in (
        ([nan], "nan.wav: has NaN or infinite samples, the first at 1.125 s"),
        ([short], "short.wav: lasts 0.400 s; 0.5 s is the shortest"),
        (
            [good, wide],
            "wide.wav: has 4 channel(s), the model needs 3; choose those of the array that it was "
            "trained for, in its order, e.g. --mics 0,1,2",
        ),
        ([few], "few.wav: has 2 channel(s), the model needs 3; it was trained for another array"),
        ([few, "--mics", "0,1,2"], "has 2 channel(s), but --mics asks for channel 2"),
        ([good, "--ref_mic", "3"], "good.wav: has 3 channel(s), but --ref_mic is 3"),
        ([cut], "cut.wav: truncated"),
        ([text], "text.wav: not readable as audio"),
        ([tmp_path / "none.wav"], "none.wav: no such audio file"),
        ([f"echo > {tmp_path}/executed |"], "expected the path of an audio file"),
        ([good, other], "would be written to the same files"),
        ([good, "--segment_size", "2", "--hop_size", "0.9"], "segment_size 2.0 s, hop_size 0.9 s"),
        ([good, "--model", tmp_path / "nothing"], "nothing: no such file or folder"),
    ):
        assert message in errors(capsys, *options, *arguments)
    assert not list(tmp_path.glob("out/*")) and not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "fault, message",
    [
        ("missing", "no such audio file"),
        ("no audio", "not readable as audio"),
        ("other mics", "has 2 channel(s)"),
        ("other rate", "has 16000 Hz"),
        ("short", "is the shortest that can be separated"),
        ("nan", "has NaN or infinite samples, the first at 0.500 s"),
        ("other output", "was not made from this recording"),
    ],
)
def test_a_fault_in_the_last_recording_shows_before_the_first_is_separated(model, tmp_path, capsys, fault, message):
    first, second = write(tmp_path / "a.wav", noise(1)), tmp_path / "b.wav"
    samples = noise({"short": 0.3}.get(fault, 1), 2 if fault == "other mics" else MICS)
    if fault == "nan":
        samples[4000] = np.nan
    if fault == "no audio":
        second.write_text("no audio")
    elif fault != "missing":
        write(second, samples, 16000 if fault == "other rate" else RATE)
    (tmp_path / "out").mkdir()
    if fault == "other output":
        (tmp_path / "out" / "b_spk1.wav").write_text("mine")
    printed = errors(capsys, "--model", model, first, second, "-o", tmp_path / "out")
    assert message in printed and "b.wav" in printed or "b_spk1.wav" in printed
    assert not list(tmp_path.glob("out/a*"))


@pytest.mark.parametrize("option", ["--segment_size", "--hop_size"])
@pytest.mark.parametrize("value", ["inf", "nan", "-1"])
def test_lengths_that_are_no_number(model, tmp_path, capsys, option, value):
    printed = errors(capsys, "--model", model, tmp_path / "a.wav", "-o", tmp_path, f"{option}={value}")
    assert f"{option}: expected a number from 0 to" in printed


def test_arrays_that_cannot_be_separated(separate):
    for mixture, rate, message in (
        (noise(1), 16000, "has 16000 Hz, the model works at 8000 Hz"),
        (noise(1)[None], RATE, r"found \(1, 8000, 3\)"),
        (noise(1) * np.inf, RATE, "NaN or infinite"),
        (noise(1)[:, 0], RATE, r"has 1 channel\(s\), the model needs 3"),
    ):
        with pytest.raises(ValueError, match=message):
            separate(mixture, rate)


def test_python_of_the_documentation(model, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "your_recordings.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {"mixture": noise(0.6), "sample_rate": RATE}
    write(tmp_path / "meeting.wav", names["mixture"])
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace('"MODEL"', repr(str(model))), page, "exec"), names)
    np.testing.assert_array_equal(read("out/meeting_spk2.wav"), names["speech"][1])


# ---- Models of others ----------------------------------------------------------------------------


def copied(model, tmp_path, **changes):
    """The model's folder with another config and, by `weights`, other weights."""
    content = yaml.safe_load((model / "config.yaml").read_text())
    weights = changes.pop("weights", torch.load(model / "valid.loss.best.pth"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**content, **changes}))
    torch.save(weights, tmp_path / "valid.loss.best.pth")
    return tmp_path


def test_a_zip_of_espnets_packer_separates_on_its_own(separate, model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    pack.main(
        [
            "enh",
            "--train_config",
            f"{model.name}/config.yaml",
            "--model_file",
            f"{model.name}/valid.loss.best.pth",
            "--outpath",
            str(tmp_path / "model.zip"),
        ]
    )
    monkeypatch.chdir(tmp_path)
    recording = noise(0.6)
    desired = separate(recording, RATE)
    np.testing.assert_array_equal(
        SeparateRecording.from_pretrained("model.zip", precision="float32")(recording, RATE), desired
    )
    by_tag = SeparateSpeech.from_pretrained(model_tag="model.zip", precision="float32")  # ESPnet's --model_tag
    np.testing.assert_array_equal(np.concatenate(by_tag(recording[None], fs=RATE)), desired)


def test_enh_inference_takes_a_model_tag_and_checks_its_rate(model, tmp_path, capsys):
    write(tmp_path / "a.wav", noise(0.6))
    (tmp_path / "wav.scp").write_text(f"utt {tmp_path}/a.wav\n")
    with pytest.raises(SystemExit):
        infer(tmp_path, "--model_tag", str(model), "--fs", "16000")
    assert "trained at 8000 Hz" in capsys.readouterr().err
    for done in (0, 1):
        infer(tmp_path, "--model_tag", str(model), "--fs", "8000")
        assert f"{done} of 1 utterances are done" in capsys.readouterr().out


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_model_does_not_run(model, tmp_path):
    executed = tmp_path / "executed"
    pickle.loads(pickle.dumps(Evil(executed)))
    assert executed.exists(), "it would"
    executed.unlink()
    for weights in (Evil(executed), {"module": Evil(executed)}):
        with pytest.raises(ValueError, match="objects whose loading may run code, which is refused"):
            SeparateRecording.from_pretrained(copied(model, tmp_path, weights=weights))
    copied(model, tmp_path)
    (tmp_path / "config.yaml").write_text(f"a: !!python/object/apply:pathlib.Path.touch [{executed}]")
    with pytest.raises(ValueError, match="not plain YAML"):
        SeparateRecording.from_pretrained(tmp_path)
    assert not executed.exists()


def test_all_that_does_not_fit_is_named(model, tmp_path):
    weights = torch.load(model / "valid.loss.best.pth")
    names = list(weights)
    changed = {name: value for name, value in weights.items() if name not in names[:2]}
    changed |= {"extra.weight": torch.zeros(1), names[2]: torch.zeros(7)}
    shape = tuple(weights[names[2]].shape)
    with pytest.raises(ValueError) as error:
        SeparateRecording.from_pretrained(copied(model, tmp_path, weights=changed))
    assert (
        f"2 tensors not in the file: {names[0]}, {names[1]}; 1 tensors in the file only: extra.weight; "
        f"1 tensors of another shape: {names[2]} (7,) for {shape}"
    ) in str(error.value)


def test_weights_of_another_dtype_are_refused(model, tmp_path):
    """They would take twice the memory before they are converted without a word."""
    weights = torch.load(model / "valid.loss.best.pth")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] = weights[name].double()
    with pytest.raises(ValueError, match=rf"1 tensors of another dtype: {name} torch.float64 for torch.float32$"):
        SeparateRecording.from_pretrained(copied(model, tmp_path, weights=weights))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"criterions": []}, "expected a model that was trained by a criterion of this package"),
        ({"criterions": 3}, "criterions must be a list whose entries have a name"),
        ({"separator": "asteroid"}, "may load further files by code of its own"),
        ({"separator": "nonsense"}, "nonsense"),
        ({"separator_conf": {"n_layer": 1}}, "separator_conf has no option n_layer"),
        ({"separator_conf": {"n_layers": "one"}}, "no network can be built from its config"),
        ({"sample_rate": None}, "must say its sample_rate"),
        ({"weights": {"epoch": 3}}, "expected the weights of a model, tensors by name"),
    ],
)
def test_configs_that_cannot_be(model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        SeparateRecording.from_pretrained(copied(model, tmp_path, **changes))


# ---- Memory --------------------------------------------------------------------------------------


def test_an_hour_of_six_channels_takes_no_more_memory_than_minutes(tmp_path):
    """A network's memory depends on the segment alone, so one without memory of its own shows the rest."""
    seconds = 3600
    recording = tmp_path / "hour.wav"
    soundfile.write(recording, np.ones((1, 6)), RATE, subtype="PCM_16")
    with open(recording, "r+b") as file:  # sparse: the rest is zeros that take no room on disk
        header = bytearray(file.read(44))
        size = 12 * RATE * seconds
        header[4:8], header[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
        file.seek(0)
        file.write(header)
        file.truncate(44 + size)
    program = textwrap.dedent("""
        import resource, sys, types
        import torch        # what every user of a network has in memory
        from espnet2_m2m import SeparateRecording
        from espnet2_m2m.enh.mics import MicArray
        separator = types.SimpleNamespace(array=MicArray(None, None, 0, 6))
        separator.mixture_consistency, separator.precision = False, "float32"
        def network(mix, fs):
            return [mix[:, :, n] for n in range(2)]
        network.enh_train_args = types.SimpleNamespace(sample_rate=8000)
        network.enh_model = types.SimpleNamespace(separator=separator)
        network.num_spk = 2
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = SeparateRecording(network).file(*sys.argv[1:])
        print(done.duration_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, recording, tmp_path / "out"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    duration, kilobytes = map(float, done.stdout.split())
    assert duration == seconds and soundfile.info(tmp_path / "out" / "hour_spk2.wav").frames == seconds * RATE
    assert kilobytes < 150e3, "the recording alone is 690 MB as float"
