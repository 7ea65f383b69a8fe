"""Pack a training to give it away (stage 11), by ESPnet's packer.

    espnet2_m2m pack_model --exp_dir exp/X --language en --dataset librispeech_ff_ct

writes

    exp/X/README.md                     the model card, with results, config and citation
    exp/X/X_valid.loss.best.zip         config, weights, RESULTS.md, images and the card

`SeparateRecording.from_pretrained` and `espnet2_m2m separate` take the zip as it is; so does ESPnet where the
plug-in is registered.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.data_dir.tables import atomic_path, write_text
from espnet2_m2m.model_card import model_card
from espnet2_m2m.model_files import DEFAULT_MODEL, model_files


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--exp_dir", required=True, help="the training, with config.yaml")
    parser.add_argument(
        "--inference_model", default=DEFAULT_MODEL, help=f"the weights, a file of exp_dir (default {DEFAULT_MODEL})"
    )
    parser.add_argument("--language", default="en", help="of the speech, for the card (default en)")
    parser.add_argument("--dataset", required=True, help="name of the corpus, for the card")
    parser.add_argument("--license", default="cc-by-4.0", help="of the weights, for the card (default cc-by-4.0)")
    parser.add_argument(
        "--hf_repo", default="", help="user/name that upload_model will give it on Hugging Face, for the card"
    )
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    exp_dir = Path(args.exp_dir).resolve()
    for name in ("config.yaml", args.inference_model):
        if not (exp_dir / name).is_file():
            raise FileNotFoundError(f"{exp_dir / name}: no such file; train first (stage 6)")
    packed = exp_dir / f"{exp_dir.name}_{args.inference_model.removesuffix('.pth')}.zip"
    card = model_card(exp_dir, args.hf_repo or packed.name, args.language, args.dataset, args.license)
    write_text(exp_dir / "README.md", card)
    if not (exp_dir / "RESULTS.md").is_file():
        print(f"{exp_dir}: packed without results; stage 8 makes RESULTS.md", file=sys.stderr)
    with atomic_path(packed) as temporary:
        # From the folder above: the packer keeps paths relative to where it runs, and absolute ones are of no
        # use to others.
        command = [
            sys.executable,
            "-m",
            "espnet2.bin.pack",
            "enh",
            "--outpath",
            str(temporary),
            "--train_config",
            f"{exp_dir.name}/config.yaml",
            "--model_file",
            f"{exp_dir.name}/{args.inference_model}",
        ]
        for name in ("README.md", "RESULTS.md", "images"):
            if (exp_dir / name).exists():
                command += ["--option", f"{exp_dir.name}/{name}"]
        done = subprocess.run(command, cwd=exp_dir.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            reason = (done.stdout.strip() or "no message").splitlines()[-1]
            raise OSError(f"{packed}: ESPnet's packer failed ({reason})")
        with model_files(temporary):  # what it wrote can be read
            pass
    print(f"{packed}: {packed.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
