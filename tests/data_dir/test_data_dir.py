"""Tables, audio entries and the parts of a data dir."""

import errno
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
from data_dir_example import SAMPLE_RATE, SCPS, make_data_dir, noise

import espnet2_m2m.data_dir.audio
from espnet2_m2m.data_dir import (
    AudioError,
    TableError,
    atomic_path,
    audio_header,
    audio_scps,
    filter_data_dir,
    read_audio,
    read_segments,
    read_table,
    require_finished,
    spk2utt_from,
    subset_data_dir,
    validate_data_dir,
    write_table,
    write_text,
    write_wav,
)
from espnet2_m2m.data_dir.audio import comment_of, kaldi_io, new_sound_file
from espnet2_m2m.data_dir.directory import consecutive_files
from espnet2_m2m.data_dir.tables import temporary_folder, write_bytes

# ---- tables


def test_write_table_sorts_as_the_c_locale_does(tmp_path):
    """Oracle: `LC_ALL=C sort`."""
    keys = ["b", "B", "a-2", "a_1", "a", "ä", "\U0001f600", "\ufb00", "10", "9"]
    write_table(tmp_path / "text", dict.fromkeys(keys, "x"))
    command = ["sort", "-k1,1", "-C", str(tmp_path / "text")]
    assert subprocess.run(command, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).returncode == 0


# What may stand in a table: keys are one word, values one line.
WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8).filter(
    lambda word: word.split() == [word]
)
VALUES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


@hypothesis.given(st.dictionaries(WORDS, VALUES, min_size=1, max_size=8))
@hypothesis.settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory, mapping):
    path = tmp_path_factory.mktemp("table") / "t"
    write_table(path, mapping)
    actual = read_table(path)
    assert actual == mapping
    assert list(actual) == sorted(mapping, key=str.encode)


@hypothesis.given(st.sets(WORDS.map(lambda word: word.replace("/", "-").replace(".", "-")), min_size=1, max_size=8))
@hypothesis.settings(max_examples=40, deadline=None)
def test_what_is_written_is_valid(tmp_path_factory, speakers):
    """Speaker ids followed by '-' are not yet safe when an id holds a character below '-' or is a
    prefix of another with one; equal lengths are, whatever the characters."""
    width = max(len(speaker.encode()) for speaker in speakers)
    speakers = {speaker + "0" * (width - len(speaker.encode())) for speaker in speakers}
    data_dir = tmp_path_factory.mktemp("data")
    utt2spk = {f"{spk}-{example}": spk for spk in speakers for example in ("u1", "U2", "ü")}
    write_table(data_dir / "wav.scp", dict.fromkeys(utt2spk, "a.wav"))
    write_table(data_dir / "utt2spk", utt2spk)
    write_table(data_dir / "spk2utt", spk2utt_from(read_table(data_dir / "utt2spk")))
    assert validate_data_dir(data_dir, check_audio=False) == []


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a 1\nb 2\na 3\n", "t:3: duplicate key 'a'"),
        (b"a 1\n\nb 2\n", "t:2: expected `key value`, found a blank line"),
        (b"a 1\nb\n", "t:2: expected `key value`, found only the key 'b'"),
        (b"a 1\r\n", "t:1: carriage return"),
        (b"a 1\nb \xe4\n", "t:2: not UTF-8"),
    ],
)
def test_read_table_names_file_and_line(tmp_path, content, message):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_table(tmp_path / "t")


def test_read_table_details(tmp_path):
    (tmp_path / "t").write_bytes("a\tsox  x.wav -t wav - |\nb  \u2028 y\nc\n".encode())
    desired = {"a": "sox  x.wav -t wav - |", "b": "\u2028 y", "c": ""}
    assert read_table(tmp_path / "t", allow_empty=True) == desired
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "u")


@pytest.mark.parametrize("mapping", [{"a b": "1"}, {"": "1"}, {"a": "1\n2"}, {"a\u00a0": "1"}])
def test_write_table_refuses(tmp_path, mapping):
    with pytest.raises(TableError):
        write_table(tmp_path / "t", mapping)
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt" and temporary.parent == path.parent
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []

    path.write_text("old")
    with pytest.raises(ValueError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "old"

    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_what_a_killed_writer_left_is_taken_over(tmp_path):
    """Else a hidden half of a file of hours would stay for good."""
    path = tmp_path / "a.wav"
    script = "import os, sys; from espnet2_m2m.data_dir import atomic_path\nwith atomic_path(sys.argv[1]) as temporary:"
    script += "\n temporary.write_text('half a file'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_path(path) as temporary:
        assert temporary.read_text() == ""
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_two_who_write_the_same_file_do_not_mix(tmp_path):
    """Two jobs beside each other: each writes its own file, and the last to end gives the name to a whole one."""
    path = tmp_path / "a.wav"
    with atomic_path(path) as first:
        first.write_text("first")
        with atomic_path(path) as second:
            assert second != first and second.suffix == ".wav"
            second.write_text("second")
        assert path.read_text() == "second" and first.read_text() == "first"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_disk_without_locks(tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    with atomic_path(tmp_path / "a.wav") as temporary:
        temporary.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("weights")
    (tmp_path / ".a.tmp.wav").symlink_to("precious")
    with atomic_path(tmp_path / "a.wav") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "precious").read_text() == "weights" and (tmp_path / "a.wav").read_text() == "new"


def test_a_full_disk_is_named(tmp_path):
    """Here by a limit of file sizes; the system's own error says neither which file nor what to do."""
    script = """
import resource, sys, numpy as np
from espnet2_m2m.data_dir import write_text, write_wav
from espnet2_m2m.data_dir.cache import Cache
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
folder = sys.argv[1]
for write in (
    lambda: write_text(f"{folder}/a.txt", "a" * 30000),
    lambda: write_wav(f"{folder}/a.wav", np.zeros(30000), 8000),
    lambda: Cache(f"{folder}/a.jsonl", {"utt": "key"}).keep("utt", "a" * 30000),
):
    try:
        write()
    except OSError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], text=True, capture_output=True)
    assert re.sub(r"\(.*?\)", "()", done.stdout).splitlines() == [
        f"{tmp_path}/a.txt: cannot be written (); make room there and run the command again",
        f"{tmp_path}/a.wav: cannot be written (); is the disk full?",
        f"{tmp_path}/a.jsonl: cannot be written (); make room there and run the command again",
    ]
    assert done.stderr == "" and [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_the_folder_of_a_killed_process_goes_and_that_of_a_live_one_stays(tmp_path, monkeypatch):
    """Unpacked weights would else fill the temporary folder, copy by copy."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    script = "import os; from espnet2_m2m.data_dir.tables import temporary_folder\nwith temporary_folder() as folder:"
    script += "\n (folder / 'model.pth').write_text('weights'); os.kill(os.getpid(), 9)"
    with temporary_folder() as alive:
        (alive / "keys").touch()
        assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 2
        with temporary_folder() as folder:
            assert {*tmp_path.iterdir()} == {alive, folder}
        assert (alive / "keys").is_file()
    assert not list(tmp_path.iterdir())


# ---- audio


@pytest.mark.parametrize("form", ["WAV", "RF64"])
def test_the_same_input_makes_the_same_bytes(tmp_path, form):
    """libsndfile notes when a wav of floats was written."""
    for second, name in enumerate(("a.wav", "b.wav")):
        with new_sound_file(tmp_path / name, SAMPLE_RATE, 2, "FLOAT", form, comment="made of") as file:
            file.write(np.full((100, 2), [0.1, -0.2]))
        if second == 0:
            time.sleep(1.1)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert (b"PEAK" in (tmp_path / "a.wav").read_bytes()) is (form == "WAV")  # whose time of writing it would hold
    assert comment_of(tmp_path / "a.wav") == "made of"
    np.testing.assert_allclose(soundfile.read(tmp_path / "b.wav")[0], np.full((100, 2), [0.1, -0.2]), atol=1e-8)


def test_pcm16_is_rounded_and_lossless_for_int16(tmp_path):
    desired = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
    write_wav(tmp_path / "a.wav", desired / 32768, SAMPLE_RATE)
    actual, sample_rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(actual, desired)
    assert sample_rate == SAMPLE_RATE

    samples = noise(1000, 3)
    write_wav(tmp_path / "a.wav", samples, SAMPLE_RATE, "PCM_16")
    actual, _ = read_audio(tmp_path / "a.wav")
    # Half a quantisation step (and float32's own rounding): truncation would give a whole one.
    np.testing.assert_allclose(actual, samples, atol=0.5001 / 32768, rtol=0)
    assert actual.dtype == np.float32 and actual.shape == (1000, 3)


@pytest.mark.parametrize(
    "samples, message",
    [
        ([0.0, 1.0], "peak 1 would clip"),
        ([0.0, -1.5], "peak 1.5 would clip"),
        ([0.0, np.nan], "found NaN or Inf; nothing was written"),
        ([0.0, -1e30], "at most 4.29e[+]09 .full scale is 1., found 1e[+]30; nothing was written"),
        ([], "expected samples"),
    ],
)
def test_write_wav_refuses(tmp_path, samples, message):
    with pytest.raises(AudioError, match=f"x.wav: .*{message}"):
        write_wav(tmp_path / "x.wav", np.array(samples), SAMPLE_RATE, "PCM_16")
    assert list(tmp_path.iterdir()) == []


def test_write_wav_is_atomic(tmp_path, monkeypatch):
    def write_half(self, samples):
        raise OSError("disc full")

    monkeypatch.setattr(soundfile.SoundFile, "write", write_half)
    with pytest.raises(OSError, match="disc full"):
        write_wav(tmp_path / "x.wav", noise(10), SAMPLE_RATE)
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_entry_gives_the_same_samples(tmp_path):
    samples = (noise(400, 2) * 32768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.flac", samples, SAMPLE_RATE)
    ark = {"u": (SAMPLE_RATE, noise(9)[:, None]), "v": (SAMPLE_RATE, samples)}
    ark["u"] = (SAMPLE_RATE, (ark["u"][1] * 32768).astype(np.int16))
    kaldi_io().save_ark(str(tmp_path / "b.ark"), ark, scp=str(tmp_path / "b.scp"))
    entries = [
        str(tmp_path / "a.wav"),
        str(tmp_path / "a.flac"),
        f"cat '{tmp_path}/a.wav' |",
        read_table(tmp_path / "b.scp")["v"],
    ]
    for entry in entries:
        actual, sample_rate = read_audio(entry)
        np.testing.assert_array_equal(actual, samples / np.float32(32768))
        assert sample_rate == SAMPLE_RATE and actual.dtype == np.float32
        assert audio_header(entry) == (400, 2, SAMPLE_RATE)
        cut, _ = read_audio(entry, segment=(0.01, 0.02))
        np.testing.assert_array_equal(cut, actual[80:160])
        overshoot, _ = read_audio(entry, segment=(0.01, 0.5))
        np.testing.assert_array_equal(overshoot, actual[80:])
        for segment in [(0.01, 0.6), (0.05, 0.3)]:
            with pytest.raises(AudioError, match="segment"):
                read_audio(entry, segment=segment)


def truncate(path, num_bytes):
    path.write_bytes(path.read_bytes()[:-num_bytes])


@pytest.mark.parametrize("kind", ["wav", "float wav", "flac", "pipe", "ark", "headless", "RF64"])
def test_truncated_audio_is_found(tmp_path, kind):
    """libsndfile reads a truncated wav as a shorter one without an error."""
    suffix = "flac" if kind == "flac" else "wav"
    path = tmp_path / f"a.{suffix}"
    subtype = {"float wav": "FLOAT"}.get(kind, "PCM_16")
    container = {"flac": "FLAC", "RF64": "RF64"}.get(kind, "WAV")
    soundfile.write(path, noise(9000), SAMPLE_RATE, subtype=subtype, format=container)
    entry = str(path)
    if kind == "ark":
        path = tmp_path / "a.ark"
        ark = {"u": (SAMPLE_RATE, (noise(9000) * 32768).astype(np.int16))}
        kaldi_io().save_ark(str(path), ark, scp=str(tmp_path / "a.scp"))
        entry = read_table(tmp_path / "a.scp")["u"]
    if kind == "pipe":
        entry = f"cat {path} |"
    assert len(read_audio(entry)[0]) == 9000
    if kind == "headless":
        path.write_bytes(path.read_bytes()[:30])
    else:
        truncate(path, 2000)
    with pytest.raises(AudioError) as caught:
        read_audio(entry)
    assert str(path) in str(caught.value)
    if kind not in ("flac", "headless"):
        assert "truncated" in str(caught.value)


def test_streamed_wav_has_no_length_to_check(tmp_path):
    """sox and ffmpeg write a huge length when they stream to a pipe."""
    soundfile.write(tmp_path / "a.wav", noise(100), SAMPLE_RATE, subtype="PCM_16")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    assert content[36:40] == b"data"
    content[40:44] = struct.pack("<I", 0x7FFFFFFF - 36)
    (tmp_path / "a.wav").write_bytes(content)
    assert read_audio(f"cat {tmp_path}/a.wav |")[0].shape == (100, 1)


@pytest.mark.parametrize(
    "entry, message",
    [
        ("no/such.wav", "no/such.wav: no such audio file"),
        ("no/such.ark:12", "no/such.ark: no such audio file"),
        ("echo oops >&2; exit 3 |", r"exit 3 \|: the command ended with status 3 \(oops\)"),
        ("echo text |", r"echo text \|: not readable as audio"),
    ],
)
def test_read_audio_names_the_entry(entry, message):
    with pytest.raises(AudioError, match=message):
        read_audio(entry)


@pytest.mark.parametrize("entry", ["a.wav", "a.ark:5"])
def test_what_the_system_refuses_is_an_audio_error(tmp_path, monkeypatch, entry):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    (tmp_path / entry.partition(":")[0]).touch()
    monkeypatch.setattr(espnet2_m2m.data_dir.audio, "open", refuse, raising=False)
    with pytest.raises(AudioError, match=f"{entry}: cannot be read .Permission denied.; check"):
        read_audio(entry)


def test_ark_without_audio(tmp_path):
    kaldi_io().save_ark(str(tmp_path / "f.ark"), {"u": noise(5, 4)}, scp=str(tmp_path / "f.scp"))
    with pytest.raises(AudioError, match="matrix without a sample rate"):
        read_audio(read_table(tmp_path / "f.scp")["u"])


@pytest.mark.parametrize(
    "place, message",
    [
        ("1000", "expected an offset below the 88 bytes of the file"),
        (30 * "9", "expected an offset below the 88 bytes of the file"),
        ("4[5:2]", "holds no samples"),
        ("4[100:200]", "holds no samples"),
        ("4[1:2:3]", r"expected a range of samples"),
        ("4[1,2,3]", r"expected a range of samples"),
    ],
)
def test_places_that_an_ark_does_not_have(tmp_path, place, message):
    ark = tmp_path / "a.ark"
    kaldi_io().save_ark(str(ark), {"utt": (SAMPLE_RATE, np.zeros((20, 1), np.int16))})
    with pytest.raises(AudioError) as error:
        read_audio(f"{ark}:{place}")
    assert str(error.value).startswith(f"{ark}:{place}: {message}")


@pytest.mark.parametrize(
    "place, rows, columns",
    [("[2:4]", slice(2, 5), slice(None)), ("[7]", slice(7, 8), slice(None)), ("[,1:2]", slice(None), slice(1, 3))]
    + [("[0:19, 0:0]", slice(None), slice(0, 1)), ("[:]", slice(None), slice(None))],
)
def test_ranges_of_an_ark_include_their_end(tmp_path, place, rows, columns):
    """Kaldi's, which kaldiio reads and omniio does not."""
    samples = np.arange(60, dtype=np.int16).reshape(20, 3)
    kaldi_io().save_ark(str(tmp_path / "a.ark"), {"utt": (SAMPLE_RATE, samples)})
    read, rate = read_audio(f"{tmp_path}/a.ark:4{place}")
    np.testing.assert_array_equal(read, samples[rows, columns] / np.float32(2**15))
    assert rate == SAMPLE_RATE


def test_ark_without_what_reads_it(tmp_path, monkeypatch):
    """espnet 202511 brings kaldiio, 202611 omniio; another one may bring neither."""
    (tmp_path / "a.ark").write_bytes(bytes(20))
    monkeypatch.setitem(sys.modules, "kaldiio", None)
    monkeypatch.setitem(sys.modules, "omniio", None)
    with pytest.raises(AudioError, match="a.ark:2: reading an ark needs omniio or kaldiio; pip install omniio"):
        read_audio(f"{tmp_path}/a.ark:2")


# ---- parts of a data dir


def ids_in_files(data_dir):
    """Ids per file, read literally."""
    ids = {}
    for path in Path(data_dir).iterdir():
        if path.name == "scenes.jsonl":
            ids[path.name] = [json.loads(line)["utt_id"] for line in path.open()]
        elif path.is_file():
            ids[path.name] = [line.split()[0] for line in path.open()]
    return ids


def test_listing(tmp_path):
    data_dir = make_data_dir(tmp_path / "train", [100])
    (data_dir / "spk10.scp").write_text("")
    (data_dir / "feats.scp").write_text("")
    assert audio_scps(data_dir) == ["wav.scp", *SCPS[:-1], "spk10.scp"]


def first_utterances(data_dir, num_utterances):
    return list(read_table(data_dir / "utt2spk"))[:num_utterances]


def test_subset_again(tmp_path):
    """Nothing changed: no file does. A table that the source lost does not stay behind."""
    data_dir, out_dir = make_data_dir(tmp_path / "train", [100] * 3), tmp_path / "small"
    first = first_utterances(data_dir, 2)
    subset_data_dir(data_dir, out_dir, first)
    before = {path: path.stat().st_mtime_ns for path in out_dir.iterdir()}
    subset_data_dir(data_dir, out_dir, first)
    assert {path: path.stat().st_mtime_ns for path in out_dir.iterdir()} == before
    (out_dir / "remarks.md").write_text("mine")
    (data_dir / "closetalk_spk2.scp").unlink()
    subset_data_dir(data_dir, out_dir, first)
    actual = {path.name for path in out_dir.iterdir()}
    assert actual == {path.name for path in before} - {"closetalk_spk2.scp"} | {"remarks.md"}


def test_require_finished(tmp_path):
    data_dir = make_data_dir(tmp_path / "train", [100] * 3)
    require_finished(data_dir)
    utt2spk = read_table(data_dir / "utt2spk")
    (data_dir / "utt2spk").unlink()
    with pytest.raises(TableError, match="no utt2spk, so the data dir did not finish"):
        require_finished(data_dir)
    utt_id = utt2spk.popitem()[0]
    write_table(data_dir / "utt2spk", utt2spk)
    with pytest.raises(TableError, match=f"only one has '{utt_id}': .* run its stage again"):
        require_finished(data_dir)


def test_subset_keeps_all_files_consistent(tmp_path):
    data_dir = make_data_dir(tmp_path / "train", [100] * 5)
    (data_dir / "feats_type").write_text("raw\n")
    first = first_utterances(data_dir, 2)
    subset_data_dir(data_dir, tmp_path / "small", first)
    ids = ids_in_files(tmp_path / "small")
    assert ids.pop("feats_type") == ["raw"]
    assert ids.pop("spk2utt") == ["f03-m01"]
    assert set(ids) == set(ids_in_files(data_dir)) - {"feats_type", "spk2utt"}
    assert all(actual == first for actual in ids.values()), ids
    assert validate_data_dir(tmp_path / "small", num_speakers=2) == []


def test_subset_with_segments(tmp_path):
    data_dir = tmp_path / "train"
    entries = {reco: str(data_dir / "wav" / f"{reco}.wav") for reco in ("r1", "r2")}
    for path in entries.values():
        write_wav(path, noise(8000, 2), SAMPLE_RATE)
    write_table(data_dir / "wav.scp", entries)
    segments = {"a-1": "r1 0 0.4", "a-2": "r1 0.5 1", "b-1": "r2 0.25 0.75"}
    write_table(data_dir / "segments", segments)
    write_table(data_dir / "utt2spk", {utt_id: utt_id[0] for utt_id in segments})
    write_table(data_dir / "spk2utt", {"a": "a-1 a-2", "b": "b-1"})
    write_table(data_dir / "reco2dur", {"r1": 1, "r2": 1})
    assert read_segments(data_dir)["a-2"] == ("r1", 0.5, 1.0)
    assert validate_data_dir(data_dir) == []
    subset_data_dir(data_dir, tmp_path / "small", ["a-2"])
    assert ids_in_files(tmp_path / "small") == {
        "wav.scp": ["r1"],
        "reco2dur": ["r1"],
        "segments": ["a-2"],
        "utt2spk": ["a-2"],
        "spk2utt": ["a"],
    }
    assert validate_data_dir(tmp_path / "small") == []


def test_subset_refuses(tmp_path):
    data_dir = make_data_dir(tmp_path / "train", [100, 100])
    with pytest.raises(ValueError, match="another directory"):
        subset_data_dir(data_dir, data_dir, first_utterances(data_dir, 1))
    with pytest.raises(ValueError, match="unknown ids 'x'"):
        subset_data_dir(data_dir, tmp_path / "small", ["x"])
    with pytest.raises(ValueError, match="found none"):
        subset_data_dir(data_dir, tmp_path / "small", [])
    assert not (tmp_path / "small").exists()


def test_interrupted_subset_is_not_valid(tmp_path, monkeypatch):
    """An old, complete subset is overwritten and the run dies: utt2spk is missing, not stale."""
    data_dir = make_data_dir(tmp_path / "train", [100, 100, 100])
    subset_data_dir(data_dir, tmp_path / "small", first_utterances(data_dir, 1))

    def die(path, mapping):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("espnet2_m2m.data_dir.subset.write_table", die)
        with pytest.raises(KeyboardInterrupt):
            subset_data_dir(data_dir, tmp_path / "small", first_utterances(data_dir, 2))
    assert any("utt2spk" in str(problem) for problem in validate_data_dir(tmp_path / "small"))
    subset_data_dir(data_dir, tmp_path / "small", first_utterances(data_dir, 2))
    assert validate_data_dir(tmp_path / "small") == []


def test_filter_by_duration(tmp_path):
    """Both limits are exclusive, as in ESPnet's stage 4."""
    lengths = [799, 800, 801, 1599, 1600]
    data_dir = make_data_dir(tmp_path / "org", lengths, speakers=("f03-m01",))
    with pytest.raises(FileNotFoundError, match="utt2num_samples: no such file; format_data_dir"):
        filter_data_dir(data_dir, tmp_path / "train")
    utt_ids = list(read_table(data_dir / "utt2spk"))
    write_table(data_dir / "utt2num_samples", dict(zip(utt_ids, lengths)))
    kept, too_short, too_long = filter_data_dir(data_dir, tmp_path / "train", 0.1, 0.2)
    assert (kept, too_short, too_long) == (utt_ids[2:4], utt_ids[:2], utt_ids[4:])
    assert validate_data_dir(tmp_path / "train") == []
    assert list(read_table(tmp_path / "train" / "wav.scp")) == kept
    with pytest.raises(ValueError, match=r"\(5 \('f03-m01-train00000', .*\) too short, 0 too long\)"):
        filter_data_dir(data_dir, tmp_path / "none", 1.0, 2.0)
    assert not (tmp_path / "none").exists()


def test_numbered_files_must_have_no_gaps_where_all_are_needed(tmp_path):
    """Source 2 of a loss, or of the scores, would silently be talker 3."""
    for numbers, found in (((), "none"), ((2,), "text_spk2"), ((1, 3), "text_spk1, text_spk3")):
        for number in numbers:
            (tmp_path / f"text_spk{number}").touch()
        with pytest.raises(ValueError, match=f"words: expected text_spk1, text_spk2 ... without a gap, found {found};"):
            consecutive_files(tmp_path, "text_spk", "words")
        for number in numbers:
            (tmp_path / f"text_spk{number}").unlink()
    (tmp_path / "spk1.scp").touch()
    assert consecutive_files(tmp_path, "spk", "talkers") == [1]


def test_write_text_makes_the_file_anew(tmp_path):
    """A study asks by their times whether scores are newer than the model: the same scores are new, too."""
    path = tmp_path / "new" / "summary.json"
    write_text(path, "ä")
    os.utime(path, ns=(1, 1))
    write_text(path, "ä")
    assert path.read_bytes() == "ä".encode() and path.stat().st_mtime_ns > 1
    os.utime(path, ns=(1, 1))
    write_bytes(path, "ä".encode())
    assert path.stat().st_mtime_ns == 1, "a table of the same content keeps its time"
