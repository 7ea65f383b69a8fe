"""Who says what: sets that share nothing, and fair use of talkers and utterances."""

from collections import Counter

import numpy as np
import pytest

from espnet2_m2m.simulation.turns import BalancedDraw, balanced_pairs, split_speech


def test_balanced_draw_deals_out_everything_before_it_repeats():
    draw_from = BalancedDraw(range(5), np.random.default_rng(0))
    for _ in range(3):
        assert sorted(draw_from.next() for _ in range(5)) == [0, 1, 2, 3, 4]
    only = BalancedDraw(["a", "b"], np.random.default_rng(0))
    assert [only.next(exclude="a") for _ in range(3)] == ["b", "b", "b"]
    assert [only.next() for _ in range(3)] == ["a", "a", "a"]


CORPORA = {
    "even": {"a": 3, "b": 4, "c": 5},
    "odd": {"a": 2, "b": 5, "c": 4},
    "one speaker has half": {"a": 6, "b": 2, "c": 4},
    "one speaker has half, but for one": {"a": 5, "b": 2, "c": 4},
    "two speakers": {"a": 4, "b": 4},
    "two utterances": {"a": 1, "b": 1},
}


def corpus_of(sizes):
    return {speaker: [f"{speaker}{k}" for k in range(size)] for speaker, size in sizes.items()}


@pytest.mark.parametrize("sizes", CORPORA.values(), ids=CORPORA)
def test_pairs_use_all_utterances_equally_often_at_any_time(sizes):
    corpus = corpus_of(sizes)
    for seed in range(20):
        pairs = balanced_pairs(corpus, np.random.default_rng(seed))
        used = Counter(dict.fromkeys(sum(corpus.values(), []), 0))
        for _ in range(5 * len(used)):
            (first, first_utt), (second, second_utt) = next(pairs)
            assert first != second
            assert first_utt in corpus[first] and second_utt in corpus[second]
            used.update([first_utt, second_utt])
            assert max(used.values()) - min(used.values()) <= 1
        assert set(used.values()) == {10}


def test_pairs_are_random():
    corpus = corpus_of({"a": 10, "b": 10, "c": 10})
    partners = {
        frozenset(utt for _, utt in pair)
        for seed in range(100)
        for pair in [next(balanced_pairs(corpus, np.random.default_rng(seed)))]
    }
    assert len(partners) > 60  # of 300 possible ones


@pytest.mark.parametrize("sizes", [{"a": 4}, {"a": 4, "b": 3}])
def test_a_speaker_with_more_than_half_of_the_utterances(sizes):
    total = sum(sizes.values())
    with pytest.raises(ValueError, match=f"'a' has 4 of {total} utterances.*--min_duration"):
        next(balanced_pairs(corpus_of(sizes), np.random.default_rng(0)))


def test_split_by_speaker_is_disjoint():
    corpus = {f"s{k:02d}": [f"s{k:02d}-{i}" for i in range(3)] for k in range(24)}
    parts = split_speech(corpus, "speaker", seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "valid": 4, "test": 4}
    assert sorted(speaker for part in parts.values() for speaker in part) == sorted(corpus)
    six = split_speech(dict(list(corpus.items())[:6]), "speaker", seed=0)
    assert [len(part) for part in six.values()] == [2, 2, 2]


def test_split_by_utterance_is_disjoint():
    corpus = {f"s{k}": [f"s{k}-{i}" for i in range(10)] for k in range(2)}
    parts = split_speech(corpus, "utterance", seed=0)
    for speaker, utts in corpus.items():
        shares = [parts[name][speaker] for name in ("train", "valid", "test")]
        assert [len(share) for share in shares] == [7, 1, 2]
        assert sorted(sum(shares, [])) == sorted(utts)


@pytest.mark.parametrize(
    ("corpus", "split_by", "message"),
    [
        ({f"s{k}": ["a", "b", "c"] for k in range(5)}, "speaker", "--split_by utterance"),
        ({"s0": ["a", "b", "c"]}, "utterance", "2 speakers, found 1"),
        ({"s0": ["a", "b", "c"], "s1": ["a", "b"]}, "utterance", "'s1' has 2 utterances"),
        ({"s0": ["a", "b", "c"]}, "sentence", "found 'sentence'"),
    ],
)
def test_split_refuses_what_cannot_be_split(corpus, split_by, message):
    with pytest.raises(ValueError, match=message):
        split_speech(corpus, split_by, seed=0)
