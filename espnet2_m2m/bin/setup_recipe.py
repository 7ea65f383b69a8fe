"""Make a recipe of the plug-in, egs2/CORPUS/enh1, in an ESPnet checkout.

    espnet2_m2m setup_recipe ~/espnet meeting_demo
    cd ~/espnet/egs2/meeting_demo/enh1 && ./run.sh

There run.sh drives ESPnet's own enh.sh. The new folder has the links of ESPnet's recipes (enh.sh, path.sh,
db.sh, scripts, pyscripts, steps, utils), the checkout's cmd.sh and conf/*.conf, and copies of the plug-in's
conf, local and run.sh. A file that is there already is left as it is; a second call adds what is missing.

This module and local/enh_sh.sh, which calls enh.sh, hold all that is assumed of a checkout.
"""

import argparse
import filecmp
import os
import shutil
from pathlib import Path

from espnet2_m2m.bin import cli_errors, command_parser
from espnet2_m2m.data_dir.tables import atomic_path

# Link in the recipe -> what it points to in egs2/TEMPLATE.
LINKS = {
    "enh.sh": "enh1/enh.sh",
    "path.sh": "enh1/path.sh",
    "scripts": "enh1/scripts",
    "db.sh": "asr1/db.sh",
    "pyscripts": "asr1/pyscripts",
    "steps": "asr1/steps",
    "utils": "asr1/utils",
}
# Copied, since every site edits them.
SITE_FILES = ("enh1/cmd.sh", "enh1/conf/*.conf")
# path.sh reads it in every stage; tools/setup_*.sh and tools/Makefile make what it needs.
EXTRA_PATH = "tools/extra_path.sh"


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("espnet_root", type=Path, help="an ESPnet checkout, the folder that has egs2")
    parser.add_argument("corpus", nargs="*", help="folders of egs2 of the plug-in; default: all")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    """Make the recipes and say what to do next."""
    args = get_parser().parse_args(cmd)
    source = recipes_root()
    known = sorted(path.parent.name for path in source.glob("egs2/*/enh1"))
    for corpus in args.corpus:
        if corpus not in known:
            raise ValueError(f"no recipe '{corpus}'; the plug-in has {', '.join(known)}")
    check_checkout(args.espnet_root)
    for corpus in args.corpus or known:
        recipe = args.espnet_root / "egs2" / corpus / "enh1"
        kept = make_recipe(args.espnet_root, source, corpus)
        print(f"{recipe}: ready, start it by ./run.sh there")
        for path in kept:
            print(f"  kept as it was, though the plug-in's file differs: {path.relative_to(recipe)}")


def recipes_root() -> Path:
    """The folder that has the plug-in's egs2, conf and local: the repository, or what setup.py installed."""
    package = Path(__file__).resolve().parent.parent
    for root in (package / "recipes", package.parent):
        if (root / "local" / "m2m.sh").is_file():
            return root
    raise FileNotFoundError(f"{package}: no recipes in the package or beside it; install it again")


def check_checkout(root: Path) -> None:
    """Refuse a folder that is no ESPnet checkout, or one that is too old.

    Raises:
        ValueError: says what is missing.
    """
    template = root / "egs2" / "TEMPLATE"
    if not (template / "enh1" / "enh.sh").is_file():
        raise ValueError(f"{root}: no ESPnet checkout, it has no egs2/TEMPLATE/enh1/enh.sh")
    for target in LINKS.values():
        if not (template / target).exists():
            raise ValueError(
                f"{template / target} is missing; expected a checkout of ESPnet 202511 or later: update it"
            )
    options = (template / "enh1" / "enh.sh").read_text(encoding="utf-8")
    for option in ("ref_num", "extra_wav_list"):
        if f"\n{option}=" not in options:
            raise ValueError(
                f"{template}/enh1/enh.sh has no option --{option}; expected ESPnet 202511 or later: update it"
            )
    if not (root / EXTRA_PATH).is_file():
        raise ValueError(
            f"{root / EXTRA_PATH} is missing, which every recipe reads; set up the checkout as ESPnet's"
            " installation guide says (tools/setup_venv.sh or one of its kind)"
        )


def make_recipe(root: Path, source: Path, corpus: str) -> list[Path]:
    """Make egs2/CORPUS/enh1 below `root`; what is there already stays.

    Args:
        root: the checkout.
        source: as `recipes_root` gives it.
        corpus: folder of the plug-in's egs2.
    Returns:
        list of the paths that were there and differ from the plug-in's.
    """
    recipe = root / "egs2" / corpus / "enh1"
    recipe.mkdir(parents=True, exist_ok=True)
    links = {name: Path("..", "..", "TEMPLATE", target) for name, target in LINKS.items()}
    links["run_table.sh"] = Path("local", "run_table.sh")
    for name, target in links.items():
        if not os.path.lexists(recipe / name):
            (recipe / name).symlink_to(target)
    template = root / "egs2" / "TEMPLATE"
    for pattern in SITE_FILES:
        for path in sorted(template.glob(pattern)):
            copy(path, recipe / path.relative_to(template / "enh1"))
    paths = {path: recipe / path.name for path in (source / "egs2" / corpus / "enh1").glob("*")}
    for folder in (source / "conf", source / "local"):
        paths |= {path: recipe / path.relative_to(source) for path in folder.rglob("*")}
    paths.pop(source / "local" / "cmd.sh")  # the checkout has its own
    # In the repository the recipe links conf, local and what stands in them.
    files = [path for path in sorted(paths) if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"]
    return [paths[path] for path in files if not copy(path, paths[path])]


def copy(source: Path, target: Path) -> bool:
    """Copy a file with its permissions unless `target` exists; returns whether they are now the same."""
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copy(source, temporary)
    return filecmp.cmp(source, target, shallow=False)


if __name__ == "__main__":
    main()
