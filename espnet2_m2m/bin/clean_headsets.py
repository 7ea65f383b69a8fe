"""Take the cross-talk out of a set's headsets, which need no model for it: they clean each other.

    espnet2_m2m clean_headsets --data_dir dump/raw/test --out_dir dump/raw/test_cleaned

writes the data dir again, with other closetalk{n}.scp: each headset less what the others explain of it
(headset_cleaning.py), as 32-bit float in OUT_DIR/wav. What trains on headsets or recognises them takes the new
folder in place of the old one; `enh_scoring --cleaned_dir OUT_DIR` scores them. Every wearer should speak in an
utterance, or be silent throughout; it is cleaned as a whole, in memory that grows with it. A rerun continues where
the last one stopped.
"""

import argparse
import functools
from pathlib import Path

import numpy as np

from espnet2_m2m.bin import cli_errors, command_parser, positive
from espnet2_m2m.data_dir import parallel_map, require_finished
from espnet2_m2m.data_dir.audio import comment_of, write_wav
from espnet2_m2m.data_dir.cache import input_key
from espnet2_m2m.data_dir.directory import begin_data_dir, data_files, finish_data_dir, numbered_file
from espnet2_m2m.data_dir.ids import id_path
from espnet2_m2m.data_dir.signals import Utterance, find_utterances
from espnet2_m2m.data_dir.tables import write_bytes, write_table

VERSION = 1  # to be raised when the same headsets are cleaned in another way


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="a set with closetalk{n}.scp, formatted (dump/raw/SET)")
    parser.add_argument("--out_dir", required=True, help="the data dir to write")
    parser.add_argument("--nj", type=positive, default=1, help="processes (default 1)")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    data_dir, out_dir = Path(args.data_dir), Path(args.out_dir)
    if out_dir.resolve() == data_dir.resolve():
        raise ValueError(f"{out_dir}: the cleaned headsets must not replace those of the set")
    if (data_dir / "segments").exists():
        raise ValueError(f"{data_dir}: has segments; cut them out first: espnet2_m2m format_data_dir (stage 3)")
    require_finished(data_dir)
    utterances = find_utterances(data_dir, ["closetalk"])
    numbers = list(utterances[0].signals["closetalk"])
    if len(numbers) < 2:
        found = ", ".join(numbered_file("closetalk", number) for number in numbers) or "none"
        raise ValueError(
            f"{data_dir}: expected closetalk1.scp, closetalk2.scp ..., which clean each other, found {found}"
        )
    names = data_files(data_dir)
    begin_data_dir(out_dir, names)
    bar = {"desc": str(out_dir), "unit": "utt"}
    clean = functools.partial(clean_utterance, out_dir=out_dir)
    num_done = sum(parallel_map(clean, utterances, args.nj, progress=bar))
    for number in numbers:
        name = numbered_file("closetalk", number)
        write_table(out_dir / name, {u.utt_id: str(_path(out_dir, number, u.utt_id)) for u in utterances})
    for name in names:
        if name not in ("utt2spk", *(numbered_file("closetalk", number) for number in numbers)):
            write_bytes(out_dir / name, (data_dir / name).read_bytes())
    finish_data_dir(out_dir, (data_dir / "utt2spk").read_bytes())
    print(
        f"{out_dir}: {len(numbers)} headsets of {len(utterances)} utterances, {len(utterances) - num_done} done before"
    )


def clean_utterance(utterance: Utterance, out_dir: Path) -> bool:
    """Write the cleaned headsets of an utterance; False: they were there."""
    headsets = utterance.signals["closetalk"]
    paths = [_path(out_dir, number, utterance.utt_id) for number in headsets]
    key = input_key([VERSION, list(headsets)], (signal.entry for signal in headsets.values()))
    comment = f"espnet2_m2m {key}"
    if key is not None and all(comment_of(path) == comment for path in paths):
        return False
    import torch

    from espnet2_m2m.headset_cleaning import clean_headsets
    from espnet2_m2m.stft import STFT

    waves, rate = utterance.read()
    mixtures = torch.from_numpy(np.stack(list(waves["closetalk"].values())))  # (headset, sample)
    stft = STFT.of_rate(rate)
    cleaned = stft.inverse(clean_headsets(stft(mixtures)[None])[0], mixtures.shape[1])
    for path, wave in zip(paths, cleaned.numpy()):
        write_wav(path, wave, rate, subtype="FLOAT", comment=comment)
    return True


def _path(out_dir: Path, number: int, utt_id: str) -> Path:
    return id_path(out_dir / "wav" / f"closetalk{number}", utt_id, ".wav")


if __name__ == "__main__":
    main()
