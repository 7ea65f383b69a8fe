"""Write a part of a data dir: chosen utterances, or those of acceptable length."""

from collections.abc import Collection, Iterable
from pathlib import Path

from espnet2_m2m.data_dir.audio import audio_errors, audio_header
from espnet2_m2m.data_dir.directory import (
    AUDIO_SCP,
    begin_data_dir,
    count_some,
    data_files,
    finish_data_dir,
    name_some,
    read_segments,
    spk2utt_from,
    table_key,
)
from espnet2_m2m.data_dir.scenes import parse_scene
from espnet2_m2m.data_dir.tables import (
    TableError,
    read_table,
    split_entry,
    split_lines,
    table_content,
    write_bytes,
    write_table,
)
from espnet2_m2m.data_dir.validate_tables import require_valid_tables


def subset_data_dir(data_dir: Path | str, out_dir: Path | str, utt_ids: Iterable[str]) -> None:
    """Write a data dir with some of the utterances of another; the audio stays where it is.

    Every table keeps the ids that remain, spk2utt is made anew, and files that are no tables are
    copied; tables of an earlier run that the source does not have are removed. utt2spk, without
    which a dir is not valid, is removed first and written last.

    Args:
        data_dir, out_dir: two different folders.
        utt_ids: ids to keep, in any order.
    Raises:
        ValueError: nothing to keep, unknown ids, out_dir is data_dir, or a table of data_dir is wrong: of a line
            that utt2spk lacks, the subset would lack the others without a word.
        FileNotFoundError: no such directory or no utt2spk in it.
    """
    data_dir, out_dir, kept = Path(data_dir), Path(out_dir), set(utt_ids)
    names = data_files(data_dir)
    if out_dir.resolve() == data_dir.resolve():
        raise ValueError(f"{out_dir}: the subset must go to another directory than its source")
    require_valid_tables(data_dir)
    utt2spk = read_table(data_dir / "utt2spk")
    unknown = kept - utt2spk.keys()
    if unknown or not kept:
        found = f"unknown ids {name_some(sorted(unknown))}" if unknown else "none"
        raise ValueError(f"{data_dir}: expected utterances of utt2spk to keep, found {found}")
    utt2spk = {utt_id: spk for utt_id, spk in utt2spk.items() if utt_id in kept}

    segments = read_segments(data_dir)
    recordings = {segments[utt_id][0] for utt_id in kept if utt_id in segments}
    ids_of = {"utt": kept, "jsonl": kept, "spk": set(utt2spk.values()), "reco": recordings or kept}
    begin_data_dir(out_dir, {*names, "spk2utt"})
    for name in names:
        key = table_key(name)
        if name in ("utt2spk", "spk2utt"):
            continue
        if key is None:
            write_bytes(out_dir / name, (data_dir / name).read_bytes())
        else:
            ids = ids_of["reco" if AUDIO_SCP.fullmatch(name) else key]
            write_bytes(out_dir / name, _lines_with(ids, data_dir / name))
    write_table(out_dir / "spk2utt", spk2utt_from(utt2spk))
    finish_data_dir(out_dir, table_content(out_dir / "utt2spk", utt2spk))


def filter_data_dir(
    data_dir: Path | str, out_dir: Path | str, min_duration: float = 0.1, max_duration: float = 20.0
) -> tuple[list[str], list[str], list[str]]:
    """Subset of the utterances whose duration is inside the limits, both exclusive as in ESPnet.

    Args:
        data_dir: formatted data dir (it needs utt2num_samples and wav.scp).
        out_dir: where the subset goes.
        min_duration, max_duration: seconds; min_duration < duration < max_duration is kept.
    Returns:
        (kept, too_short, too_long): lists of utterance ids.
    Raises:
        ValueError: no utterance remains, or a table is wrong.
        FileNotFoundError: no utt2num_samples.
    """
    data_dir = Path(data_dir)
    if "utt2num_samples" not in data_files(data_dir):
        raise FileNotFoundError(f"{data_dir}/utt2num_samples: no such file; format_data_dir (stage 3) writes it")
    require_valid_tables(data_dir)
    utt2num_samples = read_table(data_dir / "utt2num_samples")
    sample_rate = sample_rate_of(data_dir)
    kept, too_short, too_long = [], [], []
    for utt_id in read_table(data_dir / "utt2spk"):
        duration = int(utt2num_samples[utt_id]) / sample_rate
        within = kept if duration < max_duration else too_long
        (within if duration > min_duration else too_short).append(utt_id)
    if not kept:
        raise ValueError(
            f"{data_dir}: no utterance is longer than {min_duration} s and shorter than"
            f" {max_duration} s ({count_some(too_short)} too short, {count_some(too_long)} too long);"
            " change min_duration or max_duration"
        )
    subset_data_dir(data_dir, out_dir, kept)
    return kept, too_short, too_long


def sample_rate_of(data_dir: Path | str) -> int:
    """Sample rate in Hz of the first entry of wav.scp."""
    path = Path(data_dir) / "wav.scp"
    for utt_id, entry in read_table(path).items():
        with audio_errors(f"{path}: utterance '{utt_id}'"):
            return audio_header(entry)[2]
    raise TableError(f"{path}: expected at least one line, found none")


def _lines_with(ids: Collection[str], path: Path) -> bytes:
    """The lines of a table, or of scenes.jsonl, that have one of the ids."""
    lines = []
    for line in split_lines(path):
        line_id = parse_scene(line)["utt_id"] if table_key(path.name) == "jsonl" else split_entry(line)[0]
        if line_id in ids:
            lines.append(f"{line}\n")
    return "".join(lines).encode()
