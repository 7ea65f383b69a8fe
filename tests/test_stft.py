"""STFT against scipy, its exact inverse, and its independence of padding."""

import numpy as np
import pytest
import scipy.signal
import torch

from espnet2_m2m.stft import STFT


def wave(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_fft, hop_length", [(256, 64), (512, 128), (64, 32), (100, 30)])
def test_as_scipy(n_fft, hop_length):
    samples = wave(0, 1000)
    window = np.sqrt(scipy.signal.get_window("hann", n_fft))  # periodic, as for spectra
    _, _, desired = scipy.signal.stft(
        samples.numpy(),
        window=window,
        nperseg=n_fft,
        noverlap=n_fft - hop_length,
        boundary="zeros",
        padded=3 * hop_length > n_fft,  # a frame beyond the end, by appended zeros
    )
    actual = STFT(n_fft, hop_length)(samples)
    # scipy divides by the sum of the window; otherwise only float64 rounding differs.
    np.testing.assert_allclose(actual.numpy(), desired * window.sum(), atol=1e-11)


def test_closed_form_of_an_impulse():
    """An impulse at sample n is seen by frame t as window[n - t hop + n_fft/2], times a phase."""
    n_fft, hop_length, n = 16, 4, 21
    samples = torch.zeros(40, dtype=torch.float64)
    samples[n] = 1.0
    actual = STFT(n_fft, hop_length)(samples).numpy()
    desired = np.zeros_like(actual)
    for t in range(desired.shape[1]):
        i = n - t * hop_length + n_fft // 2
        if 0 <= i < n_fft:
            for f in range(n_fft // 2 + 1):
                sqrt_hann = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * i / n_fft))
                desired[f, t] = sqrt_hann * np.exp(-2j * np.pi * f * i / n_fft)
    np.testing.assert_allclose(actual, desired, atol=1e-14)


@pytest.mark.parametrize("num_samples", [1, 63, 64, 255, 256, 1000, 1023])
@pytest.mark.parametrize("n_fft, hop_length", [(256, 64), (256, 128), (64, 17)])
def test_perfect_reconstruction(num_samples, n_fft, hop_length):
    """Also of the first and last samples, which fewer windows cover."""
    stft = STFT(n_fft, hop_length)
    desired = wave(1, 2, num_samples)
    actual = stft.inverse(stft(desired), num_samples)
    # The last sample may stand where the window is small, 0.01, which magnifies rounding by 1e4.
    torch.testing.assert_close(actual, desired, rtol=0, atol=1e-11)


@pytest.mark.parametrize("num_samples", [1, 100, 2559, 2560, 2561, 2600, 2688])
@pytest.mark.parametrize("n_fft, hop_length", [(256, 64), (256, 85), (256, 86), (256, 127), (256, 128), (512, 256)])
def test_no_click_at_the_end_of_a_processed_signal(n_fft, hop_length, num_samples):
    """Noise in the spectrum is divided by the overlapped windows' sum of squares, whose least value decides."""
    stft = STFT(n_fft, hop_length)
    spectrum = stft(torch.zeros(500, num_samples, dtype=torch.float64))
    spectrum += torch.from_numpy(np.random.default_rng(8).standard_normal(spectrum.shape))
    level = stft.inverse(spectrum, num_samples).square().mean(0).sqrt()
    centre = np.arange(spectrum.shape[-1]) * hop_length
    position = np.arange(num_samples)[:, None] - centre + n_fft / 2
    windows = np.where((position >= 0) & (position <= n_fft), np.sin(np.pi * position / n_fft), 0)
    np.testing.assert_array_less(0.25 - 1e-3, (windows**2).sum(1))
    assert level.max() / level.min() < 4


def test_reconstruction_in_float32():
    stft = STFT()
    desired = wave(2, 4000, dtype=torch.float32)
    spectrum = stft(desired)
    actual = stft.inverse(spectrum, 4000)
    assert (spectrum.dtype, actual.dtype) == (torch.complex64, torch.float32)
    # float32 rounding, 6e-8, of sums over 256 samples of level 1.
    torch.testing.assert_close(actual, desired, rtol=0, atol=1e-5)
    torch.testing.assert_close(spectrum, stft(desired.double()).to(torch.complex64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_samples", [500, 512, 575])
def test_padding_does_not_change_the_frames(num_samples):
    """Zeros appended to a short utterance of a batch leave its frames as they are, exactly."""
    stft = STFT()
    samples = wave(3, num_samples)
    desired = stft(samples)
    padded = stft(torch.cat([samples, torch.zeros(700, dtype=torch.float64)]))
    actual = padded[:, : stft.num_frames(num_samples)]
    assert desired.shape[-1] == stft.num_frames(num_samples)
    torch.testing.assert_close(actual, desired, rtol=0, atol=0)
    # and those entirely in the padding are silent
    assert not padded[:, stft.num_frames(num_samples) + 2 :].any()


def test_delay_by_one_hop_shifts_the_frames_by_one():
    """So a tap of an FCP filter is one hop of delay."""
    stft = STFT()
    samples = wave(4, 1000)
    delayed = torch.cat([torch.zeros(stft.hop_length, dtype=torch.float64), samples])
    torch.testing.assert_close(stft(delayed)[:, 1:], stft(samples), rtol=0, atol=1e-12)


def test_num_frames_of_integers_and_tensors():
    stft = STFT()
    num_samples = [1, 63, 64, 65, 4000]
    desired = [stft(torch.zeros(n)).shape[-1] for n in num_samples]
    assert [stft.num_frames(n) for n in num_samples] == desired
    assert stft.num_frames(torch.tensor(num_samples)).tolist() == desired


@pytest.mark.parametrize("n_fft, hop_length", [(256, 85), (256, 86), (256, 128)])
@pytest.mark.parametrize("num_samples", [1, 127, 128, 129, 4000])
def test_num_frames_of_large_hops(n_fft, hop_length, num_samples):
    stft = STFT(n_fft, hop_length)
    last = num_samples if 3 * hop_length > n_fft else num_samples - hop_length + 1
    desired = min(t for t in range(5000) if t * hop_length >= last) + 1  # of hops of more than a third, one beyond
    assert stft.num_frames(num_samples) == desired == stft(torch.zeros(num_samples)).shape[-1]


def test_leading_axes_are_kept():
    stft = STFT(64, 16)
    samples = wave(5, 2, 3, 200)
    spectrum = stft(samples)
    for b in range(2):
        for p in range(3):
            torch.testing.assert_close(spectrum[b, p], stft(samples[b, p]), rtol=0, atol=1e-13)
    assert stft.inverse(spectrum, 200).shape == samples.shape


def test_gradient():
    stft = STFT(8, 2)
    samples = wave(6, 12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stft.inverse(stft(x) * 1.5j, 12), samples)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_change_values(dtype):
    stft = STFT()
    samples = wave(7, 1000, dtype=torch.float32)
    desired = stft(samples)
    with torch.autocast("cpu", dtype):
        actual = stft(samples)
        back = stft.inverse(actual, 1000)
    torch.testing.assert_close(actual, desired, rtol=0, atol=0)
    torch.testing.assert_close(back, stft.inverse(desired, 1000), rtol=0, atol=0)


def test_window_is_no_part_of_the_checkpoint():
    assert not STFT().state_dict()


@pytest.mark.parametrize(
    "n_fft, hop_length, name", [(255, 64, "n_fft"), (0, 1, "n_fft"), (256, 0, "hop_length"), (256, 129, "hop_length")]
)
def test_wrong_lengths_are_refused_by_name(n_fft, hop_length, name):
    with pytest.raises(ValueError, match=name):
        STFT(n_fft, hop_length)
