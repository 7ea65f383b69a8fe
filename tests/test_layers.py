"""The house: which room may import from which. A wall that is worth having is worth a test."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "espnet2_m2m"
# From the ground floor up: a room imports only from rooms that stand before it.
ROOMS = (
    # mathematics: arrays in, arrays out
    "stft",
    "spectra",
    "fir_least_squares",
    "fcp",
    "loss",
    "consistency",
    "headset_cleaning",
    "headset_order",
    "stitching",
    # files
    "markdown",
    "data_dir",
    "corpora",
    "simulation",
    "scoring",
    "diagnosis",
    # ESPnet
    "espnet_imports",
    "enh",
    "model_files",
    "tasks",
    # what people run
    "separate_file",
    "separate",
    "model_card",
    "report",
    "study_runs",
    "run",
    "bin",
)
MATHEMATICS = ROOMS[: ROOMS.index("stitching") + 1]
WITH_ESPNET = ("enh", "tasks", "run", "bin")


def modules():
    """Name -> file of every module of the package, `espnet2_m2m.loss` for its __init__.py."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imports(path):
    """What a file imports, at its top or within a function: full names, modules where they are ours."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative imports hide where an arrow leads"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def room(module):
    return module.split(".")[1] if "." in module else None


def test_every_room_has_its_place():
    assert {room(module) for module in MODULES} - {None, "__main__"} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_no_import_runs_up(name):
    allowed = ROOMS[: ROOMS.index(name) + 1]
    wrong = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        if room(module) == name
        for imported in imports(path)
        if imported.startswith("espnet2_m2m.") and room(imported) not in allowed
    ]
    assert not wrong


def test_mathematics_knows_neither_files_nor_espnet():
    allowed = {"numpy", "scipy", "torch"} | (sys.stdlib_module_names - {"io", "os", "pathlib", "subprocess"})
    for module, path in MODULES.items():
        if room(module) in MATHEMATICS:
            outside = {name.split(".")[0] for name in imports(path) if not name.startswith("espnet2_m2m.")}
            assert outside <= allowed, module


def test_espnet_is_imported_where_it_is_needed_only():
    for module, path in MODULES.items():
        if room(module) not in WITH_ESPNET:
            assert not [name for name in imports(path) if name.split(".")[0] in ("espnet", "espnet2")], module


def test_a_command_imports_from_no_other():
    for module, path in MODULES.items():
        if module.startswith("espnet2_m2m.bin."):
            assert not [name for name in imports(path) if name.startswith("espnet2_m2m.bin.")], module


def test_no_circle_of_files():
    """Nor within a room: `graphlib` raises CycleError, which names the circle."""
    arrows = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    for name in list(arrows):  # a package's __init__ re-exports what lies in it, which may import the package's files
        arrows[name] = {other for other in arrows[name] if not name.startswith(f"{other}.")}
    tuple(graphlib.TopologicalSorter(arrows).static_order())
