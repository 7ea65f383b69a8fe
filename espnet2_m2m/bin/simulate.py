"""Simulate two-talker mixtures with far-field and close-talk mics from clean speech.

    python -m espnet2_m2m.bin.simulate --source_data data/clean --out_dir data --room meeting \\
        --num_train 400 --num_valid 20 --num_test 40 --nj 2

writes the Kaldi data dirs data/train, data/valid and data/test, their audio in data/*/wav. It may
be killed at any moment: the same command goes on where it stopped, to the same bits.
"""

import argparse
from pathlib import Path

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.directory import spk2utt_from
from espnet2_m2m.data_dir.tables import write_bytes, write_table
from espnet2_m2m.simulation.render import render_set, wav_paths
from espnet2_m2m.simulation.rooms import NUM_SPEAKERS, ROOMS
from espnet2_m2m.simulation.scene import (
    SETS,
    SceneSettings,
    draw_scenes,
    scenes_to_text,
    split_speech,
)


def get_parser():
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--source_data", required=True, help="Kaldi data dir of clean speech: wav.scp, utt2spk ...")
    add("--out_dir", required=True, help="the sets are written to OUT_DIR/{train,valid,test}")
    add("--room", choices=sorted(ROOMS), default="meeting", help="one room, or one per mixture")
    add("--num_train", type=int, default=400, help="number of mixtures; 0 leaves the set out")
    add("--num_valid", type=int, default=20)
    add("--num_test", type=int, default=40)
    add("--split_by", choices=("speaker", "utterance"), default="speaker",
        help="what the three sets must not share")  # fmt: skip
    default = SceneSettings()
    add("--sample_rate", type=int, default=default.sample_rate_hz, help="Hz")
    add("--min_duration", type=float, default=default.min_duration_s,
        help="seconds of speech of each talker, at least")  # fmt: skip
    add("--farfield_level_dbfs", type=float, default=default.farfield_level_dbfs,
        help="RMS of a talker's far-field image")  # fmt: skip
    add("--closetalk_gain_db", type=float, default=default.closetalk_gain_db,
        help="gain of the headsets relative to the far-field mics")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--nj", type=int, default=2, help="number of processes; the result does not depend on it")
    return parser


@cli_errors
def main(cmd=None):
    """Draw the scenes of all sets, then render one set after the other."""
    args = get_parser().parse_args(cmd)
    _check(args)
    settings = SceneSettings(
        sample_rate_hz=args.sample_rate,
        min_duration_s=args.min_duration,
        farfield_level_dbfs=args.farfield_level_dbfs,
        closetalk_gain_db=args.closetalk_gain_db,
    )
    speech = CleanSpeech(args.source_data, args.sample_rate)
    parts = split_speech(speech.utts_of_speaker, args.split_by, args.seed)
    scenes_of_set = {}
    for name in SETS:
        num_scenes = getattr(args, f"num_{name}")
        if num_scenes > 0:
            scenes_of_set[name] = draw_scenes(
                name, num_scenes, speech, parts[name], ROOMS[args.room](), settings, args.seed
            )
    for name, scenes in scenes_of_set.items():
        check_same_scenes(scenes, Path(args.out_dir, name))
    for name, scenes in scenes_of_set.items():
        set_dir = Path(args.out_dir, name)
        write_bytes(set_dir / "scenes.jsonl", scenes_to_text(scenes).encode("utf-8"))
        render_set(scenes, set_dir, speech, args.nj)
        write_tables(scenes, set_dir)


def check_same_scenes(scenes, set_dir):
    """Refuse to mix two simulations in one folder.

    Raises:
        ValueError: `set_dir` has a scenes.jsonl with other scenes.
    """
    path = Path(set_dir, "scenes.jsonl")
    if path.exists() and path.read_text(encoding="utf-8") != scenes_to_text(scenes):
        raise ValueError(
            f"{set_dir} holds another simulation: its scenes.jsonl is not what these options and"
            " this source data give; choose another --out_dir or remove the folder"
        )


def write_tables(scenes, set_dir):
    """Write the set's Kaldi tables; wav.scp is the last, so who has it has all."""
    set_dir = Path(set_dir)
    utt2spk = {
        scene["utt_id"]: "-".join(speaker["speaker_id"] for speaker in scene["speakers"])
        for scene in scenes
    }
    write_table(set_dir / "utt2spk", utt2spk)
    write_table(set_dir / "spk2utt", spk2utt_from(utt2spk))
    durations = {s["utt_id"]: f"{s['num_samples'] / s['sample_rate_hz']:.6f}" for s in scenes}
    write_table(set_dir / "utt2dur", durations)
    for n in range(NUM_SPEAKERS):
        texts = {scene["utt_id"]: scene["speakers"][n]["text"] for scene in scenes}
        if None not in texts.values():
            write_table(set_dir / f"text_spk{n + 1}", texts)
    paths = {scene["utt_id"]: wav_paths(scene, set_dir) for scene in scenes}
    for name in reversed(wav_paths(scenes[0], set_dir)):
        scp = "wav.scp" if name == "farfield" else f"{name}.scp"
        write_table(set_dir / scp, {utt_id: files[name] for utt_id, files in paths.items()})


def _check(args):
    if max(args.num_train, args.num_valid, args.num_test) < 1:
        raise ValueError("nothing to do: --num_train, --num_valid and --num_test are all 0")
    for option in ("num_train", "num_valid", "num_test", "seed"):
        if getattr(args, option) < 0:
            raise ValueError(f"--{option} must not be negative, found {getattr(args, option)}")
    for option in ("sample_rate", "min_duration", "nj"):
        if getattr(args, option) <= 0:
            raise ValueError(f"--{option} must be positive, found {getattr(args, option)}")


if __name__ == "__main__":
    main()
