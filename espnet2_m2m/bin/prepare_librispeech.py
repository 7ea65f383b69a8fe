"""Make a Kaldi data dir of clean speech from subsets of LibriSpeech or Mini LibriSpeech.

    espnet2_m2m prepare_librispeech --corpus_dir downloads/LibriSpeech \\
        --subsets train-clean-100 train-clean-360 --out_dir data/clean_train --download

writes wav.scp (the flac files, where they are), utt2spk, spk2utt and text. --download gets the
subsets that are missing from openslr.org (dev-clean 0.3 GB, train-clean-100 6 GB, train-clean-360
23 GB; Mini LibriSpeech, train-clean-5 and dev-clean-2, 0.5 GB); it may be interrupted.
"""

import argparse
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.corpora.clean_speech import write_clean_speech
from espnet2_m2m.corpora.librispeech import download_subset, read_subset


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    add = parser.add_argument
    add("--corpus_dir", required=True, type=Path, help="the folder LibriSpeech")
    add("--subsets", required=True, nargs="+", help="its folders to take, such as dev-clean")
    add("--out_dir", required=True, type=Path)
    add("--download", action="store_true", help="get missing subsets from openslr.org")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Download what is missing, then write the tables."""
    args = get_parser().parse_args(cmd)
    utterances = {}
    for subset in args.subsets:
        if args.download:
            download_subset(subset, args.corpus_dir)
        elif not (args.corpus_dir / subset).is_dir():
            raise FileNotFoundError(
                f"{args.corpus_dir / subset}: no such folder; expected the subset as"
                " openslr.org/12 or /31 packs it: unpack it there, or download it with --download"
            )
        found = read_subset(args.corpus_dir / subset)
        if twice := utterances.keys() & found.keys():
            # Mini LibriSpeech is a part of LibriSpeech.
            raise ValueError(
                f"utterance '{min(twice)}' is in {subset} and in another of the --subsets"
                f" ({len(twice)} such); leave one of them out"
            )
        utterances.update(found)
    num_speakers = write_clean_speech(args.out_dir, utterances)
    print(f"{args.out_dir}: {len(utterances)} utterances of {num_speakers} speakers")


if __name__ == "__main__":
    main()
