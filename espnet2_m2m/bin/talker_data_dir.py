"""Write a Kaldi data dir with one line per talker, which ESPnet's asr.sh takes as it is.

Of separated speech (stage 7 of the recipes):

    espnet2_m2m talker_data_dir --data_dir dump/raw/test --enhanced_dir exp/X/enhanced_test \\
        --train_config exp/X/config.yaml --out_dir exp/X/enhanced_test/talkers

or of signals that a set itself has, here the image of each talker at the reference mic:

    espnet2_m2m talker_data_dir --data_dir dump/raw/test --signal spk --out_dir data/test_clean

OUT_DIR gets wav.scp, utt2spk, spk2utt, utt2mix and utt2stream, text where text_spk{n} is known, and
segments where the set has them; the audio stays where it is. Ids are TALKER-MIXTURE.

Which stream is whose: no references are asked. Stream n belongs to headset n if the model was trained with an
anchor of fixed order; else each mixture's streams are fitted to its headsets (closetalk{n}.scp). With neither,
the streams keep their order, are called SPEAKER-stream1 ..., and have no text.
"""

import argparse
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser, positive
from espnet2_m2m.data_dir import numbered_files, parallel_map, read_audio, read_table, require_finished
from espnet2_m2m.data_dir.directory import read_segments
from espnet2_m2m.data_dir.talkers import lines_of_set, lines_of_streams, talker_ids, write_talker_data_dir
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.scoring.scored_set import cache_writer, input_key, read_cache


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
    print(f"{args.out_dir}: {len(lines)} lines of {len({line.talker for line in lines})} talkers ({how})")


def assign(args: argparse.Namespace) -> tuple[dict[str, list[int]] | None, str]:
    """Mixture -> stream of each talker, from 1, or None; and how that was found, in words."""
    config = TrainingConfig.load(args.train_config) if args.train_config else TrainingConfig({})
    if config.has_fixed_order:
        talkers = talker_ids(args.data_dir, len(numbered_files(args.enhanced_dir, "spk")))
        return {mixture: list(range(1, len(names) + 1)) for mixture, names in talkers.items()}, "fixed order"
    family = config.closetalk_family
    headsets = [Path(args.data_dir, f"{family}{n}.scp") for n in numbered_files(args.data_dir, family)]
    if not headsets:
        return None, "streams in the model's order: no headsets tell whose they are"
    return fit_all(args, headsets), "order from the headsets"


def fit_all(args: argparse.Namespace, headsets: list[Path]) -> dict[str, list[int]]:
    """Mixture -> the stream of each headset, from 1; finished mixtures are kept in order.jsonl."""
    data_dir = Path(args.data_dir)
    tables = {
        "closetalk": list(map(read_table, headsets)),
        "streams": [
            read_table(Path(args.enhanced_dir) / f"spk{n}.scp") for n in numbered_files(args.enhanced_dir, "spk")
        ],
    }
    segments = read_segments(data_dir / "segments") if (data_dir / "segments").is_file() else {}
    jobs = []
    for mixture in read_table(data_dir / "utt2spk"):
        recording, *times = segments.get(mixture, (mixture,))
        try:
            signals = {
                "closetalk": [[table[recording], times or None] for table in tables["closetalk"]],
                "streams": [[table[mixture], None] for table in tables["streams"]],
            }
        except KeyError as error:
            raise ValueError(
                f"'{mixture}' of {data_dir}: {error} is missing in {headsets[0].name} ... there or"
                f" in spk{{n}}.scp of {args.enhanced_dir}"
            ) from error
        jobs.append({"utt_id": mixture, "signals": signals})
    keys = {job["utt_id"]: input_key(job) for job in jobs}
    cache = Path(args.out_dir, "order.jsonl")
    orders = {
        mixture: order
        for mixture, (key, order) in read_cache(cache).items()
        if key is not None and keys.get(mixture) == key
    }
    todo = [job for job in jobs if job["utt_id"] not in orders]
    bar = {"initial": len(orders), "desc": "fit streams to headsets", "unit": "mix"}
    with cache_writer(cache) as keep:
        fitted = parallel_map(fit_one, todo, args.nj, progress=bar)
        for job, order in zip(todo, fitted):
            orders[job["utt_id"]] = order
            keep(job["utt_id"], keys[job["utt_id"]], order)
    return orders


def fit_one(job: dict) -> list[int]:
    """The stream of each headset of one mixture, from 1."""
    from espnet2_m2m.headset_order import streams_of_headsets

    try:
        waves, rates = {}, set()
        for family, signals in job["signals"].items():
            loaded = [read_audio(*signal) for signal in signals]
            waves[family] = [samples[:, 0] for samples, _ in loaded]
            rates |= {rate for _, rate in loaded}
        lengths = {len(wave) for family in waves.values() for wave in family}
        if len(lengths) > 1 or len(rates) > 1:
            raise ValueError(
                f"streams and headsets need the same length and rate, found {sorted(lengths)}"
                f" samples, {sorted(rates)} Hz"
            )
        order = streams_of_headsets(waves["streams"], waves["closetalk"], rates.pop())
    except ValueError as error:
        raise ValueError(f"mixture '{job['utt_id']}': {error}") from error
    return [stream + 1 for stream in order]


if __name__ == "__main__":
    main()
