#!/usr/bin/env python3
"""Write the API reference, a page per module, from the docstrings.

    python docs/api_reference.py --out_dir docs/api         # or: make docs
"""

import argparse
import pkgutil
from pathlib import Path

import pdoc

import espnet2_m2m


def modules():
    """The package and what stands directly in it, which pdoc follows; commands have --help instead."""
    names = [module.name for module in pkgutil.iter_modules(espnet2_m2m.__path__, "espnet2_m2m.")]
    return ["espnet2_m2m", *(name for name in names if name != "espnet2_m2m.bin")]


def main(cmd=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for index.html and the pages")
    args = parser.parse_args(cmd)
    for name in espnet2_m2m.__all__:    # imported on first use, which pdoc would not see
        setattr(espnet2_m2m, name, getattr(espnet2_m2m, name))
    version = f"espnet2_m2m {espnet2_m2m.__version__}"
    pdoc.render.configure(docformat="google", show_source=False, footer_text=version)
    pdoc.pdoc(*modules(), output_directory=args.out_dir)
    print(args.out_dir / "index.html")


if __name__ == "__main__":
    main()
