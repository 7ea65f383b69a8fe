"""Mixture-to-mixture (M2M) speech separation, as a plug-in for ESPnet2.

Public names are imported on first use (PEP 562), so that commands which need no torch start fast.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "STFT": "espnet2_m2m.stft",
    "fcp_weight": "espnet2_m2m.fcp",
    "forward_convolutive_prediction": "espnet2_m2m.fcp",
    "mixture_consistency": "espnet2_m2m.consistency",
    "MixtureConstraintLoss": "espnet2_m2m.loss",
    "ri_mag_l1": "espnet2_m2m.loss",
    "isms": "espnet2_m2m.loss",
    "pit_ri_mag": "espnet2_m2m.loss",
    "SeparateRecording": "espnet2_m2m.separate",
    "metrics": "espnet2_m2m.scoring",
    "register": "espnet2_m2m.tasks.enh_m2m",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(list(globals()) + __all__)
