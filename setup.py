"""Package metadata. `pip install -e .` adds the plug-in to an existing ESPnet environment."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "espnet2_m2m/__init__.py").read_text()).group(1)


class BuildWithRecipes(build_py):
    """Puts what bin/setup_recipe copies into the package as its folder `recipes`."""

    def run(self) -> None:
        super().run()
        for pattern in ("conf/**/*.yaml", "local/*.*", "local/parallel/*", "egs2/*/enh1/*.*"):
            for path in HERE.glob(pattern):
                if path.is_file() and not path.is_symlink():
                    target = Path(self.build_lib, "espnet2_m2m", "recipes", path.relative_to(HERE))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self.copy_file(str(path), str(target))


setup(
    name="espnet2_m2m",
    version=VERSION,
    description="Mixture-to-mixture (M2M) speech separation as a plug-in for ESPnet2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    cmdclass={"build_py": BuildWithRecipes},
    packages=find_packages(include=["espnet2_m2m*"]),
    # Makes `pip install -e` put this folder on the path. By default it leaves a finder, which comes after the path: in
    # the folder that holds the clone, python would take the clone, `espnet2_m2m`, for an empty namespace package.
    package_dir={"": "."},
    package_data={"espnet2_m2m.report": ["index.html", "style.css", "page.js"]},
    entry_points={"console_scripts": ["espnet2_m2m=espnet2_m2m.bin:main"]},
    install_requires=[
        "espnet>=202511",  # Python 3.12 and later get 202609 or later, 3.10 and 3.11 get 202511
        # 2.9 brought the settings by which FCP keeps its precision (fir_least_squares.full_precision).
        "torch>=2.9",
        # espnet.enh imports torchaudio without declaring it; a CPU-only torch does not work with it.
        "torchaudio>=2.9",
        # espnet 202511's chunk iterator fails with numpy 2.4: int() of an array with one element.
        'numpy<2.4; python_version < "3.12"',
        "scipy",
        "soundfile",
        "soxr",  # resampling
        "editdistance",  # ESPnet's training of recognisers; 202511 requires it, later ones do not
        "fast_bss_eval",
        "pesq",
        "pystoi",
        "matplotlib",
        "jinja2",  # the report page
        "pillow",
        "pyyaml",
        "humanfriendly",
        "tqdm",
    ],
    extras_require={
        "checkout": ["resampy", "mir_eval<0.9"],  # what ESPnet's enh.sh needs beyond `pip install espnet`
        "demo": ["espeakng-loader"],  # the synthetic talkers of egs2/meeting_demo
        "asr": ["meeteval"],  # cpWER (MIT): stage 10
        "hub": ["huggingface_hub"],  # models from and to Hugging Face
        "test": [
            "huggingface_hub",
            "meeteval",
            "pytest",
            "pytest-xdist",
            "selenium",  # drives Chromium in the tests of the report page
            "hypothesis",
            "mir_eval<0.9",  # 0.9 removes mir_eval.separation
            "pyroomacoustics",  # room simulators to compare with
            "rir-generator",  # made SMS-WSJ
            "ruff",  # make lint
        ],
        "docs": ["pdoc"],  # the API reference: make docs
    },
)
