"""Kept results: which count, what a killed run leaves, and what a key depends on."""

import json
import os

import pytest

from espnet2_m2m.data_dir.cache import Cache, input_key, read_cache


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exp" / "results.jsonl"


def test_results_count_as_long_as_their_key_is_the_same(path):
    cache = Cache(path, {"a": "1", "b": "2", "c": None})
    assert cache.missing() == ["a", "b", "c"]
    for name in "bca":
        cache.keep(name, [name])
    assert cache.missing() == [] and cache.results == {"a": ["a"], "b": ["b"], "c": ["c"]}
    again = Cache(path, {"a": "1", "b": "changed", "c": None, "d": "4"})
    assert again.results == {"a": ["a"]}, "b has changed, and of c nobody knows"
    assert again.missing() == ["b", "c", "d"]
    again.keep("b", "new")
    assert read_cache(path) == {"b": ("changed", "new"), "c": (None, ["c"]), "a": ("1", ["a"])}


def test_what_a_killed_run_left_of_a_line_spoils_no_other(path):
    cache = Cache(path, {"a": "1", "b": "2"})
    for name in "ab":
        cache.keep(name, 0.5)
    path.write_bytes(path.read_bytes()[:-5])
    again = Cache(path, {"a": "1", "b": "2"})
    assert again.results == {"a": 0.5}
    again.keep("b", 0.25)
    assert Cache(path, {"a": "1", "b": "2"}).results == {"a": 0.5, "b": 0.25}
    assert len(path.read_text().splitlines()) == 3, "the broken line stands there yet"


def test_a_tidy_cache_takes_over_the_shares_and_drops_the_rest(path):
    keys = {"a": "1", "b": "2", "c": "3"}
    shares = [path.with_name(f"share{n}.jsonl") for n in (1, 2)]
    for share, name in zip(shares, "ab"):
        Cache(share, {name: keys[name], "old": "x"}).keep(name, name)
    Cache(path, {"c": "other", "a": "1"}).keep("c", "stale")
    assert Cache(path, keys, shares).results == {"a": "a", "b": "b"} and len(read_cache(path)) == 1
    Cache(path, keys, shares, tidy=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"utt_id": name, "key": keys[name], "result": name} for name in "ab"]


def test_a_key_knows_version_content_and_files(tmp_path):
    entry = tmp_path / "a.wav"
    entry.write_bytes(b"1234")
    ark = f"{entry}:17"
    keys = {input_key([version, content], [str(entry)]) for version in (1, 2) for content in ({"mic": 0}, {"mic": 1})}
    assert len(keys) == 4 and all(len(key) == 32 for key in keys)
    key = input_key([1, {"a": 1, "b": 2}], [ark])
    assert key == input_key([1, {"b": 2, "a": 1}], [ark])
    os.utime(entry, ns=(1, 1))
    assert key != input_key([1, {"a": 1, "b": 2}], [ark])
    assert input_key([1], [str(entry), "cat a.wav |"]) is None, "of a pipe nobody knows"
    assert input_key([1], [str(entry), str(tmp_path / "nowhere.wav")]) is None


def half(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def test_complete_computes_what_is_missing_and_keeps_what_it_had_before_an_error(path):
    keys = {"c": "1", "b": "2", "a": "3"}
    Cache(path, keys).keep("b", "kept")
    with pytest.raises(ValueError, match="7 is odd"):
        Cache(path, keys).complete(half, {"c": 4, "b": 1, "a": 7}, 1, "halve", "number")
    cache = Cache(path, keys)
    assert cache.results == {"b": "kept", "c": 2}
    found = cache.complete(half, {"c": 1, "b": 1, "a": 8}, 1, "halve", "number")
    assert list(found.items()) == [("c", 2), ("b", "kept"), ("a", 4)], "in the order of the keys"
    assert Cache(path, keys).results == found
