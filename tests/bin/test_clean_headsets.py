"""The command that takes the cross-talk out of a set's headsets: what it writes, reruns, scores, messages."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fake_set import SAMPLE_RATE, make_set

from espnet2_m2m.bin import asr_inference, clean_headsets, enh_scoring
from espnet2_m2m.data_dir import read_table
from espnet2_m2m.data_dir.validate import inspect_data_dir
from espnet2_m2m.headset_cleaning import clean_headsets as clean_spectra
from espnet2_m2m.report import page, systems
from espnet2_m2m.scoring.results import read_scores
from espnet2_m2m.stft import STFT


@pytest.fixture
def data_set(tmp_path):
    return make_set(tmp_path, num_utterances=2)


def clean(data_dir, *options):
    out_dir = data_dir.parent / "cleaned"
    clean_headsets.main(["--data_dir", str(data_dir), "--out_dir", str(out_dir), *options])
    return out_dir


def wavs(folder, name):
    return {
        utt_id: soundfile.read(path, dtype="float32")[0] for utt_id, path in read_table(folder / f"{name}.scp").items()
    }


def test_the_set_again_with_other_headsets(data_set):
    data_dir, _ = data_set
    out_dir = clean(data_dir)
    first, second = (wavs(data_dir, f"closetalk{n}") for n in (1, 2))
    stft = STFT.of_rate(SAMPLE_RATE)
    for utt_id in first:
        mixtures = torch.from_numpy(np.stack([first[utt_id], second[utt_id]]))
        desired = stft.inverse(clean_spectra(stft(mixtures)[None])[0], mixtures.shape[1]).numpy()
        actual = [wavs(out_dir, f"closetalk{n}")[utt_id] for n in (1, 2)]
        np.testing.assert_allclose(actual, desired, atol=1e-6)
    info = soundfile.info(read_table(out_dir / "closetalk1.scp")["a-b-test00000"])
    assert (info.subtype, info.samplerate) == ("FLOAT", SAMPLE_RATE)
    for path in data_dir.iterdir():
        if path.is_file() and not path.name.startswith("closetalk"):
            assert (out_dir / path.name).read_bytes() == path.read_bytes()
    assert (out_dir / "closetalk_spk1.scp").read_bytes() == (data_dir / "closetalk_spk1.scp").read_bytes()
    assert len(inspect_data_dir(out_dir)[0]) == len(inspect_data_dir(data_dir)[0])


def test_a_rerun_does_what_is_missing_or_has_changed(data_set, capsys):
    data_dir, _ = data_set
    out_dir = clean(data_dir)
    paths = {path: path.stat().st_mtime_ns for path in out_dir.glob("wav/closetalk*/*.wav")}
    assert len(paths) == 4
    clean(data_dir, "--nj", "2")
    assert "2 headsets of 2 utterances, 2 done before" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in paths.items())
    os.utime(read_table(data_dir / "closetalk2.scp")["a-b-test00001"], ns=(1, 1))  # replaced by an older one
    (out_dir / "wav/closetalk1/a-b-test00000.wav").unlink()
    clean(data_dir)
    assert "2 utterances, 0 done before" in capsys.readouterr().out


def test_its_scores_stand_beside_those_of_the_headsets(data_set, capsys):
    data_dir, enhanced_dir = data_set
    out_dir = clean(data_dir)
    options = ["--data_dir", str(data_dir), "--enhanced_dir", str(enhanced_dir), "--nj", "1"]
    enh_scoring.main([*options, "--cleaned_dir", str(out_dir)])
    summary, rows = read_scores(enhanced_dir)
    assert summary["cleaned_dir"] == str(out_dir)
    assert summary["mean"]["cleaned"]["si_sdr"] == pytest.approx(np.mean([row["cleaned_si_sdr"] for row in rows]))
    assert summary["mean"]["cleaned"]["si_sdr"] > summary["mean"]["closetalk"]["si_sdr"] + 3
    text = (enhanced_dir.parent / "RESULTS.md").read_text()
    assert "| close-talk mixture |" in text and "| close-talk mixture, cleaned |" in text
    page.write_report(enhanced_dir / "report", data_dir, systems.load(data_dir, [enhanced_dir]), num_examples=1)
    html = (enhanced_dir / "report/index.html").read_text()
    assert "Close-talk mixture, cleaned" in html and ">close-talk mixture, cleaned<" in html
    enh_scoring.main(options)
    assert "cleaned" not in read_scores(enhanced_dir)[0]["mean"]


def test_it_is_a_condition_of_recognition(data_set):
    data_dir, _ = data_set
    out_dir = clean(data_dir)
    parse = asr_inference.get_parser().parse_args
    args = parse(["--asr_exp", "x", "--data_dir", str(data_dir), "--out_dir", "y", "--cleaned_dir", str(out_dir)])
    for n in (1, 2):
        (out_dir / f"text_spk{n}").write_text("a-b-test00000 YES\na-b-test00001 NO\n")
        (data_dir / f"text_spk{n}").write_text("a-b-test00000 YES\na-b-test00001 NO\n")
    lines = asr_inference.list_conditions(args)["cleaned"]
    assert [Path(line.signal.entry).parent for line in lines[:2]] == [out_dir / f"wav/closetalk{n}" for n in (1, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: (d / "closetalk2.scp").unlink(),
            r"expected closetalk1.scp, closetalk2.scp ..., which clean each other",
        ),
        (lambda d: (d / "utt2spk").unlink(), "utt2spk"),
        (lambda d: (d / "wav.scp").write_text(""), "wav.scp"),
        (lambda d: (d / "segments").write_text("a-b-test00000 x 0 1\n"), "has segments; cut them out first"),
        (
            lambda d: (d / "wav/closetalk2/a-b-test00001.wav").unlink(),
            "utterance 'a-b-test00001': the close-talk mixture of",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_no_valid_set(data_set, capsys, change, message):
    data_dir, _ = data_set
    change(data_dir)
    with pytest.raises(SystemExit) as end:
        clean(data_dir)
    error = capsys.readouterr().err
    assert end.value.code == 1 and message in error
    assert not (data_dir.parent / "cleaned/utt2spk").exists()


def test_the_set_itself_is_never_replaced(data_set, capsys):
    data_dir, _ = data_set
    with pytest.raises(SystemExit):
        clean_headsets.main(["--data_dir", str(data_dir), "--out_dir", f"{data_dir}/../test"])
    assert "must not replace" in capsys.readouterr().err
