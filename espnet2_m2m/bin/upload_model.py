"""Put a packed model on Hugging Face (stage 12): what the zip holds, and the card on top.

    hf auth login               # once, or set HF_TOKEN
    espnet2_m2m upload_model --packed exp/X/X_valid.loss.best.zip --hf_repo user/name

The repository is made where there is none; files that are there already are not sent again.
"""

import argparse
import shutil
import zipfile
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.data_dir.tables import temporary_folder
from espnet2_m2m.model_files import HF_TAG, model_files


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--packed", required=True, help="zip of pack_model")
    parser.add_argument("--hf_repo", required=True, help="user/name on Hugging Face")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    if not HF_TAG.fullmatch(args.hf_repo) or "@" in args.hf_repo:
        raise ValueError(f"--hf_repo is user/name, found '{args.hf_repo}'")
    try:
        import huggingface_hub
    except ImportError:
        raise OSError("huggingface_hub is not installed: pip install huggingface_hub") from None
    if not Path(args.packed).is_file():
        raise FileNotFoundError(f"{args.packed}: no such file; stage 11 makes it")
    with model_files(args.packed), temporary_folder() as folder:  # the former refuses evil zips
        with zipfile.ZipFile(args.packed) as packed:
            packed.extractall(folder)
        cards = list(folder.glob("*/README.md"))
        if len(cards) != 1 or f'from_pretrained("{args.hf_repo}")' not in cards[0].read_text(encoding="utf-8"):
            raise ValueError(
                f"{args.packed}: its model card does not say how to load {args.hf_repo}; pack it"
                f" again with --hf_repo {args.hf_repo} (stage 11)"
            )
        shutil.copy(cards[0], folder)
        try:
            url = huggingface_hub.create_repo(args.hf_repo, exist_ok=True)
            huggingface_hub.upload_folder(
                repo_id=args.hf_repo,
                folder_path=folder,
                commit_message=f"{Path(args.packed).stem}, packed by espnet2_m2m",
            )
        except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise OSError(
                f"{args.hf_repo}: not uploaded; is there a token (`hf auth login`, or HF_TOKEN) "
                f"that may write there, and a network? {reason}"
            ) from error
    print(f"{args.packed} -> {url}")


if __name__ == "__main__":
    main()
