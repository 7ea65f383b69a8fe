"""Write a Kaldi data dir with one line per talker, which ESPnet's asr.sh takes as it is.

Of separated speech (stage 7 of the recipes):

    espnet2_m2m talker_data_dir --data_dir dump/raw/test --enhanced_dir exp/X/enhanced_test \\
        --train_config exp/X/config.yaml --out_dir exp/X/enhanced_test/talkers

or of signals that a set itself has, here the image of each talker at the reference mic:

    espnet2_m2m talker_data_dir --data_dir dump/raw/test --signal spk --out_dir data/test_clean

OUT_DIR gets wav.scp, utt2spk, spk2utt, utt2mix and utt2stream, text where text_spk{n} is known, and
segments where the set has them; the audio stays where it is, and wav.scp names it by absolute paths, so that a recipe
elsewhere can read it. Ids are TALKER-MIXTURE.

Which stream is whose: no references are asked. Stream n belongs to headset n if the model was trained with an
anchor of fixed order; else each mixture's streams are fitted to its headsets (closetalk{n}.scp). With neither,
the streams keep their order, are called SPEAKER-stream1 ..., and have no text.
"""

import argparse
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser, positive
from espnet2_m2m.data_dir import numbered_files, require_finished
from espnet2_m2m.data_dir.cache import Cache, input_key
from espnet2_m2m.data_dir.directory import name_some
from espnet2_m2m.data_dir.signals import Utterance, find_utterances
from espnet2_m2m.data_dir.talkers import lines_of_set, lines_of_streams, talker_ids, write_talker_data_dir
from espnet2_m2m.enh.training_config import TrainingConfig

ORDER_VERSION = 1  # raise when the same signals get another order: old ones are then found anew


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="the set, formatted (dump/raw/SET)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--enhanced_dir", help="its separated speech, spk{n}.scp")
    what.add_argument(
        "--signal",
        choices=("spk", "closetalk", "closetalk_spk", "wav"),
        help="a signal of the set; wav: the far-field mixture, once for each talker",
    )
    parser.add_argument("--train_config", help="config.yaml of the model that separated")
    parser.add_argument("--out_dir", required=True)
    parser.add_argument("--nj", type=positive, default=1, help="processes that fit streams to headsets")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    if args.signal:
        lines, how = lines_of_set(args.data_dir, args.signal), f"{args.signal} of the set"
    else:
        require_finished(args.data_dir)
        stream_of_talker, how = assign(args)
        lines = lines_of_streams(args.data_dir, args.enhanced_dir, stream_of_talker)
    write_talker_data_dir(args.out_dir, lines)
    silent = [line.utt_id for line in lines if line.text is None]
    if 0 < len(silent) < len(lines):
        print(f"{args.out_dir}: no text, since {args.data_dir} has no transcripts of {name_some(silent)}")
    print(f"{args.out_dir}: {len(lines)} lines of {len({line.talker for line in lines})} talkers ({how})")


def assign(args: argparse.Namespace) -> tuple[dict[str, dict[int, int]] | None, str]:
    """Mixture -> talker -> stream, both from 1, or None; and how that was found, in words."""
    config = TrainingConfig.load(args.train_config) if args.train_config else TrainingConfig({})
    if config.has_fixed_order:
        talkers = talker_ids(args.data_dir, len(numbered_files(args.enhanced_dir, "spk")))
        return {mixture: {number: number for number in names} for mixture, names in talkers.items()}, "fixed order"
    family = config.closetalk_family
    if not numbered_files(args.data_dir, family):
        return None, "streams in the model's order: no headsets tell whose they are"
    return fit_all(args, family), "order from the headsets"


def fit_all(args: argparse.Namespace, family: str) -> dict[str, dict[int, int]]:
    """Mixture -> headset -> its stream; finished mixtures are kept in order.jsonl.

    Args:
        family: of the headsets' files.
    """
    utterances = {u.utt_id: u for u in find_utterances(args.data_dir, [family], args.enhanced_dir)}
    keys = {
        mixture: input_key([ORDER_VERSION, mixture, u.signals], (signal.entry for _, _, signal in u))
        for mixture, u in utterances.items()
    }
    cache = Cache(Path(args.out_dir, "order.jsonl"), keys, tidy=True)
    streams = cache.complete(fit_one, utterances, args.nj, "fit streams to headsets", "mix")
    return {mixture: dict(zip(u.signals[family], streams[mixture])) for mixture, u in utterances.items()}


def fit_one(utterance: Utterance) -> list[int]:
    """The stream of each headset of one mixture, from 1."""
    from espnet2_m2m.headset_order import streams_of_headsets

    waves, sample_rate = utterance.read()
    streams, (headsets,) = waves.pop("stream"), waves.values()
    try:
        order = streams_of_headsets(list(streams.values()), list(headsets.values()), sample_rate)
    except ValueError as error:
        raise ValueError(f"utterance '{utterance.utt_id}': {error}") from error
    return [list(streams)[stream] for stream in order]


if __name__ == "__main__":
    main()
