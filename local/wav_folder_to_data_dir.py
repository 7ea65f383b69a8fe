#!/usr/bin/env python3
"""Make a Kaldi data dir of a folder of audio files whose names say who speaks (and what).

    python local/wav_folder_to_data_dir.py --wav_dir ../shared/speech/fsdd \\
        --pattern '{text}_{speaker}_{index}.wav' --out_dir data/fsdd \\
        --words 0=zero,1=one,2=two,3=three,4=four,5=five,6=six,7=seven,8=eight,9=nine

`{speaker}` must be in the pattern, `{text}` gives the transcript, other names match anything. A
field never spans a '/', so '{speaker}/{chapter}/{name}.flac' describes folders. Utterance ids are
the speaker and the file's name without its suffix; wav.scp holds absolute paths.
"""

import argparse
import os
import re
from pathlib import Path

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.corpora.clean_speech import write_clean_speech

FIELD = re.compile(r"\{(\w+)\}")


def get_parser() -> argparse.ArgumentParser:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wav_dir", required=True)
    parser.add_argument("--pattern", required=True, help="path below WAV_DIR, fields in braces")
    parser.add_argument("--out_dir", required=True)
    parser.add_argument("--words", default="", help="what {text} stands for: 0=zero,1=one,...")
    return parser


def pattern_to_regex(pattern: str) -> re.Pattern:
    """Compiled regular expression with one named group per field of `pattern`.

    Raises:
        ValueError: no {speaker}, or a field that stands twice.
    """
    fields = FIELD.findall(pattern)
    if "speaker" not in fields:
        raise ValueError(f"--pattern '{pattern}' needs a field {{speaker}}")
    if len(set(fields)) < len(fields):
        raise ValueError(f"--pattern '{pattern}' has a field twice; give every field its own name")
    parts = FIELD.split(pattern)  # literal, field, literal, field, ..., literal
    parts[0::2] = [re.escape(literal) for literal in parts[0::2]]
    parts[1::2] = [f"(?P<{field}>[^/]+?)" for field in parts[1::2]]
    return re.compile("".join(parts))


def parse_words(words: str) -> dict[str, str]:
    """'0=zero,1=one' -> {'0': 'zero', '1': 'one'}.

    Raises:
        ValueError: a part without '='.
    """
    pairs = [pair.partition("=") for pair in words.split(",") if pair]
    for key, equals, _ in pairs:
        if not equals:
            raise ValueError(f"--words: expected key=word, found '{key}'")
    return {key: word for key, _, word in pairs}


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Write wav.scp, utt2spk, spk2utt and, with {text}, text."""
    args = get_parser().parse_args(cmd)
    regex, words = pattern_to_regex(args.pattern), parse_words(args.words)
    if not os.path.isdir(args.wav_dir):
        raise FileNotFoundError(f"{args.wav_dir}: no such folder")

    utterances = {}
    for path in sorted(Path(args.wav_dir).rglob("*")):
        match = regex.fullmatch(path.relative_to(args.wav_dir).as_posix())
        if not match or not path.is_file():
            continue
        fields = match.groupdict()
        utt_id = f"{fields['speaker']}-{path.stem}"
        if utt_id in utterances:
            raise ValueError(f"{path} and {utterances[utt_id][0]} would both be utterance '{utt_id}'")
        text = fields.get("text")
        if text is not None and words and text not in words:
            raise ValueError(f"{path}: --words does not say what '{text}' is")
        utterances[utt_id] = path.resolve(), fields["speaker"], words.get(text, text)
    if not utterances:
        raise ValueError(f"{args.wav_dir}: no file matches --pattern '{args.pattern}'")

    num_speakers = write_clean_speech(args.out_dir, utterances)
    print(f"{args.out_dir}: {len(utterances)} utterances of {num_speakers} speakers")


if __name__ == "__main__":
    main()
