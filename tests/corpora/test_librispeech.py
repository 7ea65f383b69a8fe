"""LibriSpeech: listing, downloading, unpacking, and stage 1 of the recipe on a miniature corpus."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import recipes
import soundfile

from espnet2_m2m.bin.prepare_librispeech import main as prepare
from espnet2_m2m.corpora import librispeech
from espnet2_m2m.corpora.librispeech import download_subset, fetch, read_subset, unpack
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.data_dir.tables import read_table
from espnet2_m2m.data_dir.validate import validate_data_dir

RECIPE = Path(__file__).resolve().parents[2] / "egs2" / "librispeech_ff_ct" / "enh1"
SPEAKERS = {"train-clean-5": ("19", "103", "1034", "8975"), "dev-clean-2": ("84", "1272"), "test-clean": ("61", "4446")}
NUM_UTTERANCES = 3  # of each speaker


def write_corpus(corpus_dir):
    """A LibriSpeech of noise, 0.3 to 0.9 s long; every utterance of another length."""
    rng = np.random.default_rng(0)
    for subset, speakers in SPEAKERS.items():
        for speaker in speakers:
            chapter = corpus_dir / subset / speaker / "1240"
            chapter.mkdir(parents=True)
            lines = []
            for k in range(NUM_UTTERANCES):
                name = f"{speaker}-1240-{k:04d}"
                samples = 0.05 * rng.standard_normal(rng.integers(4800, 14400))
                soundfile.write(chapter / f"{name}.flac", samples, 16000)
                lines.append(f"{name} {speaker} SAID IT'S {k}\n")
            (chapter / f"{speaker}-1240.trans.txt").write_text("".join(lines))
    (corpus_dir / "SPEAKERS.TXT").write_text(";ID |SEX| SUBSET |MINUTES| NAME\n")


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory):
    corpus_dir = tmp_path_factory.mktemp("corpora") / "LibriSpeech"
    write_corpus(corpus_dir)
    return corpus_dir


def test_subset_lists_every_recording(corpus_dir):
    utterances = read_subset(corpus_dir / "train-clean-5")
    assert sorted(utterances)[:4] == ["0019-1240-0000", "0019-1240-0001", "0019-1240-0002", "0103-1240-0000"]
    assert len(utterances) == 4 * NUM_UTTERANCES
    path, speaker, text = utterances["0103-1240-0002"]
    assert path == corpus_dir / "train-clean-5" / "103" / "1240" / "103-1240-0002.flac"
    assert (speaker, text) == ("0103", "103 SAID IT'S 2")


def edit(corpus_dir, tmp_path, change):
    """A copy of a subset with one thing wrong."""
    copy = tmp_path / "subset"
    for path in (corpus_dir / "dev-clean-2").rglob("*.*"):
        target = copy / path.relative_to(corpus_dir / "dev-clean-2")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda copy: (copy / "84/1240/84-1240-0001.flac").unlink(), "transcript '84-1240-0001' has no recording"),
        (
            lambda copy: (copy / "84/1240/84-1240.trans.txt").unlink(),
            r"recording '84-1240-0000' has no line in a \*.trans.txt \(3 such\)",
        ),
        (
            lambda copy: (copy / "84").rename(copy / "85"),
            "85/1240/84-1240-0000.flac: expected <speaker>/<chapter>/<speaker>-<chapter>-<number>",
        ),
        (lambda copy: [path.unlink() for path in copy.rglob("*.flac")], "found none"),
    ],
)
def test_incomplete_subset(corpus_dir, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_subset(edit(corpus_dir, tmp_path, change))


def test_prepare_writes_a_kaldi_data_dir(corpus_dir, tmp_path, capsys):
    prepare(["--corpus_dir", str(corpus_dir), "--out_dir", str(tmp_path), "--subsets", "train-clean-5", "dev-clean-2"])
    assert capsys.readouterr().out == f"{tmp_path}: 18 utterances of 6 speakers\n"
    assert not validate_data_dir(tmp_path)
    assert list(read_table(tmp_path / "spk2utt")) == ["0019", "0084", "0103", "1034", "1272", "8975"]
    assert read_table(tmp_path / "text")["1272-1240-0001"] == "1272 SAID IT'S 1"


def failure(capsys, corpus_dir, *subsets):
    with pytest.raises(SystemExit):
        prepare(["--corpus_dir", str(corpus_dir), "--out_dir", str(corpus_dir), "--subsets", *subsets])
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1, stderr
    return stderr


def test_prepare_refuses(corpus_dir, tmp_path, capsys):
    (tmp_path / "copy").symlink_to(corpus_dir / "dev-clean-2")
    (tmp_path / "dev-clean-2").symlink_to(corpus_dir / "dev-clean-2")
    message = failure(capsys, corpus_dir, "dev-clean")
    assert f"{corpus_dir / 'dev-clean'}: no such folder" in message and "--download" in message
    message = failure(capsys, tmp_path, "dev-clean-2", "copy")
    assert "'0084-1240-0000' is in copy and in another" in message and "(6 such)" in message
    assert not (tmp_path / "wav.scp").exists()


# ---- Download: a server on this machine takes the place of openslr.org ---------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with ranges `bytes=N-`; breaks after `limit` bytes where that is set."""

    limit = None
    ranges = []

    def do_GET(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        Handler.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: Handler.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(corpus_dir, tmp_path, monkeypatch):
    """Address of a server that has dev-clean-2.tar.gz; its checksum is the one that is expected."""
    folder = tmp_path / "server" / "31"
    folder.mkdir(parents=True)
    archive = folder / "dev-clean-2.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(corpus_dir / "SPEAKERS.TXT", "LibriSpeech/SPEAKERS.TXT")
        tar.add(corpus_dir / "dev-clean-2", "LibriSpeech/dev-clean-2")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(librispeech.SUBSETS, "dev-clean-2", (31, md5))
    Handler.limit, Handler.ranges = None, []
    handler = functools.partial(Handler, directory=folder.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_download_and_unpack(corpus_dir, mirror, tmp_path):
    copy = tmp_path / "downloads" / "LibriSpeech"
    download_subset("dev-clean-2", copy, mirror)
    desired, actual = read_subset(corpus_dir / "dev-clean-2"), read_subset(copy / "dev-clean-2")
    assert desired.keys() == actual.keys()
    for utt_id, (path, *_) in desired.items():
        assert actual[utt_id][0].read_bytes() == path.read_bytes()
    assert sorted(path.name for path in copy.iterdir()) == ["SPEAKERS.TXT", "dev-clean-2"]
    download_subset("dev-clean-2", copy, "http://nobody.invalid")  # asks for nothing
    assert Handler.ranges == [None]


def test_broken_download_goes_on_where_it_broke(mirror, tmp_path):
    copy = tmp_path / "downloads" / "LibriSpeech"
    Handler.limit = 1000
    with pytest.raises(OSError, match="dev-clean-2.tar.gz: no download .*run again to go on"):
        download_subset("dev-clean-2", copy, mirror)
    assert (tmp_path / "downloads" / "dev-clean-2.tar.gz.part").stat().st_size == 1000
    Handler.limit = None
    download_subset("dev-clean-2", copy, mirror)
    assert Handler.ranges == [None, "bytes=1000-"]
    assert len(read_subset(copy / "dev-clean-2")) == 6


def test_download_that_was_killed_at_its_end(mirror, tmp_path):
    part = tmp_path / "dev-clean-2.tar.gz.part"
    part.write_bytes((tmp_path / "server/31/dev-clean-2.tar.gz").read_bytes())
    fetch(f"{mirror}/31/dev-clean-2.tar.gz", tmp_path / "dev-clean-2.tar.gz")
    assert not part.exists() and (tmp_path / "dev-clean-2.tar.gz").exists()


def test_wrong_checksum(mirror, tmp_path):
    (tmp_path / "dev-clean-2.tar.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="its MD5 is .*remove the file and run again"):
        download_subset("dev-clean-2", tmp_path / "LibriSpeech", mirror)
    assert not (tmp_path / "LibriSpeech").exists()


def test_no_network_and_unknown_subsets(tmp_path):
    with pytest.raises(OSError, match=r"no download \(.*get the file elsewhere and put it at"):
        download_subset("dev-clean-2", tmp_path / "LibriSpeech", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="no subset 'dev-dirty' .*has dev-clean, dev-clean-2"):
        download_subset("dev-dirty", tmp_path / "LibriSpeech")


def archive_of(tmp_path, *members):
    """A tar.gz with the given members (name, type), all without content but for regular files."""
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", tarfile.REGTYPE),
        ("LibriSpeech/../../evil", tarfile.REGTYPE),
        ("LibriSpeech/dev-clean-2/../../../evil", tarfile.REGTYPE),
        ("/tmp/evil", tarfile.REGTYPE),
        ("LibriSpeech", tarfile.REGTYPE),
        ("LibriSpeech/test-clean/evil", tarfile.REGTYPE),
        ("LibriSpeech/dev-clean-2/link", tarfile.SYMTYPE),
        ("LibriSpeech/dev-clean-2/link", tarfile.LNKTYPE),
        ("LibriSpeech/dev-clean-2/fifo", tarfile.FIFOTYPE),
    ],
)
def test_archives_cannot_leave_their_folder(tmp_path, member):
    folder = tmp_path / "a" / "b" / "LibriSpeech"
    good = ("LibriSpeech/dev-clean-2/1/2/1-2-3.flac", tarfile.REGTYPE)
    with pytest.raises(ValueError, match="expected files and folders of LibriSpeech/dev-clean-2"):
        unpack(archive_of(tmp_path, good, member), "dev-clean-2", folder)
    assert not (folder / "dev-clean-2").exists()
    outside = [path for path in tmp_path.rglob("*") if ".dev-clean-2.unpacking" not in path.parts]
    assert sorted(path.name for path in outside) == ["LibriSpeech", "a", "b", "evil.tar.gz"]
    assert not Path("/tmp/evil").exists()


def test_truncated_archive_and_one_of_another_subset(mirror, tmp_path):
    whole = tmp_path / "server/31/dev-clean-2.tar.gz"
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-500])
    for _ in range(2):  # again, over what the first attempt left
        with pytest.raises(ValueError, match="not a complete tar archive"):
            unpack(cut, "dev-clean-2", tmp_path / "LibriSpeech")
        assert not (tmp_path / "LibriSpeech" / "dev-clean-2").exists()
    unpack(whole, "dev-clean-2", tmp_path / "LibriSpeech")
    assert len(read_subset(tmp_path / "LibriSpeech" / "dev-clean-2")) == 6
    empty = archive_of(tmp_path, ("LibriSpeech/README.TXT", tarfile.REGTYPE))
    with pytest.raises(ValueError, match="expected a folder LibriSpeech/test-clean, found none"):
        unpack(empty, "test-clean", tmp_path / "LibriSpeech")


# ---- Stage 1 of the recipe -----------------------------------------------------------------------


def run(corpus_dir, folder, *options, check=True):
    """./run.sh, stage 1; returns what it printed."""
    options = ["--corpus_dir", corpus_dir, "--datadir", f"{folder}/data", *options]
    return recipes.run("./run.sh", "--stop_stage", "1", "--nj", "1", *options, recipe=RECIPE, check=check)


SUBSET_OPTIONS = ("--train_subsets", "train-clean-5", "--valid_subsets", "dev-clean-2")
NUMBERS = ("--num_train", "6", "--num_valid", "2", "--num_test", "3")


@pytest.fixture(scope="module")
def recipe_data(corpus_dir, tmp_path_factory):
    """data/ of stage 1."""
    folder = tmp_path_factory.mktemp("libri speech")  # a path with a space
    run(corpus_dir, folder, *SUBSET_OPTIONS, *NUMBERS)
    return folder / "data"


def test_recipe_makes_three_sets_of_different_speakers(recipe_data):
    for name, subset, num_mixtures in (
        ("train", "train-clean-5", 6),
        ("valid", "dev-clean-2", 2),
        ("test", "test-clean", 3),
    ):
        set_dir = recipe_data / name
        assert not validate_data_dir(set_dir)
        scenes = list(read_scenes(set_dir / "scenes.jsonl").values())
        assert len(scenes) == num_mixtures
        used = Counter(utt["utt_id"] for s in scenes for speaker in s["speakers"] for utt in speaker["utterances"])
        known = {speaker.zfill(4) for speaker in SPEAKERS[subset]}
        assert {utt_id.split("-")[0] for utt_id in used} <= known
        total = NUM_UTTERANCES * len(known)
        counts = [*used.values(), *[0] * (total - len(used))]
        assert max(counts) - min(counts) <= 1
        assert len({str(scene["room_size_m"]) for scene in scenes}) == num_mixtures
        for n, scene in ((n, scene) for n in (0, 1) for scene in scenes):
            speaker = scene["speakers"][n]["speaker_id"]
            text = read_table(set_dir / f"text_spk{n + 1}")[scene["utt_id"]]
            assert text.startswith(f"{int(speaker)} SAID IT'S ")
            info = soundfile.info(read_table(set_dir / "wav.scp")[scene["utt_id"]])
            assert (info.samplerate, info.channels) == (8000, 6)


def test_recipe_at_16_khz_with_one_pool_of_speakers(corpus_dir, tmp_path):
    run(
        corpus_dir,
        tmp_path,
        "--fs",
        "16000",
        "--split_subsets",
        "train-clean-5 dev-clean-2",
        "--num_train",
        "2",
        "--num_valid",
        "1",
        "--num_test",
        "1",
    )
    speakers = []
    for name in ("train", "valid", "test"):
        scenes = read_scenes(tmp_path / "data" / name / "scenes.jsonl").values()
        speakers += sorted({spk["speaker_id"] for scene in scenes for spk in scene["speakers"]})
        for path in read_table(tmp_path / "data" / name / "wav.scp").values():
            assert soundfile.info(path).samplerate == 16000
    assert len(set(speakers)) == len(speakers) == 6


def test_recipe_says_what_is_missing(corpus_dir, tmp_path):
    printed = run(corpus_dir, tmp_path, "--train_subsets", "train-clean-100", check=False)
    assert "LibriSpeech/train-clean-100: no such folder" in printed and "Traceback" not in printed
