"""What the value of each line must be, file by file: Kaldi's rules for single lines."""

import re

from espnet2_m2m.data_dir.directory import AUDIO_SCP, TEXT_TABLES, parse_segment, table_key
from espnet2_m2m.data_dir.ids import id_problem, word_problem
from espnet2_m2m.data_dir.scenes import parse_scene, scene_problem
from espnet2_m2m.data_dir.tables import parse_number, shorten, split_fields

# Words that Kaldi's graphs use themselves, where `grep -w` finds them.
ILLEGAL_SYMBOLS = re.compile(r"(?<!\w)(<s>|</s>|#0)(?!\w)")


def key_problem(name: str, key: str, segmented: bool) -> tuple[str, str] | None:
    """As `value_problem`, of a line's id: that of an utterance becomes a file's name.

    Args:
        segmented: the audio scps are keyed by recording, since there is a `segments`.
    """
    of_utterance = table_key(name) in ("utt", "jsonl") and not (segmented and AUDIO_SCP.fullmatch(name))
    problem = id_problem(key) if of_utterance else word_problem(key)
    return (problem, "rename it in all tables") if problem else None


def value_problem(name: str, key: str, value: str) -> tuple[str, str] | None:
    """What is wrong with one line of a table.

    Args:
        name: file name, e.g. "utt2dur"; it decides which rule holds.
        key, value: the line's id and the rest; only transcripts may have an empty value.
    Returns:
        (message, remedy), or None if the line is right.
    """
    if TEXT_TABLES.fullmatch(name):
        return _text_problem(f"{key} {value}")
    if table_key(name) == "jsonl":
        problem = scene_problem(parse_scene(value))
        return (problem, "simulate the set again or remove the file") if problem else None
    for pattern, expected, accepts in VALUE_RULES:
        if re.fullmatch(pattern, name):
            if accepts(value):
                return None
            return f"expected {expected}, found `{shorten(f'{key} {value}')}`", "correct the line"
    if not value:
        return f"expected `{key} value`, found only the id", "complete the line"
    return None


def _text_problem(line: str) -> tuple[str, str] | None:
    """Transcripts: forbidden white space, control characters and symbols."""
    spaces = {char for char in line if char.isspace() and char not in " \t"}
    unprintable = {char for char in line if not char.isprintable() and char != "\t"}
    for found, expected, remedy in (
        (spaces, "only blank and tab as white space", "replace by a blank"),
        (unprintable, "printable characters", "remove them"),
    ):
        if found:
            codes = ", ".join(f"U+{ord(char):04X}" for char in sorted(found))
            return f"expected {expected}, found {codes}", remedy
    symbol = ILLEGAL_SYMBOLS.search(line)
    if symbol:
        return f"expected no <s>, </s> or #0, found `{symbol[0]}`", "remove the symbol"
    return None


def _is_number(value: str, low: float = 0.0, high: float = float("inf")) -> bool:
    number = parse_number(value)
    return number is not None and low < number < high


def _is_count(value: str) -> bool:
    return value.isdecimal() and _is_number(value)


def _is_id(value: str) -> bool:
    return split_fields(value) == [value] and word_problem(value) is None


def _is_segment(value: str) -> bool:
    segment = parse_segment(value)
    return segment is not None and word_problem(segment[0]) is None


def _is_file_and_channel(value: str) -> bool:
    fields = split_fields(value)
    return len(fields) == 2 and fields[1] in ("A", "B", "1")


def _is_entry(value: str) -> bool:
    """Of an audio scp. A NUL ends a path, a line end of another kind than LF cuts the entry in two elsewhere."""
    return value != "" and not value.startswith("~") and value.splitlines() == [value] and "\0" not in value


VALUE_RULES = [  # (file name, what its values must be, test)
    ("utt2spk", "two fields, `utterance speaker`", _is_id),
    ("(utt|reco)2dur", "a duration in seconds > 0", _is_number),
    ("(utt|reco)2num_.+|utt2fs", "an integer > 0", _is_count),
    ("(utt|spk)2warp", "a factor between 0.5 and 1.5", lambda v: _is_number(v, 0.5, 1.5)),
    ("spk2gender", "m or f", lambda value: value in ("m", "f")),
    ("reco2file_and_channel", "`recording file A` or `recording file B`", _is_file_and_channel),
    (
        "segments",
        "`utterance recording start end` with 0 <= start < end in seconds",
        _is_segment,
    ),
    (
        AUDIO_SCP.pattern,
        "a path or a command, without `~`, which nobody expands, and without control characters",
        _is_entry,
    ),
]
