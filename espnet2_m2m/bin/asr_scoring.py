"""Word and character error rates of what asr_inference has recognised.

    espnet2_m2m asr_scoring --data_dir dump/raw/test --decode_dir exp/decode_asr/test

scores every condition of DECODE_DIR against text_spk{n} of the set. Of every mixture, the hypotheses are
assigned to the talkers with the fewest errors (cpWER, by meeteval); the mixture's one hypothesis counts for
each talker. It writes

    DECODE_DIR/summary.json         the counts and rates
    DECODE_DIR/../RESULTS_ASR.md    a section for each set, with ESPnet's tables
"""

import argparse
import json
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.data_dir import write_text
from espnet2_m2m.scoring.results import replace_section
from espnet2_m2m.scoring.word_errors import markdown_section, score_set

PREAMBLE = "# RESULTS_ASR\n\nWritten by `espnet2_m2m asr_scoring`."


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--data_dir", required=True, help="the set, with text_spk{n}")
    parser.add_argument("--decode_dir", required=True, help="OUT_DIR of asr_inference")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    summary = score_set(args.data_dir, args.decode_dir)
    section = markdown_section(summary)
    results = Path(args.decode_dir).resolve().parent / "RESULTS_ASR.md"
    before = results.read_text(encoding="utf-8") if results.is_file() else PREAMBLE
    write_text(Path(args.decode_dir, "summary.json"), json.dumps(summary, indent=2) + "\n")
    write_text(results, replace_section(before, section))
    print(section, end="")


if __name__ == "__main__":
    main()
