"""Kaldi dirs of a line per talker: ids, order by the headsets, transcripts."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from fake_set import make_set, talker

from espnet2_m2m.bin import talker_data_dir
from espnet2_m2m.data_dir import read_table, validate_data_dir, write_table
from espnet2_m2m.headset_order import streams_of_headsets

CRITERION = {"name": "mixture_constraint", "conf": {"anchor_weight": 1.0}}


@pytest.fixture
def example(tmp_path):
    """Three mixtures with headsets and transcripts; the streams of the second are exchanged."""
    data_dir, enhanced_dir = make_set(tmp_path, swapped=(1,))
    for n in (1, 2):
        texts = dict.fromkeys(read_table(data_dir / "utt2spk"), f"talker {n}")
        write_table(data_dir / f"text_spk{n}", texts)
    for order in ("fixed", "free"):
        criterion = {**CRITERION, "conf": {**CRITERION["conf"], "anchor_order": order}}
        (tmp_path / f"{order}.yaml").write_text(yaml.safe_dump({"criterions": [criterion]}))
    return tmp_path, data_dir, enhanced_dir


def run(example, *options, name="out"):
    tmp_path, data_dir, enhanced_dir = example
    if "--signal" not in options:
        options = ("--enhanced_dir", str(enhanced_dir), *options)
    talker_data_dir.main(["--data_dir", str(data_dir), "--out_dir", str(tmp_path / name), *options])
    return tmp_path / name


def test_free_order_comes_from_the_headsets(example):
    out = run(example, "--train_config", str(example[0] / "free.yaml"))
    assert not validate_data_dir(out, num_channels=1)
    assert read_table(out / "utt2stream") == {
        "a-a-b-test00000": "1",
        "a-a-b-test00001": "2",
        "a-a-b-test00002": "1",
        "b-a-b-test00000": "2",
        "b-a-b-test00001": "1",
        "b-a-b-test00002": "2",
    }
    assert read_table(out / "utt2mix")["b-a-b-test00001"] == "a-b-test00001"
    assert read_table(out / "text")["b-a-b-test00001"] == "talker 2"
    entry = read_table(out / "wav.scp")["a-a-b-test00001"]
    assert entry == read_table(example[2] / "spk2.scp")["a-b-test00001"]
    assert read_table(out / "spk2utt")["a"].split() == [f"a-a-b-test0000{k}" for k in range(3)]


def test_the_fit_is_kept_and_done_again_for_other_audio(example, monkeypatch):
    out = run(example)
    fitted = []
    monkeypatch.setattr(talker_data_dir, "fit_one", lambda job: fitted.append(job.utt_id) or [2, 1])
    run(example)
    assert fitted == []
    path = read_table(example[2] / "spk1.scp")["a-b-test00002"]
    soundfile.write(path, np.roll(soundfile.read(path)[0], 1), 8000, subtype="FLOAT")
    run(example)
    assert fitted == ["a-b-test00002"] and read_table(out / "utt2stream")["a-a-b-test00002"] == "2"


def test_a_fixed_anchor_decides_without_looking_at_the_audio(example):
    out = run(example, "--train_config", str(example[0] / "fixed.yaml"))
    assert set(read_table(out / "utt2stream").items()) == {
        (f"{t}-a-b-test0000{k}", str(n)) for n, t in ((1, "a"), (2, "b")) for k in range(3)
    }


def test_a_recording_without_references_scenes_and_transcripts(example):
    _, data_dir, _ = example
    for path in (*data_dir.glob("spk[12].scp"), *data_dir.glob("text_spk*"), data_dir / "scenes.jsonl"):
        path.unlink()
    out = run(example)
    assert not validate_data_dir(out) and not (out / "text").exists()
    assert set(read_table(out / "spk2utt")) == {"a-b-spk1", "a-b-spk2"}
    assert read_table(out / "utt2stream")["a-b-spk1-a-b-test00001"] == "2"
    for path in data_dir.glob("closetalk*"):
        path.unlink()
    out = run(example, "--train_config", str(example[0] / "free.yaml"))
    assert not validate_data_dir(out)
    assert set(read_table(out / "spk2utt")) == {"a-b-stream1", "a-b-stream2"}
    out = run(example, "--train_config", str(example[0] / "fixed.yaml"))
    assert read_table(out / "utt2stream")["a-b-spk2-a-b-test00001"] == "2"
    out = run(example, "--signal", "wav")
    assert len(read_table(out / "wav.scp")) == 3, "the number of talkers is not known"


def test_headsets_may_stand_where_enh_sh_wants_references(example):
    tmp_path, data_dir, _ = example
    for n in (1, 2):
        (data_dir / f"closetalk{n}.scp").replace(data_dir / f"spk{n}.scp")
    (tmp_path / "ref.yaml").write_text("model_conf: {closetalk_from_ref: true}\n")
    out = run(example, "--train_config", str(tmp_path / "ref.yaml"))
    assert read_table(out / "utt2stream")["a-a-b-test00001"] == "2"


def test_a_talker_without_a_headset(tmp_path):
    """Headsets 1 and 3 of three talkers: each gets its own stream, the second talker gets none."""
    data_dir, enhanced_dir = make_set(tmp_path, num_utterances=2, num_speakers=3, swapped=(1,))
    (data_dir / "closetalk2.scp").unlink()
    for n in (1, 2, 3):
        write_table(data_dir / f"text_spk{n}", dict.fromkeys(read_table(data_dir / "utt2spk"), f"talker {n}"))
    out = run((tmp_path, data_dir, enhanced_dir))
    assert read_table(out / "utt2stream") == {
        "a-a-b-test00000": "1",
        "c-a-b-test00000": "3",
        "a-a-b-test00001": "3",
        "c-a-b-test00001": "1",
    }
    assert read_table(out / "text")["c-a-b-test00001"] == "talker 3"
    (data_dir / "scenes.jsonl").unlink()
    out = run((tmp_path, data_dir, enhanced_dir))
    assert read_table(out / "utt2stream")["a-b-spk3-a-b-test00001"] == "1"


def test_signals_of_the_set(example):
    out = run(example, "--signal", "closetalk_spk")
    assert not validate_data_dir(out, num_channels=1)
    assert len(read_table(out / "wav.scp")) == 6
    entry = read_table(out / "wav.scp")["b-a-b-test00000"]
    assert entry == read_table(example[1] / "closetalk_spk2.scp")["a-b-test00000"]
    out = run(example, "--signal", "wav")
    assert len(set(read_table(out / "wav.scp").values())) == 3, "both talkers have the mixture"


def test_segments_stay_segments(example):
    data_dir = example[1]
    table = {u: f"{u} 0.1 0.6" for u in read_table(data_dir / "utt2spk")}
    write_table(data_dir / "segments", table)
    out = run(example, "--signal", "spk")
    assert not validate_data_dir(out)
    assert read_table(out / "segments")["b-a-b-test00002"] == "b-a-b-test00002 0.1 0.6"


@pytest.mark.parametrize("entry", ["{}", "cat {} |"])
def test_another_recipe_reads_it_from_its_own_folder(example, monkeypatch, entry):
    """dump/raw names recorded files by relative paths; asr.sh runs elsewhere."""
    tmp_path, data_dir, _ = example
    monkeypatch.chdir(tmp_path)
    for n in (1, 2):
        table = read_table(data_dir / f"spk{n}.scp")
        table = {u: entry.format(Path(path).relative_to(tmp_path)) for u, path in table.items()}
        write_table(data_dir / f"spk{n}.scp", table)
    out = run(example, "--signal", "spk")
    (tmp_path / "asr1").mkdir()
    monkeypatch.chdir(tmp_path / "asr1")
    assert not validate_data_dir(out)


def test_transcripts_of_some_are_none_and_that_is_said(example, capsys):
    (example[1] / "text_spk2").unlink()
    out = run(example)
    printed = capsys.readouterr().out
    assert "no text, since" in printed and "has no transcripts of 'b-a-b-test00000', 'b-a-b-test00001'" in printed
    assert not (out / "text").exists()


def test_mistakes_are_named(example, capsys):
    tmp_path, data_dir, enhanced_dir = example
    (enhanced_dir / "spk2.scp").write_text("")
    with pytest.raises(SystemExit):
        run(example)
    assert "a-b-test00000" in capsys.readouterr().err
    scenes = (data_dir / "scenes.jsonl").read_text()
    (data_dir / "scenes.jsonl").write_text(scenes.replace('"speaker_id": "b"', '"speaker_id": "a"'))
    with pytest.raises(SystemExit):
        run(example, "--signal", "spk")
    assert "twice" in capsys.readouterr().err
    (data_dir / "scenes.jsonl").write_text(scenes.replace('"speaker_id": "b"', '"speaker_id": "a-a"'))
    with pytest.raises(SystemExit):
        run(example, "--signal", "spk")
    assert "C-locale order" in capsys.readouterr().err and not (tmp_path / "out" / "utt2spk").exists()


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_streams_are_found_through_reverberation_and_cross_talk(sample_rate):
    """Three streams at the table, one of them noise; two headsets that hear each other."""
    rng = np.random.default_rng(0)
    voices = [talker(rng, sample_rate, rate) for rate in (4, 5)]
    room = [rng.standard_normal(800) * np.exp(-np.arange(800) / 150) for _ in range(2)]
    table = [np.convolve(voice, response)[:sample_rate] for voice, response in zip(voices, room)]
    headsets = [voices[0] + 0.3 * voices[1], voices[1] + 0.3 * voices[0]]
    streams = [rng.standard_normal(sample_rate), table[1] + 0.2 * table[0], table[0] + 0.2 * table[1]]
    assert streams_of_headsets(streams, headsets, sample_rate) == [2, 1]
    with pytest.raises(ValueError, match="a stream for every headset"):
        streams_of_headsets(streams[:1], headsets, sample_rate)
