"""The one reader of an utterance's signals: what is found, what is read, and what is refused in which words."""

import numpy as np
import pytest
import soundfile
from fake_set import SAMPLE_RATE, make_set

from espnet2_m2m.data_dir import AudioError, TableError, read_table, write_table
from espnet2_m2m.data_dir.signals import Signal, find_utterances

ALL = ("wav", "spk", "closetalk", "closetalk_spk")


@pytest.fixture
def folders(tmp_path):
    return make_set(tmp_path, num_utterances=2, seconds=0.25)


def samples_of(entry):
    return soundfile.read(entry, dtype="float32", always_2d=True)[0]


def spoil(folder, name, change, sample_rate=SAMPLE_RATE, utt_id="a-b-test00000"):
    path = read_table(folder / f"{name}.scp")[utt_id]
    soundfile.write(path, change(samples_of(path)), sample_rate, subtype="FLOAT")
    return path


def test_every_signal_is_that_of_its_file(folders):
    """Oracle: the scp files and soundfile, one by one."""
    data_dir, enhanced_dir = folders
    found = find_utterances(data_dir, ALL, enhanced_dir)
    assert [utterance.utt_id for utterance in found] == list(read_table(data_dir / "wav.scp"))
    for utterance in found:
        waves, rate = utterance.read(mic=1)
        assert rate == SAMPLE_RATE and list(waves) == [*ALL, "stream"]
        entry = read_table(data_dir / "wav.scp")[utterance.utt_id]
        np.testing.assert_array_equal(waves["wav"][1], samples_of(entry)[:, 1])
        np.testing.assert_array_equal(utterance.read(all_mics=True)[0]["wav"][1], samples_of(entry))
        for folder, file, family in [(data_dir, name, name) for name in ALL[1:]] + [(enhanced_dir, "spk", "stream")]:
            assert list(waves[family]) == [1, 2]
            for number, samples in waves[family].items():
                entry = read_table(folder / f"{file}{number}.scp")[utterance.utt_id]
                np.testing.assert_array_equal(samples, samples_of(entry)[:, 0])


def test_talkers_headsets_and_streams_are_different_numbers(folders):
    """Two references, of three talkers only the third has a headset, three streams."""
    data_dir, enhanced_dir = folders
    (data_dir / "closetalk1.scp").unlink()
    (data_dir / "closetalk2.scp").rename(data_dir / "closetalk3.scp")
    (enhanced_dir / "spk3.scp").write_bytes((enhanced_dir / "spk1.scp").read_bytes())
    for path in data_dir.glob("closetalk_spk*"):
        path.unlink()
    waves, _ = find_utterances(data_dir, ALL, enhanced_dir)[0].read()
    assert {family: list(numbered) for family, numbered in waves.items()} == {
        "wav": [1],
        "spk": [1, 2],
        "closetalk": [3],
        "closetalk_spk": [],
        "stream": [1, 2, 3],
    }


def test_segments_cut_the_set_and_not_the_streams(folders):
    data_dir, enhanced_dir = folders
    write_table(data_dir / "segments", {"cut": "a-b-test00001 0.05 0.15", "again": "a-b-test00001 0.1 0.2"})
    for name in ("spk1", "spk2"):
        path = spoil(enhanced_dir, name, lambda samples: samples[:800])
        write_table(enhanced_dir / f"{name}.scp", {"cut": path, "again": path})
    again, cut = find_utterances(data_dir, ["wav", "closetalk"], enhanced_dir)
    entry = read_table(data_dir / "closetalk2.scp")["a-b-test00001"]
    assert cut.signals["closetalk"][2] == Signal(entry, (0.05, 0.15)) and again.utt_id == "again"
    assert cut.signals["stream"][1].segment is None
    np.testing.assert_array_equal(cut.read()[0]["closetalk"][2], samples_of(entry)[400:1200, 0])


def test_references_of_all_mics_and_of_one(folders):
    """Of several channels the mic counts, a mono signal is of any mic, a headset has one channel."""
    data_dir, _ = folders
    for name in ("spk1", "closetalk1"):
        spoil(data_dir, name, lambda samples: samples * np.array([[1, 2, 4]], dtype="float32") / 8)
    waves, _ = find_utterances(data_dir, ALL)[0].read(mic=2)
    one, other = (waves[family][1] for family in ("spk", "closetalk"))
    entry = read_table(data_dir / "closetalk_spk1.scp")["a-b-test00000"]
    np.testing.assert_allclose(one, samples_of(entry)[:, 0] / 2, atol=1e-6)
    entry = read_table(data_dir / "closetalk1.scp")["a-b-test00000"]
    np.testing.assert_array_equal(other, samples_of(entry)[:, 0])


@pytest.mark.parametrize(
    "name, change, sample_rate, options, message",
    [
        ("spk2", lambda x: x[:-1], 8000, {}, "the reference of speaker 2: {path}: expected 2000 samples like the mix"),
        ("closetalk1", lambda x: x, 16000, {}, "the close-talk mixture of speaker 1: {path}: expected 8000 Hz like"),
        (
            "wav",
            lambda x: x,
            16000,
            {"sample_rate": 8000},
            "the mixture: {path}: expected 8000 Hz like the model, found",
        ),
        (
            "closetalk_spk1",
            lambda x: x / 0,
            8000,
            {},
            "the close-talk speech of speaker 1: {path}: expected finite sam",
        ),
        ("wav", lambda x: x, 8000, {"mic": 3}, "the mixture: {path}: has 3 channels, so no mic 3"),
        ("wav", lambda x: x[:, :1], 8000, {"mic": 1}, "the mixture: {path}: has 1 channels, so no mic 1"),
        ("spk1", lambda x: x[:, [0, 0]], 8000, {"mic": 2}, "the reference of speaker 1: {path}: has 2 channels, so no"),
    ],
    ids=["length", "rate", "model", "finite", "mic", "mono mixture", "mics of a reference"],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_does_not_fit_is_named_with_utterance_signal_and_file(
    folders, name, change, sample_rate, options, message
):
    path = spoil(folders[0], name, change, sample_rate)
    with pytest.raises(AudioError) as error:
        find_utterances(folders[0], ALL)[0].read(**options)
    assert str(error.value).startswith("utterance 'a-b-test00000': " + message.format(path=path))
    assert error.value.remedy


def test_missing_audio(folders):
    path = read_table(folders[1] / "spk2.scp")["a-b-test00001"]
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(AudioError, match=f"utterance 'a-b-test00001': output 2: {path}: truncated"):
        find_utterances(folders[0], [], folders[1])[1].read()


def test_missing_entries_and_folders(folders, tmp_path):
    data_dir, enhanced_dir = folders
    write_table(enhanced_dir / "spk2.scp", {"a-b-test00000": "x.wav"})
    with pytest.raises(TableError, match="spk2.scp: 1 of the 2 utterances of .* are missing: 'a-b-test00001';"):
        find_utterances(data_dir, ["wav"], enhanced_dir)
    write_table(data_dir / "segments", {"cut": "nowhere 0 1"})
    with pytest.raises(TableError, match="wav.scp: 1 of the 1 utterances .* 'cut' .no recording 'nowhere'"):
        find_utterances(data_dir, ["wav"])
    (data_dir / "segments").write_text("")
    with pytest.raises(TableError, match="segments: expected `utterance recording start end`, found no line"):
        find_utterances(data_dir, ["wav"])
    (data_dir / "segments").unlink()
    (data_dir / "wav.scp").write_text("")
    with pytest.raises(TableError, match="wav.scp: expected at least one line"):
        find_utterances(data_dir, ["spk"])
    for folders in ((tmp_path / "nowhere", None), (data_dir, tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
            find_utterances(folders[0], ALL, folders[1])
