"""Synthesise the clean speech of the demo recipe: many talkers, GRID-like sentences.

    python -m espnet2_m2m.bin.make_demo_speech --out_dir data/clean

writes a Kaldi data dir (wav.scp, utt2spk, spk2utt, text) and its audio, 22.05 kHz, in
data/clean/wav. The same options give the same bits.
"""

import argparse
import multiprocessing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.corpora.demo import SAMPLE_RATE_HZ, sentences, speak, talkers
from espnet2_m2m.data_dir.audio import write_wav
from espnet2_m2m.data_dir.directory import spk2utt_from
from espnet2_m2m.data_dir.tables import write_table


def get_parser():
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out_dir", required=True)
    parser.add_argument("--num_talkers", type=int, default=24)
    parser.add_argument("--num_sentences", type=int, default=40, help="of each talker")
    parser.add_argument("--seed", type=int, default=0, help="draws the sentences")
    return parser


@cli_errors
def main(cmd=None):
    """Synthesise all talkers, then write the tables."""
    args = get_parser().parse_args(cmd)
    chosen = talkers(args.num_talkers)
    texts = {t.talker_id: sentences(t.talker_id, args.num_sentences, args.seed) for t in chosen}
    job = partial(_synthesise_talker, texts=texts, out_dir=args.out_dir)
    # A new process for every talker: see `speak`.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in tqdm(pool.imap(job, chosen), total=len(chosen), desc=args.out_dir, unit="talker"):
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


def _synthesise_talker(talker, texts, out_dir):
    for k, samples in enumerate(speak(talker, texts[talker.talker_id])):
        write_wav(_wav_path(out_dir, _utt_id(talker.talker_id, k)), samples, SAMPLE_RATE_HZ)


def _utt_id(talker_id, k):
    return f"{talker_id}-{k:05d}"


def _wav_path(out_dir, utt_id):
    return Path(out_dir, "wav", f"{utt_id}.wav")


if __name__ == "__main__":
    main()
