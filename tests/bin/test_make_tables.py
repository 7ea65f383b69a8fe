"""Tables of a made-up study: figures computed by hand, the paper's against its text, messages, pictures."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_study import write_checkpoint, write_run, write_scores

from espnet2_m2m.bin import make_tables
from espnet2_m2m.report import paper, study_figures
from espnet2_m2m.report import study as studies
from espnet2_m2m.scoring.metrics import METRICS

ROOT = Path(__file__).parent.parent.parent
PAPER_TEXT = ROOT.parent / "shared" / "reference" / "m2m_paper.txt"
ROW_FILES = {path.stem for path in (ROOT / "conf" / "tuning").glob("table*.yaml")}


def run(study_dir, *options):
    """The command; returns TABLES.md and the rows of tables.csv."""
    make_tables.main(["--study_dir", str(study_dir), *options])
    with open(study_dir / "tables.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return (study_dir / "TABLES.md").read_text(encoding="utf-8"), rows


def line_of(text, *starts):
    """Cells of the only line of a Markdown table that begins with these cells."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    (found,) = [line for line in lines if line[: len(starts)] == list(starts)]
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Table II: row 1a with 3 seeds, one also consistent, PIT with 2 and with FCP behind it, M2M with anchor with 1."""
    folder = tmp_path_factory.mktemp("study") / "small_2ep"
    for seed, si_sdr in ((0, 10.0), (1, 11.0), (10, 13.0)):
        run_dir = write_run(folder, "table2_1a_m2m", seed, si_sdr, curve=(seed, si_sdr - 1))
    write_scores(run_dir / "enhanced_test_consistent", {"si_sdr": 14.0, "sdr": 15.0, "pesq": 4.0, "estoi": 0.9})
    for seed, si_sdr in ((0, 18.9), (1, 18.9)):
        run_dir = write_run(folder, "table2_4b_pit", seed, si_sdr)
        write_scores(run_dir / "enhanced_test_fcp", {"si_sdr": 20.0, "sdr": 20.0, "pesq": 4.0, "estoi": 0.9})
    conf = {"anchor_weight": 1.0, "alpha": 0.142857, "closetalk_future_taps": 4}
    write_run(folder, "table2_ours_m2m_anchor", 0, -0.04, conf=conf)
    (folder / "table2_4a_unssor_seed0").mkdir()
    (folder / "notes").mkdir()
    return folder


def test_figures(study):
    text, rows = run(study)
    # 10, 11, 13: mean 34/3, squared deviations 16/9 + 1/9 + 25/9 = 42/9, so std = sqrt(42/18).
    assert line_of(text, "1a")[3:8] == ["1.0", "16.9", "11.3 ± 1.5", "-5.6", "17.9"]
    assert line_of(text, "1a")[10:] == ["3.85", "2.27 ± 0.31", "-1.58", "0.931", "0.567 ± 0.076", "-0.364", "3"]
    (row,) = [r for r in rows if (r["row"], r["metric"]) == ("table2_1a_m2m", "si_sdr")]
    actual = [float(row[name]) for name in ("paper", "mean", "std", "difference")]
    assert actual == pytest.approx([16.9, 34 / 3, np.sqrt(42 / 18), 34 / 3 - 16.9], abs=1e-9)
    assert (row["table"], row["seeds"]) == ("2", "0 1 10")
    # All seeds alike, and as the paper: no difference, without a minus sign.
    assert line_of(text, "4b")[4:7] == ["18.9", "18.9 ± 0.0", "+0.0"]


def test_our_rows_have_no_paper_and_one_seed_no_spread(study):
    text, rows = run(study)
    assert line_of(text, "-", "PIT, then FCP")[2:7] == ["19/1/19/1", "1.0", "-", "20.0 ± 0.0", "-"]
    assert line_of(text, "-", "M2M, consistent")[2:7] == ["19/1/19/1", "1.0", "-", "14.0", "-"]
    anchor = line_of(text, "-", "M2M with anchor")
    assert anchor[2:8] == ["19/4/19/1", "1/7", "-", "0.0", "-", "-"] and anchor[-1] == "1"
    (row,) = [r for r in rows if (r["row"], r["metric"]) == ("table2_ours_m2m_anchor", "sdr")]
    assert (row["paper"], row["std"], row["difference"]) == ("", "", "")


def test_rows_of_the_paper_that_were_not_run(study):
    text, _ = run(study)
    assert line_of(text, "1b") == [
        "1b",
        "M2M",
        "19/2/19/1",
        "1.0",
        "15.8",
        "-",
        "-",
        "16.7",
        "-",
        "-",
        "3.76",
        "-",
        "-",
        "0.916",
        "-",
        "-",
        "-",
    ]
    labels = re.findall(r"^\| (\w+|-) +\|", text.partition("## What was run")[0], flags=re.MULTILINE)
    assert labels == ["Row", "-", "Row", *"0 1a - 1b 1c 1d 1e 2a 2b 2c 4a 4b".split(), "-", "-"]
    assert "Table III: no row was run" in text and "## Table III" not in text
    assert "**Not finished**, so not in the tables: table2_4a_unssor_seed0." in text


def test_mixture_and_close_talk_come_from_the_same_scores(study):
    text, rows = run(study)
    with open(study / "table2_4b_pit_seed1/enhanced_test/scoring/scores.csv", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    for key, group in (("table1_closetalk", "closetalk"), ("table2_0_mixture", "mixture")):
        for metric in METRICS:
            (row,) = [r for r in rows if (r["row"], r["metric"]) == (key, metric)]
            desired = np.mean([float(r[f"{group}_{metric}"]) for r in scores])
            assert float(row["mean"]) == pytest.approx(desired) and row["std"] == row["seeds"] == ""
    assert line_of(text, "0", "mixture")[4] == "0.0"


def test_what_was_run_and_notes(study):
    record = {"commit": "abc1234", "status": "finished"}
    for seed in (0, 1):
        (study / f"table2_1a_m2m_seed{seed}/run_table.jsonl").write_text(json.dumps(record) + "\n")
    text, _ = run(study)
    assert line_of(text, "table2_1a_m2m") == ["table2_1a_m2m", "0 1 10", "2", "200", "120"]
    assert "test set `dump/raw/test`: 4 utterances of 2 talkers, 8000 Hz" in text
    assert "Commit abc1234." in text
    assert "differ in length" not in text and "undefined" not in text


def test_differing_trainings_and_silent_outputs_are_named(study, tmp_path):
    for seed, steps in ((0, 100), (1, 50)):
        folder = write_run(tmp_path, "table3_2c_m2m", seed, 5.0)
        write_checkpoint(folder / "checkpoint.pth", (1.0, 2.0), steps_per_epoch=steps)
    path = tmp_path / "table3_2c_m2m_seed1/enhanced_test/scoring/summary.json"
    summary = json.loads(path.read_text())
    summary["silent_estimates"] = 2
    summary["undefined"]["mixture"]["pesq"] = 2
    path.write_text(json.dumps(summary))
    text, _ = run(tmp_path)
    assert "**The trainings differ in length**: 100 to 200 steps." in text
    assert "**table2" not in text and "**table3_2c_m2m_seed1: 2 of 8 estimates are silent**" in text
    assert "table3_2c_m2m_seed1: PESQ is undefined for 2 signals" in text
    assert "Table II: no row was run" in text


def test_wide_band_pesq_is_not_compared(tmp_path):
    write_run(tmp_path, "table2_1a_m2m", 0, 10.0, sample_rate=16000)
    text, _ = run(tmp_path)
    assert line_of(text, "1a")[10:13] == ["3.85", "2.00", "-"]
    assert "PESQ is wide-band here and narrow-band in the paper" in text


@pytest.mark.skipif(not PAPER_TEXT.is_file(), reason="the paper's text is not beside the repository")
def test_figures_of_the_paper():
    """Every line of Tables I to III in the paper's text is a row here, and the other way round."""
    found = {}
    for number, table in enumerate(re.split(r"^TABLE (?=I)", PAPER_TEXT.read_text(), flags=re.MULTILINE)[1:], start=1):
        for line in table.splitlines():
            cells = line.split("\t")
            if len(cells) == 5 and cells[0] == "SMS-WSJ-FF-CT":
                found["1", "-"] = ("close-talk mixture", "-", "-", *map(float, cells[1:]))
            elif len(cells) == 9 and cells[0] != "Row":
                system = cells[2].partition(" [")[0].replace("Mixture", "mixture")
                found[str(number), cells[0]] = (system, *cells[3:5], *map(float, cells[5:]))
    ours = {
        (row.table, row.label): (row.system, row.taps, row.alpha, *row.paper.values()) for row in paper.PAPER.values()
    }
    assert len(found) == 19 and ours == found


def test_rows_are_the_files_of_conf_tuning():
    trained = paper.PAPER.keys() - paper.QUALITIES.keys()
    assert trained <= ROW_FILES
    assert ROW_FILES - trained == set(paper.OUR_SYSTEMS)


@pytest.mark.parametrize("alpha, text", [(1.0, "1.0"), (0.2, "1/5"), (1 / 6, "1/6"), (0.14, "0.14")])
def test_alpha_as_the_paper_writes_it(alpha, text):
    assert studies._format_alpha(alpha) == text


class TestPictures:
    def test_are_written_and_linked(self, study):
        text, _ = run(study)
        for name in ("si_sdr_steps.png", "si_sdr_boxes.png"):
            assert f"]({name})" in text and (study / name).read_bytes().startswith(b"\x89PNG")

    def test_curves_are_mean_and_range_of_the_seeds(self, study):
        ((title, curves),) = studies.learning_curves(studies.collect(study))
        assert title == "Table II (P = 6)"
        names = [name for _, name, *_ in curves]
        assert names == ["1a M2M 19/1/19/1", "4b PIT", "M2M with anchor 19/4/19/1"], "FCP has no training"
        _, _, steps, mean, low, high = curves[0]
        assert steps == [100, 200] and low == [0, 9] and high == [10, 12]
        assert mean == pytest.approx([11 / 3, 31 / 3])

    def test_curves_say_whose_validation_is_of_the_consistent_output(self, study, tmp_path):
        shutil.copytree(study, tmp_path / "study")
        with open(tmp_path / "study/table2_ours_m2m_anchor_seed0/config.yaml", "a") as config:
            config.write("\nmodel_conf: {mixture_consistency: true}\n")
        ((_, curves),) = studies.learning_curves(studies.collect(tmp_path / "study"))
        assert [name for _, name, *_ in curves][1:] == ["4b PIT", "M2M with anchor 19/4/19/1, consistent"]

    def test_distributions_pool_the_seeds(self, study):
        ((_, boxes),) = studies.distributions(studies.collect(study))
        assert [(name, len(values)) for _, name, values in boxes] == [
            ("0 mixture", 8),
            ("1a M2M 19/1/19/1", 24),
            ("M2M, consistent 19/1/19/1", 8),
            ("4b PIT", 16),
            ("PIT, then FCP 19/1/19/1", 16),
            ("M2M with anchor 19/4/19/1", 8),
        ]

    def test_without_checkpoints_there_are_no_curves(self, tmp_path):
        write_run(tmp_path, "table2_1a_m2m", 0, 10.0, curve=())
        text, _ = run(tmp_path)
        assert "si_sdr_steps.png" not in text and not (tmp_path / "si_sdr_steps.png").exists()
        assert line_of(text, "table2_1a_m2m")[1:] == ["0", "-", "-", "-"]

    def test_a_diverged_validation_leaves_a_gap(self, tmp_path):
        write_run(tmp_path, "table2_1a_m2m", 0, 10.0, curve=(1.0, float("nan"), 3.0))
        run(tmp_path)
        ((_, ((_, _, steps, mean, _, _),)),) = studies.learning_curves(studies.collect(tmp_path))
        assert (steps, mean) == ([100, 300], [1.0, 3.0])

    @pytest.mark.parametrize("values", [[0, 1, 2], [0, 0, 0], [0, 0.1, 3, 3.1, 3.1, 9], [5]])
    def test_names_keep_apart(self, values):
        actual = study_figures.spread(values, 0.5)
        assert np.diff(actual).min(initial=9) > 0.5 - 1e-9
        assert np.mean(actual) == pytest.approx(np.mean(values))
        if np.diff(values).min(initial=9) >= 0.5:
            assert actual == values


class TestMessages:
    def error(self, capsys, study_dir, *options):
        with pytest.raises(SystemExit) as exit_info:
            run(study_dir, *options)
        assert exit_info.value.code == 1
        return capsys.readouterr().err

    def test_no_folder(self, tmp_path, capsys):
        assert f"{tmp_path / 'no'}: no such directory" in self.error(capsys, tmp_path / "no")

    def test_nothing_finished(self, tmp_path, capsys):
        (tmp_path / "table2_1a_m2m_seed0").mkdir()
        message = self.error(capsys, tmp_path)
        assert "no run that was scored on 'test'" in message
        assert "not finished: 'table2_1a_m2m_seed0'" in message

    def test_other_test_set(self, study, capsys):
        assert "no run that was scored on 'dev'" in self.error(capsys, study, "--test_set", "dev")

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"set_seed": 1}, "the SI-SDR of mixture 'a-b-test0' is"),
            ({"num_utterances": 5}, "they have 10 and 8 signals, and only one has utterance 'a-b-test4'"),
            ({"sample_rate": 16000}, "sample_rate_hz is 16000 and 8000"),
        ],
    )
    def test_mixed_test_sets(self, tmp_path, capsys, options, message):
        write_run(tmp_path, "table2_1a_m2m", 0, 10.0)
        write_run(tmp_path, "table2_1a_m2m", 1, 10.0, **options)
        text = self.error(capsys, tmp_path)
        assert "were not scored on the same set" in text and message in text

    def test_broken_checkpoint(self, tmp_path, capsys):
        folder = write_run(tmp_path, "table2_1a_m2m", 0, 10.0)
        (folder / "checkpoint.pth").write_bytes(b"none")
        assert f"{folder / 'checkpoint.pth'}: not a checkpoint" in self.error(capsys, tmp_path)
