"""Kaldi data dirs with one line per talker of a mixture, as ESPnet's asr.sh takes them.

A line's id is TALKER-MIXTURE: the talker's id, then that of the mixture it speaks in. Besides Kaldi's
tables there are `utt2mix` (the mixture of each line) and `utt2stream` (which of the separated
streams, or which file of the set, the line is; from 1).
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet2_m2m.data_dir.directory import (
    begin_data_dir,
    finish_data_dir,
    name_some,
    numbered_files,
    require_finished,
    spk2utt_from,
)
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.data_dir.signals import Signal, find_utterances
from espnet2_m2m.data_dir.tables import TableError, is_there, read_table, table_content, write_bytes
from espnet2_m2m.data_dir.validate_tables import require_valid_tables

MIXTURE = "wav"  # the family that all talkers of a mixture share


@dataclass(frozen=True)
class TalkerLine:
    """One talker in one mixture."""

    talker: str
    mixture: str
    stream: int
    signal: Signal
    text: str | None = None

    @property
    def utt_id(self) -> str:
        return f"{self.talker}-{self.mixture}"


def talker_ids(data_dir: Path | str, num_streams: int = 0) -> dict[str, dict[int, str]]:
    """Mixture -> ids of its talkers by their numbers, those of closetalk{n}.scp, spk{n}.scp and text_spk{n}.

    They are those of scenes.jsonl where there is one. A recording names none: its talkers are called
    SPEAKER-spk1, SPEAKER-spk2 ..., where SPEAKER is the mixture's entry in utt2spk.

    Args:
        num_streams: number of talkers if the set has neither headsets nor references nor transcripts.
    Raises:
        ValueError: it is not known how many talkers there are, or scenes.jsonl is broken.
    """
    data_dir = Path(data_dir)
    numbers = {n for family in ("spk", "closetalk", "text_spk") for n in numbered_files(data_dir, family)}
    numbers = sorted(numbers) or range(1, num_streams + 1)
    scenes = read_scenes(data_dir / "scenes.jsonl").items()
    named = {utt_id: [speaker.get("speaker_id") for speaker in scene["speakers"]] for utt_id, scene in scenes}
    talkers = {}
    for mixture, speaker in read_table(data_dir / "utt2spk").items():
        names = dict(enumerate(named.get(mixture, ()), start=1))
        if not names or None in names.values():
            names = {number: f"{speaker}-spk{number}" for number in numbers}
        if not names:
            raise ValueError(
                f"{data_dir}: nothing tells how many talkers '{mixture}' has; expected"
                " closetalk{n}.scp, spk{n}.scp, text_spk{n} or scenes.jsonl"
            )
        talkers[mixture] = names
    return talkers


def transcripts(data_dir: Path | str) -> dict[str, dict[int, str]]:
    """Mixture -> number -> what this talker says, from text_spk{n}; empty where the set has no transcripts.

    Raises:
        ValueError: a mixture that not all of them have.
    """
    data_dir = Path(data_dir)
    tables = {n: read_table(data_dir / f"text_spk{n}", allow_empty=True) for n in numbered_files(data_dir, "text_spk")}
    first = min(tables, default=None)
    for number, table in tables.items():
        different = sorted(table.keys() ^ tables[first].keys())
        if different:
            raise TableError(
                f"{data_dir}: text_spk{first} and text_spk{number} need the same mixtures, but only one"
                f" has {name_some(different)}"
            )
    return {mixture: {n: table[mixture] for n, table in tables.items()} for mixture in tables.get(first, ())}


def lines_of_set(data_dir: Path | str, family: str) -> list[TalkerLine]:
    """The talkers' signals that a set itself has.

    Args:
        data_dir: a finished set.
        family: "spk" (image at the reference mic), "closetalk", "closetalk_spk", or "wav": the far-field
            mixture stands for each of its talkers, for one where nothing tells how many there are.
    Raises:
        ValueError, FileNotFoundError: files, talkers or utterances are missing.
    """
    require_finished(data_dir)
    talkers, texts = talker_ids(data_dir, int(family == MIXTURE)), transcripts(data_dir)
    lines = []
    for utterance in find_utterances(data_dir, [family]):
        mixture, signals = utterance.utt_id, utterance.signals[family]
        for n, talker in talkers[mixture].items():
            number = 1 if family == MIXTURE else n
            if number not in signals:
                raise FileNotFoundError(f"{data_dir}/{family}{n}.scp: no such file, so '{talker}' has no such signal")
            lines.append(TalkerLine(talker, mixture, n, signals[number], texts.get(mixture, {}).get(n)))
    return lines


def lines_of_streams(
    data_dir: Path | str, enhanced_dir: Path | str, stream_of_talker: Mapping[str, Mapping[int, int]] | None
) -> list[TalkerLine]:
    """The streams that a model has separated a set into.

    Args:
        data_dir: the set.
        enhanced_dir: folder with the streams, spk{n}.scp, keyed by mixture.
        stream_of_talker: mixture -> number of a talker -> its stream, both from 1; None where the order means
            nothing. The streams are then called SPEAKER-stream1 ... and have no transcripts.
    Raises:
        ValueError, FileNotFoundError: no streams, or not of all mixtures.
    """
    streams = {u.utt_id: u.signals["stream"] for u in find_utterances(data_dir, [], enhanced_dir)}
    num_streams = len(next(iter(streams.values())))
    if not num_streams:
        raise FileNotFoundError(f"{enhanced_dir}: no spk{{n}}.scp; separate the set first (stage 7)")
    utt2spk = read_table(Path(data_dir) / "utt2spk")
    if stream_of_talker is None:
        return [
            TalkerLine(f"{speaker}-stream{n}", mixture, n, signal)
            for mixture, speaker in utt2spk.items()
            for n, signal in streams[mixture].items()
        ]
    talkers, texts = talker_ids(data_dir, num_streams), transcripts(data_dir)
    most = max(max(order.values()) for order in stream_of_talker.values())
    if most > num_streams:
        raise ValueError(
            f"{enhanced_dir} has {num_streams} streams, {data_dir} has {most} talkers; expected at"
            " least as many streams as talkers"
        )
    return [
        TalkerLine(talker, mixture, order[n], streams[mixture][order[n]], texts.get(mixture, {}).get(n))
        for mixture, order in ((mixture, stream_of_talker[mixture]) for mixture in utt2spk)
        for n, talker in talkers[mixture].items()
        if n in order
    ]


def write_talker_data_dir(out_dir: Path | str, lines: list[TalkerLine]) -> None:
    """Write wav.scp, utt2spk, spk2utt, utt2mix, utt2stream and, where known, text and segments.

    Paths in wav.scp are absolute: asr.sh reads them in a recipe of its own.

    Raises:
        TableError: (a ValueError) ids that break Kaldi's rules.
    """
    out_dir = Path(out_dir)
    tables = {
        "wav.scp": {line.utt_id: absolute_entry(line.signal.entry) for line in lines},
        "utt2mix": {line.utt_id: line.mixture for line in lines},
        "utt2stream": {line.utt_id: line.stream for line in lines},
    }
    if len(tables["wav.scp"]) < len(lines):
        ids = [line.utt_id for line in lines]
        twice = {utt_id for utt_id in ids if ids.count(utt_id) > 1}
        raise TableError(f"{out_dir}: a talker of a mixture stands there twice: {name_some(sorted(twice))}")
    if all(line.text is not None for line in lines):
        tables["text"] = {line.utt_id: line.text for line in lines}
    if any(line.signal.segment for line in lines):
        tables["segments"] = {line.utt_id: "{} {} {}".format(line.utt_id, *line.signal.segment) for line in lines}
    utt2spk = {line.utt_id: line.talker for line in sorted(lines, key=lambda line: line.utt_id.encode())}
    tables["spk2utt"] = spk2utt_from(utt2spk)
    begin_data_dir(out_dir, tables)
    for name, table in tables.items():
        write_bytes(out_dir / name, table_content(out_dir / name, table))
    finish_data_dir(out_dir, table_content(out_dir / "utt2spk", utt2spk))
    try:
        require_valid_tables(out_dir)
    except TableError:
        (out_dir / "utt2spk").unlink()
        raise


def absolute_entry(entry: str) -> str:
    """An scp value that means the same in any working directory; a pipe's command begins in this one."""
    if entry.endswith("|"):
        return f"cd {shlex.quote(os.getcwd())} && {entry}"
    return str(Path(entry).absolute())  # not resolved: a link may come to point elsewhere


def read_talker_data_dir(data_dir: Path | str) -> list[TalkerLine]:
    """The lines that `write_talker_data_dir` wrote.

    Raises:
        FileNotFoundError, ValueError: the dir is not there, not finished or not one of a line per talker.
    """
    data_dir = Path(data_dir)
    require_finished(data_dir)
    utt2spk, mixtures, streams = (read_table(data_dir / name) for name in ("utt2spk", "utt2mix", "utt2stream"))
    signals = {utterance.utt_id: utterance.signals["wav"][1] for utterance in find_utterances(data_dir, ["wav"])}
    text = data_dir / "text"
    texts = read_table(text, allow_empty=True) if is_there(text) else {}
    return [
        TalkerLine(talker, mixtures[utt_id], int(streams[utt_id]), signals[utt_id], texts.get(utt_id))
        for utt_id, talker in utt2spk.items()
    ]
