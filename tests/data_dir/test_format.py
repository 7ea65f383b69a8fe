"""Stage 3: what is kept, what is written, and that a rerun continues."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from data_dir_example import SAMPLE_RATE, make_data_dir, noise

import espnet2_m2m.data_dir.format
from espnet2_m2m.data_dir import (
    AudioError,
    TableError,
    format_data_dir,
    read_audio,
    read_table,
    spk2utt_from,
    validate_data_dir,
    write_table,
    write_wav,
)
from espnet2_m2m.data_dir.audio import kaldi_io
from espnet2_m2m.data_dir.signals import find_utterances


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Three utterances in data/train of the working dir."""
    monkeypatch.chdir(tmp_path)
    return make_data_dir(Path("data/train"), [800, 900, 1000])


@pytest.fixture
def written(monkeypatch):
    """Paths that are written, in order."""
    paths = []
    original = espnet2_m2m.data_dir.format.write_wav

    def record(path, *args, **kwargs):
        original(path, *args, **kwargs)
        paths.append(path)

    monkeypatch.setattr(espnet2_m2m.data_dir.format, "write_wav", record)
    return paths


def test_what_fits_is_kept(train):
    kept, made = format_data_dir(train, "dump/train", sample_rate=SAMPLE_RATE, num_workers=2)
    assert (kept, made) == (7 * 3, 0)
    assert not Path("dump/train/wav").exists()
    for path in train.iterdir():
        if path.is_file():
            assert Path("dump/train", path.name).read_bytes() == path.read_bytes()
    lengths = read_table("dump/train/utt2num_samples")
    assert list(lengths.values()) == ["800", "1000", "900"]
    assert validate_data_dir("dump/train") == []


def test_resampling_keeps_a_sine(tmp_path):
    """Closed form: a sine of 1 kHz at 16 kHz is the same sine at 8 kHz, away from the edges."""
    time_s = np.arange(16000) / 16000
    for name, subtype in (("pcm", "PCM_16"), ("float", "FLOAT")):
        path = tmp_path / f"{name}.wav"
        write_wav(path, 0.5 * np.sin(2 * np.pi * 1000 * time_s), 16000, subtype)
    entries = {f"s-{name}": str(tmp_path / f"{name}.wav") for name in ("pcm", "float")}
    write_one_speaker(tmp_path / "data", entries)
    assert format_data_dir(tmp_path / "data", tmp_path / "dump", 8000) == (0, 2)
    desired = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    for utt_id in entries:
        path = read_table(tmp_path / "dump" / "wav.scp")[utt_id]
        actual, sample_rate = soundfile.read(path)
        assert sample_rate == 8000 and len(actual) == 8000
        # soxr's HQ passband ripple, and the 16-bit rounding of the source
        np.testing.assert_allclose(actual[200:-200], desired[200:-200], atol=1e-4)
        assert soundfile.info(path).subtype == "FLOAT"
    assert validate_data_dir(tmp_path / "dump", sample_rate=8000) == []


def write_one_speaker(data_dir, wav_scp):
    write_table(data_dir / "wav.scp", wav_scp)
    write_table(data_dir / "utt2spk", {utt_id: utt_id.split("-")[0] for utt_id in wav_scp})
    write_table(data_dir / "spk2utt", spk2utt_from(read_table(data_dir / "utt2spk")))


def test_pipes_and_arks_become_wavs(train):
    scp = read_table(train / "wav.scp")
    (pipe_id, pipe), (ark_id, wav), (kept_id, kept) = scp.items()
    ark = {ark_id: (SAMPLE_RATE, soundfile.read(wav, dtype="int16")[0])}
    kaldi_io().save_ark("b.ark", ark, scp="b.scp")
    desired = {utt_id: read_audio(path)[0] for utt_id, path in scp.items()}
    scp.update({pipe_id: f"cat {pipe} |", ark_id: read_table("b.scp")[ark_id]})
    write_table(train / "wav.scp", scp)
    assert format_data_dir(train, "dump/train") == (7 * 3 - 2, 2)
    actual = read_table("dump/train/wav.scp")
    assert actual == {
        pipe_id: f"dump/train/wav/wav/{pipe_id}.wav",
        ark_id: f"dump/train/wav/wav/{ark_id}.wav",
        kept_id: kept,
    }
    for utt_id, path in actual.items():
        np.testing.assert_array_equal(read_audio(path)[0], desired[utt_id])
        assert soundfile.info(path).subtype == "PCM_16"
    assert validate_data_dir("dump/train") == []


def test_rerun_with_pipes_and_arks(train, written):
    """An ark has a time and a size, a pipe only its samples; what is as before keeps its time."""
    scp = read_table(train / "wav.scp")
    pipe_id, ark_id, _ = scp
    old = {utt_id: soundfile.read(scp[utt_id], dtype="int16")[0] for utt_id in (pipe_id, ark_id)}
    piped = scp[pipe_id]

    def save_ark(samples):
        kaldi_io().save_ark("b.ark", {ark_id: (SAMPLE_RATE, samples)}, scp="b.scp")

    save_ark(old[ark_id])
    scp.update({pipe_id: f"cat {piped} |", ark_id: read_table("b.scp")[ark_id]})
    write_table(train / "wav.scp", scp)
    for _ in range(2):
        format_data_dir(train, "dump/train")
    assert len(written) == 2
    times = {path: path.stat().st_mtime_ns for path in Path("dump/train").rglob("*")}
    format_data_dir(train, "dump/train")
    files = [path for path in times if path.is_file()]
    assert [path for path in files if path.stat().st_mtime_ns != times[path]] == []
    save_ark(old[ark_id] // 2)
    format_data_dir(train, "dump/train")
    assert written[2:] == [f"dump/train/wav/wav/{ark_id}.wav"]
    soundfile.write(piped, old[pipe_id] // 2, SAMPLE_RATE)
    format_data_dir(train, "dump/train")
    assert written[3:] == [f"dump/train/wav/wav/{pipe_id}.wav"]
    np.testing.assert_array_equal(soundfile.read(written[3], dtype="int16")[0], old[pipe_id] // 2)


def test_tables_that_the_source_lost_do_not_stay(train):
    format_data_dir(train, "dump/train")
    (train / "spk2.scp").unlink()
    (train / "text_spk2").unlink()
    format_data_dir(train, "dump/train")
    desired = {path.name for path in train.iterdir()} - {"wav"} | {"utt2num_samples"}
    assert {path.name for path in Path("dump/train").iterdir()} == desired


def test_channels_of_the_mixture(train):
    assert format_data_dir(train, "dump/train", channels=[4, 0]) == (6 * 3, 3)
    for utt_id, path in read_table("dump/train/wav.scp").items():
        source, _ = read_audio(read_table(train / "wav.scp")[utt_id])
        np.testing.assert_array_equal(read_audio(path)[0], source[:, [4, 0]])
    assert validate_data_dir("dump/train", num_channels=2) == []
    assert format_data_dir(train, "dump/all", channels=range(6)) == (7 * 3, 0)
    with pytest.raises(AudioError, match=r"utterance 'f03-.*' of wav.scp: .*expected channel 6"):
        format_data_dir(train, "dump/train", channels=[0, 6])


@pytest.mark.parametrize("kind", ["wav", "pipe"])
def test_segments_become_files(tmp_path, kind):
    samples = (noise(8000, 2) * 32768).astype(np.int16) / np.float32(32768)
    data_dir, out_dir = tmp_path / "data", tmp_path / "dump"
    write_wav(tmp_path / "r1.wav", samples, SAMPLE_RATE)
    entry = str(tmp_path / "r1.wav") if kind == "wav" else f"cat {tmp_path}/r1.wav |"
    segments = {"a-1": (0, 0.25), "a-2": (0.5, 1.2)}
    write_one_speaker(data_dir, dict.fromkeys(segments, "x"))
    write_table(data_dir / "wav.scp", {"r1": entry})
    lines = {utt_id: f"r1 {start} {end}" for utt_id, (start, end) in segments.items()}
    write_table(data_dir / "segments", lines)
    write_table(data_dir / "reco2dur", {"r1": 1})
    assert format_data_dir(data_dir, out_dir) == (0, 2)
    scp = read_table(out_dir / "wav.scp")
    np.testing.assert_array_equal(read_audio(scp["a-1"])[0], samples[:2000])
    np.testing.assert_array_equal(read_audio(scp["a-2"])[0], samples[4000:])
    assert read_table(out_dir / "utt2num_samples") == {"a-1": "2000", "a-2": "4000"}
    assert not (out_dir / "segments").exists() and not (out_dir / "reco2dur").exists()
    assert validate_data_dir(out_dir) == []


def test_integers_that_resampling_drives_beyond_full_scale_stay_whole(tmp_path):
    """A full-scale square wave overshoots when it is resampled: FLOAT instead of clipping."""
    square = np.where(np.arange(16000) // 20 % 2, 0.999, -0.999)
    write_wav(tmp_path / "a.wav", square, 16000)
    write_one_speaker(tmp_path / "data", {"s-1": str(tmp_path / "a.wav")})
    format_data_dir(tmp_path / "data", tmp_path / "dump", 8000)
    path = read_table(tmp_path / "dump" / "wav.scp")["s-1"]
    assert soundfile.info(path).subtype == "FLOAT"
    assert np.abs(read_audio(path)[0]).max() > 1


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("scale", [1.0, 1e-4], ids=["0 dB", "-80 dB"])
def test_faint_mics_keep_their_resolution(tmp_path, subtype, scale):
    """16 bits of a mic at -80 dB are three steps. Rewritten for whatever reason, it is what it was, to 24 bits."""
    samples = noise(8000, 2) * np.array([1.0, scale])
    soundfile.write(tmp_path / "r.wav", samples, SAMPLE_RATE, subtype=subtype)
    source, _ = read_audio(tmp_path / "r.wav")
    for name, entry in (("pipe", f"cat {tmp_path}/r.wav |"), ("file", str(tmp_path / "r.wav"))):
        write_one_speaker(tmp_path / name, {"s-1": entry})
        for options in ({"channels": [1, 0]}, {"sample_rate": 16000, "channels": [1, 0]}):
            format_data_dir(tmp_path / name, tmp_path / "dump", **options)
            actual, rate = read_audio(read_table(tmp_path / "dump" / "wav.scp")["s-1"])
            desired = source[:, [1, 0]]
            if rate == 16000:
                desired = soxr.resample(desired, SAMPLE_RATE, rate, quality="HQ")
            np.testing.assert_array_equal(actual, desired)
    # Its own source, 24-bit integers, is the only thing that was ever rounded: 2^-23 of full scale.
    np.testing.assert_allclose(source, samples, atol=2**-23, rtol=1e-6)


def test_what_loses_nothing_is_written_in_16_bits(tmp_path):
    samples = np.rint(noise(800) * 32768) / 32768
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        soundfile.write(tmp_path / "r.wav", samples, SAMPLE_RATE, subtype=subtype)
        write_one_speaker(tmp_path / "data", {"s-1": f"cat {tmp_path}/r.wav |"})
        format_data_dir(tmp_path / "data", tmp_path / "dump")
        path = read_table(tmp_path / "dump" / "wav.scp")["s-1"]
        assert soundfile.info(path).subtype == "PCM_16"
        np.testing.assert_array_equal(read_audio(path)[0][:, 0], samples)


def recordings(folder, files, **segments):
    """A session: scp stem -> (samples, rate, seed of its noise); segment -> its times."""
    for name, (num_samples, rate, seed) in files.items():
        soundfile.write(folder / f"{name}.wav", noise(num_samples, seed=seed), rate, subtype="FLOAT")
    ids = {f"s-{name}": "s" for name in segments} or {"s-r": "s"}
    write_one_speaker(folder / "data", dict.fromkeys(ids, "x"))
    for name in files:
        write_table(folder / "data" / f"{name}.scp", {"r" if segments else "s-r": folder / f"{name}.wav"})
    if segments:
        write_table(folder / "data" / "segments", {f"s-{name}": f"r {times}" for name, times in segments.items()})
    return folder / "data"


def test_the_last_segment_ends_where_the_first_device_stops(tmp_path):
    """Array, two headsets: the second stops first, and the last segment reaches beyond all of them."""
    files = {"wav": (8000, 8000, 0), "closetalk1": (8100, 8000, 1), "closetalk2": (7777, 8000, 2)}
    data_dir = recordings(tmp_path, files, a="0.1 0.6", b="0.6 1.1")
    assert validate_data_dir(data_dir) == []
    format_data_dir(data_dir, tmp_path / "dump")
    assert validate_data_dir(tmp_path / "dump") == []
    assert read_table(tmp_path / "dump" / "utt2num_samples") == {"s-a": "4000", "s-b": str(7777 - 4800)}
    (whole, _), (cut, _) = (read_audio(p) for p in (tmp_path / "wav.wav", tmp_path / "dump/wav/wav/s-b.wav"))
    np.testing.assert_array_equal(cut, whole[4800:7777])
    for utterance in find_utterances(data_dir, ["wav", "closetalk"]):
        waves, _ = utterance.read()
        lengths = {len(wave) for numbered in waves.values() for wave in numbered.values()}
        assert lengths == {int(read_table(tmp_path / "dump" / "utt2num_samples")[utterance.utt_id])}


@pytest.mark.parametrize(
    "closetalk, segments, message",
    [
        (
            (8000, 8001, 1),
            {},
            "closetalk1.scp: utterance 's-r': expected 1.000 s as in wav.scp .8000 Hz., found 1.000 s",
        ),
        ((7999, 8000, 1), {}, "closetalk1.scp: utterance 's-r': expected 8000 samples as in wav.scp, found 7999"),
        ((8000, 8001, 1), {"a": "0 0.5"}, "closetalk1.scp: recording 'r': expected 1.000 s as in wav.scp"),
        (
            (8000, 16000, 1),
            {"a": "0 0.5"},
            "closetalk1.scp: recording 'r': expected 1.000 s .*, found 0.500 s at 16000",
        ),
        (
            (4000, 8000, 1),
            {"a": "0 0.5", "b": "0.5 1"},
            "closetalk1.wav: the segment from 0.5 s to 1.0 s holds no samp",
        ),
        ((3000, 8000, 1), {"a": "0 0.9"}, "closetalk1.wav: the segment ends at 0.9 s, the recording at 0.375 s"),
    ],
    ids=["header", "length", "header and segments", "rate and segments", "another recording", "much shorter"],
)
def test_files_of_a_recording_are_compared_before_they_are_rewritten(tmp_path, closetalk, segments, message):
    data_dir = recordings(tmp_path, {"wav": (8000, 8000, 0), "closetalk1": closetalk}, **segments)
    with pytest.raises(AudioError, match=message):
        format_data_dir(data_dir, tmp_path / "dump", sample_rate=8000)
    assert not (tmp_path / "dump").exists()
    assert validate_data_dir(data_dir) != []


@pytest.mark.parametrize("segments", [{}, {"a": "0 0.5", "b": "0.25 1"}])
def test_devices_of_other_rates_that_last_as_long_fit(tmp_path, segments):
    files = {"wav": (16000, 16000, 0), "closetalk1": (48000, 48000, 1), "closetalk2": (8000, 8000, 2)}
    data_dir = recordings(tmp_path, files, **segments)
    format_data_dir(data_dir, tmp_path / "dump", sample_rate=8000)
    assert validate_data_dir(tmp_path / "dump", sample_rate=8000) == []


def test_rerun_continues(train, written, monkeypatch):
    """The run dies in the middle of a file; the next one makes only what is missing."""
    original = soundfile.SoundFile.write

    def die(self, samples):
        if len(written) == 10:
            raise KeyboardInterrupt
        original(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(soundfile.SoundFile, "write", die)
        with pytest.raises(KeyboardInterrupt):
            format_data_dir(train, "dump/train", sample_rate=16000)
    first = list(written)
    assert len(first) == 10
    # no temporary files, no half-written ones
    assert {str(p) for p in Path("dump/train").rglob("*") if p.is_file()} == set(first)
    assert validate_data_dir("dump/train") != []
    times = [Path(path).stat().st_mtime_ns for path in first]

    assert format_data_dir(train, "dump/train", sample_rate=16000) == (0, 7 * 3)
    assert not set(first) & set(written[10:]) and len(written) == 7 * 3
    assert times == [Path(path).stat().st_mtime_ns for path in first]
    assert validate_data_dir("dump/train", sample_rate=16000, check_audio=False) == []

    assert format_data_dir(train, "dump/train", sample_rate=16000) == (0, 7 * 3)
    assert len(written) == 7 * 3


def test_rerun_makes_again_what_changed(train, written):
    """Other options or another source: the old file has the right name but the wrong content."""
    format_data_dir(train, "dump/train", channels=[0, 1])
    format_data_dir(train, "dump/train", channels=[0, 2])
    assert len(written) == 2 * 3
    utt_id, path = next(iter(read_table(train / "wav.scp").items()))
    write_wav(path, noise(800, 6, seed=99), SAMPLE_RATE)
    format_data_dir(train, "dump/train", channels=[0, 2])
    assert written[6:] == [f"dump/train/wav/wav/{utt_id}.wav"]
    damaged = Path(written[0])
    damaged.write_bytes(damaged.read_bytes()[:-7])
    format_data_dir(train, "dump/train", channels=[0, 2])
    assert written[7:] == [str(damaged)]
    desired = noise(800, 6, seed=99)[:, [0, 2]]
    np.testing.assert_allclose(read_audio(damaged)[0], desired, atol=1 / 32768)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_errors_name_the_utterance(train, num_workers):
    utt_id, path = list(read_table(train / "spk2.scp").items())[1]
    Path(path).write_bytes(Path(path).read_bytes()[:-10])
    with pytest.raises(AudioError, match=f"utterance '{utt_id}' of spk2.scp: {path}: truncated"):
        format_data_dir(train, "dump/train", num_workers=num_workers)
    assert not Path("dump/train/utt2spk").exists()
    Path(path).unlink()
    with pytest.raises(AudioError, match=f"utterance '{utt_id}' of spk2.scp: {path}: no such"):
        format_data_dir(train, "dump/train", num_workers=num_workers)


def test_refuses(train):
    with pytest.raises(ValueError, match="must not replace its source"):
        format_data_dir(train, train)
    with pytest.raises(FileNotFoundError, match="no such data directory"):
        format_data_dir("data/none", "dump/none")
    write_table(train / "segments", {"a": "r9 0 1"})
    with pytest.raises(TableError, match="segments:1: expected recordings of wav.scp, found 'r9'"):
        format_data_dir(train, "dump/train")
    (train / "segments").unlink()
    write_table(train / "wav.scp", {"a/b": "x |"})
    with pytest.raises(TableError, match="wav.scp:1: expected an id that can be the name of a file.*'a/b'"):
        format_data_dir(train, "dump/train")
    (train / "wav.scp").unlink()
    with pytest.raises(FileNotFoundError, match="wav.scp: no such file"):
        format_data_dir(train, "dump/train")


def test_flac_and_float_wav_are_plain(tmp_path):
    for name in ("a.flac", "b.wav", "c.wav"):
        subtype = "FLOAT" if name == "b.wav" else None
        soundfile.write(tmp_path / name, noise(100), SAMPLE_RATE, subtype=subtype)
    # a wav that calls itself something else is judged by its content
    shutil.move(tmp_path / "c.wav", tmp_path / "c.audio")
    scp = {f"s-{name[0]}": str(tmp_path / name) for name in ("a.flac", "b.wav", "c.audio")}
    write_one_speaker(tmp_path / "data", scp)
    assert format_data_dir(tmp_path / "data", tmp_path / "dump", SAMPLE_RATE) == (3, 0)
    assert read_table(tmp_path / "dump" / "wav.scp") == scp
