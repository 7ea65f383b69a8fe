"""Kaldi's two-column text files (`wav.scp`, `utt2spk`, `text` ...), read strictly, written whole.

A table is UTF-8, one entry a line: key, white space, value (the rest of the line). Keys are sorted
as bytes (`LC_ALL=C`), which is what Kaldi's programs and its validate_data_dir.sh expect.
"""

import errno
import fcntl
import os
import re
import shutil
import struct
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from espnet2_m2m.data_dir.ids import word_problem

FOLDER = "espnet2_m2m."  # names of `temporary_folder` begin so
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: beyond a limit of file sizes (ulimit -f)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST = 1e15  # of a number in a table: beyond it a float no longer counts single samples


class TableError(ValueError):
    """A Kaldi table that cannot be read or written; the message names file, line and remedy."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Temporary file beside `path`, renamed to `path` when the block ends, removed when it fails.

    A reader therefore sees the old file, no file or the whole new one, never a half-written one.
    The temporary name starts with a dot and keeps the suffix (soundfile picks the format by it);
    missing parent folders are made.

    What a killed process leaves of `path` is taken over by the next that writes `path`, so that a rerun leaves
    nothing behind. A process that is alive locks what it writes, and another one then writes to a name of its own.

    Raises:
        OSError: the disk is full, which names `path`.
    Example:
        >>> with atomic_path("exp/scores.csv") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("utt_id,sdr_db\\n")
    """
    path = Path(path)
    with room_on_disk(path), ExitStack() as stack:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
        try:
            stack.enter_context(_locked(temporary))
        except OSError as error:
            if error.errno in FULL:
                raise
            # Another process has it, or another user, or this disk knows no locks.
            temporary = temporary.with_suffix(f".{uuid.uuid4().hex[:12]}{path.suffix}")
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _locked(temporary: Path) -> Iterator[None]:
    """Make an empty file, and hold its lock.

    Raises:
        OSError: another process holds it, or there are no locks on this disk.
    """
    while True:
        # Not tempfile.mkstemp: its files are readable by their owner only, and stay so when renamed.
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            # A byte far behind any content: on some network disks nobody else could write what is locked, not even
            # this process by another handle, as soundfile does.
            request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0)
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):  # no locks here, so nobody works by this name
                    temporary.unlink(missing_ok=True)
                raise
            # It may have been renamed since it was opened.
            if temporary.exists() and os.path.samestat(os.fstat(file), temporary.stat()):
                os.truncate(file, 0)  # what a killed process wrote
                yield
                return
        finally:
            os.close(file)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that vanishes with the context, and with the next call if the process was killed."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{FOLDER}*"):
        with suppress(OSError), _locked_folder(left):  # refused while its process lives
            shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as stack:
        while True:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True)))
            with suppress(OSError):  # where another process took it, still without a lock, for a leftover
                stack.enter_context(_locked_folder(folder))
                break
        with room_on_disk(folder):
            yield folder


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        OSError: another process holds it, or there is no such folder any more.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)
        yield
    finally:
        os.close(file)


@contextmanager
def room_on_disk(path: Path | str) -> Iterator[None]:
    """Within this context, a full disk is an OSError that names `path`; the system's own often names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{path}: cannot be written ({error.strerror}); make room there and run the command again"
        ) from error


def is_there(path: Path | str) -> bool:
    """Whether a folder lists this name, be it a file, a link to nowhere or anything else; `require_file` tells."""
    return os.path.lexists(path)


def file_problem(path: Path | str) -> tuple[str, str] | None:
    """(what was expected and found, remedy) unless a path leads to a regular file, whose reading comes to an end."""
    if os.path.isfile(path):
        return None
    if not is_there(path):
        return "no such file", "create it"
    if os.path.isdir(path):
        found = "a folder"
    elif not os.path.exists(path):
        found = f"a link to '{os.readlink(path)}', which leads to no file"
    else:
        found = "a named pipe, socket or device"
    return f"expected a file, found {found}", "put the file in its place or remove it"


def require_file(path: Path | str) -> None:
    """Refuse a path that leads to no regular file.

    Raises:
        FileNotFoundError: nothing is there.
        TableError: something else is: a link to nowhere, a folder, a named pipe.
    """
    problem = file_problem(path)
    if problem:
        error = TableError if is_there(path) else FileNotFoundError
        raise error(f"{path}: {'; '.join(problem) if error is TableError else problem[0]}")


def c_locale_key(key: str) -> bytes:
    """Sort key of Kaldi's order, `LC_ALL=C`: the bytes of `key`."""
    return key.encode("utf-8")


def split_entry(line: str) -> tuple[str, str]:
    """(key, value) of a table line without its newline; only blank and tab separate, as in awk."""
    key, _, value = line.replace("\t", " ").strip(" ").partition(" ")
    return key, line.strip(" \t")[len(key) :].strip(" \t")


def split_fields(value: str) -> list[str]:
    """The fields of a value; as in `split_entry` only blank and tab separate them, unlike in str.split."""
    return [field for field in value.replace("\t", " ").split(" ") if field]


def parse_number(text: str) -> float | None:
    """A decimal number as Kaldi reads it, or None: Python's float takes "1_0", "nan" and "inf" as well."""
    number = float(text) if NUMBER.fullmatch(text) else LARGEST
    return number if abs(number) < LARGEST else None


def shorten(text: str, length: int = 80) -> str:
    """The beginning of what a message quotes: a broken line may be long."""
    return text if len(text) <= length else f"{text[:length]}..."


def read_table(path: Path | str, allow_empty: bool = False) -> dict[str, str]:
    """Kaldi two-column file as a dict, key -> rest of the line, in the file's order.

    Args:
        path: UTF-8 text file; a missing newline at the very end is accepted.
        allow_empty: accept keys without a value (a `text` in which someone says nothing).
    Raises:
        FileNotFoundError: no such file.
        TableError: (a ValueError) no regular file, not UTF-8, a blank line, a duplicate key or one with blank-like
            characters, a carriage return, a NUL byte or an empty value.
    """
    table = {}
    for number, line in enumerate(split_lines(path), start=1):
        key, value = split_entry(line)
        where = f"{path}:{number}"
        if not key:
            raise TableError(f"{where}: expected `key value`, found a blank line; remove it")
        if key in table:
            raise TableError(f"{where}: duplicate key '{key}'; keep one line per key")
        if "\r" in line:
            raise TableError(f"{where}: carriage return (Windows line end); run dos2unix on it")
        if word_problem(key):
            raise TableError(f"{where}: {word_problem(key)}; rename it")
        if "\0" in value:  # it would end a path or a command
            raise TableError(f"{where}: expected text, found a NUL byte in the value of '{key}'; write the line again")
        if not value and not allow_empty:
            raise TableError(f"{where}: expected `key value`, found only the key '{key}'")
        table[key] = value
    return table


def split_lines(path: Path | str) -> list[str]:
    """Lines of a UTF-8 file without their newlines; only LF ends a line, as in Kaldi.

    Raises:
        FileNotFoundError: no such file.
        TableError: no regular file, or a line is not UTF-8.
    """
    require_file(path)
    lines = Path(path).read_bytes().split(b"\n")
    if not lines[-1]:
        lines.pop()
    decoded = []
    for number, line in enumerate(lines, start=1):
        try:
            decoded.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise TableError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file with iconv") from error
    return decoded


def write_table(path: Path | str, mapping: Mapping[str, object]) -> None:
    """Write `mapping` as a Kaldi two-column file, sorted by the keys' bytes (LC_ALL=C), atomically.

    Args:
        path: the file; missing parent folders are made.
        mapping: key -> value; values are written with str() and may be empty.
    Raises:
        TableError: (a ValueError) a key is empty or holds white space, or a value a line end.
    """
    write_bytes(path, table_content(path, mapping))


def table_content(path: Path | str, mapping: Mapping[str, object]) -> bytes:
    """The bytes that `write_table` writes to `path`; errors as there."""
    lines = {}
    for key, value in mapping.items():
        problem, value = word_problem(key), str(value).strip(" \t")
        if problem:
            raise TableError(f"{path}: {problem}; rename it")
        if "\n" in value or "\r" in value:
            raise TableError(f"{path}: the value of '{key}' holds a line end: {value!r}")
        try:
            lines[c_locale_key(key)] = (f"{key} {value}".rstrip(" ") + "\n").encode("utf-8")
        except UnicodeEncodeError as error:  # of a path that is not UTF-8
            raise TableError(f"{path}: the value of '{key}' is not UTF-8: {value!r}; rename it") from error
    return b"".join(lines[key] for key in sorted(lines))


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically; the file is new, whatever it held."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` (bytes) to `path` atomically; a file with this content keeps its time."""
    path = Path(path)
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
