#!/usr/bin/env python3
"""Write the API reference, a page per module, from the docstrings.

python docs/api_reference.py --out_dir docs/api         # or: make docs
"""

import argparse
import pkgutil
import re
from pathlib import Path

import pdoc

import espnet2_m2m.data_dir
import espnet2_m2m.loss
import espnet2_m2m.scoring


def modules() -> list[str]:
    """All modules but the commands, which have --help; pdoc alone would stop at a package's __all__."""
    names = ["espnet2_m2m"]
    for package in (espnet2_m2m, espnet2_m2m.data_dir, espnet2_m2m.loss, espnet2_m2m.scoring):
        found = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        hidden = (*package.__all__, "bin")  # a function of its module's name stands for it; pdoc finds modules
        names += [module.name for module in found if module.name.rpartition(".")[2] not in hidden]
    return names


def theory() -> str:
    """docs/method.md, for the first page: its links to modules lead to their pages here."""
    text = (Path(__file__).parent / "method.md").read_text(encoding="utf-8")
    text = re.sub(r"(\]: |\]\()\.\./(espnet2_m2m/\S+?)\.py", r"\1\2.html", text)
    text = re.sub(r"(\]: |\]\()\.\./", r"\1../../", text)
    return re.sub(r"\]\((\w+\.md)", r"](../\1", text)


def main(cmd: list[str] | None = None) -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for index.html and the pages")
    args = parser.parse_args(cmd)
    for name in espnet2_m2m.__all__:  # imported on first use, which pdoc would not see
        setattr(espnet2_m2m, name, getattr(espnet2_m2m, name))
    espnet2_m2m.__doc__ += "\n" + theory()
    version = f"espnet2_m2m {espnet2_m2m.__version__}"
    pdoc.render.configure(docformat="google", show_source=False, footer_text=version)
    pdoc.pdoc(*modules(), output_directory=args.out_dir)
    print(args.out_dir / "index.html")


if __name__ == "__main__":
    main()
