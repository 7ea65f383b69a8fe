"""The precision in which the network works: float32, or bfloat16 by autocast on processors that have units for it.

Everything else (STFT, FCP, loss, parameters, optimiser) is float32 or better with any of them.
"""

import logging
from contextlib import nullcontext

import torch

from espnet2_m2m.enh.training_config import PRECISIONS

# ESPnet's separators that fail somewhere inside in bfloat16, which has no complex numbers.
NOT_IN_BFLOAT16 = ("DCCRNSeparator", "TFGridNetV3")
# Those for which `auto` may mean bfloat16: the scores of its separation have been compared (docs/results.md).
COMPARED = ("TFGridNet",)


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies in bfloat16, as far as torch uses it.

    torch's own ATEN_CPU_CAPABILITY=avx2 in the environment makes it one without. Not
    `torch.ops.mkldnn._is_mkldnn_bf16_supported`: it is also true where AVX-512 only imitates bfloat16, slowly.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()


def separation_precision(precision: str, separator: torch.nn.Module, device: str, dtype: str = "float32") -> str:
    """The precision in which a trained network separates; the log says what `auto` has become.

    Args:
        precision: one of PRECISIONS.
        separator: the network.
        device: it works on, such as "cpu" or "cuda:0".
        dtype: of its parameters.
    Returns:
        "float32" (more exactly: `dtype`) or "bfloat16".
    Raises:
        ValueError: no such precision, or bfloat16 with a network that does not work in it.
    """
    name = type(separator).__name__
    check_precision(precision, name)
    if precision != "auto":
        return precision
    chosen, why = auto_precision(device, dtype)
    if name not in COMPARED:
        chosen, why = "float32", f"bfloat16 has not been compared with {name}"
    logging.info("precision: auto is %s: %s", chosen, why)
    return chosen


def auto_precision(device: str, dtype: str = "float32") -> tuple[str, str]:
    """What `auto` means for separation where the network itself has nothing against it, and why."""
    device_type = torch.device(device).type
    if device_type != "cpu":
        return "float32", f"bfloat16 has not been compared on {device_type}"
    if dtype != "float32":
        return "float32", f"{dtype} was asked for"
    if not has_bfloat16_units():
        return "float32", "this CPU has no units for bfloat16"
    return "bfloat16", "this CPU has units for bfloat16"


def training_precision(precision: str, separator: str) -> str:
    """The same for a training: `auto` stays float32 until trainings in bfloat16 have been compared (docs/results.md).

    Args:
        separator: name of the network's class.
    """
    check_precision(precision, separator)
    if precision != "auto":
        return precision
    logging.info("precision: auto is float32: trainings in bfloat16 have not been compared")
    return "float32"


def check_precision(precision: str, separator: str) -> None:
    """Raises ValueError: no such precision, or none that a network of this class works in."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, found {precision!r}")
    if precision == "bfloat16" and separator in NOT_IN_BFLOAT16:
        raise ValueError(f"precision: bfloat16 does not go with {separator}, which needs float32; take float32 or auto")


def network_context(precision: str, device: torch.device) -> torch.autocast | nullcontext:
    """Where the network runs: autocast to bfloat16, or for float32 what its caller has chosen (use_amp on a GPU)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
