"""Kaldi-style data dirs: tables, audio entries, validation, formatting, subsets."""

from espnet2_m2m.data_dir.audio import AudioError, audio_header, read_audio, source_stamp, write_wav
from espnet2_m2m.data_dir.directory import audio_scps, numbered_files, read_segments, require_finished, spk2utt_from
from espnet2_m2m.data_dir.format import format_data_dir
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.subset import filter_data_dir, subset_data_dir
from espnet2_m2m.data_dir.tables import TableError, atomic_path, read_table, write_table, write_text
from espnet2_m2m.data_dir.validate import inspect_data_dir, validate_data_dir
from espnet2_m2m.data_dir.validate_tables import Problem, Summary

__all__ = [
    "AudioError",
    "Problem",
    "Summary",
    "TableError",
    "atomic_path",
    "audio_header",
    "audio_scps",
    "filter_data_dir",
    "format_data_dir",
    "inspect_data_dir",
    "numbered_files",
    "parallel_map",
    "read_audio",
    "read_segments",
    "read_table",
    "require_finished",
    "source_stamp",
    "spk2utt_from",
    "subset_data_dir",
    "validate_data_dir",
    "write_table",
    "write_text",
    "write_wav",
]
