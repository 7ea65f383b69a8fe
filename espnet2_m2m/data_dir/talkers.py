"""Kaldi data dirs with one line per talker of a mixture, as ESPnet's asr.sh takes them.

A line's id is TALKER-MIXTURE: the talker's id, then that of the mixture it speaks in. Besides Kaldi's
tables there are `utt2mix` (the mixture of each line) and `utt2stream` (which of the separated
streams, or which file of the set, the line is; from 1).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from espnet2_m2m.data_dir.directory import (
    begin_data_dir,
    finish_data_dir,
    name_some,
    numbered_files,
    read_segments,
    require_finished,
    spk2utt_from,
)
from espnet2_m2m.data_dir.tables import TableError, read_table, split_lines, table_content, write_bytes
from espnet2_m2m.data_dir.validate import TableChecker

MIXTURE = "wav"  # the family that all talkers of a mixture share


@dataclass(frozen=True)
class TalkerLine:
    """One talker in one mixture."""

    talker: str
    mixture: str
    stream: int
    entry: str  # audio, as scp files name it
    segment: tuple | None = None  # (start, end) in seconds
    text: str | None = None

    @property
    def utt_id(self):
        return f"{self.talker}-{self.mixture}"


def talker_ids(data_dir, num_streams=0):
    """Mixture -> ids of its talkers, headset 1 first.

    They are those of scenes.jsonl where there is one. A recording names none: its talkers are called
    SPEAKER-spk1, SPEAKER-spk2 ..., where SPEAKER is the mixture's entry in utt2spk.

    Args:
        num_streams: number of talkers if the set has neither headsets nor references nor transcripts.
    Raises:
        ValueError: it is not known how many talkers there are.
    """
    data_dir = Path(data_dir)
    numbers = max((numbered_files(data_dir, family) for family in ("spk", "closetalk", "text_spk")), key=len)
    numbers = numbers or range(1, num_streams + 1)
    scenes = data_dir / "scenes.jsonl"
    named = {}
    if scenes.is_file():
        for scene in map(json.loads, split_lines(scenes)):
            named[scene["utt_id"]] = [speaker.get("speaker_id") for speaker in scene.get("speakers", ())]
    talkers = {}
    for mixture, speaker in read_table(data_dir / "utt2spk").items():
        names = named.get(mixture)
        if not names or None in names:
            names = [f"{speaker}-spk{number}" for number in numbers]
        if not names:
            raise ValueError(
                f"{data_dir}: nothing tells how many talkers '{mixture}' has; expected"
                " closetalk{n}.scp, spk{n}.scp, text_spk{n} or scenes.jsonl"
            )
        talkers[mixture] = names
    return talkers


def transcripts(data_dir):
    """Mixture -> what each talker says, from text_spk{n}; empty where the set has no transcripts.

    Raises:
        ValueError: a mixture that not all of them have.
    """
    data_dir = Path(data_dir)
    tables = [read_table(data_dir / f"text_spk{n}", allow_empty=True) for n in numbered_files(data_dir, "text_spk")]
    for number, table in enumerate(tables[1:], start=2):
        different = sorted(table.keys() ^ tables[0].keys())
        if different:
            raise TableError(
                f"{data_dir}: text_spk1 and text_spk{number} need the same mixtures, but only one"
                f" has {name_some(different)}"
            )
    return {mixture: [table[mixture] for table in tables] for mixture in tables[0]} if tables else {}


def lines_of_set(data_dir, family):
    """The talkers' signals that a set itself has.

    Args:
        data_dir: a finished set.
        family: "spk" (image at the reference mic), "closetalk", "closetalk_spk", or "wav": the far-field
            mixture stands for each of its talkers, for one where nothing tells how many there are.
    Returns:
        list of TalkerLine.
    Raises:
        ValueError, FileNotFoundError: files, talkers or utterances are missing.
    """
    data_dir = Path(data_dir)
    require_finished(data_dir)
    talkers, texts = talker_ids(data_dir, int(family == MIXTURE)), transcripts(data_dir)
    num_talkers = max(map(len, talkers.values()))
    names = [f"{family}{'' if family == MIXTURE else n}.scp" for n in range(1, num_talkers + 1)]
    tables = [read_table(data_dir / name) for name in names]
    segments = read_segments(data_dir / "segments") if (data_dir / "segments").is_file() else {}
    lines = []
    for mixture, talkers_here in talkers.items():
        recording, *times = segments.get(mixture, (mixture,))
        for n, talker in enumerate(talkers_here):
            if recording not in tables[n]:
                raise TableError(f"{data_dir / names[n]}: no entry for '{recording}'")
            lines.append(
                TalkerLine(talker, mixture, n + 1, tables[n][recording], tuple(times) or None, _text(texts, mixture, n))
            )
    return lines


def lines_of_streams(data_dir, enhanced_dir, stream_of_talker):
    """The streams that a model has separated a set into.

    Args:
        data_dir: the set.
        enhanced_dir: folder with the streams, spk{n}.scp, keyed by mixture.
        stream_of_talker: mixture -> the stream of each talker, from 1; None where the order means
            nothing. The streams are then called SPEAKER-stream1 ... and have no transcripts.
    Returns:
        list of TalkerLine.
    Raises:
        ValueError, FileNotFoundError: no streams, or not of all mixtures.
    """
    tables = {n: read_table(Path(enhanced_dir) / f"spk{n}.scp") for n in numbered_files(enhanced_dir, "spk")}
    if not tables:
        raise FileNotFoundError(f"{enhanced_dir}: no spk{{n}}.scp; separate the set first (stage 7)")
    utt2spk = read_table(Path(data_dir) / "utt2spk")
    for n, table in tables.items():
        if missing := sorted(utt2spk.keys() - table.keys()):
            raise TableError(
                f"{enhanced_dir}/spk{n}.scp: no entry for {name_some(missing)} of {data_dir};"
                " run the separation (stage 7) again"
            )
    if stream_of_talker is None:
        return [
            TalkerLine(f"{speaker}-stream{n}", mixture, n, table[mixture])
            for mixture, speaker in utt2spk.items()
            for n, table in tables.items()
        ]
    talkers, texts = talker_ids(data_dir, len(tables)), transcripts(data_dir)
    most = max(max(streams) for streams in stream_of_talker.values())
    if most > len(tables):
        raise ValueError(
            f"{enhanced_dir} has {len(tables)} streams, {data_dir} has {most} talkers; expected at"
            " least as many streams as talkers"
        )
    return [
        TalkerLine(talker, mixture, stream, tables[stream][mixture], None, _text(texts, mixture, n))
        for mixture in utt2spk
        for n, (talker, stream) in enumerate(zip(talkers[mixture], stream_of_talker[mixture]))
    ]


def write_talker_data_dir(out_dir, lines):
    """Write wav.scp, utt2spk, spk2utt, utt2mix, utt2stream and, where known, text and segments.

    Raises:
        TableError: (a ValueError) ids that break Kaldi's rules.
    """
    out_dir = Path(out_dir)
    tables = {
        "wav.scp": {line.utt_id: line.entry for line in lines},
        "utt2mix": {line.utt_id: line.mixture for line in lines},
        "utt2stream": {line.utt_id: line.stream for line in lines},
    }
    if len(tables["wav.scp"]) < len(lines):
        ids = [line.utt_id for line in lines]
        twice = {utt_id for utt_id in ids if ids.count(utt_id) > 1}
        raise TableError(f"{out_dir}: a talker of a mixture stands there twice: {name_some(sorted(twice))}")
    if all(line.text is not None for line in lines):
        tables["text"] = {line.utt_id: line.text for line in lines}
    if any(line.segment for line in lines):
        tables["segments"] = {line.utt_id: f"{line.utt_id} {line.segment[0]} {line.segment[1]}" for line in lines}
    utt2spk = {line.utt_id: line.talker for line in sorted(lines, key=lambda line: line.utt_id.encode())}
    tables["spk2utt"] = spk2utt_from(utt2spk)
    begin_data_dir(out_dir, tables)
    for name, table in tables.items():
        write_bytes(out_dir / name, table_content(out_dir / name, table))
    finish_data_dir(out_dir, table_content(out_dir / "utt2spk", utt2spk))
    checker = TableChecker(out_dir)
    checker.check_tables()
    if checker.problems:
        (out_dir / "utt2spk").unlink()
        raise TableError(str(checker.problems[0]))


def read_talker_data_dir(data_dir):
    """The lines that `write_talker_data_dir` wrote.

    Raises:
        FileNotFoundError, ValueError: the dir is not there, not finished or not one of a line per talker.
    """
    data_dir = Path(data_dir)
    require_finished(data_dir)
    wav, utt2spk, mixtures, streams = (
        read_table(data_dir / name) for name in ("wav.scp", "utt2spk", "utt2mix", "utt2stream")
    )
    text = data_dir / "text"
    texts = read_table(text, allow_empty=True) if text.is_file() else {}
    segments = read_segments(data_dir / "segments") if (data_dir / "segments").is_file() else {}
    return [
        TalkerLine(
            talker,
            mixtures[utt_id],
            int(streams[utt_id]),
            wav[utt_id],
            segments[utt_id][1:] if utt_id in segments else None,
            texts.get(utt_id),
        )
        for utt_id, talker in utt2spk.items()
    ]


def _text(texts, mixture, n):
    return texts[mixture][n] if n < len(texts.get(mixture, ())) else None
