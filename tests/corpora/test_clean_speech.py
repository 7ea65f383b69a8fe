"""Clean speech of a Kaldi data dir: lengths, resampling, segments, pipes, and what is refused."""

import numpy as np
import pytest
import soundfile

from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.audio import kaldi_io
from espnet2_m2m.data_dir.tables import write_table


@pytest.fixture
def data_dir(tmp_path):
    """Two utterances of a 100 Hz tone at 22.05 kHz by two speakers."""
    for name, seconds in (("a", 0.5), ("b", 0.3001)):
        time = np.arange(round(22050 * seconds)) / 22050
        soundfile.write(tmp_path / f"{name}.wav", 0.5 * np.sin(2 * np.pi * 100 * time), 22050)
    write_table(tmp_path / "wav.scp", {name: tmp_path / f"{name}.wav" for name in "ab"})
    write_table(tmp_path / "utt2spk", {"a": "x", "b": "y"})
    return tmp_path


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050])
def test_resampled_audio_has_the_promised_length_and_content(data_dir, sample_rate):
    speech = CleanSpeech(data_dir, sample_rate)
    for utt_id in "ab":
        actual = speech.load(utt_id)
        assert len(actual) == speech.num_samples(utt_id)
        desired = 0.5 * np.sin(2 * np.pi * 100 * np.arange(len(actual)) / sample_rate)
        middle = slice(len(actual) // 4, -len(actual) // 4)  # the tone's abrupt ends ring
        assert np.abs(actual - desired)[middle].max() < 2e-3


def test_tables(data_dir):
    speech = CleanSpeech(data_dir, 8000)
    assert speech.utts_of_speaker == {"x": ["a"], "y": ["b"]} and speech.text is None
    write_table(data_dir / "text", {"a": "one two", "b": ""})
    assert CleanSpeech(data_dir, 8000).text == {"a": "one two", "b": ""}


def test_segments_and_pipes(data_dir):
    whole = CleanSpeech(data_dir, 22050).load("a")
    write_table(data_dir / "wav.scp", {"a": f"cat {data_dir / 'a.wav'} |"})
    write_table(data_dir / "segments", {"s1": "a 0.1 0.2", "s2": "a 0.25 0.5"})
    write_table(data_dir / "utt2spk", {"s1": "x", "s2": "y"})
    speech = CleanSpeech(data_dir, 22050)
    for utt_id, start, end in (("s1", 2205, 4410), ("s2", 5512, 11025)):
        np.testing.assert_array_equal(speech.load(utt_id), whole[start:end])
        assert speech.num_samples(utt_id) == end - start


def test_arks(data_dir):
    samples, sample_rate = soundfile.read(data_dir / "a.wav", dtype="int16")
    ark, scp = data_dir / "wav.ark", data_dir / "wav.scp"
    kaldi_io().save_ark(str(ark), {"a": (sample_rate, samples)}, scp=str(scp))
    write_table(data_dir / "utt2spk", {"a": "x"})
    speech = CleanSpeech(data_dir, 22050)
    np.testing.assert_array_equal(speech.load("a"), samples / 32768)
    assert speech.num_samples("a") == len(samples)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
        CleanSpeech(tmp_path / "nowhere", 8000)


def test_empty_wav_scp(data_dir):
    (data_dir / "wav.scp").write_text("")
    with pytest.raises(ValueError, match="wav.scp: expected at least one line, found none"):
        CleanSpeech(data_dir, 8000)


@pytest.mark.parametrize("table", ["utt2spk", "text"])
def test_tables_must_name_the_same_utterances(data_dir, table):
    write_table(data_dir / table, {"a": "x"})
    with pytest.raises(ValueError, match=f"'b' is in wav.scp but not in {table}"):
        CleanSpeech(data_dir, 8000)
    write_table(data_dir / table, {"a": "x", "b": "y", "c": "z"})
    with pytest.raises(ValueError, match=f"'c' is in {table} but not in wav.scp"):
        CleanSpeech(data_dir, 8000)


def test_bad_audio_names_the_utterance(data_dir):
    speech = CleanSpeech(data_dir, 8000)
    (data_dir / "a.wav").write_bytes(b"no audio at all")
    (data_dir / "b.wav").unlink()
    for utt_id in "ab":
        for function in (speech.load, speech.num_samples):
            with pytest.raises(ValueError, match=f"utterance '{utt_id}'"):
                function(utt_id)


def test_samples_that_are_not_finite(data_dir):
    soundfile.write(data_dir / "a.wav", np.full(8000, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="utterance 'a': .*a.wav: expected finite samples, found NaN"):
        CleanSpeech(data_dir, 8000).load("a")


def test_stereo_is_refused(data_dir):
    soundfile.write(data_dir / "a.wav", np.zeros((100, 2)), 8000)
    speech = CleanSpeech(data_dir, 8000)
    with pytest.raises(ValueError, match="utterance 'a'.* 2 channels"):
        speech.load("a")


def test_segment_of_an_unknown_recording(data_dir):
    write_table(data_dir / "segments", {"s1": "nowhere 0.1 0.2"})
    write_table(data_dir / "utt2spk", {"s1": "x"})
    with pytest.raises(ValueError, match="wav.scp: .* are missing: 's1' .no recording 'nowhere'"):
        CleanSpeech(data_dir, 8000).load("s1")
