"""Something else in the place of a table, and ids that are no names: refused wherever a data dir is read or written."""

import os
import shutil

import pytest
from data_dir_example import make_data_dir

from espnet2_m2m.data_dir import (
    TableError,
    filter_data_dir,
    format_data_dir,
    read_segments,
    read_table,
    require_finished,
    subset_data_dir,
    validate_data_dir,
    write_table,
)
from espnet2_m2m.data_dir.directory import begin_data_dir
from espnet2_m2m.data_dir.ids import id_path, id_problem
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.data_dir.tables import parse_number
from espnet2_m2m.data_dir.talkers import talker_ids, transcripts


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    data_dir = make_data_dir(tmp_path_factory.mktemp("good") / "train", [800, 900, 1000])
    write_table(data_dir / "utt2num_samples", dict.fromkeys(read_table(data_dir / "utt2spk"), 8000))
    return data_dir


@pytest.fixture
def train(good, tmp_path):
    return shutil.copytree(good, tmp_path / "train")


STAND_INS = {
    "a link to 'nowhere'": lambda path: path.symlink_to("nowhere"),
    "a link to '{name}'": lambda path: path.symlink_to(path.name),
    "a folder": lambda path: path.mkdir(),
    "a named pipe": os.mkfifo,  # opening it would wait for ever
    "a named pipe, socket or device": lambda path: path.symlink_to("/dev/zero"),  # reading it would never end
}


@pytest.mark.parametrize("found", STAND_INS)
@pytest.mark.parametrize("name", ["text_spk2", "scenes.jsonl", "segments", "closetalk2.scp", "utt2spk"])
def test_what_is_no_file(train, tmp_path, name, found):
    """They were taken for missing: a subset had no transcripts, segments were not cut, without a word."""
    (train / name).unlink(missing_ok=True)
    STAND_INS[found](train / name)
    found = found.format(name=name)
    message = f"{train / name}: expected a file, found {found}"
    problems = [str(problem) for problem in validate_data_dir(train, check_audio=False)]
    assert len([problem for problem in problems if problem.startswith(message)]) == 1, problems
    attempts = [
        lambda: subset_data_dir(train, tmp_path / "small", ["f03-m01-train00000"]),
        lambda: filter_data_dir(train, tmp_path / "small"),
        lambda: format_data_dir(train, tmp_path / "formatted"),
        lambda: require_finished(train),
    ]
    if name == "text_spk2":
        attempts.append(lambda: transcripts(train))
    if name == "scenes.jsonl":
        attempts += [lambda: talker_ids(train), lambda: read_scenes(train / name)]
    if name == "segments":
        attempts.append(lambda: read_segments(train))
    for attempt in attempts:
        with pytest.raises(TableError) as error:
            attempt()
        assert str(error.value).startswith(message)
    assert not (tmp_path / "small").exists() and not (tmp_path / "formatted").exists()


def test_other_folders_and_hidden_files_are_nobodys_business(train):
    (train / "logs").mkdir()
    (train / ".#wav.scp").symlink_to("user@host")  # of an editor
    assert validate_data_dir(train, check_audio=False) == []
    (train / "simulation.json").symlink_to("nowhere")  # no table, but a subset would copy it
    (problem,) = validate_data_dir(train, check_audio=False)
    assert "simulation.json: expected a file" in str(problem)


def test_a_dead_link_of_an_earlier_run_is_removed(tmp_path):
    (tmp_path / "text").symlink_to("nowhere")
    begin_data_dir(tmp_path, ["wav.scp"])
    assert not os.path.lexists(tmp_path / "text")


@pytest.mark.parametrize("make", [subset_data_dir, filter_data_dir, format_data_dir])
def test_a_line_is_not_lost_without_a_word(train, tmp_path, make):
    """The filter told "kept 2, removed 0" of three utterances when utt2spk lacked one."""
    utt2spk = read_table(train / "utt2spk")
    lost = utt2spk.popitem()[0]
    write_table(train / "utt2spk", utt2spk)
    options = [list(utt2spk)] if make is subset_data_dir else []
    with pytest.raises(TableError, match=f"closetalk1.scp:3: expected only ids of utt2spk, found '{lost}'.* more"):
        make(train, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_an_utterance_without_samples_is_named(train, tmp_path):
    """It was "1 too short"."""
    utt2num_samples = read_table(train / "utt2num_samples")
    utt2num_samples["f03-m01-train00002"] = 0
    write_table(train / "utt2num_samples", utt2num_samples)
    with pytest.raises(TableError, match="utt2num_samples:2: expected an integer > 0, found `f03-m01-train00002 0`"):
        filter_data_dir(train, tmp_path / "out")


@pytest.mark.parametrize("utt_id", ["a", "a-1_2.b", "ä", "\U0001f600", "a\u200bb", "-a", "a" * 200, "~"])
def test_ids_that_are_names(tmp_path, utt_id):
    path = id_path(tmp_path, utt_id, ".wav")
    path.touch()
    assert path.resolve().parent == tmp_path.resolve() and path.name == f"{utt_id}.wav"
    assert [utt_id] == utt_id.split() == utt_id.splitlines()


BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"


@pytest.mark.parametrize(
    "utt_id",
    ["", "a/b", "/a", "..", "../a", ".a", "a" * 201, "ä" * 101, "a\0", "a\x1b[2J", "\ud800"]
    + [f"a{blank}b" for blank in BLANKS],
)
def test_ids_that_are_not(tmp_path, utt_id):
    assert id_problem(utt_id).startswith("expected an id ")
    with pytest.raises(ValueError, match="expected an id"):
        id_path(tmp_path, utt_id, ".wav")


def test_no_table_with_such_keys_or_values_is_written(tmp_path):
    for key, value in (("a\xa0b", "x"), ("\ud800", "x"), ("a", "\udcff.wav"), ("a", "x\ny")):
        with pytest.raises(TableError, match=f"{tmp_path}/wav.scp: "):
            write_table(tmp_path / "wav.scp", {key: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "desired"), [("1", 1.0), ("-.5", -0.5), ("5.", 5.0), ("+1e3", 1000.0), ("1e-400", 0.0)]
)
def test_numbers(text, desired):
    assert parse_number(text) == desired


@pytest.mark.parametrize(
    "text", ["", "1_0", "nan", "inf", "1e15", "9" * 5000, "1e305", "\u0663", "0x1", "1 ", "1,5", "e5"]
)
def test_what_kaldi_does_not_read_as_a_number(text):
    assert parse_number(text) is None


def test_messages_show_what_cannot_be_seen(train):
    """A name that is not UTF-8 ended in a UnicodeEncodeError, an escape sequence cleared the terminal."""
    (train / os.fsdecode(b"\xff.scp")).write_text("a\u200b\x1b[2J b\n")
    problems = [str(problem) for problem in validate_data_dir(train, check_audio=False)]
    assert problems and all("\\udcff.scp" in problem for problem in problems)
    assert any("a\\u200b\\x1b[2J" in problem for problem in problems)
    assert all(problem.isprintable() for problem in problems)


def test_a_scene_twice(train):
    content = (train / "scenes.jsonl").read_text()
    (train / "scenes.jsonl").write_text(content + content.partition("\n")[0] + "\n")
    with pytest.raises(TableError, match="scenes.jsonl:4: expected each utt_id once, found 'f03-m01-train00000' again"):
        read_scenes(train / "scenes.jsonl")


@pytest.mark.parametrize(
    ("line", "desired"),
    [
        ("a\xa0b x", "white space and control characters, found U\\+00A0"),
        ("a cat \0 |", "found a NUL byte in the value"),
    ],
)
def test_tables_that_no_command_reads(tmp_path, line, desired):
    (tmp_path / "wav.scp").write_text(f"{line}\n")
    with pytest.raises(TableError, match=f"{tmp_path}/wav.scp:1: .*{desired}"):
        read_table(tmp_path / "wav.scp")
