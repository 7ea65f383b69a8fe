"""Scoring a made-up set: the numbers, independence of --nj, resumption, RESULTS.md, messages."""

import csv
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from fake_set import SAMPLE_RATE, make_set

from espnet2_m2m.bin import enh_scoring
from espnet2_m2m.data_dir import read_table, write_table
from espnet2_m2m.scoring import metrics, results, scored_set


def score(data_dir, enhanced_dir):
    """Score in this process, which is quicker than starting another one."""
    return scored_set.score_set(data_dir, enhanced_dir, nj=0)


def command(data_dir, enhanced_dir, *options):
    enh_scoring.main(["--data_dir", str(data_dir), "--enhanced_dir", str(enhanced_dir), "--nj", "1", *options])


def error_of(capsys, *args):
    """What the user reads when scoring fails."""
    with pytest.raises(SystemExit) as exit_info:
        command(*args)
    assert exit_info.value.code == 1
    return capsys.readouterr().err


def outputs(enhanced_dir):
    paths = [enhanced_dir / "scoring" / name for name in ("scores.csv", "summary.json", "wav_spk1")]
    return [path.read_bytes() for path in [*paths, enhanced_dir.parent / "RESULTS.md"]]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A scored set in which the outputs of the second utterance are swapped."""
    data_dir, enhanced_dir = make_set(tmp_path_factory.mktemp("scored"), swapped=[1])
    return data_dir, enhanced_dir, score(data_dir, enhanced_dir)


def test_scores_are_those_of_the_metrics(scored):
    data_dir, enhanced_dir, summary = scored
    with open(enhanced_dir / "scoring" / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["utt_id"][-1], row["speaker"], row["estimate"]) for row in rows] == [
        ("0", "1", "1"),
        ("0", "2", "2"),
        ("1", "1", "2"),
        ("1", "2", "1"),
        ("2", "1", "1"),
        ("2", "2", "2"),
    ]

    def read(folder, name, utt_id):
        path = read_table(folder / f"{name}.scp")[utt_id]
        return soundfile.read(path, dtype="float32", always_2d=True)[0][:, 0]

    for row in rows:
        ref = read(data_dir, f"spk{row['speaker']}", row["utt_id"])
        for group, est in {
            "mixture": read(data_dir, "wav", row["utt_id"]),
            "separated": read(enhanced_dir, f"spk{row['estimate']}", row["utt_id"]),
            "fixed_order": read(enhanced_dir, f"spk{row['speaker']}", row["utt_id"]),
            "closetalk": read(data_dir, f"closetalk{row['speaker']}", row["utt_id"]),
        }.items():
            desired = metrics.score_pair(ref, est, SAMPLE_RATE)
            actual = {name: float(row[f"{group}_{name}"]) for name in metrics.METRICS}
            # Scored together with others, of which the last digit knows.
            assert actual == pytest.approx(desired, abs=1e-9), (group, row["utt_id"])
    desired = np.mean([float(row["separated_estoi"]) for row in rows])
    assert summary["mean"]["separated"]["estoi"] == pytest.approx(desired)
    assert (summary["fixed_order_agrees"], summary["num_utterances"]) == (2, 3)
    improvement = summary["mean"]["improvement"]["si_sdr"]
    assert improvement > 10
    assert summary["mean"]["fixed_order"]["si_sdr"] < summary["mean"]["separated"]["si_sdr"] - 5


def test_shares_add_up_to_the_whole(scored, tmp_path, monkeypatch):
    """Two jobs, in any order; the last command scores nothing and leaves what one process leaves."""
    data_dir, enhanced_dir = make_set(tmp_path, swapped=[1])
    for job in ("2/2", "1/2"):
        command(data_dir, enhanced_dir, "--job", job)
    assert not (enhanced_dir / "scoring" / "scores.csv").exists()
    monkeypatch.setattr(scored_set, "score_job", None)
    summary = score(data_dir, enhanced_dir)
    assert summary["mean"] == scored[2]["mean"]
    assert outputs(enhanced_dir)[0] == outputs(scored[1])[0]
    assert [path.name for path in (enhanced_dir / "scoring").glob("*.jsonl")] == ["utterances.jsonl"]
    with pytest.raises(SystemExit):
        command(data_dir, enhanced_dir, "--job", "3/2")


def test_permuted_scp(scored):
    """Stage 9 recognises scoring/wav_spk{n}: the swapped utterance is swapped back."""
    _, enhanced_dir, _ = scored
    chosen = read_table(enhanced_dir / "scoring" / "wav_spk1")
    assert chosen["a-b-test00000"] == read_table(enhanced_dir / "spk1.scp")["a-b-test00000"]
    assert chosen["a-b-test00001"] == read_table(enhanced_dir / "spk2.scp")["a-b-test00001"]


def test_results_md(scored):
    _, enhanced_dir, summary = scored
    text = (enhanced_dir.parent / "RESULTS.md").read_text()
    assert "## enhanced_test\n" in text
    assert "| | SI-SDR (dB) | SDR (dB) | PESQ | eSTOI |" in text
    for row in ("mixture", "separated", "improvement", "separated, fixed order"):
        assert f"\n| {row} | " in text
    assert f"| separated | {summary['mean']['separated']['si_sdr']:.1f} |" in text
    assert "agree in 2 of 3 utterances (66.7 %)" in text
    assert "| close-talk mixture |" in text
    assert "undefined" not in text and "silent" not in text


def test_number_of_workers_does_not_matter(tmp_path, scored):
    data_dir, enhanced_dir, _ = scored
    before = outputs(enhanced_dir)
    (enhanced_dir / "scoring" / "utterances.jsonl").unlink()
    command(data_dir, enhanced_dir, "--nj", "2")
    assert outputs(enhanced_dir) == before


def test_without_fixed_order(scored):
    data_dir, enhanced_dir, _ = scored
    cache = enhanced_dir / "scoring" / "utterances.jsonl"
    before = cache.read_bytes()
    job = scored_set.list_jobs(data_dir, enhanced_dir, fixed_order=False)[1]
    result = scored_set.score_job(job)
    assert "fixed_order_si_sdr" not in result["rows"][0]
    summary = results.summarise({job.utt_id: result})
    assert summary["fixed_order_agrees"] is None
    assert cache.read_bytes() == before


def test_speech_at_another_mic_than_the_references_is_refused(tmp_path):
    data_dir, enhanced_dir = make_set(tmp_path, num_utterances=1)
    settings = enhanced_dir / "settings.json"
    settings.write_text(json.dumps({"options": {"ref_channel": 1}}))
    with pytest.raises(ValueError, match="is the speech at mic 1 .* references at mic 0"):
        score(data_dir, enhanced_dir)
    with pytest.raises(ValueError, match="is the speech at mic 1 .* references at mic 0"):
        scored_set.score_share(1, 2, data_dir, enhanced_dir)
    scored_set.require_mic(enhanced_dir, 1)
    settings.write_text(json.dumps({"options": {"ref_channel": None}}))
    scored_set.require_mic(enhanced_dir, 0)


def test_fewer_headsets_than_speakers(scored, tmp_path):
    """A speaker without a headset has no close-talk scores; all else is as it was."""
    data_dir, enhanced_dir = make_set(tmp_path, swapped=[1])
    (data_dir / "closetalk1.scp").unlink()
    summary = score(data_dir, enhanced_dir)
    with open(enhanced_dir / "scoring" / "scores.csv") as file, open(scored[1] / "scoring" / "scores.csv") as whole:
        rows, desired = list(csv.DictReader(file)), list(csv.DictReader(whole))
    for row, of_whole in zip(rows, desired, strict=True):
        without = {f"closetalk_{name}": "" for name in metrics.METRICS} if row["speaker"] == "1" else {}
        assert row == {**of_whole, **without}
    second = [float(row["closetalk_sdr"]) for row in desired if row["speaker"] == "2"]
    assert summary["mean"]["closetalk"]["sdr"] == pytest.approx(np.mean(second))
    assert summary["undefined"]["closetalk"]["sdr"] == 0
    assert summary["mean"]["separated"] == scored[2]["mean"]["separated"]
    for path in data_dir.glob("closetalk*"):
        path.unlink()
    assert "closetalk" not in score(data_dir, enhanced_dir)["mean"]


def test_more_outputs_than_speakers(tmp_path):
    """Three outputs and two speakers: the third is nobody's."""
    data_dir, enhanced_dir = make_set(tmp_path, num_utterances=1, num_speakers=3)
    for name in ("spk3", "closetalk3", "closetalk_spk3"):
        (data_dir / f"{name}.scp").unlink()
    for number, other in ((1, 3), (3, 1)):
        (enhanced_dir / f"spk{number}.scp").rename(enhanced_dir / f"was{other}")
    for number in (1, 3):
        (enhanced_dir / f"was{number}").rename(enhanced_dir / f"spk{number}.scp")
    summary = score(data_dir, enhanced_dir)
    with open(enhanced_dir / "scoring" / "scores.csv") as file:
        assert [(row["speaker"], row["estimate"]) for row in csv.DictReader(file)] == [("1", "3"), ("2", "2")]
    assert summary["num_speakers"] == 2 and summary["mean"]["separated"]["si_sdr"] > 10
    assert read_table(enhanced_dir / "scoring" / "wav_spk1") == read_table(enhanced_dir / "spk3.scp")


def test_the_key_of_a_score(tmp_path):
    """Kept scores stay valid only as long as this literal construction holds: scores.csv may be days of work."""
    data_dir, enhanced_dir = make_set(tmp_path, num_utterances=1)
    (data_dir / "closetalk1.scp").unlink()

    def signal(folder, name):
        return [read_table(folder / f"{name}.scp")["a-b-test00000"], None]

    signals = {
        "mixture": [signal(data_dir, "wav")],
        "references": [signal(data_dir, "spk1"), signal(data_dir, "spk2")],
        "estimates": [signal(enhanced_dir, "spk1"), signal(enhanced_dir, "spk2")],
        "closetalk": [None, signal(data_dir, "closetalk2")],
        "closetalk_references": [signal(data_dir, "closetalk_spk1"), signal(data_dir, "closetalk_spk2")],
    }
    content = {"utt_id": "a-b-test00000", "signals": signals, "ref_mic": 0, "fixed_order": True}
    status = [os.stat(one[0]) for of_family in signals.values() for one in of_family if one]
    text = json.dumps([3, content, *([s.st_size, s.st_mtime_ns] for s in status)], sort_keys=True)
    (job,) = scored_set.list_jobs(data_dir, enhanced_dir)
    assert job.key() == hashlib.sha256(text.encode()).hexdigest()[:32]


class TestResume:
    @pytest.fixture
    def calls(self, monkeypatch):
        """Utterances that are really computed."""
        calls = []
        real = scored_set.score_job

        def count(job):
            calls.append(job.utt_id[-1])
            return real(job)

        monkeypatch.setattr(scored_set, "score_job", count)
        return calls

    def test_only_what_is_missing_or_changed(self, tmp_path, calls):
        data_dir, enhanced_dir = make_set(tmp_path)
        score(data_dir, enhanced_dir)
        before = outputs(enhanced_dir)
        assert sorted(calls) == ["0", "1", "2"]
        calls.clear()

        score(data_dir, enhanced_dir)
        assert calls == [] and outputs(enhanced_dir) == before

        # Killed while writing: the last line is half there, without its newline.
        cache = enhanced_dir / "scoring" / "utterances.jsonl"
        lines = cache.read_text().splitlines(keepends=True)
        cache.write_text(lines[0] + lines[1][: len(lines[1]) // 2])
        score(data_dir, enhanced_dir)
        assert len(calls) == 2 and outputs(enhanced_dir) == before
        assert len(cache.read_text().splitlines()) == 3
        calls.clear()

        changed = read_table(enhanced_dir / "spk2.scp")["a-b-test00001"]
        samples, _ = soundfile.read(changed)
        soundfile.write(changed, 0.5 * samples + 0.01, SAMPLE_RATE, subtype="FLOAT")
        score(data_dir, enhanced_dir)
        assert calls == ["1"] and outputs(enhanced_dir) != before

    def test_finished_utterances_survive_an_error(self, tmp_path, calls):
        data_dir, enhanced_dir = make_set(tmp_path)
        last = read_table(enhanced_dir / "spk2.scp")["a-b-test00002"]
        good = soundfile.read(last)[0]
        os.remove(last)
        with pytest.raises(ValueError, match="utterance 'a-b-test00002': output 2"):
            score(data_dir, enhanced_dir)
        assert calls == ["0", "1", "2"]
        calls.clear()
        soundfile.write(last, good, SAMPLE_RATE, subtype="FLOAT")
        score(data_dir, enhanced_dir)
        assert calls == ["2"]

    def test_pipes_are_computed_again(self, tmp_path, calls):
        data_dir, enhanced_dir = make_set(tmp_path, num_utterances=1)
        table = read_table(enhanced_dir / "spk1.scp")
        piped = {utt_id: f"cat {entry} |" for utt_id, entry in table.items()}
        write_table(enhanced_dir / "spk1.scp", piped)
        score(data_dir, enhanced_dir)
        score(data_dir, enhanced_dir)
        assert len(calls) == 2


class TestResultsMd:
    def test_a_section_is_replaced_and_others_stay(self):
        first = results.replace_section("", "## enhanced_test\n\nold\n")
        both = results.replace_section(first, "## enhanced_valid\n\nvalid\n\n### part\n\nmore\n")
        again = results.replace_section(both, "## enhanced_test\n\nnew\n")
        assert again == both.replace("old", "new")
        assert results.replace_section(again, "## enhanced_test\n\nnew\n") == again
        noted = again.replace("# Results\n", "# Results\n\nA remark of mine.\n")
        assert "A remark of mine." in results.replace_section(noted, "## enhanced_test\n\nx\n")

    def test_two_sets_of_one_experiment(self, tmp_path):
        data_dir, enhanced_dir = make_set(tmp_path, num_utterances=1)
        other = enhanced_dir.parent / "enhanced_valid"
        other.mkdir()
        for name in ("spk1.scp", "spk2.scp"):
            (other / name).write_text((enhanced_dir / name).read_text())
        score(data_dir, enhanced_dir)
        score(data_dir, other)
        before = (enhanced_dir.parent / "RESULTS.md").read_text()
        score(data_dir, enhanced_dir)
        assert (enhanced_dir.parent / "RESULTS.md").read_text() == before
        assert before.count("\n## ") == 2

    def test_undefined_scores_are_counted(self, tmp_path):
        """A silent output has no PESQ: out of the mean for all rows of the table, and said so."""
        data_dir, enhanced_dir = make_set(tmp_path, num_utterances=2)
        path = read_table(enhanced_dir / "spk2.scp")["a-b-test00001"]
        samples, _ = soundfile.read(path)
        soundfile.write(path, 0 * samples, SAMPLE_RATE, subtype="FLOAT")
        summary = score(data_dir, enhanced_dir)
        assert summary["undefined"]["mixture"] == {"si_sdr": 0, "sdr": 0, "pesq": 1, "estoi": 0}
        assert summary["silent_estimates"] == 1
        with open(enhanced_dir / "scoring" / "scores.csv") as file:
            rows = list(csv.DictReader(file))
        assert rows[3]["separated_pesq"] == "" and rows[3]["separated_si_sdr"] == "-100.0"
        for group in ("mixture", "separated"):
            desired = np.mean([float(row[f"{group}_pesq"]) for row in rows[:3]])
            assert summary["mean"][group]["pesq"] == pytest.approx(desired)
        text = (enhanced_dir.parent / "RESULTS.md").read_text()
        assert "**PESQ is undefined in 1 of 4 rows**" in text
        assert "**1 of 4 estimates are silent**" in text

    def test_rate_without_pesq(self):
        row = {"speaker": 1, "estimate": 1, "estimate_is_silent": False}
        for group in ("mixture", "separated"):
            row.update({f"{group}_si_sdr": 1.0, f"{group}_sdr": -0.04, f"{group}_estoi": 0.5})
            row[f"{group}_pesq"] = None
        summary = results.summarise({"utt": {"sample_rate": 44100, "rows": [row]}})
        assert summary["mean"]["improvement"]["pesq"] is None
        text = results.markdown_section({**summary, "set": "s", "data_dir": "d", "ref_mic": 0})
        assert "| mixture | 1.0 | 0.0 | n/a | 0.500 |" in text
        assert "PESQ is not defined at 44100 Hz" in text


class TestMessages:
    """The user learns which utterance and which file."""

    @pytest.fixture
    def one(self, tmp_path):
        return make_set(tmp_path, num_utterances=1)

    def spoil(self, folder, name, change, sample_rate=SAMPLE_RATE):
        path = read_table(folder / f"{name}.scp")["a-b-test00000"]
        samples, _ = soundfile.read(path)
        soundfile.write(path, change(samples), sample_rate, subtype="FLOAT")
        return path

    def job_error(self, one):
        (job,) = scored_set.list_jobs(*one)
        with pytest.raises(ValueError) as error:
            scored_set.score_job(job)
        return str(error.value)

    @pytest.mark.parametrize(
        "where, name, change, sample_rate, desired",
        [
            (1, "spk2", lambda x: x[:-7], 8000, "expected 8000 samples like the mixture ("),
            (1, "spk1", lambda x: x, 16000, "expected 8000 Hz like the mixture ("),
            (1, "spk1", lambda x: x * np.nan, 8000, "expected finite samples"),
            (0, "spk2", lambda x: 0 * x, 8000, "is silent"),
            (0, "closetalk_spk1", lambda x: 0 * x, 8000, "is silent"),
        ],
        ids=["length", "rate", "nan", "silent", "silent headset"],
    )
    def test_signals(self, one, where, name, change, sample_rate, desired):
        path = self.spoil(one[where], name, change, sample_rate)
        message = self.job_error(one)
        assert "utterance 'a-b-test00000'" in message and path in message and desired in message

    def test_missing_audio(self, one):
        path = read_table(one[1] / "spk1.scp")["a-b-test00000"]
        os.remove(path)
        message = self.job_error(one)
        assert "utterance 'a-b-test00000': output 1" in message and path in message

    def test_ref_mic(self, one):
        (job,) = scored_set.list_jobs(*one, ref_mic=3)
        with pytest.raises(ValueError, match="has 3 channels, so no mic 3"):
            scored_set.score_job(job)

    def test_an_error_in_a_worker_is_one_line(self, one, capsys):
        self.spoil(one[1], "spk2", lambda x: x[:-7])
        message = error_of(capsys, *one).splitlines()[-1]
        assert "enh_scoring: error: utterance 'a-b-test00000': output 2" in message

    def test_missing_utterances(self, tmp_path, capsys):
        data_dir, enhanced_dir = make_set(tmp_path)
        table = read_table(enhanced_dir / "spk2.scp")
        del table["a-b-test00001"]
        write_table(enhanced_dir / "spk2.scp", table)
        message = error_of(capsys, data_dir, enhanced_dir)
        assert f"{enhanced_dir}/spk2.scp: 1 of the 3 utterances" in message
        assert "'a-b-test00001'" in message

    def test_unfinished_data_dir(self, one, capsys):
        write_table(one[0] / "utt2spk", {"a-b-test00000": "a-b", "a-b-test00001": "a-b"})
        message = error_of(capsys, *one)
        assert "only one has 'a-b-test00001': the data dir did not finish; run its stage" in message
        (one[0] / "utt2spk").unlink()
        assert "no utt2spk, so the data dir did not finish" in error_of(capsys, *one)

    def test_outputs_and_folders(self, one, capsys, tmp_path):
        data_dir, enhanced_dir = one
        (enhanced_dir / "spk2.scp").unlink()
        assert "has 1 outputs" in error_of(capsys, *one)
        (enhanced_dir / "spk1.scp").unlink()
        assert "expected spk1.scp, spk2.scp ..." in error_of(capsys, *one)
        assert "nowhere: no such directory" in error_of(capsys, data_dir, tmp_path / "nowhere")

    @pytest.mark.parametrize("option", [("--nj", "0"), ("--fixed_order", "maybe")])
    def test_options(self, one, option):
        with pytest.raises(SystemExit) as exit_info:
            command(*one, *option)
        assert exit_info.value.code == 1


def test_segments_cut_the_recordings(tmp_path):
    """With `segments` the data dir's scps are keyed by recording, the separated ones as ever."""
    data_dir, enhanced_dir = make_set(tmp_path, num_utterances=1)
    write_table(data_dir / "segments", {"a-b-cut": "a-b-test00000 0.25 0.75"})
    write_table(data_dir / "utt2spk", {"a-b-cut": "a-b"})
    for name in ("spk1", "spk2"):
        path = read_table(enhanced_dir / f"{name}.scp")["a-b-test00000"]
        samples, _ = soundfile.read(path)
        soundfile.write(path, samples[2000:6000], SAMPLE_RATE, subtype="FLOAT")
        write_table(enhanced_dir / f"{name}.scp", {"a-b-cut": path})
    (job,) = scored_set.list_jobs(data_dir, enhanced_dir)
    assert {len(ref) for ref in job.utterance.read()[0]["spk"].values()} == {4000}
    assert scored_set.score_job(job)["rows"][0]["separated_si_sdr"] > 10


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys; from espnet2_m2m.bin import enh_scoring; enh_scoring.get_parser();"
        "sys.exit(bool({'torch', 'espnet2', 'matplotlib', 'pesq'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
