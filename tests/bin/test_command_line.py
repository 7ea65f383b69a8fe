"""The commands as one program: `espnet2_m2m NAME`, by pip's script, by `python -m`, or file by file."""

import argparse
import contextlib
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import espnet2_m2m
from espnet2_m2m import bin as commands

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "espnet2_m2m" / "bin").glob("[!_]*.py"))
# As pip installs it: espnet2_m2m = espnet2_m2m.bin:main.
CONSOLE_SCRIPT = ("-c", "import sys; from espnet2_m2m.bin import main; sys.exit(main())")
PYTHON_M = ("-m", "espnet2_m2m")


def run(*command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, text=True, capture_output=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_every_command_has_its_place_in_the_overview():
    assert sorted(name for group in commands.GROUPS.values() for name in group) == NAMES


@pytest.mark.parametrize("program", [CONSOLE_SCRIPT, PYTHON_M], ids=["script", "python -m"])
def test_lists_and_runs_commands(tmp_path, program):
    """`python -m espnet2_m2m` once failed: there was no __main__.py."""
    code, printed, _ = run(*program)
    assert code == 0 and run(*program, "--help") == (0, printed, "")
    lines = printed.splitlines()
    assert "Separate recordings:" in lines and "ESPnet checkout:" in lines
    assert [line.split()[0] for line in lines if line.startswith("  ")] == sum(map(list, commands.GROUPS.values()), [])
    assert max(map(len, lines)) <= 120
    assert run(*program, "--version") == (0, f"espnet2_m2m {espnet2_m2m.__version__}\n", "")
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    code, _, errors = run(*program, "separate", "--model", "nothing", str(tmp_path / "a.wav"), "-o", "x")
    assert code == 1 and errors.startswith("separate: error: nothing: no such file or folder")


@pytest.mark.parametrize(
    "name, meant",
    [
        ("separat", "did you mean separate? "),
        ("enh_scorign", "did you mean enh_scoring? "),
        ("simulate_wsj", "did you mean simulate_sms_wsj or simulate? "),
        ("what", ""),
    ],
)
def test_a_misspelt_command_is_named_with_those_that_are_near(monkeypatch, name, meant):
    monkeypatch.setattr(sys, "argv", ["espnet2_m2m", name])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert str(end.value) == f"espnet2_m2m: error: no command '{name}'; {meant}espnet2_m2m --help lists them"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "run_study"])  # ./run_table.sh of a recipe
def test_help_is_the_docstring_with_a_command_to_copy(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(f"espnet2_m2m.bin.{name}")
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert printed.startswith(f"usage: espnet2_m2m {name} [-h]") and module.__doc__.rstrip() in printed
    assert f"\n    espnet2_m2m {name} " in module.__doc__


def test_a_module_by_itself_is_the_same_command():
    """The shell scripts of the recipes call modules."""
    by_name, by_module = (
        run("-m", *words, "--help") for words in (("espnet2_m2m", "report"), ("espnet2_m2m.bin.report",))
    )
    assert by_name == by_module and by_name[0] == 0


@pytest.mark.parametrize(
    "convert, text, desired",
    [
        (commands.boolean, "true", True),
        (commands.boolean, "False", False),
        (commands.boolean, "maybe", "expected true or false, found 'maybe'"),
        (commands.positive, "3", 3),
        (commands.positive, "0", "expected a whole number from 1 to 2,147,483,647, found '0'"),
        (commands.mic_list, "2,0", [2, 0]),
        (commands.mic_list, "0,0", "expected different channels counted from 0 such as 0,2, found '0,0'"),
        (commands.mic_list, "0,", "expected different channels counted from 0"),
        (commands.parse_job, "3/100", (3, 100)),
        (commands.parse_job, "4/3", "expected k/n with 1 <= k <= n, found '4/3'"),
    ],
)
def test_values_of_options(convert, text, desired):
    if isinstance(desired, str):
        with pytest.raises(argparse.ArgumentTypeError, match=desired):
            convert(text)
    else:
        assert convert(text) == desired


def numeric_options():
    """(command, parser, option) of all options that turn text into numbers."""
    for name in NAMES:
        parser = importlib.import_module(f"espnet2_m2m.bin.{name}").get_parser()
        for action in parser._actions:
            for text in ("1", "1/1"):
                with contextlib.suppress(ValueError, TypeError, argparse.ArgumentTypeError):
                    value = action.type(text)
                    value = value[0] if isinstance(value, (list, tuple)) else value
                    if type(value) in (int, float) and action.option_strings:
                        yield name, parser, action.option_strings[0]
                        break


def test_no_option_takes_a_number_that_is_none():
    """inf, nan and numbers beyond all bounds would end deep inside, in a traceback or in a loop without end."""
    options = list(numeric_options())
    assert {
        ("separate", "--segment_size"),
        ("enh_inference", "--fs"),
        ("simulate", "--closetalk_gain_db"),
        ("run_study", "--seeds"),
        ("format_data_dir", "--channels"),
        ("enh_scoring", "--job"),
    } <= {(name, option) for name, _, option in options}
    for name, parser, option in options:
        for text in (
            "inf",
            "-inf",
            "nan",
            "1e305",
            "-1e305",
            "-1",
            "1" + 30 * "0",
            "1" + 5000 * "0",
            "1.5e",
            "1/-1",
            "²",
            "",
        ):
            required = [
                f"{action.option_strings[0]}={action.choices[0] if action.choices else 'x,y,z'}"
                for action in parser._actions
                if action.required and action.option_strings
            ]
            try:
                value = vars(parser.parse_known_args([*required, f"{option}={text}"])[0])[option.lstrip("-")]
            except ValueError as error:
                assert option in str(error) and str(error).endswith("; see --help"), (name, option, text, error)
            else:
                below_zero = text == "-1" and option.endswith(("_db", "_dbfs"))
                no_limit = (name, option) == ("filter_data_dir", "--max_duration") and value > 1e6
                assert below_zero or no_limit, (name, option, text, value)


def test_the_shares_of_all_jobs_are_all_tasks_once():
    """What no job does would never be done; what two do, they would write at the same time."""
    tasks = list(range(7))
    shares = [commands.share_of(tasks, (number, 3)) for number in (1, 2, 3)]
    assert shares[0] == [0, 3, 6] and sorted(sum(shares, [])) == tasks
    assert commands.share_of(tasks, None) == tasks and commands.share_of(tasks, (9, 9)) == []
