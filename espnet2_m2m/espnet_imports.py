"""Import ESPnet without waiting for what the program may never use.

ESPnet's tasks import every network, tokenizer and loss that a config could name: some 14 s of CPU, of which 10 s go
into typeguard. It parses a module's whole source once for every function that is decorated by `typechecked`, when that
is defined. In `import_espnet` this happens when such a function is called first, and a few packages, `DEFERRED`, are
imported when they are first used; so is the compiler of torch, which ESPnet 202611 imports to keep it from a function.
Nothing else changes: calls are checked as before, and the packages are the true ones.
"""

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from types import ModuleType
from typing import Any

import torch
import typeguard

# Module -> those of its functions that ESPnet imports by `from module import function`; the others it imports by
# `import module`, at the top of files that every task imports, and uses within a function.
DEFERRED = {
    "ci_sdr": (),  # a criterion
    "fast_bss_eval": (),  # criterions
    "g2p_en": (),  # a tokenizer; with nltk and scikit-learn
    "h5py": (),  # a file format
    "hydra": (),  # S4 decoders
    "nltk": (),  # BLEU, in joint models with translation
    "scipy.signal": (),  # preprocessors
    # Attention of a model as pictures; with the text-to-speech model JETS and numba.
    "espnet2.main_funcs.calculate_all_attentions": ("calculate_all_attentions",),
}

_typechecked, _disable = typeguard.typechecked, torch.compiler.disable
_loading = threading.RLock()


def import_espnet(name: str) -> ModuleType:
    """The module `name` of ESPnet, imported as `importlib.import_module` does, but sooner."""
    with deferred():
        return importlib.import_module(name)


@contextmanager
def deferred() -> Iterator[None]:
    """Within this context the decorators wait for the first call, and the modules of DEFERRED for their first use."""
    for name in DEFERRED:
        _defer(name)
    before = typeguard.typechecked, torch.compiler.disable
    typeguard.typechecked, torch.compiler.disable = typechecked_when_called, disable_when_called
    try:
        yield
    finally:
        typeguard.typechecked, torch.compiler.disable = before


def typechecked_when_called(target: Any = None, **options: Any) -> Any:
    """`typeguard.typechecked`, but a function is instrumented when it is first called; all else at once."""
    # typeguard looks for the variables around a function within another, of which ESPnet has none, in its caller.
    if not isfunction(target) or options or "<locals>" in target.__qualname__:
        return _typechecked(target, **options)
    checked = None

    @functools.wraps(target)
    def when_called(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = _typechecked(target)
        return checked(*args, **kwargs)

    return when_called


def disable_when_called(fn: Any = None, *args: Any, **options: Any) -> Any:
    """`torch.compiler.disable`, but a function is kept from the compiler once there is one: `torch._dynamo`."""
    if not isfunction(fn) or args or options or "torch._dynamo" in sys.modules:
        return _disable(fn, *args, **options)
    disabled = None

    @functools.wraps(fn)
    def when_called(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None and "torch._dynamo" in sys.modules:
            disabled = _disable(fn)
        return (disabled or fn)(*args, **kwargs)

    return when_called


def _defer(name: str) -> None:
    """Put a `_DeferredModule` where `import name` looks first, unless the module is there or is not installed."""
    if name in sys.modules:
        return
    parent, _, child = name.rpartition(".")
    try:
        spec = importlib.util.find_spec(name)  # imports the parent
    except ModuleNotFoundError:
        return
    if spec is None:
        return
    module = importlib.util.module_from_spec(spec)
    # Python asks for the path before it imports a module of the package, which must find the package loaded.
    vars(module).pop("__path__", None)
    vars(module)["__deferred__"] = True
    module.__class__ = _DeferredModule
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], child, module)


class _DeferredModule(ModuleType):
    """A module that is executed, in place, when a name is asked for that it does not have yet.

    importlib.util.LazyLoader does so too, but for any name: inspect, which asks every module for its file, would load
    all of them while torch is imported.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name == "__path__" and spec.submodule_search_locations is None:
            raise AttributeError(name)  # `from module import function` asks whether this is a package
        with _loading:
            if vars(self).get("__deferred__"):
                if name in DEFERRED[self.__name__]:
                    return self._function(name)
                self._load()
            elif type(self) is _DeferredModule:  # the module asks itself, while it is executed
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self, name)

    def _load(self) -> None:
        del self.__deferred__
        spec = self.__spec__
        if spec.submodule_search_locations is not None:
            self.__path__ = spec.submodule_search_locations
        try:
            spec.loader.exec_module(self)
        except BaseException:  # the next use fails as this one does, with its reason
            vars(self).pop("__path__", None)
            self.__deferred__ = True
            raise
        self.__class__ = ModuleType

    def _function(self, name: str) -> Callable:
        """A function that loads the module when it is called."""

        def function(*args: Any, **kwargs: Any) -> Any:
            with _loading:
                if vars(self).get("__deferred__"):
                    self._load()
            return getattr(self, name)(*args, **kwargs)

        function.__name__ = function.__qualname__ = name
        function.__module__ = self.__name__
        return function
