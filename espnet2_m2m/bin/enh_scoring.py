"""Score separated speech: SI-SDR, SDR, PESQ and eSTOI of every utterance and speaker.

    espnet2_m2m enh_scoring --data_dir data/test --enhanced_dir exp/X/enhanced_test

reads the references `data_dir/spk{n}.scp`, the mixture `data_dir/wav.scp` (its channel --ref_mic)
and the estimates `enhanced_dir/spk{n}.scp`, and writes

    enhanced_dir/scoring/scores.csv          one row per utterance and speaker
    enhanced_dir/scoring/summary.json        the means, and what they are means of
    enhanced_dir/scoring/wav_spk{n}          the estimates of speaker n, in the best permutation
    enhanced_dir/scoring/utterances*.jsonl   finished utterances; a rerun continues from them
    enhanced_dir/../RESULTS.md               one section per scored set

Where the set has closetalk{n}.scp and closetalk_spk{n}.scp, the close-talk mixtures are scored
too, with the close-talk speech as reference (Table I of the M2M paper), and with --cleaned_dir what clean_headsets
made of them. The scores do not depend
on --nj.

`--job k/n`, for k = 1 ... n, scores the k-th of n shares. The jobs may run at the same time, on machines that
see the same folders. When all have ended, the same command without --job writes all other files.
"""

import argparse
import os

from espnet2_m2m.bin import boolean, cli_errors, command_parser, not_negative, parse_job, positive
from espnet2_m2m.scoring.results import markdown_section
from espnet2_m2m.scoring.scored_set import score_set, score_share


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="the set, with spk{n}.scp and wav.scp")
    parser.add_argument("--enhanced_dir", required=True, help="the estimates, as spk{n}.scp")
    parser.add_argument("--nj", type=positive, default=os.cpu_count() or 1, help="worker processes (default: CPUs)")
    parser.add_argument(
        "--ref_mic", type=not_negative, default=0, help="far-field mic of the references, from 0 (default 0)"
    )
    parser.add_argument(
        "--fixed_order",
        type=boolean,
        default=True,
        metavar="true|false",
        help="also score output n against speaker n; false where the order means nothing, as for"
        " PIT and UNSSOR (default true)",
    )
    parser.add_argument("--cleaned_dir", help="the set with cleaned headsets, by clean_headsets")
    parser.add_argument("--job", type=parse_job, metavar="K/N", help="score the K-th of N shares and write no results")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    options = args.data_dir, args.enhanced_dir, args.nj, args.ref_mic, args.fixed_order, args.cleaned_dir
    if args.job:
        score_share(*args.job, *options)
    else:
        print(markdown_section(score_set(*options)), end="")


if __name__ == "__main__":
    main()
