"""What the value of each line must be, file by file: Kaldi's rules for single lines."""

import re

from espnet2_m2m.data_dir.directory import AUDIO_SCP, TEXT_TABLES, parse_segment

# Words that Kaldi's graphs use themselves, where `grep -w` finds them.
ILLEGAL_SYMBOLS = re.compile(r"(?<!\w)(<s>|</s>|#0)(?!\w)")


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
    for pattern, expected, accepts in VALUE_RULES:
        if re.fullmatch(pattern, name):
            if accepts(value):
                return None
            return f"expected {expected}, found `{key} {value}`", "correct the line"
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
    try:
        return low < float(value) < high
    except ValueError:
        return False


def _is_file_and_channel(value: str) -> bool:
    return len(value.split()) == 2 and value.split()[1] in ("A", "B", "1")


VALUE_RULES = [  # (file name, what its values must be, test)
    ("utt2spk", "two fields, `utterance speaker`", lambda value: len(value.split()) == 1),
    ("(utt|reco)2dur", "a duration in seconds > 0", _is_number),
    ("utt2num_(frames|samples)", "an integer > 0", lambda v: v.isdecimal() and int(v) > 0),
    ("(utt|spk)2warp", "a factor between 0.5 and 1.5", lambda v: _is_number(v, 0.5, 1.5)),
    ("spk2gender", "m or f", lambda value: value in ("m", "f")),
    ("reco2file_and_channel", "`recording file A` or `recording file B`", _is_file_and_channel),
    (
        "segments",
        "`utterance recording start end` with 0 <= start < end in seconds",
        lambda value: parse_segment(value) is not None,
    ),
    (
        AUDIO_SCP.pattern,
        "a path or a command, without `~`, which nobody expands",
        lambda value: value != "" and not value.startswith("~"),
    ),
]
