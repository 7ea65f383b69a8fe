"""The benchmarks damage.py and kills.py in short: every kind of damage once, a few kills."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import damage
from damage_kinds import KINDS


def test_every_kind_of_damage_is_named_or_harmless(tmp_path):
    """Sets, clean speech, recordings and models, each with a random instance of a kind of damage.

    What is damaged in audio files is the same for sets and for recordings that are separated by themselves, so of the
    latter every third kind is enough.
    """
    seeds = [n for n, kind in enumerate(KINDS) if kind.route != "separate" or n % 3 == 0]
    verdicts = damage.judge_all(seeds, tmp_path, scores=False)
    wrong = [damage.describe(n, v) for n, v in verdicts.items() if v.verdict not in ("named", "harmless")]
    assert not wrong, "\n".join(wrong)
    assert len({KINDS[n].name for n in seeds}) > 300
    counts = [sum(v.verdict == verdict for v in verdicts.values()) for verdict in ("named", "harmless")]
    assert min(counts) > 50  # neither is all refused, nor all taken


def test_the_benchmark_finds_what_is_harmful(tmp_path, monkeypatch):
    """Without the comparison of headsets, one file under two of them passes; without the check of samples, NaN."""
    from espnet2_m2m.data_dir import signals

    seeds = [n for n, kind in enumerate(KINDS) if kind.name == "header promises more" and kind.route == "set"]
    assert damage.judge_all(seeds, tmp_path / "right", scores=False)[seeds[0]].verdict == "named"
    monkeypatch.setattr(signals, "compare_files", lambda *_, **__: [])
    monkeypatch.setattr("espnet2_m2m.data_dir.audio.missing_samples", lambda file: None)
    verdict = damage.judge_all(seeds, tmp_path / "wrong", scores=False)[seeds[0]]
    assert verdict.verdict in ("harmful", "vague or late", "harmless")
