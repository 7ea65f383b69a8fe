"""Add the close-talk mics of SMS-WSJ-FF-CT to an existing SMS-WSJ.

    espnet2_m2m simulate_sms_wsj --sms_wsj /corpora/sms_wsj --out_dir data --nj 16

writes the Kaldi data dirs data/train, data/valid and data/test. Far-field mixtures stay where they
are; headsets and the images at the reference mic are written to data/*/wav. It may be killed at any
moment: the same command goes on where it stopped, to the same samples.

It can be shared out among machines that see the same folders: `--job k/n`, for k = 1 ... n, renders
the k-th of n shares of every set; the jobs may run in any order, at the same time, and again after they
have ended, but no share in two jobs at once. When all have ended, the same command without --job writes the
tables (and renders what is missing).
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from espnet2_m2m.bin import check_rendering, cli_errors, not_negative, rendering_parser, sample_rate, share_of
from espnet2_m2m.data_dir.audio import read_audio
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.scenes import Scene
from espnet2_m2m.data_dir.tables import write_bytes
from espnet2_m2m.simulation.render import missing_scenes, talker_paths
from espnet2_m2m.simulation.scene import scenes_to_text
from espnet2_m2m.simulation.simulated_set import check_same_scenes, write_tables
from espnet2_m2m.simulation.sms_wsj_database import (
    DATASETS,
    Example,
    ExampleAudio,
    Mixture,
    example_audio,
    load_images,
    read_database,
    sms_wsj_scenes,
)
from espnet2_m2m.simulation.sms_wsj_headsets import check_farfield, render_headsets
from espnet2_m2m.simulation.turns import SETS


def get_parser() -> argparse.ArgumentParser:
    parser = rendering_parser(__file__, __doc__, closetalk_gain_db=-20.0)
    add = parser.add_argument
    add("--sms_wsj", required=True, help="sms_wsj.json, or the folder that holds it")
    add(
        "--reroot",
        nargs="*",
        default=[],
        metavar="OLD=NEW",
        help="a path of the json below OLD is looked for below NEW",
    )
    for name in SETS:
        add(
            f"--num_{name}",
            type=not_negative,
            metavar="N",
            help=f"the first N mixtures of {DATASETS[name]}; 0 leaves the set out; default: all",
        )
    add(
        "--num_checks",
        type=not_negative,
        default=3,
        help="mixtures of each set whose far-field images are made again before all else",
    )
    add("--sample_rate", type=sample_rate, default=8000, help="Hz, of SMS-WSJ's files")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Draw the headsets of all sets, check some mixtures, then render one set after the other."""
    args = get_parser().parse_args(cmd)
    _check(args)
    sets = read_sets(args)
    scenes = {name: [scene for scene, _ in mixtures] for name, mixtures in sets.items()}
    for name in sets:
        check_same_scenes(scenes[name], Path(args.out_dir, name))

    shares = {name: share_of(mixtures, args.job) for name, mixtures in sets.items()}
    todo = {name: missing_mixtures(share, Path(args.out_dir, name)) for name, share in shares.items()}
    check_some(todo, args.num_checks, args.nj)
    for name, share in shares.items():
        missing = {scene["utt_id"] for scene, _ in todo[name]}
        finished = [mixture for mixture in share if mixture[0]["utt_id"] not in missing]
        for scene, audio in evenly_spread(finished, args.num_checks):
            check_finished(scene, audio, Path(args.out_dir, name))
    for name, mixtures in sets.items():
        set_dir = Path(args.out_dir, name)
        write_bytes(set_dir / "scenes.jsonl", scenes_to_text(scenes[name]).encode("utf-8"))
        num_done = len(shares[name]) - len(todo[name])
        bar = {"initial": num_done, "desc": str(set_dir), "unit": "mix"}
        job = partial(render_headsets, set_dir=set_dir)
        for _ in parallel_map(job, todo[name], args.nj, in_order=False, progress=bar):
            pass
        if args.job is None:
            paths = [{"farfield": audio.observation, **talker_paths(scene, set_dir)} for scene, audio in mixtures]
            write_tables(scenes[name], set_dir, paths)


def read_sets(args: argparse.Namespace) -> dict[str, list[Mixture]]:
    """The mixtures of every set that is asked for: set name -> mixtures."""
    json_path = Path(args.sms_wsj)
    if json_path.is_dir():
        json_path = json_path / "sms_wsj.json"
    database = read_database(json_path)
    folder = json_path.parent.resolve()
    reroot = [pair.split("=") for pair in args.reroot]
    sets = {}
    for name in SETS:
        examples = _chosen_examples(database, name, getattr(args, f"num_{name}"), json_path)
        if examples:
            scenes = sms_wsj_scenes(examples, args.sample_rate, args.closetalk_gain_db)
            ids = [scene["example_id"] for scene in scenes]
            audio = [example_audio(id_, examples[id_], folder, reroot) for id_ in ids]
            sets[name] = list(zip(scenes, audio))
    return sets


def missing_mixtures(mixtures: list[Mixture], set_dir: Path) -> list[Mixture]:
    """Those that lack a wav file."""
    missing = missing_scenes([scene for scene, _ in mixtures], set_dir, talker_paths)
    utt_ids = {scene["utt_id"] for scene in missing}
    return [mixture for mixture in mixtures if mixture[0]["utt_id"] in utt_ids]


def check_some(todo: dict[str, list[Mixture]], num_checks: int, nj: int) -> None:
    """Make far-field images again, of mixtures evenly spread over what is to be rendered.

    Raises:
        ValueError: one differs from the file, see sms_wsj_headsets.MIN_AGREEMENT_DB.
    """
    chosen = [mixture for mixtures in todo.values() for mixture in evenly_spread(mixtures, num_checks)]
    if chosen:
        bar = {"desc": "check", "unit": "mix"}
        worst_db = min(parallel_map(check_farfield, chosen, nj, progress=bar))
        print(
            f"far-field images of {len(chosen)} mixtures made again: they agree with the files to"
            f" {worst_db:.1f} dB at least"
        )


def evenly_spread(items: list, number: int) -> list:
    """At most `number` of the items."""
    count = min(number, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def check_finished(scene: Scene, audio: ExampleAudio, set_dir: Path) -> None:
    """What was rendered earlier must belong to the far-field files that are there now.

    Raises:
        ValueError: they have changed or are missing; names the file.
    """
    for n, image in enumerate(load_images(scene, audio), start=1):
        path = talker_paths(scene, set_dir)[f"spk{n}"]
        stored = read_audio(str(path))[0][:, 0]
        if stored.shape != image.shape or not np.allclose(stored, image, rtol=1e-5, atol=1e-9):
            raise ValueError(
                f"{path} was made from other far-field files than {audio.images[n - 1][0]} is now;"
                f" remove {set_dir}, or choose another folder, to make the headsets anew"
            )


def _chosen_examples(
    database: dict[str, dict[str, Example]], name: str, number: int | None, json_path: Path
) -> dict[str, Example]:
    """The first `number` (None: all) examples of a set; {} when it is left out."""
    if number == 0:
        return {}
    if DATASETS[name] not in database:
        raise ValueError(
            f"{json_path}: expected the dataset {DATASETS[name]}, found only {', '.join(database)};"
            f" --num_{name} 0 leaves it out"
        )
    examples = database[DATASETS[name]]
    number = len(examples) if number is None else number
    if not 0 < number <= len(examples):
        raise ValueError(f"{json_path}: {DATASETS[name]} has {len(examples)} mixtures, --num_{name} is {number}")
    return dict(list(examples.items())[:number])


def _check(args: argparse.Namespace) -> None:
    check_rendering(args)
    for pair in args.reroot:
        if not all(pair.partition("=")) or pair.count("=") > 1:
            raise ValueError(f"--reroot expects OLD=NEW, found '{pair}'")


if __name__ == "__main__":
    main()
