"""What stands in a data dir: which files, what they are keyed by, how many speakers.

A data dir holds tables keyed by utterance (`utt2spk`, `text`, `wav.scp` ...), by speaker
(`spk2utt`), by recording (`segments` names them; then the audio scps are keyed by recording) and
`scenes.jsonl`, an object with "utt_id" per line. The file's name tells which.
"""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from espnet2_m2m.data_dir.tables import (
    TableError,
    is_there,
    parse_number,
    read_table,
    require_file,
    split_fields,
    write_bytes,
)

# wav.scp is the far-field mixture; the others are numbered from 1.
AUDIO_SCP = re.compile(r"(wav|(?P<family>closetalk|spk|closetalk_spk|noise|dereverb)(?P<number>[1-9][0-9]*))\.scp")
SPEAKER_TABLES = re.compile(r"spk2.+|cmvn\.scp")
RECORDING_TABLES = re.compile(r"reco2.+")
UTTERANCE_TABLES = re.compile(r"utt2.+|text|text_.+|segments|.+\.scp")
TEXT_TABLES = re.compile(r"text|text_.+")
HIDDEN_UTT2SPK = ".utt2spk"  # of the run before, while a data dir is written


def audio_scps(data_dir: Path | str) -> list[str]:
    """Names of the audio scps in a data dir: "wav.scp" first, then "closetalk1.scp" ... by number.

    Kaldi's feats.scp, vad.scp and cmvn.scp are no audio.
    """
    matches = filter(None, (AUDIO_SCP.fullmatch(path.name) for path in Path(data_dir).iterdir()))
    ordered = sorted(matches, key=lambda match: (match["family"] or "", int(match["number"] or 0)))
    return [match[0] for match in ordered]


def numbered_file(family: str, number: int | str) -> str:
    """("spk", 1) -> "spk1.scp"; ("text_spk", 1) -> "text_spk1"."""
    return f"{family}{number}" if TEXT_TABLES.fullmatch(family) else f"{family}{number}.scp"


def numbered_files(data_dir: Path | str, family: str) -> list[int]:
    """Numbers n whose `numbered_file` stands in the data dir.

    Raises:
        FileNotFoundError: no such directory.
    """
    if not Path(data_dir).is_dir():
        raise FileNotFoundError(f"{data_dir}: no such directory")
    pattern = re.compile(re.escape(numbered_file(family, "@")).replace("@", r"([1-9][0-9]*)"))
    matches = (pattern.fullmatch(path.name) for path in Path(data_dir).iterdir())
    return sorted(int(match[1]) for match in matches if match)


def consecutive_files(data_dir: Path | str, family: str, what: str) -> list[int]:
    """`numbered_files`, which must begin with 1 and have no gaps.

    Args:
        what: they are, or are for, in the message.
    Raises:
        ValueError: there are none, or there is a gap.
    """
    numbers = numbered_files(data_dir, family)
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        found = ", ".join(numbered_file(family, number) for number in numbers) or "none"
        raise ValueError(
            f"{data_dir}: {what}: expected {numbered_file(family, 1)}, {numbered_file(family, 2)} ... without a gap,"
            f" found {found}; add what is missing or rename the others"
        )
    return numbers


def table_key(name: str) -> str | None:
    """What a file of a data dir is keyed by: "utt", "spk", "reco", "jsonl" or None (no table).

    Audio scps are "utt" here; they are keyed by recording where the dir has `segments`.
    """
    if name == "scenes.jsonl":
        return "jsonl"
    if AUDIO_SCP.fullmatch(name):  # first: spk2.scp, unlike spk2utt, is not keyed by speaker
        return "utt"
    for key, pattern in (("spk", SPEAKER_TABLES), ("reco", RECORDING_TABLES), ("utt", UTTERANCE_TABLES)):
        if pattern.fullmatch(name):
            return key
    return None


def data_files(data_dir: Path | str) -> list[str]:
    """Sorted names of the files in a data dir, without hidden ones and folders.

    Raises:
        FileNotFoundError: no such directory.
        TableError: (a ValueError) a link to nowhere, a folder or a named pipe in the place of a file.
    """
    names = listed_files(data_dir)
    for name in names:
        require_file(Path(data_dir, name))
    return names


def listed_files(data_dir: Path | str) -> list[str]:
    """`data_files`, and what stands in their place: all but folders that are not called as a table is.

    Raises:
        FileNotFoundError: no such directory.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such data directory")
    names = (path.name for path in data_dir.iterdir() if table_key(path.name) is not None or not path.is_dir())
    return sorted(name for name in names if not name.startswith("."))


def begin_data_dir(out_dir: Path | str, names: Iterable[str]) -> None:
    """Take away utt2spk, so that `out_dir` is not valid before `finish_data_dir`, and old tables.

    Args:
        out_dir: folder about to be written; it may be missing.
        names: the tables that will be written; all others are removed.
    """
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        return
    if (out_dir / "utt2spk").is_file():
        os.replace(out_dir / "utt2spk", out_dir / HIDDEN_UTT2SPK)
    for name in listed_files(out_dir):
        if table_key(name) is not None and name not in names:
            (out_dir / name).unlink()


def finish_data_dir(out_dir: Path | str, utt2spk: bytes) -> None:
    """Write utt2spk (bytes), the last of the tables; if it is as before, it keeps its time."""
    hidden = Path(out_dir, HIDDEN_UTT2SPK)
    write_bytes(hidden, utt2spk)
    os.replace(hidden, Path(out_dir, "utt2spk"))


def require_finished(data_dir: Path | str) -> None:
    """Refuse a data dir whose making was interrupted: utt2spk, written last, is missing or old.

    Raises:
        FileNotFoundError: no such directory, or no wav.scp in it.
        TableError: (a ValueError) utt2spk does not name the utterances of wav.scp (or `segments`).
    """
    names = data_files(data_dir)
    audio = "segments" if "segments" in names else "wav.scp"
    utt_ids = read_table(Path(data_dir) / audio).keys()
    if "utt2spk" not in names:
        raise TableError(f"{data_dir}: no utt2spk, so the data dir did not finish; run its stage again")
    different = utt_ids ^ read_table(Path(data_dir) / "utt2spk").keys()
    if different:
        raise TableError(
            f"{data_dir}: {audio} and utt2spk need the same utterances, but only one has"
            f" {name_some(sorted(different))}: the data dir did not finish; run its stage again"
        )


def spk2utt_from(utt2spk: dict[str, str]) -> dict[str, str]:
    """Inverse of utt2spk: speaker -> "utt1 utt2 ...", the utterances in utt2spk's order."""
    spk2utt = {}
    for utt_id, speaker_id in utt2spk.items():
        spk2utt.setdefault(speaker_id, []).append(utt_id)
    return {speaker_id: " ".join(utt_ids) for speaker_id, utt_ids in spk2utt.items()}


def read_segments(data_dir: Path | str) -> dict[str, tuple[str, float, float]]:
    """Kaldi's `segments`, utterance -> (recording, start, end), times in seconds.

    Empty where the data dir has no such file: then its audio scps are keyed by utterance.

    Raises:
        TableError: no line in it, not four fields, or not 0 <= start < end.
    """
    path = Path(data_dir) / "segments"
    if not is_there(path):
        return {}
    segments = {}
    for utt_id, value in read_table(path).items():
        segment = parse_segment(value)
        if segment is None:
            raise TableError(
                f"{path}: utterance '{utt_id}': expected `recording start end` with"
                f" 0 <= start < end in seconds, found `{value}`"
            )
        segments[utt_id] = segment
    if not segments:
        raise TableError(
            f"{path}: expected `utterance recording start end`, found no line; remove it or write it again"
        )
    return segments


def parse_segment(value: str) -> tuple[str, float, float] | None:
    """(recording, start, end) of the right side of a segments line, or None if it is malformed."""
    recording_id, *times = split_fields(value) or [""]
    times = [parse_number(time) for time in times]
    if len(times) != 2 or None in times or not 0 <= times[0] < times[1]:
        return None
    return recording_id, *times


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """A few names for a message: "'a', 'b'" or "'a' ... 'e' and 12 more"."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def count_some(names: Collection[str]) -> str:
    """As `name_some`, with their number before: "0", "1 ('a')"."""
    return f"{len(names)} ({name_some(names)})" if names else "0"
