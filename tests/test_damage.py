"""The benchmark damage.py in short, and whether it sees what it is for."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import damage
from damage_case import Kind, Spot, quantised, write_audio
from damage_kinds import KINDS

# What the benchmark found once: harmful, late, vague or with a traceback.
FOUND = """a speaker less|speaker id with a slash|both speakers of one id|8 bits|format mu-law|settings.json broken|
kept scores broken|config: integer of 10,000 digits|valid.loss.best.pth: random bytes|
checkpoint.pth: statistics of numbers|zip: a byte changed""".replace("\n", "").split("|")


def test_damage_is_named_or_harmless(tmp_path):
    """Every third kind: sets, clean speech, recordings and models, each with a random instance of damage."""
    found = [n + len(KINDS) for n, kind in enumerate(KINDS) if kind.name in FOUND]  # sets with segments
    assert {KINDS[n - len(KINDS)].name for n in found} == set(FOUND)
    verdicts = damage.judge_all([*range(0, len(KINDS), 3), *found], tmp_path, scores=False)
    wrong = [damage.describe(n, v) for n, v in verdicts.items() if v.verdict not in ("named", "harmless")]
    assert not wrong, "\n".join(wrong)
    assert len({n % len(KINDS) for n in verdicts}) > 150
    counts = [sum(v.verdict == verdict for v in verdicts.values()) for verdict in ("named", "harmless")]
    assert min(counts) > 15  # neither is all refused, nor all taken


def test_the_benchmark_sees_harm(tmp_path, monkeypatch):
    """Nothing is damaged; other samples, which nobody can notice; a transcript; a file that is not where it is said."""

    def nothing(case):
        return Spot(("wav.scp",))

    def other_samples(case):
        signal, key, path = case.entry("spk1")
        write_audio(path, quantised(0.7 * case.content(signal, key)))
        return case.spot(signal, key, path)

    def other_words(case):
        case.write("text_spk1", [line + b" MORE" for line in case.lines("text_spk1")])
        return Spot(("text_spk1",))

    def wrong_spot(case):
        case.entry("spk1")[2].unlink()
        return Spot(("closetalk1.scp",), ("closetalk1.scp:7",))

    kinds = [Kind(do.__name__, "any", do) for do in (nothing, other_samples, other_words, wrong_spot)]
    monkeypatch.setattr(damage, "KINDS", kinds)
    verdicts = damage.judge_all(list(range(12)), tmp_path, scores=False)  # in each of the three forms
    assert [v.verdict for v in verdicts.values()] == ["harmless", "harmful", "harmful", "vague or late"] * 3
