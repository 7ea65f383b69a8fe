"""All that the plug-in changes in ESPnet and torch while a program runs; docs/espnet.md says why, in a table.

Importing the plug-in adds names that configs may use, and replaces nothing. `replace_build_model`, through
`register()`, stays; all else is put back when a `with` ends.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from espnet2.tasks import enh
from espnet2.tasks.enh import EnhancementTask

from espnet2_m2m.data_dir import atomic_path
from espnet2_m2m.enh.loss import CRITERIONS, WRAPPERS
from espnet2_m2m.enh.separator.tfgridnet import TFGridNet
from espnet2_m2m.enh.spectra import SpectraDecoder, SpectraEncoder
from espnet2_m2m.espnet_imports import import_espnet

stock_build_model = EnhancementTask.__dict__["build_model"].__func__


def add_names() -> None:
    """Criterions, wrappers, separator and coders become available in configs of ESPnet's enh and enh_s2t."""
    enh.criterion_choices.classes.update(CRITERIONS)
    enh.loss_wrapper_choices.classes.update(WRAPPERS)
    choices = [(enh.separator_choices, enh.encoder_choices, enh.decoder_choices)]
    joint = sys.modules.get("espnet2.tasks.enh_s2t")  # copies these lists when it is imported
    if joint is not None:
        choices.append((joint.enh_separator_choices, joint.enh_encoder_choices, joint.enh_decoder_choices))
    for separators, encoders, decoders in choices:
        separators.classes["tfgridnet_spectra"] = TFGridNet
        encoders.classes["spectra"] = SpectraEncoder
        decoders.classes["spectra"] = SpectraDecoder


def replace_build_model(build_model: Callable) -> None:
    """Put a function (cls, args) -> model in place of `EnhancementTask.build_model`, for good."""
    EnhancementTask.build_model = classmethod(build_model)


def replaced_in_inference(**values: Any) -> AbstractContextManager[None]:
    """Within this context, names of espnet2.bin.enh_inference have other values; its functions look them up late."""
    return _replaced(import_espnet("espnet2.bin.enh_inference"), **values)


def atomic_torch_save() -> AbstractContextManager[None]:
    """Within this context torch.save writes files whole or not at all.

    ESPnet's trainer overwrites checkpoint.pth in place once an epoch; killed just then, it could not
    resume.
    """
    save = torch.save

    def save_atomically(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, Path)):
            return save(obj, f, *args, **kwargs)
        # Opened here: torch would put the temporary name into the file, and a full disk is an OSError.
        with atomic_path(f) as temporary, open(temporary, "wb") as file:
            save(obj, file, *args, **kwargs)

    return _replaced(torch, save=save_atomically)


@contextmanager
def _replaced(module: ModuleType, **values: Any) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)
