"""The report page of made-up experiments, read back as HTML; test_report_browser.py opens it in Chromium."""

import csv
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import soundfile
from fake_set import SAMPLE_RATE, make_set

from espnet2_m2m.bin import report
from espnet2_m2m.data_dir import read_table, write_table
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.report import examples, figures
from espnet2_m2m.scoring import scored_set

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Tags with their attributes; insists that what is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def write_checkpoint(path, num_epochs=4):
    """What ESPnet's trainer saves: {"reporter": {"stats": {epoch: {phase: {key: value}}}}}.

    The training's times are those of espnet 202511, the validation's those of 202611.
    """
    import torch

    stats = {}
    for epoch in range(1, num_epochs + 1):
        phase = {
            "loss": np.float32(3.0 / epoch),
            "m2m_loss": 2.0 / epoch,
            "time": datetime.timedelta(seconds=90),
            "total_count": 10 * epoch,
            "gpu_max_cached_mem_GB": 1.0,
        }
        train = {**phase, "optim0_lr0": 1e-3, "forward_time": 0.1, "grad_norm": 1.0}
        valid = {**phase, "loss": abs(epoch - 3) + 0.5, "time": {"__timedelta_seconds__": 90.0}}
        stats[epoch] = {"train": train, "valid": valid}
    torch.save({"model": {}, "reporter": {"stats": stats, "epoch": num_epochs}}, path)


def run(root, *options):
    exp_dir = root / "exp"
    report.main(
        ["--data_dir", str(root / "data" / "test"), "--enhanced_dir", str(exp_dir / "enhanced_test")]
        + ["--out_dir", str(exp_dir / "report"), *options]
    )
    return (exp_dir / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    data_dir, enhanced_dir = make_set(root, num_utterances=4, swapped=[0])
    scored_set.score_set(data_dir, enhanced_dir, nj=0)
    write_checkpoint(root / "exp" / "checkpoint.pth")
    return root


@pytest.fixture(scope="module")
def html(scored):
    return run(scored, "--num_examples", "3")


@pytest.fixture(scope="module")
def read(html):
    return Page(html)


def require_self_contained(html, read, out_dir):
    """Every src and link is part of the page, or a file in its media folder."""
    for tag, attrs in read.tags:
        for name in ("src", "srcset", "poster", "data", "action"):
            if name in attrs and not attrs[name].startswith("data:"):
                assert re.fullmatch(r"media/\w+\.(png|wav)", attrs[name]), (tag, attrs[name][:60])
                assert (out_dir / attrs[name]).is_file()
        if "href" in attrs:
            assert attrs["href"].startswith(("data:", "#")), attrs
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    script = html[html.rindex("<script>") : html.rindex("</script>")].replace("http://www.w3.org/2000/svg", "")
    assert "http" not in script and "fetch" not in script


def test_self_contained(scored, html, read):
    require_self_contained(html, read, scored / "exp" / "report")


def test_images(scored, read):
    images = read.all("img")
    # Box plot; loss, m2m_loss and learning rate; 3 examples: room, mixture, 2 x 3 clips.
    assert len(images) == 1 + 3 + 3 * (1 + 1 + 6)
    drawn = [image for image in images if image["src"].startswith("data:")]
    assert len(drawn) == 1 + 3 + 3
    for image in images:
        assert len(image["alt"]) > 10
    for image in drawn:
        head, _, body = image["src"].partition(",")
        assert head == "data:image/svg+xml"
        svg = unquote(body)
        ElementTree.fromstring(svg)
        outside = re.findall(r'(?:href|src)="(?!#|data:)[^"]*"', svg)
        assert outside == [] and "prefers-color-scheme" in svg
    media = scored / "exp" / "report" / "media"
    assert len(list(media.iterdir())) == 2 * len(read.all("audio"))


def test_audio(scored, read):
    """Examples from the worst to the best improvement, each with all its signals in full length."""
    gains = {}
    with open(scored / "exp" / "enhanced_test" / "scoring" / "scores.csv") as file:
        for row in csv.DictReader(file):
            gain = float(row["separated_si_sdr"]) - float(row["mixture_si_sdr"])
            gains[row["utt_id"]] = gains.get(row["utt_id"], 0) + gain
    ranked = sorted(gains, key=gains.get)
    lengths = {f"a-b-test{index:05d}": SAMPLE_RATE + 10 * index for index in range(4)}
    shown = [ranked[0], ranked[2], ranked[3]]
    players = read.all("audio")
    assert len(players) == 3 * 7
    desired = [lengths[utt_id] for utt_id in shown for _ in range(7)]
    actual = []
    for player in players:
        assert "controls" in player and player["aria-label"]
        samples, sample_rate = soundfile.read(scored / "exp" / "report" / player["src"])
        assert sample_rate == SAMPLE_RATE
        # Equally loud, unless the peak does not allow it.
        if np.abs(samples).max() < examples.CLIP_PEAK - 1e-3:
            assert np.sqrt(np.mean(samples**2)) == pytest.approx(examples.CLIP_RMS, rel=1e-3)
        actual.append(len(samples))
    assert actual == desired


def test_separated_clips_follow_the_permutation(scored, html, read):
    """In utterance 0 the outputs are swapped; "Talker 1: Separated" must still play talker 1."""
    jobs = scored_set.list_jobs(scored / "data" / "test", scored / "exp" / "enhanced_test")
    estimate = jobs[0].utterance.read()[0]["stream"][2]
    by_label = {player["aria-label"]: player["src"] for player in read.all("audio")}
    path = scored / "exp" / "report" / by_label["Talker 1: Separated, a-b-test00000"]
    actual, _ = soundfile.read(path)
    desired = examples.level_for_listening(estimate)
    np.testing.assert_allclose(actual, desired, atol=1 / 32768)


def test_several_systems_side_by_side(scored, tmp_path, capsys):
    """Two trainings and a second output of one: tables, points and clips of all three, in their order."""
    root = tmp_path / "copy"
    shutil.copytree(scored, root)
    for name in ("first", "second"):
        shutil.copytree(root / "exp" / "enhanced_test", root / name / "enhanced_test")
    shutil.copytree(root / "exp" / "enhanced_test", root / "second" / "enhanced_test_fcp")
    write_checkpoint(root / "second" / "checkpoint.pth")
    rates = {"mixture": 71.25, "second_fcp": 12.345, "clean": 2, "another": 99}
    conditions = {name: {"wer": {"rate": rate}, "cer": {"rate": rate / 2}} for name, rate in rates.items()}
    decoded = root / "decode_asr<1>" / "test" / "summary.json"
    decoded.parent.mkdir(parents=True)
    decoded.write_text(json.dumps({"set": "test", "conditions": conditions}))
    folders = [root / "first/enhanced_test", root / "second/enhanced_test", root / "second/enhanced_test_fcp"]
    command = ["--data_dir", str(root / "data/test"), "--out_dir", str(root / "report"), "--num_examples", "2"]
    report.main([*command, "--enhanced_dir", *map(str, folders)])
    html = (root / "report" / "index.html").read_text(encoding="utf-8")
    read = Page(html)
    require_self_contained(html, read, root / "report")
    names = ["first", "second, enhanced_test", "second, enhanced_test_fcp"]
    points = json.loads(re.search(r'id="points">(.*?)</script>', html)[1])
    assert points["systems"] == names
    (one,) = [s for s in points["signals"] if (s["utt"], s["speaker"]) == ("a-b-test00003", 2)]
    assert one["example"] == 1 and len(one["si_sdr"]) == 4 and len(set(one["si_sdr"][1:])) == 1
    labels = [player["aria-label"] for player in read.all("audio")]
    assert labels[2:5] == [f"Talker 1: {name}, a-b-test00003" for name in names]
    section = html[html.index('id="recognition"') : html.index('id="examples"')]
    assert re.findall("<td>(.*?)</td>", section) == [
        *("asr&lt;1&gt;", "71.2", "35.6"),
        *("asr&lt;1&gt;", "12.3", "6.2"),
        *("asr&lt;1&gt;", "2.0", "1.0"),
    ]
    assert read.text.count("4 epochs in 12 min") == 1, "one training behind two outputs"

    # Other scores under the same names: not to be compared.
    scores = folders[0] / "scoring" / "scores.csv"
    lines = [line.split(",") for line in scores.read_text().splitlines()]
    column = lines[0].index("mixture_si_sdr")
    for line in lines[1:]:
        line[column] = str(float(line[column]) + 1)
    scores.write_text("\n".join(map(",".join, lines)) + "\n")
    with pytest.raises(SystemExit):
        report.main([*command, "--enhanced_dir", *map(str, folders)])
    assert "were not scored on the same set" in capsys.readouterr().err
    decoded.write_text('{"wer": 1}')
    with pytest.raises(SystemExit):
        report.main([*command, "--enhanced_dir", str(folders[1])])
    assert "summary.json: no word error rates" in capsys.readouterr().err


def test_study(scored, tmp_path):
    """Tables II and III against the paper, and of each row the run with the lowest seed."""
    study = tmp_path / "small_1ep"
    for name in ("table2_1a_m2m_seed0", "table2_1a_m2m_seed1", "table3_3_pit_seed1"):
        shutil.copytree(scored / "exp" / "enhanced_test", study / name / "enhanced_test")
    shutil.copytree(scored / "exp" / "enhanced_test", study / "table3_3_pit_seed1" / "enhanced_test_fcp")
    report.main(
        ["--data_dir", str(scored / "data" / "test"), "--study_dir", str(study), "--num_examples", "1"]
        + ["--exclude", "table2_1a_m2m_seed1", "--out_dir", str(study / "report")]
    )
    html = (study / "report" / "index.html").read_text(encoding="utf-8")
    read = Page(html)
    summary = json.loads((scored / "exp/enhanced_test/scoring/summary.json").read_text())
    ours = summary["mean"]["separated"]["si_sdr"]
    row = re.search(r'<tr class="separated">\s*<th scope="row">1a</th>.*?</tr>', html, re.DOTALL)[0]
    assert re.findall("<td>(.*?)</td>", row)[3:6] == ["16.9", f"{ours:.1f}", f"{ours - 16.9:+.1f}"]
    points = json.loads(re.search(r'id="points">(.*?)</script>', html)[1])
    assert points["systems"] == ["1a M2M 19/1/19/1 (seed 0)", "3 PIT, P = 1 (seed 1)", "PIT, then FCP, P = 1 (seed 1)"]
    assert "Not finished, so not in the tables: table2_1a_m2m_seed1" in read.text


def test_text(html, read):
    summary_row = re.search(r'<tr class="separated">.*?</tr>', html, re.DOTALL)[0]
    assert len(re.findall("<td>", summary_row)) == 6 and "<td>3 of 4</td>" in summary_row
    for words in ("separated, fixed order", "close-talk mixture", "Worst", "Median", "Best"):
        assert words in read.text
    assert "4 epochs in 12 min; the validation loss is lowest after epoch 3" in read.text
    assert "learning rate (optim0_lr0)" in read.text
    assert "grad_norm" not in read.text and "total_count" not in read.text
    # What comes from data is text, never markup.
    assert "<b>made up</b> & sentence 0" in read.text and "<b>made" not in html
    assert "{{" not in html and "{%" not in html


def test_accessible(read):
    (root,) = read.all("html")
    assert root["lang"] == "en"
    assert any(attrs.get("name") == "viewport" for attrs in read.all("meta"))
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    assert all("scope" in attrs for attrs in read.all("th"))
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in read.tags:
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"][1:] in ids
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in ids


def test_same_figures_again(scored):
    """Drawn again, a figure has the same bytes, whatever the user's matplotlib is set to."""
    import matplotlib

    (scene, *_) = read_scenes(scored / "data" / "test" / "scenes.jsonl").values()
    desired = figures.room_from_above(scene)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert figures.room_from_above(scene) == desired


def test_without_scenes_and_checkpoint(scored, tmp_path):
    """Real recordings have no geometry; a foreign model has no checkpoint: said, not hidden."""
    root = tmp_path / "copy"
    shutil.copytree(scored, root)
    (root / "exp" / "checkpoint.pth").unlink()
    (root / "data" / "test" / "scenes.jsonl").unlink()
    read = Page(run(root, "--num_examples", "1"))
    assert "no checkpoint.pth, so there are no learning curves" in read.text
    assert "no scenes.jsonl, so the rooms are not drawn" in read.text
    assert len(read.all("audio")) == 7 and len(read.all("img")) == 1 + 7


def write_diagnosis(root):
    """What bin/diagnose.py leaves for copies of random mixtures; returns the result."""
    import torch

    from espnet2_m2m import MixtureConstraintLoss
    from espnet2_m2m.data_dir import source_stamp
    from espnet2_m2m.diagnosis.utterance import diagnose_utterance
    from espnet2_m2m.diagnosis.words import diagnose_set

    spectra = torch.randn(5, 9, 60, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = diagnose_utterance(spectra[[0, 0]], spectra[:3], MixtureConstraintLoss(), spectra[3:], None, None)
    settings = {"alpha": 1.0, "anchor_weight": 0.0, "anchor_order": "free", "anchor_fade": None}
    settings |= {"isms_weight": 0.0, "close_talk": True, "supervised": False}
    model = root / "exp" / "valid.loss.best.pth"
    model.write_bytes(b"weights")
    result = diagnose_set({"a": found, "b": found}, settings) | {
        "num_utterances": 2,
        "model_file": str(model),
        "model_stamp": source_stamp(model),
        "data_dir": "<data>/test",
        "sample_rate_hz": SAMPLE_RATE,
    }
    path = root / "exp" / "enhanced_test" / "diagnosis" / "diagnosis.json"
    path.parent.mkdir()
    path.write_text(json.dumps(result))
    return result


def test_real_recordings_have_a_page_without_scores(scored, tmp_path):
    shutil.copytree(scored, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "exp/enhanced_test/scoring")
    for path in (tmp_path / "data/test").glob("*spk[12].scp"):  # references at array and headsets
        path.unlink()
    html = run(tmp_path, "--num_examples", "2")
    page = Page(html)
    require_self_contained(html, page, tmp_path / "exp/report")
    for word in ("SI-SDR", "PESQ", "scatter-x", "Worst", "undefined", "None"):
        assert word not in page.text and f'id="{word}"' not in html
    assert "Mixture 1 of 4" in page.text and "Mixture 4 of 4" in page.text
    # The first mixture's outputs are exchanged, which its headsets tell.
    assert re.findall(r'class="scores">(output \d)<', html) == ["output 2", "output 1", "output 1", "output 2"]
    clips = {attrs["aria-label"].rpartition(",")[0] for attrs in page.all("audio")}
    assert clips == {
        "Far-field mixture, mic 0",
        *(f"Talker {n}: {name}" for n in (1, 2) for name in ("Close-talk mixture", "Separated")),
    }


def test_a_speaker_without_a_headset_gets_a_stream_that_is_left_over(scored, tmp_path):
    shutil.copytree(scored, tmp_path, dirs_exist_ok=True)
    for path in [*(tmp_path / "data/test").glob("*spk[12].scp"), tmp_path / "data/test/closetalk1.scp"]:
        path.unlink()
    html = run(tmp_path, "--num_examples", "2")
    assert re.findall(r'class="scores">(output \d)<', html) == ["output 2", "output 1", "output 1", "output 2"]
    clips = {attrs["aria-label"].rpartition(",")[0] for attrs in Page(html).all("audio")}
    assert len(clips) == 4 and not any(clip.startswith(("Speaker 1: Close", "Talker 1: Close")) for clip in clips)


def test_diagnosis(scored, html, tmp_path, capsys):
    """Shown where it has been made, quiet otherwise; a broken or outdated one is not passed off."""
    assert "diagnosis" not in html.lower()
    root = tmp_path / "copy"
    shutil.copytree(scored, root)
    result = write_diagnosis(root)
    html = run(root, "--num_examples", "1")
    read = Page(html)
    require_self_contained(html, read, root / "exp" / "report")
    test_accessible(read)
    assert "The network copies its input: every output is the mixture." in read.text
    assert "2 of 2 utterances" in read.text and "<data>/test" in read.text
    for line in result["why"] + result["change"]:
        assert line in read.text
    assert "left of the mixture by one output alone (dB)" in read.text and "headset 2" in read.text
    (figure,) = [image for image in read.all("img") if "Share of utterances" in image["alt"]]
    svg = unquote(figure["src"].partition(",")[2])
    ElementTree.fromstring(svg)
    assert "by headsets" in svg and "by references" not in svg
    assert "has changed since" not in read.text

    (root / "exp" / "valid.loss.best.pth").write_bytes(b"weights of a later epoch")
    assert "The model file has changed since" in Page(run(root, "--num_examples", "1")).text

    (root / "exp" / "enhanced_test" / "diagnosis" / "diagnosis.json").write_text("{half")
    with pytest.raises(SystemExit):
        run(root)
    assert "diagnosis.json: not a diagnosis" in capsys.readouterr().err


def test_agreement_figures(tmp_path):
    """The PNG of bin/diagnose.py: with both, one, and nothing to compare with."""
    rows = np.random.default_rng(0).integers(0, 2, (4, 33)).tolist()
    for agrees in ({"references": rows, "headsets": rows}, {"headsets": rows}, {}):
        path = tmp_path / f"{len(agrees)}.png"
        figures.save_agreement(path, agrees, SAMPLE_RATE)
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] == 1080 and pixels[0, 0, :3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 50])
def test_choice_of_examples(count):
    gains = {f"utt{index:02d}": float(index) for index in range(11)}
    chosen = examples.choose(gains, count)
    assert len(chosen) == len(set(chosen)) == min(count, 11)
    labels = dict(chosen)
    assert labels.get("Median", "utt05") == "utt05"
    if count >= 2:
        assert (labels["Worst"], labels["Best"]) == ("utt00", "utt10")
    if count == 5:
        assert [label for label, _ in chosen][1] == "Rank 3 of 11 from below"


def test_silence_and_short_signals_can_be_heard_and_drawn(tmp_path):
    assert not examples.level_for_listening(np.zeros(100)).any()
    for num_samples in (1, 100, 300):
        figures.save_spectrogram(tmp_path / "silence.png", np.zeros(num_samples), SAMPLE_RATE)
        assert matplotlib.image.imread(tmp_path / "silence.png").shape[0] == 129


def test_spectrogram_shows_a_tone_at_its_place(tmp_path):
    """1 kHz in the second half: bright there in the pixel row of 1 kHz, counted from below."""
    samples = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    samples[: SAMPLE_RATE // 2] = 0
    figures.save_spectrogram(tmp_path / "tone.png", samples, SAMPLE_RATE)
    level = matplotlib.image.imread(tmp_path / "tone.png")[..., :3].sum(axis=-1)[::-1]
    assert level[:, 100].argmax() == 1000 * 128 // 4000
    assert level[32, :50].max() < level[32, 80:].min()


class TestMessages:
    def error(self, capsys, root, *options):
        with pytest.raises(SystemExit) as exit_info:
            run(root, *options)
        assert exit_info.value.code == 1
        assert not (root / "exp" / "report" / "index.html").exists()
        return capsys.readouterr().err

    @pytest.fixture
    def root(self, scored, tmp_path):
        shutil.copytree(scored, tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy" / "exp" / "report", ignore_errors=True)
        return tmp_path / "copy"

    def test_not_scored(self, capsys, root):
        (root / "exp" / "enhanced_test" / "scoring" / "summary.json").unlink()
        assert "run espnet2_m2m enh_scoring first" in self.error(capsys, root)

    def test_scores_of_another_set(self, capsys, root):
        path = root / "exp" / "enhanced_test" / "scoring" / "scores.csv"
        path.write_text(path.read_text().replace("test00001", "other"))
        message = self.error(capsys, root)
        assert "only one has 'a-b-other', 'a-b-test00001'; run stage 8" in message

    def test_only_some_of_the_utterances_are_scored(self, capsys, root):
        path = root / "exp" / "enhanced_test" / "scoring" / "scores.csv"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
        assert "only one has 'a-b-test00003'; run stage 8" in self.error(capsys, root)

    def test_separated_again_after_scoring(self, capsys, root):
        """New audio under the old names: the old scores must not be shown with it."""
        scp = root / "exp" / "enhanced_test" / "spk1.scp"
        table = read_table(scp)
        new = root / "new.wav"
        shutil.copy(table["a-b-test00002"], new)
        write_table(scp, {**table, "a-b-test00002": str(new)})
        message = self.error(capsys, root)
        assert "not what was scored, for utterance 'a-b-test00002'; run stage 8" in message
        write_table(scp, table)
        run(root, "--num_examples", "1")

    def test_broken_checkpoint(self, capsys, root):
        (root / "exp" / "checkpoint.pth").write_bytes(b"half")
        assert "checkpoint.pth: not a checkpoint" in self.error(capsys, root)

    def test_no_such_set(self, capsys):
        """It once was `[Errno 2] No such file or directory`."""
        with pytest.raises(SystemExit):
            report.main(["--data_dir", "nope", "--enhanced_dir", "nope", "--out_dir", "x"])
        assert capsys.readouterr().err == "report: error: nope: no such directory\n"

    def test_code_in_a_checkpoint_is_not_run(self, capsys, root):
        """Unpickled, this one would make a file; espnet 202511 itself, in which checkpoints are pickles, runs it."""
        import torch

        class Hostile:
            def __reduce__(self):
                return os.mkdir, (str(root / "ran"),)

        path = root / "exp" / "checkpoint.pth"
        torch.save({**torch.load(path, weights_only=False), "x": Hostile()}, path)
        assert "checkpoint.pth: not a checkpoint" in self.error(capsys, root)
        assert not (root / "ran").exists()

    def test_broken_scene(self, capsys, root):
        path = root / "data" / "test" / "scenes.jsonl"
        first = path.read_text().partition("\n")[0]
        path.write_text(f"{first}\n{{half\n")
        assert "scenes.jsonl:2: expected a JSON object" in self.error(capsys, root)
        path.write_text(json.dumps({"utt_id": "a"}) + "\n")
        assert "scenes.jsonl:1: expected room_size_m" in self.error(capsys, root)


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys; from espnet2_m2m.bin import report; report.get_parser();"
        "sys.exit(bool({'torch', 'espnet2', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
