"""The one STFT of the project: square-root Hann window, zero-padded edges, exact inverse.

The paper (section V) uses a 32 ms window and an 8 ms hop, which at 8 kHz are the defaults here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class STFT(nn.Module):
    """Short-time Fourier transform with a square-root Hann window for analysis and synthesis.

    Frame t is centred on sample t * hop_length. The edges are padded with zeros, not reflected,
    so that the frames of a recording are the same whether or not zeros are appended to it. With a hop of
    more than n_fft / 3 there is a frame at or beyond the last sample: a lesser one alone would hold the end
    by the very edge of its window, by which `inverse` divides, a click in every signal that was processed.

    Args:
        n_fft: window and transform length in samples, even (256 = 32 ms at 8 kHz).
        hop_length: samples between frames, at most n_fft / 2 (64 = 8 ms at 8 kHz).
    Raises:
        ValueError: a length that does not fit the above.
    Example:
        >>> stft = STFT()
        >>> spectrum = stft(torch.randn(2, 6, 8000))      # (batch, mic, sample)
        >>> spectrum.shape                                # (batch, mic, freq, frame)
        torch.Size([2, 6, 129, 126])
        >>> stft.inverse(spectrum, 8000).shape
        torch.Size([2, 6, 8000])
    """

    def __init__(self, n_fft: int = 256, hop_length: int = 64) -> None:
        super().__init__()
        if n_fft < 2 or n_fft % 2:
            raise ValueError(f"n_fft must be an even number of samples >= 2, found {n_fft}")
        if not 1 <= hop_length <= n_fft // 2:
            raise ValueError(f"hop_length must be within 1..n_fft/2 = {n_fft // 2} samples, found {hop_length}")
        self.n_fft = n_fft
        self.hop_length = hop_length
        window = torch.hann_window(n_fft, dtype=torch.float64).sqrt()
        self.register_buffer("window", window, persistent=False)

    @classmethod
    def of_rate(cls, sample_rate: int) -> "STFT":
        """The paper's STFT, 32 ms / 8 ms, at `sample_rate` in Hz.

        Example:
            >>> stft = STFT.of_rate(16000)
            >>> stft.n_fft, stft.hop_length
            (512, 128)
        """
        hop_length = round(0.008 * sample_rate)
        return cls(4 * hop_length, hop_length)

    def forward(self, wave: Tensor) -> Tensor:
        """Waveform `wave` (..., sample), real -> spectrum (..., freq, frame), complex."""
        hops = self.num_frames(wave.shape[-1]) - 1
        spectrum = torch.stft(
            functional.pad(wave.reshape(-1, wave.shape[-1]), (0, max(hops * self.hop_length - wave.shape[-1], 0))),
            self.n_fft,
            self.hop_length,
            window=self.window.to(wave.dtype),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.reshape(wave.shape[:-1] + spectrum.shape[-2:])

    def inverse(self, spectrum: Tensor, num_samples: int) -> Tensor:
        """Spectrum (..., freq, frame), complex -> waveform (..., num_samples), real."""
        wave = torch.istft(
            spectrum.reshape((-1,) + spectrum.shape[-2:]),
            self.n_fft,
            self.hop_length,
            window=self.window.to(spectrum.real.dtype),
            center=True,
            length=num_samples,
        )
        return wave.reshape(spectrum.shape[:-2] + (num_samples,))

    def num_frames(self, num_samples: int | Tensor) -> int | Tensor:
        """Frames of a recording of `num_samples` samples (an int or a Tensor of them)."""
        beyond = self.hop_length - 1 if 3 * self.hop_length > self.n_fft else 0
        return (num_samples + beyond) // self.hop_length + 1
