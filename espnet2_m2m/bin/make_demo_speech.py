"""Synthesise the clean speech of the demo recipe: many talkers, GRID-like sentences.

    espnet2_m2m make_demo_speech --out_dir data/clean

writes a Kaldi data dir (wav.scp, utt2spk, spk2utt, text) and its audio, 22.05 kHz, in
data/clean/wav. The same options give the same bits. It may be killed at any moment: the same
command goes on where it stopped.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from espnet2_m2m.bin import SEED, cli_errors, command_parser, positive
from espnet2_m2m.corpora.clean_speech import write_clean_speech
from espnet2_m2m.corpora.demo import SAMPLE_RATE_HZ, Talker, sentences, speak, talkers
from espnet2_m2m.data_dir.audio import write_wav
from espnet2_m2m.data_dir.ids import id_path
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.tables import read_table, write_bytes

Utterances = dict[str, tuple[Path, str, str]]  # id -> (wav, talker, sentence)


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--out_dir", required=True)
    parser.add_argument("--num_talkers", type=positive, default=24)
    parser.add_argument(
        "--first_talker", type=positive, default=1, help="e.g. 25: talkers that none of the first 24 is among"
    )
    parser.add_argument("--num_sentences", type=positive, default=40, help="of each talker")
    parser.add_argument("--seed", type=SEED, default=0, help="draws the sentences")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Synthesise the talkers that are not yet there, then write the tables."""
    args = get_parser().parse_args(cmd)
    chosen = talkers(args.first_talker - 1 + args.num_talkers)[args.first_talker - 1 :]
    utterances = {}
    for talker in chosen:
        for k, sentence in enumerate(sentences(talker.talker_id, args.num_sentences, args.seed)):
            utt_id = f"{talker.talker_id}-{k:05d}"
            utterances[utt_id] = id_path(Path(args.out_dir, "wav"), utt_id, ".wav"), talker.talker_id, sentence
    begin(args, utterances)
    unfinished = {talker_id for path, talker_id, _ in utterances.values() if not path.is_file()}
    todo = [talker for talker in chosen if talker.talker_id in unfinished]
    job = partial(_synthesise_talker, utterances=utterances)
    bar = {"initial": len(chosen) - len(todo), "desc": args.out_dir, "unit": "talker"}
    # A new process for every talker: see `speak`.
    for _ in parallel_map(job, todo, 1, new_process_per_task=True, progress=bar):
        pass
    write_clean_speech(args.out_dir, utterances)


def begin(args: argparse.Namespace, utterances: Utterances) -> None:
    """Note in settings.json what `out_dir` is made of, so that its wavs can be kept.

    Raises:
        ValueError: it has been made with other options.
    """
    out_dir = Path(args.out_dir)
    settings = {"num_talkers": args.num_talkers, "num_sentences": args.num_sentences, "seed": args.seed}
    if args.first_talker != 1:
        settings["first_talker"] = args.first_talker
    path, content = out_dir / "settings.json", (json.dumps(settings) + "\n").encode()
    if path.is_file() and path.read_bytes() != content:
        raise ValueError(
            f"{out_dir} holds other speech: its settings.json is not what these options give"
            f" ({json.dumps(settings)}); choose another --out_dir or remove the folder"
        )
    if not path.is_file() and not _finished_with(utterances, out_dir):
        for wav, _, _ in utterances.values():  # nobody knows what such wavs say
            wav.unlink(missing_ok=True)
    write_bytes(path, content)


def _finished_with(utterances: Utterances, out_dir: Path) -> bool:
    """True for a finished folder without settings.json that has the same sentences."""
    if not (out_dir / "wav.scp").is_file() or not (out_dir / "text").is_file():
        return False
    return read_table(out_dir / "text") == {utt_id: text for utt_id, (_, _, text) in utterances.items()}


def _synthesise_talker(talker: Talker, utterances: Utterances) -> None:
    own = [(path, text) for path, talker_id, text in utterances.values() if talker_id == talker.talker_id]
    for (path, _), samples in zip(own, speak(talker, [text for _, text in own]), strict=True):
        if not path.is_file():
            write_wav(path, samples, SAMPLE_RATE_HZ, "PCM_16")


if __name__ == "__main__":
    main()
