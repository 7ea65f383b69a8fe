"""Who says what: a corpus is shared out among the sets, and its utterances among the talkers of their mixtures.

With one utterance of each talker, as in SMS-WSJ, the numbers of times that any two utterances are used differ by
at most one; where utterances are strung together, talkers are used equally often, and each talker's utterances.

`utts_of_speaker` is everywhere a dict of Kaldi's speaker ids, each with the list of its utterance ids.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.simulation.rooms import NUM_TALKERS, Range
from espnet2_m2m.simulation.seeds import generator_of

SETS = ("train", "valid", "test")

Turn = dict[str, Any]  # what one talker says in a mixture, `_turn` shows its keys
DrawTurns = Callable[[np.random.Generator], list[Turn]]  # the turns of the next mixture, from its own generator


def split_speech(utts_of_speaker: dict[str, list[str]], split_by: str, seed: int) -> dict[str, dict[str, list[str]]]:
    """Share out a corpus among train, valid and test.

    By speaker, valid and test get a sixth of the speakers each (at least two); by utterance, every
    speaker is in all three sets, with 70 %, 10 % and 20 % of his utterances (at least one). The
    split depends on nothing but the corpus and the seed, so that sets made at different times with
    different sizes stay disjoint.

    Args:
        utts_of_speaker: of the corpus.
        split_by: "speaker" or "utterance".
        seed: of the permutations.
    Returns:
        set name -> its `utts_of_speaker`.
    Raises:
        ValueError: too few speakers or utterances.
    """
    speakers = sorted(utts_of_speaker)
    parts = {name: {} for name in SETS}
    if split_by == "speaker":
        if len(speakers) < 3 * NUM_TALKERS:
            raise ValueError(
                f"{len(speakers)} speakers cannot be split into three sets of at least"
                f" {NUM_TALKERS}; give more speakers or --split_by utterance"
            )
        held_out = max(NUM_TALKERS, round(len(speakers) / 6))
        names = ["valid"] * held_out + ["test"] * held_out
        names += ["train"] * (len(speakers) - len(names))
        order = generator_of(seed, "split").permutation(len(speakers))
        for name, k in zip(names, order, strict=True):
            parts[name][speakers[k]] = list(utts_of_speaker[speakers[k]])
    elif split_by == "utterance":
        if len(speakers) < NUM_TALKERS:
            raise ValueError(f"a mixture needs {NUM_TALKERS} speakers, found {len(speakers)}")
        for speaker in speakers:
            utts = sorted(utts_of_speaker[speaker])
            if len(utts) < len(SETS):
                raise ValueError(
                    f"speaker '{speaker}' has {len(utts)} utterances; --split_by utterance needs at"
                    f" least {len(SETS)} of every speaker: add some or leave the speaker out"
                )
            utts = [utts[k] for k in generator_of(seed, "split", speaker).permutation(len(utts))]
            num_valid = max(1, round(0.1 * len(utts)))
            num_test = max(1, round(0.2 * len(utts)))
            parts["valid"][speaker] = utts[:num_valid]
            parts["test"][speaker] = utts[num_valid : num_valid + num_test]
            parts["train"][speaker] = utts[num_valid + num_test :]
    else:
        raise ValueError(f"split_by must be speaker or utterance, found '{split_by}'")
    return parts


def strung_turns(
    set_name: str,
    speech: CleanSpeech,
    utts_of_speaker: dict[str, list[str]],
    seed: int,
    min_duration_s: float,
    pause_s: Range,
) -> DrawTurns:
    """Turns of two talkers, each strung together from utterances with pauses between them.

    Args:
        set_name: part of the seed.
        speech: gives lengths and transcripts.
        utts_of_speaker: what this set may use.
        seed: of the order in which talkers and utterances come.
        min_duration_s: utterances are added until the turn lasts so long.
        pause_s: range of the pauses.
    Returns:
        Function from a mixture's generator to its turns; each call draws the next mixture.
    Raises:
        ValueError: (when a mixture is drawn) an utterance without samples.
    """
    speakers = BalancedDraw(sorted(utts_of_speaker), generator_of(seed, set_name, "speakers"))
    utterances = {
        speaker: BalancedDraw(sorted(utts), generator_of(seed, set_name, "utterances", speaker))
        for speaker, utts in utts_of_speaker.items()
    }
    rate = speech.sample_rate_hz

    def draw_turn(rng: np.random.Generator, speaker: str) -> Turn:
        spoken, end = [], 0
        while end < min_duration_s * rate:
            if spoken:
                end += round(rng.uniform(*pause_s) * rate)
            spoken.append(_spoken(speech, utterances[speaker].next(), end))
            end += spoken[-1]["num_samples"]
        return _turn(speech, speaker, spoken)

    def draw_turns(rng: np.random.Generator) -> list[Turn]:
        first = speakers.next()
        return [draw_turn(rng, speaker) for speaker in (first, speakers.next(exclude=first))]

    return draw_turns


def single_turns(set_name: str, speech: CleanSpeech, utts_of_speaker: dict[str, list[str]], seed: int) -> DrawTurns:
    """As `strung_turns`, but one utterance of each talker, and all utterances equally often.

    Raises:
        ValueError: (when a mixture is drawn) as `strung_turns` and `balanced_pairs`.
    """
    pairs = balanced_pairs(utts_of_speaker, generator_of(seed, set_name, "pairs"))
    spoken = cache(partial(_spoken, speech, start_sample=0))  # opens a file for its length

    def draw_turns(_rng: np.random.Generator) -> list[Turn]:
        return [_turn(speech, speaker, [dict(spoken(utt_id))]) for speaker, utt_id in next(pairs)]

    return draw_turns


def _spoken(speech: CleanSpeech, utt_id: str, start_sample: int) -> dict[str, Any]:
    """One utterance of a turn; `start_sample` counts from the first sample of the turn."""
    num_samples = speech.num_samples(utt_id)
    if num_samples < 1:
        raise ValueError(f"{speech.data_dir}: utterance '{utt_id}' has no samples")
    return {"utt_id": utt_id, "start_sample": start_sample, "num_samples": num_samples}


def _turn(speech: CleanSpeech, speaker: str, spoken: list[dict[str, Any]]) -> Turn:
    """What one talker says: a list of `_spoken`, its length and its transcript."""
    text = None
    if speech.text is not None:
        text = " ".join(filter(None, (speech.text[utterance["utt_id"]] for utterance in spoken)))
    num_samples = spoken[-1]["start_sample"] + spoken[-1]["num_samples"]
    return {"speaker_id": speaker, "num_samples": num_samples, "text": text, "utterances": spoken}


class BalancedDraw:
    """Endless draw from `items`: all of them in random order before any comes again.

    Example:
        >>> draw = BalancedDraw("abc", np.random.default_rng(0))
        >>> sorted([draw.next(), draw.next(), draw.next()])
        ['a', 'b', 'c']
    """

    def __init__(self, items: Iterable[Any], rng: np.random.Generator) -> None:
        self._items, self._rng, self._queue = list(items), rng, []

    def next(self, exclude: Any = None) -> Any:
        """The next item that is not `exclude`; what is passed over comes as soon as it may."""
        while True:
            for k, item in enumerate(self._queue):
                if item != exclude:
                    return self._queue.pop(k)
            self._queue += [self._items[k] for k in self._rng.permutation(len(self._items))]


def balanced_pairs(
    utts_of_speaker: dict[str, list[str]], rng: np.random.Generator
) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Endless draw of two utterances of different talkers, each utterance equally often.

    One after the other, the utterances are a sequence of random permutations of all; so the numbers
    of times that any two of them were drawn never differ by more than one.

    Yields:
        ((speaker, utterance id), (speaker, utterance id))
    Raises:
        ValueError: a speaker has more than half of the utterances, or there is only one speaker.
    Example:
        >>> pairs = balanced_pairs({"x": ["x1", "x2"], "y": ["y1"], "z": ["z1"]},
        ...                        np.random.default_rng(0))
        >>> sorted(utt_id for _ in range(2) for _, utt_id in next(pairs))
        ['x1', 'x2', 'y1', 'z1']
    """
    utts = [(spk, utt) for spk in sorted(utts_of_speaker) for utt in sorted(utts_of_speaker[spk])]
    _check_equal_use(utts_of_speaker, len(utts))
    left_over = None  # of an odd number of utterances, until the next permutation
    while True:
        order = [utts[k] for k in rng.permutation(len(utts))]
        if left_over is not None:
            match = next(k for k, (speaker, _) in enumerate(order) if speaker != left_over[0])
            yield left_over, order.pop(match)
        left_over = order.pop() if len(order) % 2 else None
        _part_neighbours(order, rng)
        yield from zip(order[0::2], order[1::2], strict=True)


def _part_neighbours(order: list[tuple[str, str]], rng: np.random.Generator) -> None:
    """Exchange, in place, until items 2k and 2k + 1 of `order` are of different speakers.

    A partner for the exchange exists: as long as a speaker has no more than half of the items,
    there are at least as many pairs without him as there are pairs of himself.
    """
    for k in range(0, len(order), 2):
        speaker = order[k][0]
        while order[k + 1][0] == speaker:
            other = 2 * int(rng.integers(len(order) // 2))
            if speaker not in (order[other][0], order[other + 1][0]):
                order[k + 1], order[other] = order[other], order[k + 1]


def _check_equal_use(utts_of_speaker: dict[str, list[str]], num_utts: int) -> None:
    speaker = max(sorted(utts_of_speaker), key=lambda spk: len(utts_of_speaker[spk]))
    most = len(utts_of_speaker[speaker])
    if 2 * most > num_utts:
        raise ValueError(
            f"speaker '{speaker}' has {most} of {num_utts} utterances: with one utterance of each"
            " talker, all can be used equally often only if no speaker has more than half of them;"
            " add speakers, leave some utterances out or give --min_duration"
        )
