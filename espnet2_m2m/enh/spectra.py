"""The project's STFT as ESPnet encoder and decoder: `encoder: spectra`, `decoder: spectra`.

ESPnet's own `stft` has no square-root Hann window, and pads by reflection.
"""

import torch
from espnet2.enh.decoder.abs_decoder import AbsDecoder
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from torch import Tensor

from espnet2_m2m.stft import STFT


class SpectraEncoder(AbsEncoder):
    """(batch, sample[, mic]) waveforms -> (batch, frame[, mic], freq) complex spectra.

    Args:
        n_fft, hop_length: window and hop in samples; 32 ms and 8 ms at 8 kHz by default.
    """

    def __init__(self, n_fft: int = 256, hop_length: int = 64) -> None:
        super().__init__()
        self.stft = STFT(n_fft, hop_length)

    @property
    def output_dim(self) -> int:
        return self.stft.n_fft // 2 + 1

    def forward(self, input: Tensor, ilens: Tensor, fs: int = None) -> tuple[Tensor, Tensor]:
        """Return the spectra and their frames (batch,); `fs` is not used."""
        with torch.autocast(input.device.type, enabled=False):
            wave = input.to(torch.promote_types(input.dtype, torch.float32))
            spectra = self.stft(wave.movedim(1, -1))  # (batch[, mic], freq, frame)
        return spectra.movedim(-1, 1), self.stft.num_frames(ilens)


class SpectraDecoder(AbsDecoder):
    """(batch, frame, freq) complex spectra -> (batch, sample) waveforms; the encoder's inverse.

    Args: as `SpectraEncoder`.
    """

    def __init__(self, n_fft: int = 256, hop_length: int = 64) -> None:
        super().__init__()
        self.stft = STFT(n_fft, hop_length)

    def forward(self, input: Tensor, ilens: Tensor, fs: int = None) -> tuple[Tensor, Tensor]:
        """Return waveforms as long as the longest of `ilens` (batch,) samples, and `ilens`."""
        with torch.autocast(input.device.type, enabled=False):
            return self.stft.inverse(input.transpose(1, 2), int(ilens.max())), ilens
