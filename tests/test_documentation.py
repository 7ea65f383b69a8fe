"""What README, docs and docstrings show works as it stands there."""

import ast
import contextlib
import doctest
import importlib
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import espnet2_m2m
from espnet2_m2m.bin import run_study
from espnet2_m2m.fir_least_squares import stack_taps
from espnet2_m2m.scoring import metrics

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("egs2/*/*/README.md")),
]


def blocks(page, language):
    """Fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def pages_with(language):
    # test_separate.py runs the code of your_recordings.md, which needs a model.
    return [
        str(page.relative_to(ROOT)) for page in PAGES if blocks(page, language) and page.name != "your_recordings.md"
    ]


# ---- Python --------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Where the examples run: a model in exp/m2m and a test set in dump/raw/test, as a recipe leaves them."""
    from data_dir_example import make_data_dir
    from espnet_configs import config, save

    (tmp_path / "exp/m2m").mkdir(parents=True)
    train_config, model_file = save(tmp_path / "exp/m2m", config())
    Path(model_file).rename(tmp_path / "exp/m2m/valid.loss.best.pth")
    make_data_dir(tmp_path / "dump/raw/test", [8000, 9000], num_channels=3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"))
def test_python(page, workplace):
    """All blocks of a page, one after the other, as a reader would type them."""
    names = {"__name__": page}
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), names)
    if page == "README.md":
        assert names["loss"].shape == (4,) and names["separated"].shape == (4, 2, 32000)
        assert torch.isfinite(names["est"].grad).all()
    if page == "docs/python.md":
        assert names["separated"].shape == (2, 2, 16000) and list(names["order"]) == [1, 0]
        assert [talker.shape for talker in names["talkers"]] == [(1, len(names["samples"]))] * 2


# ---- YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_yaml(page):
    """All options are ESPnet's, criterions build, and a whole config makes a training step."""
    from espnet_configs import config

    from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    defaults = M2MEnhancementTask.get_default_config()
    for block in blocks(page, "yaml"):
        options = yaml.safe_load(block)
        assert options.keys() <= defaults.keys() | {"criterions", "base"}, page
        if "criterions" not in options:
            continue
        args = config()
        vars(args).update(options)
        model = M2MEnhancementTask.build_model(args)
        assert isinstance(model, ESPnetM2MModel)
        if "separator" in options:
            headsets = {f"closetalk_mix{n}": torch.randn(1, 4000) for n in (1, 2)}
            loss, _, _ = model(torch.randn(1, 4000, 6), **headsets)
            loss.backward()
            assert torch.isfinite(loss)


# ---- Commands ------------------------------------------------------------------------------------


def commands(page):
    """Lines of the indented and sh blocks that are commands of this project, as lists of words."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = "\n".join(re.findall(r"^ {4}(.*)$", text, flags=re.MULTILINE) + blocks(page, "(?:sh|bash)"))
    for line in text.replace("\\\n", " ").splitlines():
        with contextlib.suppress(ValueError):  # no shell command: formulas have lone quotes
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # VARIABLE=value before the command
                words.pop(0)
            if words and words[0] == "espnet2_m2m":  # the console script
                words[:1] = ["python", "-m", "espnet2_m2m"]
            if words[1:3] == ["-m", "espnet2_m2m"]:
                words[2:4] = [f"espnet2_m2m.bin.{words[3]}"] if words[3][0] != "-" else ["espnet2_m2m.bin.NAME"]
            if words and words[0] in ("python", "python3", "make", "./run.sh", "./run_table.sh"):
                yield words


@contextlib.contextmanager
def parsed_only():
    """Make every ArgumentParser stop with the parsed arguments instead of going on to work."""
    import argparse

    class Parsed(Exception):
        pass

    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, *args, **kwargs):
        raise Parsed(original(parser, *args, **kwargs))

    argparse.ArgumentParser.parse_args = parse_args
    try:
        yield Parsed
    finally:
        argparse.ArgumentParser.parse_args = original


def check_module(name, words):
    """The module exists, and its parser takes the options."""
    if name == "espnet2_m2m.bin.enh_train":
        from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

        names = [word for word in words if word.startswith("--")]
        known = M2MEnhancementTask.get_parser()._option_string_actions
        assert set(names) <= known.keys() | {"--train_dir", "--valid_dir"}
        return
    main = importlib.import_module(name).main
    with parsed_only() as parsed, pytest.raises(parsed):
        main(words)


def options_of_recipes():
    """Names that run.sh of any recipe takes, and those of run_table.sh."""

    def variables(path):
        text = path.read_text(encoding="utf-8").partition("\nhelp_message=")[0]
        return set(re.findall(r"^([a-z_]+)=", text, flags=re.MULTILINE))

    stages = variables(ROOT / "local/m2m.sh")
    for script in ROOT.glob("local/*_data.sh"):
        stages |= variables(script)
    study = {option.lstrip("-") for option in run_study.get_parser()._option_string_actions}
    return {"./run.sh": stages, "./run_table.sh": study}


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_commands(page):
    """Programs, targets and options exist and their values parse; nothing is executed."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    recipes = options_of_recipes()
    for words in commands(page):
        where, (program, *rest) = f"{page}: {' '.join(words)}", words
        if program == "make":
            assert set(rest) <= set(targets), where
        elif program in recipes:
            names = {word[2:].replace("-", "_") for word in rest[::2]}  # --name value --name value ...
            assert all(word.startswith("--") for word in rest[::2]), where
            assert names <= recipes[program] | {"help"}, where
        elif rest[0] == "-m" and rest[1] == "espnet2_m2m.run":
            assert importlib.util.find_spec(rest[2 + (rest[2] == "-m")]), where
        elif rest[0] == "-m" and rest[1].startswith("espnet2_m2m"):
            if rest[1] == "espnet2_m2m.bin.NAME":
                continue
            try:
                check_module(rest[1], rest[2:])
            except SystemExit:
                pytest.fail(f"{where}: the command does not take these options")
        elif rest[0].endswith(".py"):
            (script,) = {
                path.resolve() for folder in (ROOT, *ROOT.glob("egs2/*/*")) if (path := folder / rest[0]).is_file()
            }
            names = {word for word in rest if word.startswith("--")}
            assert names <= set(re.findall(r'"(--\w+)"', script.read_text())), where


def test_commands_are_found():
    found = {page.name: len(list(commands(page.relative_to(ROOT)))) for page in PAGES}
    assert found["recipes.md"] >= 4 and found["demo.md"] >= 6 and found["loss_in_your_config.md"] >= 5


# ---- Promises ------------------------------------------------------------------------------------


def test_what_is_called_stable_exists():
    """All public names and config keys are on the page, and nothing else."""
    from espnet2_m2m.enh.loss import CRITERIONS, WRAPPERS
    from espnet2_m2m.tasks.enh_m2m import MODEL_OPTIONS

    text = (ROOT / "docs/stability.md").read_text(encoding="utf-8")
    python, configs = (text.partition(f"**{start}**")[2].partition("\n\n**")[0] for start in ("Python.", "Configs."))
    rows = re.findall(r"^\| (`.+?) \|", python, flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == espnet2_m2m.__all__
    cells = dict(re.findall(r"^\| (.+?) \| (.+) \|$", configs, flags=re.MULTILINE))
    named = {part: re.findall(r"`(\w+)`", cell) for part, cell in cells.items()}
    assert set(named["`criterions`"]) == CRITERIONS.keys() | WRAPPERS.keys()
    assert set(named["`model_conf`"]) == set(MODEL_OPTIONS)
    for criterion in CRITERIONS:
        arguments = set(inspect.signature(CRITERIONS[criterion]).parameters) - {"conf"}
        assert set(named[f"`conf` of `{criterion}`"]) - {"MixtureConstraintLoss"} == arguments


# ---- Links, the index, lines ---------------------------------------------------------------------


def test_files_and_folders_that_the_documents_name_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_no_longer_than_those_of_the_code(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [f"{page}:{number}" for number, line in enumerate(lines, 1) if len(line) > 120]


def test_links_within_a_page_lead_to_headings():
    """GitHub's names of headings: small letters and hyphens, without punctuation."""
    for page in PAGES:
        for target, heading in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / target if target else page).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings], page


def test_the_index_has_a_line_for_each_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(.+\.md)\]\(\1\) \|", index, flags=re.MULTILINE)
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert len(listed) == len(pages) and set(listed) == pages


# ---- Docstrings ----------------------------------------------------------------------------------


SOURCES = [path for path in sorted((ROOT / "espnet2_m2m").rglob("*.py")) if "bin" not in path.parts]
METRICS = [name for name, _ in inspect.getmembers(metrics, inspect.isfunction) if not name.startswith("_")]
PUBLIC = sorted({*espnet2_m2m.__all__, *METRICS} - {"metrics"})


def public_name(name):
    return inspect.unwrap(getattr(metrics if name in METRICS else espnet2_m2m, name))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name):
    """That is run, by the test below."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(public_name(name)))
    assert any(not example.options.get(doctest.SKIP) for example in examples)


@pytest.mark.parametrize(
    "path",
    [path.relative_to(ROOT) for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")],
    ids=lambda path: path.stem,
)
def test_docstring_examples(path, request):
    if path.stem == "separate":
        request.getfixturevalue("workplace")  # its example needs a model
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    assert not doctest.testmod(module, extraglobs={"torch": torch, "np": np}).failed


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_say_all(name):
    """Every argument, what comes back, what is raised."""
    public = public_name(name)
    functions = [public.__init__, public.forward] if hasattr(public, "forward") else [public]
    if inspect.isclass(public) and not hasattr(public, "forward"):
        functions = [public.__init__]
    for function in functions:
        text = inspect.getdoc(function) or ""
        text = inspect.getdoc(public) + text if function is not public else text
        arguments = [argument for argument in inspect.signature(function).parameters if argument != "self"]
        missing = [argument for argument in arguments if not re.search(rf"\b{argument}\b", text)]
        assert not missing, f"{name}: the docstring does not explain {missing}"
        if arguments:
            assert "Args:" in text
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
        if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
            assert "Raises:" in text, name
        if any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(tree)):
            assert re.search(r"Returns?\b|->", text), name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "espnet2_m2m")))
def test_every_module_class_and_function_has_a_docstring(path):
    """Methods that torch or ESPnet define (forward ...) have theirs there; commands are explained by --help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, path
    nodes = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    missing = [
        node.name
        for node in nodes
        if not node.name.startswith("_")
        and node.name != "main"
        and not ast.get_docstring(node)
        and "__doc__ = " not in ast.unparse(node)
    ]
    assert not missing


def test_the_api_reference_can_be_made(tmp_path, monkeypatch):
    pytest.importorskip("pdoc", reason="needs pdoc (pip install -e '.[docs]')")
    monkeypatch.syspath_prepend(ROOT / "docs")
    import api_reference

    api_reference.main(["--out_dir", str(tmp_path)])
    page = (tmp_path / "espnet2_m2m.html").read_text(encoding="utf-8")
    for name in set(espnet2_m2m.__all__) - {"metrics"}:
        assert f'id="{name}"' in page, name
    assert "Where each equation stands" in page
    linked = set(re.findall(r'href="(espnet2_m2m/[^"#]+)', page))
    for path in linked | {f"espnet2_m2m/{name}.html" for name in ("fcp", "data_dir/talkers", "scoring/metrics")}:
        assert (tmp_path / path).is_file(), path


# ---- docs/method.md ------------------------------------------------------------------------------


def test_each_equation_is_found_in_one_step():
    """docs/method.md links eqs. (3) to (10) with files that define what it names, and cite the equation."""
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^\[(\w+)\]: (\S+)$", text, flags=re.MULTILINE))
    rows = re.findall(r"^\| (\(\d+\)) \|.*\| (.*) \|$", text, flags=re.MULTILINE)
    assert [equation for equation, _ in rows] == [f"({n})" for n in range(3, 11)]
    for equation, where in rows:
        links = re.findall(r"\[`(\S+)`\]\[(\w+)\]", where)
        sources = [(ROOT / "docs" / files[link]).read_text(encoding="utf-8") for _, link in links]
        assert equation in sources[0] and all(quoted in sources[0] for quoted in re.findall(r"`(\w+\[.*?\])`", where))
        for (name, _), source in zip(links, sources):
            for part in name.split("."):
                assert re.search(rf"^ *(def|class) {part}\b", source, flags=re.MULTILINE), name


def test_the_stacked_taps_that_it_prints():
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^    tap \d +((?:\d +){5})", text, flags=re.MULTILINE)
    printed = [list(map(int, row.split())) for row in rows]
    assert printed == stack_taps(torch.arange(1, 6), past_taps=2, future_taps=1).tolist()
