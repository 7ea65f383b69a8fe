"""Items of a batch: which are finite, which are silent, and what messages call them."""

import torch
from torch import Tensor
from torch_complex.tensor import ComplexTensor

from espnet2_m2m.enh.mics import check_mics

SILENCE = 1e-12  # amplitudes up to this (-240 dB re full scale) are silence: their square, which
# networks divide by, is zero in float32 before long


def item_names(utt_ids: list[str] | None, chosen: Tensor) -> str:
    """The chosen items, (batch,) bool, by utterance id, or by their place in the batch."""
    utt_ids = utt_ids or [f"batch item {i}" for i in range(len(chosen))]
    return ", ".join(utt_id for utt_id, is_chosen in zip(utt_ids, chosen.tolist()) if is_chosen)


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, ...), to be combined with a signal (batch, ...)."""
    return values.reshape((-1,) + (1,) * (like.dim() - 1))


def finite_items(signal: Tensor) -> Tensor:
    """(batch,) bool: no NaN or infinite value in it."""
    return torch.isfinite(signal.detach()).flatten(1).all(dim=1)


def check_finite(name: str, waves: Tensor, utt_ids: list[str] | None) -> None:
    """Refuse waveforms with NaN or infinite samples; names the utterances."""
    finite = finite_items(waves)
    if not finite.all():
        raise ValueError(f"{item_names(utt_ids, ~finite)}: {name} has NaN or infinite samples")


def zero_padding(wave: Tensor, lengths: Tensor) -> Tensor:
    """A wave (batch, sample[, mic]) that is zero behind each item's end. NaN may stand there as well."""
    inside = torch.arange(wave.shape[1], device=wave.device) < lengths.to(wave.device)[:, None]
    return torch.where(inside.reshape(inside.shape + (1,) * (wave.dim() - 2)), wave, 0)


def select_mics(signal: Tensor, mics: list[int] | None, has_mic_axis: bool) -> Tensor:
    """Keep only these mics, from 0, of a signal (batch, sample | frame[, mic], ...); None keeps all.

    Raises:
        ValueError: mics that cannot be, or that the recording does not have.
    """
    if mics is None:
        return signal
    check_mics("ref_channel, input_mics or loss_mics", mics)
    num_mics = signal.shape[2] if has_mic_axis else 1
    if max(mics) >= num_mics:
        raise ValueError(
            f"mic {max(mics)} (counted from 0) was asked for by ref_channel, "
            f"input_mics or loss_mics, but the recording has {num_mics} mic(s)"
        )
    return signal[:, :, mics] if has_mic_axis else signal


def silent_items(signal: Tensor, has_mic_axis: bool, *choices: list[int] | None) -> Tensor:
    """(batch,) bool: at one at least of several choices of mics nothing is heard."""
    levels = [abs(select_mics(signal, mics, has_mic_axis)).flatten(1).amax(dim=1) for mics in choices]
    return torch.stack([level <= SILENCE for level in levels]).any(dim=0)


def replace_items(signal: Tensor, items: Tensor) -> Tensor:
    """Put noise into these items of a batch, (batch,) bool; for silent ones, on which networks give NaN."""
    if not items.any():
        return signal
    if isinstance(signal, ComplexTensor):
        return ComplexTensor(replace_items(signal.real, items), replace_items(signal.imag, items))
    noise = torch.randn(tuple(signal.shape[1:]), generator=torch.Generator().manual_seed(0))
    return torch.where(per_item(items, signal).to(signal.device), noise.to(signal), signal)
