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

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.corpora.demo import SAMPLE_RATE_HZ, Talker, sentences, speak, talkers
from espnet2_m2m.data_dir.audio import write_wav
from espnet2_m2m.data_dir.directory import spk2utt_from
from espnet2_m2m.data_dir.parallel import parallel_map
from espnet2_m2m.data_dir.tables import read_table, remove_temporaries, write_bytes, write_table


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--out_dir", required=True)
    parser.add_argument("--num_talkers", type=int, default=24)
    parser.add_argument(
        "--first_talker", type=int, default=1, help="e.g. 25: talkers that none of the first 24 is among"
    )
    parser.add_argument("--num_sentences", type=int, default=40, help="of each talker")
    parser.add_argument("--seed", type=int, default=0, help="draws the sentences")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Synthesise the talkers that are not yet there, then write the tables."""
    args = get_parser().parse_args(cmd)
    if args.first_talker < 1:
        raise ValueError(f"--first_talker must be at least 1, found {args.first_talker}")
    chosen = talkers(args.first_talker - 1 + args.num_talkers)[args.first_talker - 1 :]
    texts = {t.talker_id: sentences(t.talker_id, args.num_sentences, args.seed) for t in chosen}
    begin(args.out_dir, texts, args.seed, args.first_talker)
    todo = [talker for talker in chosen if _missing(talker.talker_id, texts, args.out_dir)]
    job = partial(_synthesise_talker, texts=texts, out_dir=args.out_dir)
    bar = {"initial": len(chosen) - len(todo), "desc": args.out_dir, "unit": "talker"}
    # A new process for every talker: see `speak`.
    for _ in parallel_map(job, todo, 1, new_process_per_task=True, progress=bar):
        pass

    wav, utt2spk, text = {}, {}, {}
    for talker_id, spoken in texts.items():
        for k, sentence in enumerate(spoken):
            utt_id = _utt_id(talker_id, k)
            wav[utt_id] = _wav_path(args.out_dir, utt_id)
            utt2spk[utt_id] = talker_id
            text[utt_id] = sentence
    write_table(Path(args.out_dir, "text"), text)
    write_table(Path(args.out_dir, "utt2spk"), utt2spk)
    write_table(Path(args.out_dir, "spk2utt"), spk2utt_from(utt2spk))
    write_table(Path(args.out_dir, "wav.scp"), wav)


def begin(out_dir: str, texts: dict[str, list[str]], seed: int, first_talker: int = 1) -> None:
    """Note in settings.json what `out_dir` is made of, so that its wavs can be kept.

    Raises:
        ValueError: it has been made with other options.
    """
    path = Path(out_dir, "settings.json")
    num_sentences = max(len(spoken) for spoken in texts.values())
    settings = {"num_talkers": len(texts), "num_sentences": num_sentences, "seed": seed}
    if first_talker != 1:
        settings["first_talker"] = first_talker
    content = (json.dumps(settings) + "\n").encode()
    if path.is_file() and path.read_bytes() != content:
        raise ValueError(
            f"{out_dir} holds other speech: its settings.json is not what these options give"
            f" ({json.dumps(settings)}); choose another --out_dir or remove the folder"
        )
    remove_temporaries(Path(out_dir, "wav"))
    if not path.is_file() and not _finished_with(texts, out_dir):
        for talker_id, spoken in texts.items():
            for k in range(len(spoken)):  # nobody knows what such wavs say
                _wav_path(out_dir, _utt_id(talker_id, k)).unlink(missing_ok=True)
    write_bytes(path, content)


def _finished_with(texts: dict[str, list[str]], out_dir: str) -> bool:
    """True for a finished folder without settings.json that has the same sentences."""
    if not Path(out_dir, "wav.scp").is_file() or not Path(out_dir, "text").is_file():
        return False
    desired = {_utt_id(t, k): text for t, spoken in texts.items() for k, text in enumerate(spoken)}
    return read_table(Path(out_dir, "text")) == desired


def _missing(talker_id: str, texts: dict[str, list[str]], out_dir: str) -> list[int]:
    """Numbers of the sentences that have no wav."""
    paths = [_wav_path(out_dir, _utt_id(talker_id, k)) for k in range(len(texts[talker_id]))]
    return [k for k, path in enumerate(paths) if not path.is_file()]


def _synthesise_talker(talker: Talker, texts: dict[str, list[str]], out_dir: str) -> None:
    missing = _missing(talker.talker_id, texts, out_dir)
    for k, samples in enumerate(speak(talker, texts[talker.talker_id])):
        if k in missing:
            write_wav(_wav_path(out_dir, _utt_id(talker.talker_id, k)), samples, SAMPLE_RATE_HZ)


def _utt_id(talker_id: str, k: int) -> str:
    return f"{talker_id}-{k:05d}"


def _wav_path(out_dir: str, utt_id: str) -> Path:
    return Path(out_dir, "wav", f"{utt_id}.wav")


if __name__ == "__main__":
    main()
