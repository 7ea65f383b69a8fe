"""What commands import: ESPnet takes seconds, and so does torch, so none may be loaded for nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ["espnet2", "espnet", "torch", "matplotlib", "kaldiio", "omniio", "librosa", "pesq", "pystoi", "fast_bss_eval"]


def loaded_by(code, *arguments):
    """The value that `code`, in a new interpreter, assigns to `result`."""
    program = f"import json, sys\nsys.path.insert(0, 'tests/helpers')\n{code}\nprint('\\n' + json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=REPOSITORY, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_help_of_no_command_loads_espnet_or_torch():
    commands = {path.stem for path in (REPOSITORY / "espnet2_m2m" / "bin").glob("[!_]*.py")}
    assert {"simulate", "enh_scoring", "report", "enh_train", "enh_inference"} < commands
    result = loaded_by(
        "import importlib\n"
        "result = {}\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n"
        "        importlib.import_module(f'espnet2_m2m.bin.{name}').main(['--help'])\n"
        "        result[name] = 'took --help for something else'\n"
        "    except SystemExit as end:\n"
        "        result[name] = [end.code, sorted(set(sys.argv[1].split(',')) & set(sys.modules))]\n",
        ",".join(HEAVY),
        *sorted(commands),
    )
    assert result == {name: [0, []] for name in commands}


def test_scoring_never_loads_espnet(tmp_path):
    """Nor does one of its workers, which do the same as the call in one process here."""
    result = loaded_by(
        "from pathlib import Path\nfrom fake_set import make_set\n"
        "from espnet2_m2m.scoring.scored_set import score_set\n"
        "score_set(*make_set(Path(sys.argv[1]), num_utterances=1), nj=0)\n"
        "result = sorted({'espnet', 'espnet2', 'matplotlib', 'librosa'} & set(sys.modules))",
        tmp_path,
    )
    assert result == []


def test_rendering_loads_neither(tmp_path):
    result = loaded_by(
        "from espnet2_m2m.bin.simulate import main\nfrom espnet2_m2m.data_dir import write_table, write_wav\n"
        "import numpy as np\nfrom pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "utts = [f's{speaker}-{n}' for speaker in range(2) for n in range(3)]\n"
        "for utt in utts:\n"
        "    write_wav(folder / f'{utt}.wav', 0.1 * np.sin(np.arange(4000)), 8000)\n"
        "write_table(folder / 'wav.scp', {utt: folder / f'{utt}.wav' for utt in utts})\n"
        "write_table(folder / 'utt2spk', {utt: utt[:2] for utt in utts})\n"
        "main(['--source_data', sys.argv[1], '--out_dir', f'{folder}/out', '--nj', '1', '--num_train', '1',\n"
        "      '--num_valid', '0', '--num_test', '0', '--split_by', 'utterance', '--min_duration', '0'])\n"
        f"result = sorted(set({HEAVY}) & set(sys.modules))",
        tmp_path,
    )
    assert result == [] and list(tmp_path.glob("out/train/wav/farfield/*.wav"))


def test_import_beside_the_clone(tmp_path):
    """README's `git clone ... espnet2_m2m`: python started beside it took the clone for an empty namespace package.

    PYTHONPATH would hide that; the package must be found as pip installed it.
    """
    (tmp_path / "espnet2_m2m" / "espnet2_m2m").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", "from espnet2_m2m import __version__; import espnet2_m2m; print(espnet2_m2m.__file__)"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
