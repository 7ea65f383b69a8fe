"""Are the tables of a data dir complete and consistent? Every problem at once, with file, line and remedy.

The rules are those of Kaldi's validate_data_dir.sh and validate_text.pl, plus what enhancement needs: the
numbered scps (`closetalk1.scp` ...) have no gaps. Kaldi's warning about a single speaker is left out.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from espnet2_m2m.data_dir.directory import (
    AUDIO_SCP,
    audio_scps,
    listed_files,
    name_some,
    numbered_file,
    numbered_files,
    spk2utt_from,
    table_key,
)
from espnet2_m2m.data_dir.rules import key_problem, value_problem
from espnet2_m2m.data_dir.scenes import parse_scene
from espnet2_m2m.data_dir.tables import TableError, c_locale_key, file_problem, split_entry, split_fields

SPEAKER_FAMILIES = ("closetalk", "spk", "closetalk_spk", "text_spk")
FAMILIES = SPEAKER_FAMILIES + ("noise", "dereverb")
# A number that `numbered_files` does not know, so that nobody would read the file: 0, 01, digits of another script.
MISNUMBERED = re.compile(rf"({'|'.join(FAMILIES)})(?![1-9][0-9]*(\.|$))\d+(\.scp)?")
MAX_MISSING = 10  # files that are named: a spk999999999.scp would lack a billion


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to do about it."""

    path: str
    line: int | None
    message: str
    remedy: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        text = f"{where}: {self.message}; remedy: {self.remedy}"
        # What cannot be seen or printed (a zero-width blank, a name that is not UTF-8) shows as \\u200b.
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass
class Summary:
    """What a data dir holds; None where it could not be told."""

    num_utterances: int = 0
    hours: float | None = None
    num_channels: int | None = None
    sample_rate: int | None = None

    def __str__(self) -> str:
        told = (self.hours, "{:.2f} h"), (self.num_channels, "{} channels"), (self.sample_rate, "{} Hz")
        parts = [form.format(value) for value, form in told if value is not None]
        return ", ".join([f"{self.num_utterances} utterances", *parts])


@dataclass(frozen=True)
class Entry:
    """One line of a table: its number (from 1), key and the rest."""

    line: int
    key: str
    value: str


class TableChecker:
    """Reads the tables of one data dir as far as they can be read and collects their problems.

    Attributes:
        problems: list of Problem.
        tables: file name -> list of Entry, for every table that is there.
    """

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir)
        self.names = listed_files(data_dir)
        self.problems = []
        self.tables = {}

    def report(self, name: str, line: int | None, message: str, remedy: str) -> None:
        self.problems.append(Problem(str(self.data_dir / name), line, message, remedy))

    def ids(self, name: str) -> set[str]:
        """Keys of a table that was read."""
        return {entry.key for entry in self.tables[name]}

    def check_names(self, num_speakers: int | None, require: Sequence[str]) -> None:
        """Required files are there; numbered files run from 1 without gaps to num_speakers."""
        for name in ["utt2spk", "spk2utt", "wav.scp", *require]:
            if name not in FAMILIES and name not in self.names:
                self.report(name, None, "no such file", "create it (stage 1)")
        for family in FAMILIES:
            numbers = numbered_files(self.data_dir, family)
            last = max(numbers, default=1 if family in require else 0)
            if last and num_speakers is not None and family in SPEAKER_FAMILIES:
                last = num_speakers
            first_to_last = numbered_file(family, 1)
            if last > 1:
                first_to_last += f" to {numbered_file(family, last)}"
            missing = (number for number in range(1, last + 1) if number not in numbers)
            for number in [*islice(missing, MAX_MISSING), *(number for number in numbers if number > last)]:
                found = "one too many" if number > last else "no such file"
                self.report(
                    numbered_file(family, number),
                    None,
                    f"expected {first_to_last}, found {found}",
                    "remove the file" if number > last else "create it",
                )

    def check_tables(self) -> None:
        """Form, order, ids and values of all tables."""
        for name in self.names:
            problem = file_problem(self.data_dir / name)
            if problem:
                self.report(name, None, *problem)
            if MISNUMBERED.fullmatch(name):
                self.report(name, None, "expected numbers 1, 2 ... without zeros before them", "rename the file")
            if table_key(name) is not None:
                self.tables[name] = [] if problem else self._read(name)
        for name, entries in self.tables.items():
            self._check_order(name, entries)
            for entry in entries:
                problem = key_problem(name, entry.key, "segments" in self.tables)
                problem = problem or value_problem(name, entry.key, entry.value)
                if problem:
                    self.report(name, entry.line, *problem)
        self._check_speakers_of_scenes()
        if self.tables.get("utt2spk"):
            self._check_ids()
            self._check_speaker_order()
            if self.tables.get("spk2utt"):
                self._check_spk2utt()

    def _read(self, name: str) -> list[Entry]:
        try:
            content = (self.data_dir / name).read_bytes()
        except OSError as error:
            self.report(name, None, f"cannot be read ({error.strerror})", "check its permissions and the disk")
            return []
        if not content:
            self.report(name, None, "the file is empty", "create it again or remove it")
            return []
        if not content.endswith(b"\n"):
            self.report(
                name,
                content.count(b"\n") + 1,
                "expected a newline at the end of the file, found none",
                "check that the last line is complete, then append a newline",
            )
        lines = content.split(b"\n")
        if not lines[-1]:
            lines.pop()
        carriage_returns = [number for number, line in enumerate(lines, 1) if b"\r" in line]
        if carriage_returns:
            self.report(
                name,
                carriage_returns[0],
                f"expected no carriage returns, found {len(carriage_returns)} lines with one",
                f"dos2unix {self.data_dir / name}",
            )
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                text = line.replace(b"\r", b"").decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"found byte 0x{error.object[error.start]:02x}"
                self.report(name, number, f"expected UTF-8, {found}", "convert the file with iconv")
                continue
            if table_key(name) == "jsonl":
                try:
                    key, value = parse_scene(text)["utt_id"], text
                except ValueError as error:
                    self.report(name, number, str(error), "write the file again")
                    continue
            else:
                key, value = split_entry(text)
                if not key:
                    self.report(name, number, "expected `id value`, found a blank line", "remove the line")
                    continue
            entries.append(Entry(number, key, value))
        return entries

    def _check_order(self, name: str, entries: list[Entry]) -> None:
        counts = Counter(entry.key for entry in entries)
        duplicates = [key for key, count in counts.items() if count > 1]
        if duplicates:
            line = [entry.line for entry in entries if entry.key == duplicates[0]][1]
            self.report(
                name,
                line,
                f"expected each id once, found more lines for {name_some(duplicates)}",
                "keep one line per id",
            )
        keys = [c_locale_key(entry.key) for entry in entries]
        descents = [index for index in range(1, len(keys)) if keys[index] < keys[index - 1]]
        if descents:
            before, entry = entries[descents[0] - 1], entries[descents[0]]
            how = f"LC_ALL=C sort -k1,1 -o {self.data_dir / name} {self.data_dir / name}"
            if table_key(name) == "jsonl":
                how = "sort the lines by utt_id in C-locale order"
            self.report(
                name,
                entry.line,
                f"expected ids in C-locale order, found '{entry.key}' after '{before.key}'"
                f" ({len(descents)} such places)",
                how,
            )

    def _check_ids(self) -> None:
        speakers = {entry.value for entry in self.tables["utt2spk"]}
        expected = dict.fromkeys(("utt", "jsonl", "reco"), (self.ids("utt2spk"), "utt2spk"))
        expected["spk"] = speakers, "utt2spk"
        if "segments" in self.tables:
            expected["reco"] = self._check_recordings(), "segments"
        for name in self.tables:
            if name in ("utt2spk", "spk2utt"):
                continue
            key = "reco" if AUDIO_SCP.fullmatch(name) else table_key(name)
            self._compare_ids(name, *expected[key])

    def _check_recordings(self) -> set[str]:
        """Report lines of segments whose recording no audio scp has; the recordings of the others."""
        scps = [name for name in audio_scps(self.data_dir) if self.tables.get(name)]
        known = set().union(*map(self.ids, scps))
        line_of = {}  # the first of each recording
        for entry in reversed(self.tables["segments"]):
            line_of.update(dict.fromkeys(split_fields(entry.value)[:1], entry.line))
        unknown = sorted(line_of.keys() - known, key=line_of.get)
        if unknown and scps:
            self.report(
                "segments",
                line_of[unknown[0]],
                f"expected recordings of wav.scp, found {name_some(unknown)}",
                "correct the lines or add the recordings",
            )
        return line_of.keys() & known

    def _compare_ids(self, name: str, expected: set[str], source: str) -> None:
        missing = sorted(expected - self.ids(name), key=c_locale_key)
        extra = [entry for entry in self.tables[name] if entry.key not in expected]
        remedy = f"give {name} and {source} the same ids"
        if not self.tables[name] or not expected:
            return  # an empty or a broken file is reported as such
        if missing:
            self.report(
                name, None, f"expected a line for every id of {source}, found none for {name_some(missing)}", remedy
            )
        if extra:
            names = name_some([entry.key for entry in extra])
            self.report(name, extra[0].line, f"expected only ids of {source}, found {names}", remedy)

    def _check_speakers_of_scenes(self) -> None:
        """Each numbered file is that of a speaker; not the other way round, as speakers may have no headset."""
        numbers = {family: numbered_files(self.data_dir, family) for family in SPEAKER_FAMILIES}
        family = max(numbers, key=lambda family: len(numbers[family]))
        for entry in self.tables.get("scenes.jsonl", ()):
            if value_problem("scenes.jsonl", entry.key, entry.value) is None:
                found = len(parse_scene(entry.value)["speakers"])
                if found < len(numbers[family]):
                    last = numbered_file(family, numbers[family][-1])
                    expected = f"expected {len(numbers[family])} speakers, as {last} and those before it are there for"
                    message = f"{expected}, found {found}"
                    self.report("scenes.jsonl", entry.line, message, "simulate the set again or remove the file")

    def _check_speaker_order(self) -> None:
        """`sort -k2 -C utt2spk`: also sorted by speaker, so a speaker is a prefix of its ids."""
        entries = sorted(self.tables["utt2spk"], key=lambda entry: c_locale_key(entry.key))
        for before, entry in zip(entries, entries[1:]):
            if c_locale_key(entry.value) < c_locale_key(before.value):
                self.report(
                    "utt2spk",
                    entry.line,
                    "expected speakers in C-locale order when utterances are,"
                    f" found speaker '{entry.value}' ('{entry.key}')"
                    f" after '{before.value}' ('{before.key}')",
                    "begin utterance ids with the speaker id; make speaker ids equally long or put '-' after them",
                )
                return

    def _check_spk2utt(self) -> None:
        desired = spk2utt_from({entry.key: entry.value for entry in self.tables["utt2spk"]})
        entries = self.tables["spk2utt"]
        wrong = [entry for entry in entries if desired.get(entry.key) != " ".join(split_fields(entry.value))]
        missing = sorted(desired.keys() - self.ids("spk2utt"), key=c_locale_key)
        remedy = "make spk2utt again from utt2spk"
        if wrong:
            names = name_some([entry.key for entry in wrong])
            self.report(
                "spk2utt",
                wrong[0].line,
                f"expected the utterances that utt2spk gives, found others for speaker {names}",
                remedy,
            )
        if missing:
            self.report(
                "spk2utt",
                None,
                "expected a line for every speaker of utt2spk, found none for " + name_some(missing),
                remedy,
            )


def require_valid_tables(data_dir: Path | str) -> None:
    """Refuse a data dir whose tables are not right: what is made of it would lack lines without a word.

    Raises:
        FileNotFoundError: no such directory.
        TableError: (a ValueError) the first problem, and how many there are.
    """
    checker = TableChecker(data_dir)
    checker.check_tables()
    if checker.problems:
        first, *others = checker.problems
        more = f" (and {len(others)} more; espnet2_m2m validate_data_dir lists them)" if others else ""
        raise TableError(f"{first}{more}")
