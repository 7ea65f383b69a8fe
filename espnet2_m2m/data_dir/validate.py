"""Is a data dir complete and consistent: its tables (`validate_tables.py`), and its audio (`validate_audio.py`)?"""

from collections.abc import Sequence
from pathlib import Path

from espnet2_m2m.data_dir.validate_audio import check_audio_files
from espnet2_m2m.data_dir.validate_tables import Problem, Summary, TableChecker


def validate_data_dir(data_dir: Path | str, **options: object) -> list[Problem]:
    """All problems of a data dir, an empty list when there is none; options: `inspect_data_dir`."""
    return inspect_data_dir(data_dir, **options)[0]


def inspect_data_dir(
    data_dir: Path | str,
    sample_rate: int | None = None,
    num_channels: int | None = None,
    num_speakers: int | None = None,
    require: Sequence[str] = (),
    check_audio: bool = True,
    num_workers: int = 1,
    progress: bool = False,
) -> tuple[list[Problem], Summary]:
    """Problems and summary of a data dir.

    Args:
        data_dir: folder; relative paths in its scp files start at the working directory.
        sample_rate: Hz that all audio must have; None: all the same.
        num_channels: channels that wav.scp's audio must have; None: all the same.
        num_speakers: how many closetalk{n}.scp, spk{n}.scp ... there must be, where there are any.
        require: files ("text") or numbered families ("closetalk") that must be there besides
            wav.scp, utt2spk and spk2utt.
        check_audio: open and read all audio.
        num_workers: processes that read audio.
        progress: show a progress bar on stderr.
    Returns:
        (list of Problem in the order of the files, Summary).
    """
    if not Path(data_dir).is_dir():
        problem = Problem(str(data_dir), None, "no such data directory", "create it (stage 1)")
        return [problem], Summary()
    checker = TableChecker(data_dir)
    checker.check_names(num_speakers, require)
    checker.check_tables()
    summary = Summary(num_utterances=len(checker.tables.get("utt2spk", ())))
    if check_audio:
        check_audio_files(checker, summary, sample_rate, num_channels, num_workers, progress)
    return checker.problems, summary
