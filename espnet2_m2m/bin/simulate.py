"""Simulate two-talker mixtures with far-field and close-talk mics from clean speech.

    espnet2_m2m simulate --source_data data/clean --out_dir data --room meeting \\
        --num_train 400 --num_valid 20 --num_test 40 --nj 2

writes the Kaldi data dirs data/train, data/valid and data/test, their audio in data/*/wav. It may
be killed at any moment: the same command goes on where it stopped, to the same bits.

A large simulation can be shared out among machines that see the same folders: `--job k/n`, for
k = 1 ... n, renders the k-th of n shares of every set. The jobs may run in any order, at the same
time, and again after they have ended, but no share in two jobs at once. When all have ended, the
same command without --job writes the tables (and renders what is missing).
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from espnet2_m2m.bin import (
    DECIBELS,
    SECONDS,
    SEED,
    check_rendering,
    cli_errors,
    not_negative,
    rendering_parser,
    sample_rate,
    share_of,
)
from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.simulation.render import render_set, wav_paths
from espnet2_m2m.simulation.rooms import ROOMS
from espnet2_m2m.simulation.scene import SceneSettings, draw_scenes
from espnet2_m2m.simulation.simulated_set import (
    check_same_scenes,
    digest,
    read_drawn_scenes,
    write_scenes,
    write_tables,
)
from espnet2_m2m.simulation.turns import SETS, split_speech


def get_parser() -> argparse.ArgumentParser:
    default = SceneSettings()
    parser = rendering_parser(__file__, __doc__, default.closetalk_gain_db)
    add = parser.add_argument
    add(
        "--source_data",
        required=True,
        nargs="+",
        help="Kaldi data dir of clean speech (wav.scp, utt2spk ...), shared out among the sets, or"
        " three of them with different speakers: for train, valid and test",
    )
    add("--room", choices=sorted(ROOMS), default="meeting", help="one room, or one per mixture")
    add("--num_train", type=not_negative, default=400, help="number of mixtures; 0 leaves the set out")
    add("--num_valid", type=not_negative, default=20)
    add("--num_test", type=not_negative, default=40)
    add(
        "--split_by",
        choices=("speaker", "utterance"),
        default="speaker",
        help="what the three sets must not share, when made from one data dir",
    )
    add("--sample_rate", type=sample_rate, default=default.sample_rate_hz, help="Hz")
    add(
        "--min_duration",
        type=SECONDS,
        default=default.min_duration_s,
        help="seconds of speech of each talker, at least: utterances are strung together; 0: every"
        " talker says one utterance, and all utterances are used equally often",
    )
    add(
        "--farfield_level_dbfs",
        type=DECIBELS,
        default=default.farfield_level_dbfs,
        help="RMS of a talker's far-field image",
    )
    add("--seed", type=SEED, default=0)
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Draw the scenes of all sets, then render one set after the other."""
    args = get_parser().parse_args(cmd)
    _check(args)
    settings = SceneSettings(
        sample_rate_hz=args.sample_rate,
        min_duration_s=args.min_duration,
        farfield_level_dbfs=args.farfield_level_dbfs,
        closetalk_gain_db=args.closetalk_gain_db,
    )
    speech, parts = read_sources(args)
    scenes_of_set, origins = {}, {}
    for name in parts:
        set_dir = Path(args.out_dir, name)
        num_scenes = getattr(args, f"num_{name}")
        origins[name] = {
            "num_scenes": num_scenes,
            "room": args.room,
            **asdict(settings),
            "seed": args.seed,
            "speech_sha256": digest([parts[name], speech[name].text]),
        }
        scenes_of_set[name] = read_drawn_scenes(set_dir, origins[name])
        if scenes_of_set[name] is None:
            scenes_of_set[name] = draw_scenes(
                name, num_scenes, speech[name], parts[name], ROOMS[args.room](), settings, args.seed
            )
            check_same_scenes(scenes_of_set[name], set_dir)
    for name, scenes in scenes_of_set.items():
        set_dir = Path(args.out_dir, name)
        write_scenes(scenes, set_dir, origins[name])
        render_set(share_of(scenes, args.job), set_dir, speech[name], args.nj)
        if args.job is None:
            write_tables(scenes, set_dir, [wav_paths(scene, set_dir) for scene in scenes])


def read_sources(args: argparse.Namespace) -> tuple[dict[str, CleanSpeech], dict[str, dict[str, list[str]]]]:
    """The clean speech of every set that is asked for, and who may say what in it.

    Returns:
        dict set name -> CleanSpeech, dict set name -> dict speaker -> list of utterance ids.
    Raises:
        ValueError: sets that would share speakers.
    """
    names = [name for name in SETS if getattr(args, f"num_{name}") > 0]
    if len(args.source_data) == 1:
        speech = CleanSpeech(args.source_data[0], args.sample_rate)
        parts = split_speech(speech.utts_of_speaker, args.split_by, args.seed)
        return dict.fromkeys(names, speech), {name: parts[name] for name in names}
    speech, set_of_speaker = {}, {}
    for name, data_dir in zip(SETS, args.source_data, strict=True):
        if name not in names:
            continue
        speech[name] = CleanSpeech(data_dir, args.sample_rate)
        for speaker in speech[name].utts_of_speaker:
            other = set_of_speaker.setdefault(speaker, name)
            if other != name:
                raise ValueError(
                    f"speaker '{speaker}' is in the source data of {other} and of {name};"
                    " no two of the sets may have a speaker in common"
                )
    return speech, {name: speech[name].utts_of_speaker for name in names}


def _check(args: argparse.Namespace) -> None:
    check_rendering(args)
    if len(args.source_data) not in (1, len(SETS)):
        raise ValueError(
            f"--source_data takes one data dir or three (for {', '.join(SETS)}), found {len(args.source_data)}"
        )


if __name__ == "__main__":
    main()
