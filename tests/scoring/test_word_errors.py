"""Error rates of several talkers against a literal search over all assignments."""

import itertools

import numpy as np
import pytest

from espnet2_m2m.bin import asr_scoring as command
from espnet2_m2m.data_dir import write_table
from espnet2_m2m.data_dir.signals import Signal
from espnet2_m2m.data_dir.talkers import TalkerLine, write_talker_data_dir
from espnet2_m2m.scoring.word_errors import markdown_section, score_mixture, score_set


def edit_distance(ref, hyp):
    """Levenshtein's recursion, row by row."""
    row = list(range(len(hyp) + 1))
    for i, a in enumerate(ref, start=1):
        before, row = row, [i]
        for j, b in enumerate(hyp, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def fewest_errors(refs, hyps):
    """Of all assignments; talkers or hypotheses that are left over meet silence."""
    size = max(len(refs), len(hyps))
    refs, hyps = refs + [[]] * (size - len(refs)), hyps + [[]] * (size - len(hyps))
    return min(sum(edit_distance(ref, hyp) for ref, hyp in zip(refs, order)) for order in itertools.permutations(hyps))


@pytest.mark.parametrize("unit, split", [("wer", str.split), ("cer", list)])
@pytest.mark.parametrize("num_refs, num_hyps", [(2, 2), (3, 3), (2, 3), (3, 2), (2, 1)])
def test_errors_are_those_of_the_best_assignment(unit, split, num_refs, num_hyps):
    rng = np.random.default_rng(num_refs + 10 * num_hyps)
    for _ in range(20):

        def sentence():
            return " ".join(rng.choice(["red", "blue", "a", "b", "read"], rng.integers(0, 6)))

        refs, hyps = [sentence() for _ in range(num_refs)], [sentence() for _ in range(num_hyps)]
        counts = score_mixture(refs, hyps, unit)
        assert counts["errors"] == fewest_errors(list(map(split, refs)), list(map(split, hyps)))
        assert counts["errors"] == counts["substitutions"] + counts["deletions"] + counts["insertions"]
        assert counts["length"] == sum(len(split(ref)) for ref in refs) and counts["lines"] == num_refs


def test_by_hand():
    refs, hyps = ["lay red at a", "set blue"], ["set green", "lay red a"]  # exchanged
    assert score_mixture(refs, hyps) == {
        "lines": 2,
        "length": 6,
        "correct": 4,
        "substitutions": 1,
        "deletions": 1,
        "insertions": 0,
        "errors": 2,
        "wrong_lines": 2,
    }
    assert score_mixture(refs, ["lay red at a"] * 2)["errors"] == 4, "one hypothesis for both talkers"
    assert score_mixture(["a", ""], ["a", ""])["wrong_lines"] == 0


@pytest.fixture
def example(tmp_path):
    """A set of two mixtures, recognised perfectly (in exchanged order) and from the mixture."""
    data_dir = tmp_path / "test"
    write_table(data_dir / "text_spk1", {"m1": "one two", "m2": "three"})
    write_table(data_dir / "text_spk2", {"m1": "four", "m2": "five six"})
    hypotheses = {
        "mixture": {"m1": ["one two"] * 2, "m2": ["three six"] * 2},
        "sep": {"m1": ["four", "one two"], "m2": ["five six", "three"]},
    }
    for condition, of_mixture in hypotheses.items():
        lines = [TalkerLine(f"t{n}", mixture, n, Signal("x.wav")) for mixture in of_mixture for n in (1, 2)]
        write_talker_data_dir(tmp_path / "decode" / "test" / condition, lines)
        hyp = {line.utt_id: of_mixture[line.mixture][line.stream - 1] for line in lines}
        write_table(tmp_path / "decode" / "test" / condition / "hyp", hyp)
    return data_dir, tmp_path / "decode" / "test"


def test_a_set(example):
    summary = score_set(*example)
    assert list(summary["conditions"]) == ["mixture", "sep"]
    assert summary["conditions"]["sep"]["wer"]["rate"] == 0 == summary["conditions"]["sep"]["cer"]["rate"]
    mixture = summary["conditions"]["mixture"]["wer"]
    # one two | four: 0 + 2; three | five six: 1 + 1
    assert mixture["errors"] == 4 and mixture["rate"] == pytest.approx(100 * 4 / 6)
    assert "|mixture|4|6|50.0|33.3|16.7|16.7|66.7|75.0|" not in markdown_section(summary)
    row = next(line for line in markdown_section(summary).splitlines() if line.startswith("|mixture|"))
    cells = row.strip("|").split("|")
    assert cells[1:3] == ["4", "6"] and cells[7] == "66.7"
    assert float(cells[3]) + float(cells[4]) + float(cells[5]) == pytest.approx(100, abs=0.11)


def test_the_command_keeps_the_sections_of_other_sets(example, capsys):
    results = example[1].parent / "RESULTS_ASR.md"
    results.write_text("# RESULTS_ASR\n\n## other\n\nkept\n\n## test\n\nold\n")
    command.main(["--data_dir", str(example[0]), "--decode_dir", str(example[1])])
    text = results.read_text()
    assert "kept" in text and "old" not in text and "|sep|4|6|100.0|0.0|0.0|0.0|0.0|0.0|" in text
    assert (example[1] / "summary.json").is_file()


def test_missing_things_are_named(example, capsys):
    def message():
        with pytest.raises(SystemExit):
            command.main(["--data_dir", str(example[0]), "--decode_dir", str(example[1])])
        return capsys.readouterr().err

    hyp = example[1] / "sep" / "hyp"
    lines = hyp.read_text().splitlines(keepends=True)
    hyp.write_text("".join(lines[1:]))
    assert "t1-m1" in message()
    hyp.unlink()
    assert "has not finished" in message()
    hyp.write_text("".join(lines))
    write_table(example[0] / "text_spk1", {"m1": "one two"})
    assert "m2" in message()
    for path in example[0].iterdir():
        path.unlink()
    assert "text_spk" in message()
