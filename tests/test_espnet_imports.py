"""ESPnet as the plug-in imports it: sooner, and otherwise as anybody does."""

import importlib
import inspect
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import typeguard

from espnet2_m2m import espnet_imports

ROOT = Path(__file__).parents[1]
# What `separate` has no use for, and ESPnet imports: by name of a module that only the import of the package loads.
UNUSED = ("sklearn", "numba", "scipy.stats", "nltk.tokenize", "h5py.h5", "hydra.utils", "torch._dynamo")
UNUSED += ("fast_bss_eval.torch", "ci_sdr.pt", "g2p_en.g2p", "espnet2.gan_tts.jets")

# What a program finds after ESPnet has been imported, by import_espnet (argument "sooner") or as usual.
PROGRAM = """
import importlib, inspect, json, pickle, sys, warnings
warnings.simplefilter("ignore")
if sys.argv[1] == "sooner":
    import espnet2_m2m.tasks.separate_speech
import torch
from espnet2.bin import enh_inference
from espnet2.tasks import enh
from espnet2.train import preprocessor
from espnet2.train.class_choices import ClassChoices

found = {"unused": sorted(set(sys.argv[2].split(",")) & set(sys.modules))}
functions = [ClassChoices.__init__, ClassChoices.get_class, enh.EnhancementTask.build_model, enh_inference.inference]
functions += [enh.criterion_choices.get_class("sdr").__init__, preprocessor.EnhPreprocessor._speech_process]
found["functions"] = [
    [f.__module__, f.__qualname__, f.__doc__, str(inspect.signature(f)), inspect.isfunction(f)] for f in functions
]
found["pickled"] = [pickle.loads(pickle.dumps(function)) is function for function in functions[:2]]
try:
    ClassChoices(name=3, classes={})
except Exception as error:
    found["error"] = [type(error).__qualname__, str(error)]

# A config that names them: their results.
wave = torch.sin(torch.arange(8000.0))[None]
noisy = wave + 0.1 * torch.cos(0.3 * torch.arange(8000.0))
sdr = enh.criterion_choices.get_class("sdr")()
found["sdr"] = [float(sdr(wave, noisy)), float(enh.criterion_choices.get_class("si_snr")()(wave, noisy))]
try:
    found["ci_sdr"] = float(enh.criterion_choices.get_class("ci_sdr")(filter_length=8)(wave, noisy))
except RuntimeError as error:
    found["ci_sdr"] = str(error)  # that it is not installed
rir = preprocessor.scipy.signal.convolve([1.0, 2.0], [1.0, 1.0])
found["scipy.signal"] = [rir.tolist(), sys.modules["scipy.signal"] is __import__("scipy.signal").signal]

from espnet2.main_funcs import calculate_all_attentions
from espnet2.train import trainer


class Attention(calculate_all_attentions.MultiHeadedAttention):
    def forward(self, x, **kwargs):
        return super().forward(x, x, x, None)


torch.manual_seed(0)
model = Attention(2, 4, 0.0).eval()
weights = trainer.calculate_all_attentions(model, {"x": torch.ones(1, 3, 4)})
found["attentions"] = {name: torch.cat(list(map(torch.as_tensor, maps))).tolist() for name, maps in weights.items()}

for name in sys.argv[3].split(","):
    try:
        module = importlib.import_module(name)
        path = getattr(module, "__path__", None)
    except ImportError:
        module = path = None
    module and dir(module)
    names = {} if module is None else vars(module)
    found[name] = [type(module).__name__, path and list(path), sorted(key for key in names if key.strip("_") == key)]
import torch._dynamo
print("\\n" + json.dumps(found))
"""


def what_a_program_finds(how):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, ",".join(UNUSED), ",".join(espnet_imports.DEFERRED)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_espnet_is_what_it_is_without_the_plug_in():
    desired, actual = what_a_program_finds("as usual"), what_a_program_finds("sooner")
    assert actual.pop("unused") == []
    assert {"numba", "scipy.stats", "espnet2.gan_tts.jets"} <= set(desired.pop("unused"))
    assert actual["error"][0] == "TypeCheckError"
    assert actual == desired


@pytest.fixture
def deferred_module(tmp_path, monkeypatch):
    """Function (name of a module, its source, function names) -> the module, deferred."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def make(name, source, functions=()):
        path = Path(tmp_path, *name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(source)
        importlib.invalidate_caches()
        monkeypatch.setitem(espnet_imports.DEFERRED, name, functions)
        names.append(name)
        with espnet_imports.deferred():
            pass
        return sys.modules[name]

    yield make
    for name in list(sys.modules):
        if name.split(".")[0] in {made.split(".")[0] for made in names}:
            del sys.modules[name]


def is_loaded(module):
    return "VALUE" in vars(module)


def test_a_module_is_loaded_by_its_first_use(deferred_module):
    module = deferred_module("later_a", "import later_a\nVALUE = later_a.__name__\n")
    import later_a

    assert later_a is module and not is_loaded(module)
    assert inspect.getmodule(is_loaded).__name__ == __name__  # asks all modules for their file
    assert Path(module.__file__).name == "later_a.py" and not is_loaded(module)
    assert module.VALUE == "later_a" and type(module) is type(sys)
    assert importlib.reload(module) is module and pickle.loads(pickle.dumps(module.__spec__)).name == "later_a"


def test_from_import_loads(deferred_module):
    deferred_module("later_b", "VALUE = 1\n")
    from later_b import VALUE

    assert VALUE == 1
    with pytest.raises(ImportError, match="cannot import name 'OTHER' from 'later_b'"):
        from later_b import OTHER  # noqa: F401


def test_a_function_loads_when_it_is_called(deferred_module):
    module = deferred_module("later_c", "VALUE = 2\ndef twice(x, by=VALUE): return by * x\n", ("twice",))
    from later_c import twice

    assert not is_loaded(module)
    assert twice(3) == twice(x=3, by=2) == 6
    assert is_loaded(module) and module.twice is not twice


def test_a_part_of_a_package_finds_the_package_loaded(deferred_module, tmp_path):
    (tmp_path / "later_d").mkdir()
    (tmp_path / "later_d" / "__init__.py").write_text("VALUE = 3\n")
    (tmp_path / "later_d" / "part.py").write_text("from later_d import VALUE\n")
    package = deferred_module("later_d", "")
    assert not is_loaded(package)
    import later_d.part

    assert later_d.part.VALUE == later_d.VALUE == 3


def test_a_part_is_deferred_where_its_package_is_loaded(deferred_module, tmp_path):
    (tmp_path / "later_e").mkdir()
    (tmp_path / "later_e" / "__init__.py").write_text("")
    module = deferred_module("later_e.part", "VALUE = 4\n")
    import later_e

    assert later_e.part is module and not is_loaded(module)
    assert later_e.part.VALUE == 4


def test_a_module_that_fails_does_so_at_every_use(deferred_module):
    module = deferred_module("later_f", "import no_such_module\nVALUE = 5\n", ("function",))
    from later_f import function

    for use in (lambda: module.VALUE, lambda: module.VALUE, function):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            use()


def test_one_that_is_not_installed_is_not_found(monkeypatch):
    monkeypatch.setitem(espnet_imports.DEFERRED, "no_such_module", ())
    monkeypatch.setitem(espnet_imports.DEFERRED, "no_such_package.module", ())
    with espnet_imports.deferred():
        for name in ("no_such_module", "no_such_package.module"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)


def test_threads_wait_for_the_module(deferred_module):
    module = deferred_module("later_g", "import time\nSTARTED = 1\ntime.sleep(0.2)\nVALUE = 6\n")
    found = []
    threads = [threading.Thread(target=lambda: found.append(module.VALUE)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [6] * 4


def test_what_is_replaced_is_put_back_after_an_error(deferred_module):
    before = typeguard.typechecked, torch.compiler.disable
    with pytest.raises(ModuleNotFoundError), espnet_imports.deferred():
        importlib.import_module("no_such_module")
    assert (typeguard.typechecked, torch.compiler.disable) == before


@espnet_imports.typechecked_when_called
def later(number: int, *, factor: int = 2) -> int:
    """Text."""
    return number * factor if number else "nothing"


class WithMethods:
    @espnet_imports.typechecked_when_called
    def __init__(self, number: int):
        super().__init__()
        self.number = number

    @classmethod
    @espnet_imports.typechecked_when_called
    def make(cls, number: int) -> "WithMethods":
        return cls(number)

    @espnet_imports.typechecked_when_called
    @staticmethod
    def static(number: int) -> int:
        return number


def test_calls_are_checked():
    assert later(2) == 4 and later(2, factor=3) == 6
    for wrong in (lambda: later("2"), lambda: later(2, factor="3"), lambda: later(0), lambda: WithMethods(None)):
        with pytest.raises(typeguard.TypeCheckError):
            wrong()
    with pytest.raises(typeguard.TypeCheckError):
        WithMethods.static("2")
    assert WithMethods.make(3).number == WithMethods.static(3) == 3
    assert later.__doc__ == "Text." and list(inspect.signature(later).parameters) == ["number", "factor"]


def test_a_function_within_another_is_checked():
    @espnet_imports.typechecked_when_called
    def inner(x: str) -> str:
        return x

    assert inner("3") == "3"
    with pytest.raises(typeguard.TypeCheckError):
        inner(3)


def test_the_compiler_passes_over_a_function():
    """As with torch.compiler.disable itself, though the function was defined before torch's compiler was imported."""
    compiled = []

    def body(x):
        compiled.append(torch.compiler.is_compiling())
        return x + 1

    before = sys.modules.pop("torch._dynamo", None)
    try:
        body = espnet_imports.disable_when_called(body)
        assert body(torch.zeros(1)) == 1 and "torch._dynamo" not in sys.modules
    finally:
        if before is not None:
            sys.modules["torch._dynamo"] = before
    importlib.import_module("torch._dynamo")
    caller = torch.compile(lambda x: body(x) * 2, backend="eager")
    assert caller(torch.zeros(1)) == 2 and caller(torch.ones(1)) == 4
    assert compiled == [False] * 3
