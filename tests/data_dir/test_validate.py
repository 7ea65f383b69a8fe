"""Every rule of the validator, each with a data dir that breaks it alone, and all at once."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data_dir_example import SAMPLE_RATE, make_data_dir, noise

from espnet2_m2m.data_dir import (
    inspect_data_dir,
    read_audio,
    read_table,
    spk2utt_from,
    validate_data_dir,
    write_table,
    write_wav,
)
from espnet2_m2m.data_dir.audio import kaldi_io

U0, U1, U2 = "f03-m01-train00000", "f03-m01-train00002", "f04-m02-train00001"  # in C-locale order


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_data_dir(tmp_path_factory.mktemp("good") / "train", [800, 900, 1000])


@pytest.fixture
def train(good, tmp_path, monkeypatch):
    """A copy of the good dir to break, with relative paths, as data/train of the working dir."""
    monkeypatch.chdir(tmp_path)
    data_dir = Path("data/train")
    shutil.copytree(good, data_dir)
    for path in data_dir.glob("*.scp"):
        path.write_text(path.read_text().replace(str(good), str(data_dir)))
    return data_dir


def edit(name, old, new):
    """A way to break a file: replace bytes once."""

    def change(data_dir):
        content = (data_dir / name).read_bytes()
        assert old in content, (name, content)
        (data_dir / name).write_bytes(content.replace(old, new, 1))

    return change


def write(name, content):
    return lambda data_dir: (data_dir / name).write_bytes(content)


def remove(name):
    return lambda data_dir: (data_dir / name).unlink()


def audio(stem, utt_id, change, **options):
    """A way to break a wav: change(samples) -> samples."""

    def rewrite(data_dir):
        path = str(data_dir / "wav" / stem / f"{utt_id}.wav")
        samples, sample_rate = read_audio(path)
        settings = {"samplerate": sample_rate, "subtype": "PCM_16", **options}
        soundfile.write(path, change(samples.copy()), **settings)

    return rewrite


def silence(*channels):
    def change(samples):
        samples[:, list(channels)] = 0
        return samples

    return change


def with_nan(samples):
    samples[5] = np.nan
    return samples


def copy_of(stem, utt_id, other_stem, other_id):
    """A way to break a set: what one file holds stands in another, too."""

    def change(data_dir):
        shutil.copy(data_dir / "wav" / stem / f"{utt_id}.wav", data_dir / "wav" / other_stem / f"{other_id}.wav")

    return change


def cut_file(data_dir):
    path = data_dir / "wav" / "spk1" / f"{U1}.wav"
    path.write_bytes(path.read_bytes()[:-100])


def swap_first_lines(name):
    def change(data_dir):
        first, second, *rest = (data_dir / name).read_text().splitlines(keepends=True)
        (data_dir / name).write_text("".join([second, first, *rest]))

    return change


def prefix_pitfall(data_dir):
    """'a_b' and 'a_b2': sorted by utterance 'a_b2_1' < 'a_b_1', by speaker 'a_b' < 'a_b2'."""
    utt2spk = {"a_b2_1": "a_b2", "a_b_1": "a_b"}
    write_table(data_dir / "utt2spk", utt2spk)
    write_table(data_dir / "spk2utt", spk2utt_from(utt2spk))
    for name in ("wav.scp", "closetalk1.scp", "closetalk2.scp"):
        entries = list(read_table(data_dir / name).values())
        write_table(data_dir / name, dict(zip(utt2spk, entries)))
    for path in data_dir.iterdir():
        keep = ("utt2spk", "spk2utt", "wav.scp", "closetalk1.scp", "closetalk2.scp")
        if path.is_file() and path.name not in keep:
            path.unlink()


def as_segments(data_dir, lines):
    recordings = {f"r{n}": path for n, path in enumerate(read_table(data_dir / "wav.scp").values())}
    for path in data_dir.iterdir():
        if path.is_file() and path.name not in ("utt2spk", "spk2utt"):
            path.unlink()
    write_table(data_dir / "wav.scp", recordings)
    (data_dir / "segments").write_text("".join(f"{line}\n" for line in lines))


def segments(*lines):
    return lambda data_dir: as_segments(data_dir, lines)


# what is done to the dir; what the one line must begin with, after "data/train/"; a later part
BROKEN = {
    "no utt2spk": (remove("utt2spk"), "utt2spk: no such file", "create"),
    "no spk2utt": (remove("spk2utt"), "spk2utt: no such file", "create"),
    "no wav.scp": (remove("wav.scp"), "wav.scp: no such file", "create"),
    "empty": (write("spk2utt", b""), "spk2utt: the file is empty", ""),
    "no last newline": (
        edit("utt2dur", b" 0.1125\n", b" 0.1125"),
        "utt2dur:3: expected a newline at the end",
        "append a newline",
    ),
    "carriage return": (edit("utt2dur", b"\n", b"\r\n"), "utt2dur:1: expected no carriage returns", "dos2unix"),
    "blank line": (edit("utt2dur", b"\n", b"\n\n"), "utt2dur:2: expected `id value`, found a blank line", "remove"),
    "no value": (edit("utt2dur", U0.encode() + b" 0.1", U0.encode()), "utt2dur:1: expected a duration", "correct"),
    "not UTF-8": (edit("utt2dur", b" 0.1\n", b" 0.1\xff\n"), "utt2dur:1: expected UTF-8, found byte 0xff", "iconv"),
    "not sorted": (
        swap_first_lines("utt2dur"),
        f"utt2dur:2: expected ids in C-locale order, found '{U0}' after '{U1}'",
        "LC_ALL=C sort -k1,1 -o data/train/utt2dur data/train/utt2dur",
    ),
    "duplicate": (
        edit("utt2dur", b"\n", b"\n" + U0.encode() + b" 0.1\n"),
        f"utt2dur:2: expected each id once, found more lines for '{U0}'",
        "one line per id",
    ),
    "speaker of another": (
        edit("spk2utt", U1.encode(), U2.encode()),
        "spk2utt:1: expected the utterances that utt2spk gives",
        "from utt2spk",
    ),
    "order in spk2utt": (
        edit("spk2utt", f"{U0} {U1}".encode(), f"{U1} {U0}".encode()),
        "spk2utt:1: expected the utterances that utt2spk gives",
        "from utt2spk",
    ),
    "speaker order": (
        prefix_pitfall,
        "utt2spk:2: expected speakers in C-locale order",
        "found speaker 'a_b' ('a_b_1') after 'a_b2' ('a_b2_1')",
    ),
    "id missing": (
        edit("text_spk2", f"{U1} ONE TWO\n".encode(), b""),
        f"text_spk2: expected a line for every id of utt2spk, found none for '{U1}'",
        "same ids",
    ),
    "id too many": (
        edit("closetalk2.scp", U0.encode() + b" ", b"a a.wav\n" + U0.encode() + b" "),
        "closetalk2.scp:1: expected only ids of utt2spk, found 'a'",
        "same ids",
    ),
    "text: white space": (
        edit("text_spk1", b"ONE TWO", "ONE\u00a0TWO".encode()),
        "text_spk1:1: expected only blank and tab as white space, found U+00A0",
        "blank",
    ),
    "text: control character": (
        edit("text_spk1", b"ONE TWO", "ONE\u0007TWO".encode()),
        "text_spk1:1: expected printable characters, found U+0007",
        "remove them",
    ),
    "text: symbol": (
        edit("text_spk1", b"ONE TWO", b"<s> ONE"),
        "text_spk1:1: expected no <s>, </s> or #0, found `<s>`",
        "remove",
    ),
    "text: #0": (edit("text_spk2", b"ONE TWO", b"ONE #0"), "text_spk2:1: expected no <s>", "`#0`"),
    "utt2dur 0": (edit("utt2dur", b" 0.1\n", b" 0\n"), "utt2dur:1: expected a duration", "0"),
    "utt2num_samples": (
        write("utt2num_samples", f"{U0} 800\n{U1} 1000\n{U2} 9e2\n".encode()),
        "utt2num_samples:3: expected an integer > 0, found `f04-m02-train00001 9e2`",
        "",
    ),
    "utt2warp": (
        write("utt2warp", f"{U0} 1\n{U1} 1.6\n{U2} 0.9\n".encode()),
        "utt2warp:2: expected a factor between 0.5 and 1.5",
        "",
    ),
    "spk2gender": (write("spk2gender", b"f03-m01 f\nf04-m02 both\n"), "spk2gender:2: expected m or f", ""),
    "reco2file_and_channel": (
        write("reco2file_and_channel", f"{U0} x A\n{U1} x C\n{U2} x B\n".encode()),
        "reco2file_and_channel:2: expected `recording file A`",
        "",
    ),
    "cmvn speakers": (
        write("cmvn.scp", b"f03-m01 x.ark:3\n"),
        "cmvn.scp: expected a line for every id of utt2spk, found none for 'f04-m02'",
        "",
    ),
    "tilde": (
        edit("spk1.scp", b" data/train/wav", b" ~/data/train/wav"),
        "spk1.scp:1: expected a path or a command, without `~`",
        "correct",
    ),
    "gap": (
        remove("closetalk1.scp"),
        "closetalk1.scp: expected closetalk1.scp to closetalk2.scp, found no such file",
        "create",
    ),
    "scenes: no geometry": (
        edit("scenes.jsonl", b'"room_size_m": [8.0, 6.0, 3.0], ', b""),
        "scenes.jsonl:1: expected room_size_m to be three numbers > 0, found None",
        "simulate",
    ),
    "scenes: a talker without a place": (
        edit("scenes.jsonl", b'{"position_m": [6.0, 3.0, 1.6]}', b'{"position_m": [6.0, 3.0, NaN]}'),
        "scenes.jsonl:1: speaker 2: expected position_m to be a point [x, y, z], found [6.0, 3.0, nan]",
        "simulate",
    ),
    "scenes: a number beyond all floats": (
        edit("scenes.jsonl", b'"rt60_s": 0.3', b'"rt60_s": 1' + b"0" * 400),
        "scenes.jsonl:1: expected rt60_s to be a number, found 1000",
        "simulate",
    ),
    "scenes: half a character": (
        edit("scenes.jsonl", b'"rt60_s"', b'"\\ud800": 1, "rt60_s"'),
        "scenes.jsonl:1: expected whole characters, found the lone surrogate '\\ud800'",
        "again",
    ),
    "scenes: deep": (
        edit("scenes.jsonl", b'"rt60_s": 0.3', b'"rt60_s": ' + b"[" * 100000),
        'scenes.jsonl:1: expected a JSON object with a string "utt_id"',
        "again",
    ),
    "scenes: not so deep": (
        edit("scenes.jsonl", b'"rt60_s": 0.3', b'"rt60_s": ' + b"[" * 500 + b"]" * 500),
        "scenes.jsonl:1: expected rt60_s to be a number, found [[[",
        "simulate",
    ),
    "5,000 digits": (
        write("utt2num_samples", f"{U0} 800\n{U1} 1000\n{U2} {'9' * 5000}\n".encode()),
        "utt2num_samples:3: expected an integer > 0, found `f04-m02-train00001 9999",
        "correct",
    ),
    "a number that only Python reads": (edit("utt2dur", b" 0.1\n", b" 0_0.1\n"), "utt2dur:1: expected a duration", ""),
    "id that leaves the folder": (
        edit("text_spk2", U2.encode(), b"f04-m02/../../x"),
        "text_spk2:3: expected an id that can be the name of a file, without '/' and not beginning with '.', found 'f0",
        "rename",
    ),
    "hidden id": (
        edit("text_spk2", U0.encode(), b".f03"),
        "text_spk2:1: expected an id that can be the name of a file",
        "rename",
    ),
    "long id": (
        edit("text_spk2", U2.encode(), b"g" * 201),
        "text_spk2:3: expected an id that can be the name of a file, of at most 200 bytes, found 201",
        "rename",
    ),
    "id with a no-break space": (
        edit("text_spk2", U2.encode(), "f04-m02\u00a0".encode()),
        "text_spk2:3: expected an id of one word, without white space and control characters, found U+00A0",
        "rename",
    ),
    "id with a line separator": (
        edit("text_spk2", U2.encode(), "f04-m02\u2028".encode()),
        "text_spk2:3: expected an id of one word, without white space and control characters, found U+2028",
        "rename",
    ),
    "entry with a NUL": (
        edit("spk1.scp", f" data/train/wav/spk1/{U0}.wav\n".encode(), b" cat \0 |\n"),
        "spk1.scp:1: expected a path or a command",
        "correct",
    ),
    "counted from 0": (
        lambda data_dir: (data_dir / "closetalk2.scp").rename(data_dir / "closetalk0.scp"),
        "closetalk0.scp: expected numbers 1, 2 ... without zeros before them",
        "rename",
    ),
    "a billion missing files": (
        lambda data_dir: (data_dir / "closetalk2.scp").rename(data_dir / "closetalk999999999.scp"),
        "closetalk2.scp: expected closetalk1.scp to closetalk999999999.scp, found no such file",
        "create",
    ),
    "scenes: no JSON": (
        edit("scenes.jsonl", b'"rt60_s": 0.3}', b'"rt60_s": 0.'),
        'scenes.jsonl:1: expected a JSON object with a string "utt_id"',
        "",
    ),
    "scenes: order": (swap_first_lines("scenes.jsonl"), "scenes.jsonl:2: expected ids in C-", ""),
    "segments: fields": (
        segments(f"{U0} r0 0", f"{U1} r1 0 0.1", f"{U2} r2 0 0.1"),
        "segments:1: expected `utterance recording start end`",
        "",
    ),
    "segments: end": (
        segments(f"{U0} r0 0 0.1", f"{U1} r1 0.1 0.1", f"{U2} r2 0 0.1"),
        "segments:2: expected `utterance recording start end`",
        "",
    ),
    "segments: negative": (
        segments(f"{U0} r0 -1 0.1", f"{U1} r1 0 0.1", f"{U2} r2 0 0.1"),
        "segments:1: expected `utterance recording start end`",
        "",
    ),
    "segments: recording": (
        segments(f"{U0} r0 0 0.1", f"{U1} r0 0 0.1", f"{U2} r2 0 0.1"),
        "wav.scp:2: expected only ids of segments, found 'r1'",
        "",
    ),
    "segments: no such recording": (
        segments(f"{U0} r0 0 0.1", f"{U1} r1 0 0.1", f"{U2} r9 0 0.1"),
        "segments:3: expected recordings of wav.scp, found 'r9'",
        "add the recordings",
    ),
    "segments: a time beyond all samples": (
        segments(f"{U0} r0 0 0.1", f"{U1} r1 0 1e305", f"{U2} r2 0 0.1"),
        "segments:2: expected `utterance recording start end`",
        "",
    ),
    "segments: too long": (
        segments(f"{U0} r0 0 0.1", f"{U1} r1 0 0.8", f"{U2} r2 0 0.1"),
        "segments:2: expected times within recording 'r1' of 0.125 s, found 0.0 to 0.8",
        "",
    ),
    "no audio file": (
        lambda data_dir: (data_dir / "wav" / "spk1" / f"{U1}.wav").unlink(),
        f"spk1.scp:2: utterance '{U1}': data/train/wav/spk1/{U1}.wav: no such audio file",
        "correct the path",
    ),
    "not audio": (
        write(f"wav/spk1/{U1}.wav", b"hello"),
        f"spk1.scp:2: utterance '{U1}': data/train/wav/spk1/{U1}.wav: not readable as audio",
        "again",
    ),
    "truncated": (
        cut_file,
        f"spk1.scp:2: utterance '{U1}': data/train/wav/spk1/{U1}.wav: truncated: the header"
        " promises 1000 samples, the file holds 950",
        "again",
    ),
    "failing pipe": (
        edit("spk2.scp", f"data/train/wav/spk2/{U0}.wav".encode(), b"cat no.wav |"),
        f"spk2.scp:1: utterance '{U0}': cat no.wav |: the command ended with status 1",
        "again",
    ),
    "not finite": (
        audio("closetalk1", U0, with_nan, subtype="FLOAT"),
        f"closetalk1.scp:1: utterance '{U0}': data/train/wav/closetalk1/{U0}.wav: expected finite",
        "found NaN or Inf",
    ),
    "silent": (
        audio("spk1", U0, silence(0)),
        f"spk1.scp:1: utterance '{U0}': data/train/wav/spk1/{U0}.wav: silent",
        "",
    ),
    "constant": (
        audio("spk1", U0, lambda samples: 0 * samples + 0.25),
        f"spk1.scp:1: utterance '{U0}': data/train/wav/spk1/{U0}.wav: silent or constant",
        "remove",
    ),
    "constant channel": (
        audio("wav", U2, lambda samples: np.where(np.arange(6) == 3, 0.25, samples)),
        f"wav.scp:3: utterance '{U2}': data/train/wav/wav/{U2}.wav: channel 3 (counted from 0) is silent or constant",
        "--channels",
    ),
    "beyond any range": (
        audio("wav", U2, lambda samples: 1e30 * samples, subtype="FLOAT"),
        f"wav.scp:3: utterance '{U2}': data/train/wav/wav/{U2}.wav: expected samples of at most 4.29e+09 (full scale",
        "again",
    ),
    "one headset twice": (
        copy_of("closetalk1", U1, "closetalk2", U1),
        f"closetalk2.scp:2: utterance '{U1}': the same samples as those of '{U1}' in closetalk1.scp",
        "its own file",
    ),
    "array as headset": (
        audio("closetalk2", U1, lambda samples: read_audio(f"data/train/wav/wav/{U1}.wav")[0]),
        f"closetalk2.scp:2: utterance '{U1}': the same samples as those of '{U1}' in wav.scp",
        "its own file",
    ),
    "one reference twice": (
        copy_of("spk1", U1, "spk2", U1),
        f"spk2.scp:2: utterance '{U1}': the same samples as those of '{U1}' in spk1.scp",
        "its own file",
    ),
    "headset of another": (
        copy_of("closetalk1", U0, "closetalk1", U1),
        f"closetalk1.scp:2: utterance '{U1}': the same samples as those of '{U0}' in closetalk1.scp",
        "its own file",
    ),
    "silent channels": (
        audio("wav", U2, silence(1, 4)),
        f"wav.scp:3: utterance '{U2}': data/train/wav/wav/{U2}.wav: channel 1, 4 (counted from 0) is silent",
        "--channels",
    ),
    "empty audio": (
        audio("spk1", U0, lambda samples: samples[:0]),
        f"spk1.scp:1: utterance '{U0}': data/train/wav/spk1/{U0}.wav: holds no samples",
        "",
    ),
    "other rate": (
        audio("closetalk2", U2, lambda samples: samples, samplerate=16000),
        f"closetalk2.scp:3: utterance '{U2}': expected 8000 Hz, found 16000",
        "format_data_dir --sample_rate 8000",
    ),
    "other channels": (
        audio("wav", U1, lambda samples: samples[:, :2]),
        f"wav.scp:2: utterance '{U1}': expected 6 channels, found 2",
        "--channels",
    ),
    "not mono": (
        audio("spk2", U1, lambda samples: np.tile(samples, (1, 2))),
        f"spk2.scp:2: utterance '{U1}': expected 1 channels, found 2",
        "one channel",
    ),
    "other length": (
        audio("closetalk_spk2", U1, lambda samples: samples[:-1]),
        f"closetalk_spk2.scp:2: utterance '{U1}': expected 1000 samples as in wav.scp, found 999",
        "one length",
    ),
    "utt2dur of other audio": (
        edit("utt2dur", b" 0.1\n", b" 0.2\n"),
        f"utt2dur:1: utterance '{U0}': expected 0.100 s as the audio has, found 0.2",
        "",
    ),
    "utt2num_samples of other audio": (
        write("utt2num_samples", f"{U0} 800\n{U1} 1000\n{U2} 901\n".encode()),
        f"utt2num_samples:3: utterance '{U2}': expected 900 samples as the audio has, found 901",
        "stage 3",
    ),
}
# breaks of which a second thing follows by necessity
CONSEQUENCES = {
    "not UTF-8": 1,  # the line is lost, so is its id
    "scenes: no JSON": 1,
    "id too many": 1,  # nor is its audio there
    "empty audio": 1,  # its length differs
    "segments: no such recording": 1,  # and wav.scp one that no segment names
    "a billion missing files": 9,  # ten are named
    **dict.fromkeys(("scenes: half a character", "scenes: deep"), 1),  # as no JSON
    # the utterance that they should name lacks a line, and theirs is one too many
    **dict.fromkeys(
        ("id that leaves the folder", "long id", "id with a no-break space", "id with a line separator"), 2
    ),
    "hidden id": 2,
    "other rate": 1,  # as does its duration
    "array as headset": 1,  # it has all mics
    "headset of another": 1,  # as long as the other
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule(train, name):
    damage, start, later = BROKEN[name]
    damage(train)
    problems = [str(problem) for problem in validate_data_dir(train)]
    matching = [line for line in problems if line.startswith(f"data/train/{start}")]
    assert len(matching) == 1, problems
    assert "; remedy: " in matching[0] and later in matching[0]
    assert len(problems) == 1 + CONSEQUENCES.get(name, 0), problems


def test_good_dir(train):
    problems, summary = inspect_data_dir(
        train,
        sample_rate=SAMPLE_RATE,
        num_channels=6,
        num_speakers=2,
        require=["closetalk", "spk", "closetalk_spk", "text_spk", "scenes.jsonl"],
        num_workers=2,
    )
    assert problems == []
    assert str(summary) == "3 utterances, 0.00 h, 6 channels, 8000 Hz"
    assert summary.hours == pytest.approx(2700 / SAMPLE_RATE / 3600)


def test_no_directory(tmp_path):
    (problem,) = validate_data_dir(tmp_path / "data")
    assert "no such data directory" in str(problem)


def test_all_problems_at_once(train):
    """Damage that does not get into each other's way is found as when it is alone."""
    names = [
        "utt2dur 0",
        "text: symbol",
        "id missing",
        "silent channels",
        "not finite",
        "truncated",
        "failing pipe",
        "other length",
        "scenes: order",
        "spk2gender",
        "order in spk2utt",
    ]
    for name in names:
        BROKEN[name][0](train)
    (train / "closetalk2.scp").unlink()
    problems = [str(p) for p in validate_data_dir(train, require=["closetalk"], num_speakers=2)]
    for name in names:
        assert [p for p in problems if p.startswith(f"data/train/{BROKEN[name][1]}")], name
    assert [p for p in problems if p.startswith("data/train/closetalk2.scp: expected closetalk1")]
    assert len(problems) == len(names) + 1, problems


def test_expectations_of_the_caller(train):
    options = dict(sample_rate=16000, num_channels=4, num_speakers=3, require=["text", "noise"])
    problems = [str(problem) for problem in validate_data_dir(train, **options)]
    for desired in [
        f"wav.scp:1: utterance '{U0}', '{U1}', '{U2}': expected 16000 Hz, found 8000",
        f"wav.scp:1: utterance '{U0}', '{U1}', '{U2}': expected 4 channels, found 6",
        "spk3.scp: expected spk1.scp to spk3.scp, found no such file",
        "text_spk3: expected text_spk1 to text_spk3, found no such file",
        "text: no such file",
        "noise1.scp: expected noise1.scp, found no such file",
    ]:
        assert [p for p in problems if p.startswith(f"data/train/{desired}")], (desired, problems)
    problems = [str(problem) for problem in validate_data_dir(train, num_speakers=1)]
    assert sorted(p.split(":")[0] for p in problems) == [
        f"data/train/{name}" for name in ["closetalk2.scp", "closetalk_spk2.scp", "spk2.scp", "text_spk2"]
    ]


def test_pipes_and_arks_are_read(train):
    scp = read_table(train / "wav.scp")
    ark = {U1: (SAMPLE_RATE, soundfile.read(scp[U1], dtype="int16")[0])}
    kaldi_io().save_ark("b.ark", ark, scp="b.scp")
    scp[U0] = f"cat {scp[U0]} |"
    scp[U1] = read_table("b.scp")[U1]
    write_table(train / "wav.scp", scp)
    assert validate_data_dir(train) == []


def test_what_may_stand_twice(tmp_path):
    """A reference in several mixtures, an utterance that is used twice, a mixture with a line for each talker."""
    data_dir = make_data_dir(tmp_path / "train", [800, 800])
    for names in (["spk1"], [path.stem for path in data_dir.glob("*.scp")], ["wav"]):
        for name in names:
            lines = read_table(data_dir / f"{name}.scp")
            write_table(data_dir / f"{name}.scp", dict.fromkeys(lines, min(lines.values())))
        if names == ["wav"]:
            for path in data_dir.glob("[cs]*[12].scp"):
                path.unlink()
        assert validate_data_dir(data_dir) == [], names


def test_long_audio_is_read_in_blocks(train, monkeypatch):
    monkeypatch.setattr("espnet2_m2m.data_dir.validate_audio.BLOCK_SAMPLES", 64)
    assert validate_data_dir(train) == []
    BROKEN["not finite"][0](train)
    assert len(validate_data_dir(train)) == 1


def test_without_audio(train):
    shutil.rmtree(train / "wav")
    assert validate_data_dir(train, check_audio=False) == []
    assert len(validate_data_dir(train)) == 7 * 3


def test_segments(train):
    as_segments(train, [f"{U0} r0 0 0.1", f"{U1} r1 0.05 0.5", f"{U2} r2 0 0.11"])
    problems, summary = inspect_data_dir(train)
    assert problems == []
    # Kaldi lets a segment end up to 0.5 s after its recording and cuts it there.
    assert summary.hours * 3600 == pytest.approx(0.1 + 0.075 + 0.11)


@pytest.mark.parametrize("separator", ["-", "_", ""])
@pytest.mark.parametrize("speakers", [("a_b", "a_b2"), ("spk1", "spk10"), ("s01", "s10")])
def test_speaker_order_agrees_with_sort(tmp_path, speakers, separator):
    """Oracle: the command in Kaldi's script."""
    utt2spk = {f"{spk}{separator}{utt}": spk for spk in speakers for utt in ("u1", "u2")}
    write_table(tmp_path / "utt2spk", utt2spk)
    write_table(tmp_path / "spk2utt", spk2utt_from(utt2spk))
    write_table(tmp_path / "wav.scp", dict.fromkeys(utt2spk, "x.wav"))
    command = ["sort", "-k2", "-C", str(tmp_path / "utt2spk")]
    environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    desired = subprocess.run(command, env=environment).returncode == 0
    actual = validate_data_dir(tmp_path, check_audio=False) == []
    assert actual == desired


def test_order_of_another_locale(tmp_path):
    """What `sort` gives in an UTF-8 locale, and Python's str.lower order."""
    (tmp_path / "utt2spk").write_text("a-1 a\nB-1 B\nc-1 c\n")
    problems = [str(problem) for problem in validate_data_dir(tmp_path, check_audio=False)]
    desired = "utt2spk:2: expected ids in C-locale order, found 'B-1' after 'a-1'"
    assert any(desired in problem for problem in problems)


def test_float_audio_beyond_full_scale_is_fine(train):
    for stem in ("spk1", "spk2"):
        audio(stem, U0, lambda samples: 3 * samples, subtype="FLOAT")(train)
    assert validate_data_dir(train) == []


def test_missing_numbers_are_all_named(tmp_path):
    write_wav(tmp_path / "a.wav", noise(100), SAMPLE_RATE)
    for name in ("wav.scp", "spk4.scp"):
        write_table(tmp_path / name, {"s-1": str(tmp_path / "a.wav")})
    write_table(tmp_path / "utt2spk", {"s-1": "s"})
    write_table(tmp_path / "spk2utt", {"s": "s-1"})
    names = [Path(problem.path).name for problem in validate_data_dir(tmp_path)]
    assert names == ["spk1.scp", "spk2.scp", "spk3.scp"]
