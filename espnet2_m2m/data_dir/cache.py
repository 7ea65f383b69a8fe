"""Results of long computations, kept one by one, so that a rerun computes only what is missing or has changed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from espnet2_m2m.data_dir.audio import AudioError, source_stamp
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.tables import room_on_disk, write_text


def input_key(content: list, entries: Iterable[str]) -> str | None:
    """Hash of what a result depends on.

    Args:
        content: of JSON types. Its first item should be a version, to be raised when the same input gets other results.
        entries: of scp files; size and time of the files count.
    Returns:
        None with pipes, whose output may change without a trace, or missing files: always computed anew.
    """
    try:
        stamps = [source_stamp(entry) for entry in entries]
    except AudioError:
        return None
    if None in stamps:
        return None
    return hashlib.sha256(json.dumps([*content, *stamps], sort_keys=True, default=str).encode()).hexdigest()[:32]


def read_cache(path: Path | str) -> dict[str, tuple[str | None, object]]:
    """Id -> (key, result) of all that was kept, valid or not; the last of an id counts, broken lines do not."""
    kept = {}
    if not Path(path).is_file():
        return kept
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(line)
            kept[line["utt_id"]] = line["key"], line["result"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # the last line of a run that was killed, or what somebody else wrote
    return kept


class Cache:
    """Finished results in a file, a line of JSON each.

    Args:
        path: the file.
        keys: id -> `input_key`; what was kept with another key does not count.
        others: files whose results count too.
        tidy: write the file anew, without what does not count and with what the others have.
    Attributes:
        results: id -> result, of all that are finished.
    """

    def __init__(
        self, path: Path | str, keys: Mapping[str, str | None], others: Iterable[Path] = (), tidy: bool = False
    ) -> None:
        self.path, self.keys = Path(path), keys
        self.results = {
            name: result
            for file in (*others, path)
            for name, (key, result) in read_cache(file).items()
            if key is not None and keys.get(name) == key
        }
        if tidy:
            write_text(path, "".join(map(self._line, self.results)))

    def missing(self) -> list[str]:
        """Ids without a result, in the order of the keys."""
        return [name for name in self.keys if name not in self.results]

    def complete(
        self,
        function: Callable,
        tasks: Mapping[str, object],
        num_workers: int,
        desc: str,
        unit: str,
        in_process: bool | None = None,
    ) -> dict[str, object]:
        """Compute what is missing, and return all results in the order of the keys.

        An error of one task is raised when those that had begun are done and kept.

        Args:
            function: importable by name, from a task to its result.
            tasks: id -> what `function` is given.
            num_workers, in_process: as `parallel_map`.
            desc, unit: of the progress bar.
        """
        todo = [(name, tasks[name]) for name in self.missing()]
        bar = {"initial": len(self.results), "desc": desc, "unit": unit}
        job = partial(_named, function)
        for finished in parallel_map(job, todo, num_workers, in_order=False, in_process=in_process, progress=bar):
            self.keep(*finished)
        return {name: self.results[name] for name in self.keys}

    def keep(self, name: str, result: object) -> None:
        """Add a result, to the file at once."""
        self.results[name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with room_on_disk(self.path), open(self.path, "ab+") as file:
            if file.tell():  # what a killed run left of its last line must not spoil this one
                file.seek(-1, 2)
                if file.read() != b"\n":
                    file.write(b"\n")
            file.write(self._line(name).encode())

    def _line(self, name: str) -> str:
        return json.dumps({"utt_id": name, "key": self.keys[name], "result": self.results[name]}) + "\n"


def _named(function: Callable, task: tuple[str, object]) -> tuple[str, object]:
    return task[0], function(task[1])
