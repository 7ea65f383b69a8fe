"""The demo's talkers and sentences, and their speech where espeak-ng is installed."""

import re

import numpy as np
import pytest
import soundfile

from espnet2_m2m.bin.make_demo_speech import main
from espnet2_m2m.corpora.demo import GRID_WORDS, MAX_TALKERS, Talker, sentences, speak, talkers, trim_silence
from espnet2_m2m.data_dir.tables import read_table


def test_talkers_are_all_different():
    everybody = talkers(MAX_TALKERS)
    assert len({talker.voice for talker in everybody}) == MAX_TALKERS
    assert len({talker.talker_id for talker in everybody}) == MAX_TALKERS
    demo = talkers(24)
    assert demo == everybody[:24]
    assert sum(talker.talker_id.startswith("f") for talker in demo) == 12
    assert len({(talker.pitch, talker.rate_wpm) for talker in demo}) == 24
    for talker in everybody:
        assert re.fullmatch(r"[fm]\d\d", talker.talker_id)
        assert 30 <= talker.pitch <= 70 and 130 <= talker.rate_wpm <= 200


def test_sentences_follow_the_grammar():
    spoken = sentences("f01", 200, seed=0)
    assert len(set(spoken)) == 200
    for sentence in spoken:
        words = sentence.split()
        assert len(words) == 6
        assert all(word in choice for word, choice in zip(words, GRID_WORDS, strict=True))
    assert sentences("f01", 200, seed=0) == spoken
    assert sentences("f02", 200, seed=0) != spoken and sentences("f01", 200, seed=1) != spoken


def test_trim_silence():
    samples = np.zeros(22050)
    samples[5000:6000] = 0.5
    samples[8000] = 0.004  # 42 dB below the peak
    trimmed = trim_silence(samples)
    assert len(trimmed) == 1000 + 2 * 220
    np.testing.assert_array_equal(np.flatnonzero(trimmed), np.arange(220, 1220))


@pytest.mark.parametrize("num_talkers", [0, MAX_TALKERS + 1])
def test_number_of_talkers_is_checked(num_talkers):
    with pytest.raises(ValueError, match="num_talkers"):
        talkers(num_talkers)


def test_number_of_sentences_is_checked():
    with pytest.raises(ValueError, match="num_sentences"):
        sentences("f01", 64001, seed=0)


def test_unknown_variant():
    """espeak-ng would speak with the accent's own voice and say nothing about it."""
    pytest.importorskip("espeakng_loader", reason="synthesises speech with espeak-ng")
    with pytest.raises(ValueError, match=r"no voice 'en\+nobody'"):
        speak(Talker("f01", "en+nobody", 50, 160), ["bin blue at f two now"])


def test_only_missing_speech_is_synthesised(tmp_path, capsys):
    pytest.importorskip("espeakng_loader", reason="synthesises speech with espeak-ng")
    options = ["--out_dir", str(tmp_path), "--num_talkers", "2", "--num_sentences", "2"]
    main(options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in before}
    missing = tmp_path / "wav" / "m01-00001.wav"
    missing.unlink()
    (tmp_path / "settings.json").unlink()  # as in folders that are older than this file
    main(options)
    assert {path: path.read_bytes() for path in before} == before
    again = {path for path in before if path.stat().st_mtime_ns != times[path]}
    assert again == {missing, tmp_path / "settings.json"}
    with pytest.raises(SystemExit):
        main([*options, "--seed", "1"])
    message = capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit):
        main([*options, "--first_talker", "3"])
    assert f"{tmp_path} holds other speech" in message and "choose another --out_dir" in message
    assert {path: path.read_bytes() for path in before} == before


def test_synthesised_speech(tmp_path):
    """Complete, trimmed, not clipped, the same to the bit for any number of talkers."""
    pytest.importorskip("espeakng_loader", reason="synthesises speech with espeak-ng")
    main(["--out_dir", str(tmp_path / "two"), "--num_talkers", "2", "--num_sentences", "3"])
    main(["--out_dir", str(tmp_path / "one"), "--num_talkers", "1", "--num_sentences", "3"])
    second = ["--out_dir", str(tmp_path / "second"), "--num_talkers", "1", "--num_sentences", "3"]
    main([*second, "--first_talker", "2"])
    wav = read_table(tmp_path / "two" / "wav.scp")
    assert list(wav) == [f"{talker}-{k:05d}" for talker in ("f01", "m01") for k in range(3)]
    text = read_table(tmp_path / "two" / "text")
    assert [text[f"f01-{k:05d}"] for k in range(3)] == sentences("f01", 3, seed=0)
    assert set(read_table(tmp_path / "two" / "utt2spk").values()) == {"f01", "m01"}
    assert read_table(tmp_path / "two" / "spk2utt")["m01"].split() == list(wav)[3:]
    for path in wav.values():
        samples, sample_rate = soundfile.read(path)
        assert sample_rate == 22050 and samples.ndim == 1
        assert 0.8 < len(samples) / sample_rate < 4
        assert 0.05 < np.abs(samples).max() < 0.99
        start, end = samples[:331], samples[-331:]  # 15 ms: the margin and a little more
        assert min(np.abs(start).max(), np.abs(end).max()) >= 0.01 * np.abs(samples).max() - 1e-4
    paths = [path for name in ("one", "second") for path in (tmp_path / name / "wav").iterdir()]
    assert [path.name[:3] for path in sorted(paths)] == 3 * ["f01"] + 3 * ["m01"]
    for path in paths:
        assert path.suffix == ".wav"
        assert path.read_bytes() == (tmp_path / "two" / "wav" / path.name).read_bytes()
