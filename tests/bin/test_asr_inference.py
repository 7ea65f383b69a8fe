"""Recognition of all conditions of a set with an untrained ASR: what is decoded, when, and as what."""

import numpy as np
import pytest
import soundfile
import yaml
from espnet2.bin.asr_inference import Speech2Text
from fake_set import make_set
from tiny_asr import make_asr

from espnet2_m2m.bin import asr_inference, asr_scoring, talker_data_dir
from espnet2_m2m.data_dir import read_table, validate_data_dir, write_table
from espnet2_m2m.data_dir.audio import resample

OPTIONS = {"beam_size": 2, "ctc_weight": 0.5, "maxlenratio": -4}


@pytest.fixture
def example(tmp_path):
    data_dir, enhanced_dir = make_set(tmp_path, num_utterances=2, seconds=0.5, swapped=(1,))
    for n in (1, 2):
        write_table(data_dir / f"text_spk{n}", dict.fromkeys(read_table(data_dir / "utt2spk"), "one two"))
    talker_data_dir.main(
        ["--data_dir", str(data_dir), "--enhanced_dir", str(enhanced_dir), "--out_dir", str(enhanced_dir / "talkers")]
    )
    (tmp_path / "decode.yaml").write_text(yaml.safe_dump(OPTIONS))
    make_asr(tmp_path / "asr")
    options = {
        "asr_exp": tmp_path / "asr",
        "inference_config": tmp_path / "decode.yaml",
        "data_dir": data_dir,
        "separated": enhanced_dir / "talkers",
        "name": "m2m",
        "out_dir": tmp_path / "decode" / "test",
    }
    return tmp_path, data_dir, options


def run(options, **changes):
    command = []
    for name, value in {**options, **changes}.items():
        command += [f"--{name}", str(value)]
    asr_inference.main(command)


def test_all_conditions_are_decoded_once(example, capsys):
    tmp_path, data_dir, options = example
    run(options)
    out = options["out_dir"]
    conditions = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert conditions == ["clean", "closetalk", "m2m", "mixture"]
    assert "0 of 14 signals are decoded already" in capsys.readouterr().out, "two mixtures, 3 x 4 talkers"
    model = tmp_path / "asr"
    speech2text = Speech2Text(str(model / "config.yaml"), str(model / "valid.acc.ave.pth"), **OPTIONS)
    for condition in ("clean", "m2m", "mixture"):
        assert not validate_data_dir(out / condition)
        hypotheses = read_table(out / condition / "hyp", allow_empty=True)
        for utt_id, entry in read_table(out / condition / "wav.scp").items():
            samples = soundfile.read(entry, dtype="float32", always_2d=True)[0][:, 0]
            assert hypotheses[utt_id] == speech2text(samples)[0][0]
    asr_scoring.main(["--data_dir", str(data_dir), "--decode_dir", str(out)])
    assert "|m2m|4|8|" in (out.parent / "RESULTS_ASR.md").read_text()


def test_a_rerun_decodes_what_is_missing_or_has_changed(example, capsys):
    tmp_path, data_dir, options = example
    run(options)
    run(options)
    assert "14 of 14" in capsys.readouterr().out
    path = read_table(data_dir / "spk1.scp")["a-b-test00000"]
    soundfile.write(path, np.roll(soundfile.read(path)[0], 100), 8000)
    kept = (options["out_dir"] / "hypotheses.jsonl").read_bytes()
    (options["out_dir"] / "hypotheses.jsonl").write_bytes(kept[:-20])  # killed while it wrote
    run(options)
    assert "12 of 14" in capsys.readouterr().out
    run(options, ref_channel=1)
    assert "0 of 14" in capsys.readouterr().out
    make_asr(tmp_path / "asr", seed=1)
    run(options)
    assert "0 of 14" in capsys.readouterr().out


def test_jobs_decode_shares_that_the_last_command_joins(example, capsys):
    _, _, options = example
    run(options, job="2/3")
    assert "0 of 5 signals" in capsys.readouterr().out
    assert not list(options["out_dir"].glob("*/hyp"))
    run(options, job="1/3")
    run(options)
    assert "10 of 14 signals" in capsys.readouterr().out
    found = (options["out_dir"] / "m2m" / "hyp").read_text()
    run(options, out_dir=options["out_dir"].parent / "at once")
    assert found == (options["out_dir"].parent / "at once" / "m2m" / "hyp").read_text()


def test_audio_is_resampled_to_the_rate_of_the_model(example):
    tmp_path, data_dir, options = example
    model = make_asr(tmp_path / "asr16k", sample_rate="16k")
    run({name: value for name, value in options.items() if name != "separated"}, asr_exp=model)
    speech2text = Speech2Text(str(model / "config.yaml"), str(model / "valid.acc.ave.pth"), **OPTIONS)
    samples = soundfile.read(read_table(data_dir / "spk2.scp")["a-b-test00001"], dtype="float32")[0]
    desired = speech2text(resample(samples, 8000, 16000).astype(np.float32))[0][0]
    assert read_table(options["out_dir"] / "clean" / "hyp", allow_empty=True)["b-a-b-test00001"] == desired


def test_too_short_a_signal_says_nothing(example):
    _, data_dir, options = example
    for path in read_table(data_dir / "spk1.scp").values():
        soundfile.write(path, np.full(200, 0.1), 8000)
    run(options)
    assert read_table(options["out_dir"] / "clean" / "hyp", allow_empty=True)["a-a-b-test00000"] == ""


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"asr_exp": "nowhere"}, "nowhere/config.yaml: no such file"),
        ({"data_dir": "nowhere"}, "nowhere: no such data directory"),
        ({"name": "clean"}, "'clean' must be a folder's name other than mixture"),
        ({"ref_channel": 3}, "has 3 channels, so no mic 3"),
        ({"separated": "nowhere"}, "nowhere"),
        ({"inference_config": "beam.yaml"}, "no_such_option"),
    ],
)
def test_mistakes_end_in_one_clear_line(example, capsys, changes, message):
    tmp_path, _, options = example
    (tmp_path / "beam.yaml").write_text("no_such_option: 1\n")
    if "inference_config" in changes:
        changes = {"inference_config": tmp_path / "beam.yaml"}
    with pytest.raises(SystemExit):
        run(options, **changes)
    assert message in capsys.readouterr().err
