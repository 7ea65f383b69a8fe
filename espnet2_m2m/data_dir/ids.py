"""Ids: one word each, and those of utterances become names of files."""

import unicodedata
from pathlib import Path

# A file's name has at most 255 bytes; `atomic_path` adds 18, the suffix some more.
MAX_ID_BYTES = 200


def word_problem(word: str) -> str | None:
    """What keeps a word from being an id: "expected ..., found ..."; None if it may be one.

    `str.split` and `str.splitlines`, and so most programs in Python, also cut at a no-break space or U+2028.
    """
    if word and word.isprintable() and " " not in word:  # almost always, and quick
        return None
    odd = sorted({char for char in word if char.isspace() or unicodedata.category(char) in ("Cc", "Cs")})
    if word and not odd:
        return None
    found = ", ".join(f"U+{ord(char):04X}" for char in odd) or "nothing"
    return f"expected an id of one word, without white space and control characters, found {found} in '{word}'"


def id_problem(utt_id: str) -> str | None:
    """As `word_problem`, of an utterance's id, which must be a file's name as well."""
    if word_problem(utt_id):
        return word_problem(utt_id)
    expected = "expected an id that can be the name of a file"
    if "/" in utt_id or utt_id.startswith("."):
        return f"{expected}, without '/' and not beginning with '.', found '{utt_id}'"
    length = len(utt_id.encode("utf-8"))
    if length > MAX_ID_BYTES:
        return f"{expected}, of at most {MAX_ID_BYTES} bytes, found {length} in '{utt_id[:20]}...'"
    return None


def id_path(folder: Path | str, utt_id: str, suffix: str) -> Path:
    """folder/<utt_id><suffix>: the file of an utterance, which always lies in its folder.

    Args:
        suffix: with its dot, ".wav".
    Raises:
        ValueError: the id cannot be the name of a file.
    """
    problem = id_problem(utt_id)
    if problem:
        raise ValueError(f"{folder}: utterance '{utt_id}': {problem}; rename it in all tables")
    return Path(folder, f"{utt_id}{suffix}")
