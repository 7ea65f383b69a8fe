"""Complex spectra (batch, mic | source, freq, frame): what FCP and the losses ask of them, and their padding."""

import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def check_spectra(axes: str = "batch, mic | source, freq, frame", **spectra: Tensor | None) -> None:
    """Refuse what cannot be spectra of the same recordings.

    Args:
        axes: what their axes are, the last three as in the default.
        spectra: by the names that errors give them; the others are compared with the first. None is passed by.
    Raises:
        ValueError: not complex, other axes, an empty axis, or another batch, freq or frame than the first.
    """
    (first_name, first), *_ = spectra.items()
    for name, spectrum in spectra.items():
        if spectrum is None:
            continue
        shape = tuple(spectrum.shape)
        if len(shape) != axes.count(",") + 1 or not spectrum.is_complex():
            raise ValueError(f"{name} must be a complex ({axes}) STFT, found {spectrum.dtype} {shape}")
        if spectrum.numel() == 0:
            raise ValueError(f"{name} needs at least one source or mic, frequency and frame, found {shape}")
        if shape[:-3] + shape[-2:] != first.shape[:-3] + first.shape[-2:]:
            raise ValueError(
                f"{name} {shape} and {first_name} {tuple(first.shape)} need the same"
                f"{' batch,' * (len(shape) == 4)} freq and frame"
            )


def at_least_complex64(spectrum: Tensor) -> Tensor:
    """Complex spectrum -> the same in complex64, or in complex128 if it has that precision."""
    return spectrum.to(torch.promote_types(spectrum.dtype, torch.complex64))


def faint(dtype: torch.dtype) -> float:
    """The least level at which a signal of this type has all digits, 138 dB below it too in float32: 1e-31."""
    limits = torch.finfo(dtype)
    return limits.tiny / limits.eps


def magnitude(spectrum: Tensor) -> Tensor:
    """|spectrum|, without gradient where it is denormal: there that of torch's `abs` is NaN."""
    return _Magnitude.apply(spectrum)


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, spectrum: Tensor) -> Tensor:
        ctx.save_for_backward(spectrum)
        return spectrum.abs()

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (spectrum,) = ctx.saved_tensors
        denormal = spectrum.abs() < torch.finfo(spectrum.dtype).tiny
        return torch.where(denormal, 0.0, grad * spectrum.sgn())


def mask_frames(spectrum: Tensor, lengths: Tensor, fill: float = 0.0) -> Tensor:
    """Put `fill` into all frames from lengths[b] on: (batch, ..., frame) -> the same shape.

    Example:
        >>> mask_frames(torch.ones(2, 3), lengths=torch.tensor([3, 1]))
        tensor([[1., 1., 1.],
                [1., 0., 0.]])
    """
    frame = torch.arange(spectrum.shape[-1], device=spectrum.device)
    inside = frame < lengths.to(spectrum.device)[:, None]
    inside = inside.reshape((len(lengths),) + (1,) * (spectrum.dim() - 2) + (-1,))
    return torch.where(inside, spectrum, fill)


def never_compiled(function: Callable) -> Callable:
    """`function` stays out of what torch.compile makes of its surroundings.

    The compiler of torch (2.11) generates no code for complex numbers and fails on some of ours, or computes
    something else. As `torch.compiler.disable`, whose import takes a second that is saved where nobody compiles.
    """

    @functools.wraps(function)
    def called(*args, **kwargs) -> object:
        compiling = "torch._dynamo" in sys.modules
        return (torch.compiler.disable(function) if compiling else function)(*args, **kwargs)

    return called
