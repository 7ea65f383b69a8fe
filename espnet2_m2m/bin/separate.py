"""Separate recordings: all you need is a model and files with all mics as channels.

    espnet2_m2m separate --model exp/X meeting.wav -o out
    espnet2_m2m separate --model user/name *.wav -o out --ref_mic 2

writes out/meeting_spk1.wav, out/meeting_spk2.wav, ..., each talker as heard by the reference mic, at the
level it has there, as 32-bit float, which cannot clip. Recordings may be of any length: they are separated in
overlapping segments, each talker staying in one file, in memory that does not grow with them. Files are
written whole or not at all; a rerun does what is missing. The model and the recordings must go together:
same sample rate (--resample), same array, its mics in the same order (--mics).
"""

import argparse
import io
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

from espnet2_m2m.bin import SECONDS, add_precision_option, boolean, cli_errors, command_parser, mic_list, not_negative
from espnet2_m2m.model_files import model_files
from espnet2_m2m.separate import HOP_S, SEGMENT_S, SeparateRecording
from espnet2_m2m.separate_file import read_header


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("recordings", nargs="+", metavar="recording", help="wav, flac ... of all mics")
    parser.add_argument(
        "--model", required=True, help="a training's folder, a .pth file, a packed zip, or a Hugging Face tag"
    )
    parser.add_argument("-o", "--out_dir", required=True, help="folder for the separated speech")
    parser.add_argument(
        "--ref_mic",
        type=not_negative,
        help="channel of the recording, from 0, at which the talkers are to sound (default: the model's)",
    )
    parser.add_argument(
        "--mics",
        type=mic_list,
        metavar="N,N,...",
        help="channels of the recording, from 0, that the model gets, in this order (default: all)",
    )
    parser.add_argument("--resample", action="store_true", help="convert recordings of a higher rate to the model's")
    parser.add_argument(
        "--segment_size",
        type=SECONDS,
        default=SEGMENT_S,
        metavar="S",
        help=f"length of a segment in seconds; memory grows with it (default {SEGMENT_S:g})",
    )
    parser.add_argument(
        "--hop_size",
        type=SECONDS,
        default=HOP_S,
        metavar="S",
        help="seconds between the beginnings of segments, half a segment to a whole one; what"
        f" remains is overlap, by which talkers are told apart (default {HOP_S:g})",
    )
    parser.add_argument(
        "--mixture_consistency",
        type=boolean,
        metavar="true|false",
        help="give back to the talkers what is left of the mixture (default: as the model was trained)",
    )
    add_precision_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--ngpu", type=int, choices=(0, 1), default=0, help="1: work on the GPU (default 0)")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    # What is mistyped shall show before ESPnet is imported.
    with model_files(args.model):
        pass
    names = {}
    for path in args.recordings:
        read_header(path)
        other = names.setdefault(Path(path).stem, path)
        if other != path:
            raise ValueError(
                f"{other} and {path} would be written to the same files; separate them into different folders"
            )
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # ESPnet's import talks about what is not needed here.
        import espnet2_m2m.tasks.separate_speech  # noqa: F401
    separate = SeparateRecording.from_pretrained(
        args.model,
        device="cuda" if args.ngpu else "cpu",
        mics=args.mics,
        ref_mic=args.ref_mic,
        segment_size=args.segment_size,
        hop_size=args.hop_size,
        mixture_consistency=args.mixture_consistency,
        precision=args.precision,
    )
    for path in names.values():
        separate.check_file(path, args.out_dir, args.resample, args.overwrite)
    for path in names.values():
        begin = time.perf_counter()
        done = separate.file(path, args.out_dir, args.resample, args.overwrite, progress=True)
        seconds = time.perf_counter() - begin
        written = ", ".join(map(str, done.paths))
        if done.existed:
            print(f"{path}: done already -> {written}")
            continue
        print(
            f"{path}: {done.duration_s:.1f} s separated in {seconds:.1f} s, real-time factor"
            f" {seconds / done.duration_s:.3f}, network in {separate.precision} -> {written}"
        )
        if done.uncertain_s:
            times = ", ".join(str(timedelta(seconds=round(time_s))) for time_s in done.uncertain_s)
            print(
                f"{path}: talkers could not be told apart and may change files at {times}; a longer overlap"
                " (--segment_size, --hop_size) helps",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
