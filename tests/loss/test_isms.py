"""ISMS: closed forms, the literal loop, what it punishes, silence."""

import warnings

import numpy as np
import oracle
import pytest
import torch

from espnet2_m2m.loss import isms


def test_by_eye():
    """Two frequencies: log magnitudes (0, a) have the unbiased variance a^2 / 2."""
    mix = torch.tensor([[1.0], [np.exp(-1.0)]], dtype=torch.complex128)  # a = -1
    images = torch.stack(
        [
            torch.tensor([[1.0], [np.exp(-2.0)]], dtype=torch.complex128),  # 4
            torch.tensor([[1.0], [1.0]], dtype=torch.complex128),
        ]
    )  # 0
    # mean of 4 and 0 over 1; the 1e-8 inside the logarithm shows in the eighth digit
    assert isms(images, mix).item() == pytest.approx(2.0, rel=1e-6)


def test_as_oracle():
    Y = oracle.noise(0, 2, 5, 6) * np.exp(oracle.noise(1, 2, 5, 6).real)
    X = oracle.noise(2, 2, 3, 5, 6)
    desired = [oracle.isms(Y_p, X_p) for Y_p, X_p in zip(Y, X)]
    actual = isms(torch.from_numpy(X), torch.from_numpy(Y))
    np.testing.assert_allclose(actual, desired, rtol=1e-10)  # float64 rounding of sums


def test_unfiltered_mixture_scatters_as_the_mixture():
    """Images that equal the mixture have ISMS 1, by definition."""
    mix = torch.from_numpy(oracle.noise(3, 5, 6))
    assert isms(mix.expand(4, 5, 6), mix).item() == pytest.approx(1.0)


def test_sources_exchanged_in_some_frequencies_scatter_more():
    """What it is for: two talkers, each of one level in all frequencies, taking turns."""
    level = np.where(np.arange(20) % 2, 1.0, 0.1)  # loud in odd frames
    X = oracle.noise(4, 2, 8, 20) * np.stack([level, level[::-1]])[:, None]
    swapped = X.copy()
    swapped[:, ::2] = X[::-1, ::2]
    mix = torch.from_numpy(X.sum(axis=0))
    assert isms(torch.from_numpy(swapped), mix) > 1.5 * isms(torch.from_numpy(X), mix)


@pytest.mark.parametrize("level", [1e-12, 1e-3, 1e6])
def test_level_of_the_recording_does_not_matter(level):
    X, Y = (torch.from_numpy(oracle.noise(*shape)).to(torch.complex64) for shape in [(5, 2, 6, 7), (6, 6, 7)])
    torch.testing.assert_close(isms(level * X, level * Y), isms(X, Y), rtol=1e-4, atol=0)  # float32


def test_silent_frames_do_not_count():
    """So padding does not matter."""
    X, Y = torch.from_numpy(oracle.noise(7, 2, 6, 7)), torch.from_numpy(oracle.noise(8, 6, 7))
    padded = [torch.nn.functional.pad(x, (0, 4)) for x in (X, Y)]
    torch.testing.assert_close(isms(*padded), isms(X, Y), rtol=1e-12, atol=0)


def test_gradient():
    X = torch.from_numpy(oracle.noise(9, 2, 3, 4)).requires_grad_()
    Y = torch.from_numpy(oracle.noise(10, 3, 4))
    assert torch.autograd.gradcheck(lambda X: isms(X, Y), X)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("num_freqs", [3, 129, 257])
def test_silence(num_freqs, dtype):
    """Constant frames have no scatter at all, not a rounding error over a rounding error."""
    zero = torch.zeros(2, num_freqs, 5, dtype=dtype)
    sound = torch.from_numpy(oracle.noise(11, 2, num_freqs, 5)).to(dtype)
    for X, Y in [(zero, zero[0]), (sound, zero[0]), (zero, sound[0]), (sound, sound[0])]:
        X = X.clone().requires_grad_()
        actual = isms(X, Y)
        actual.backward()
        assert torch.isfinite(actual)
        assert torch.isfinite(torch.view_as_real(X.grad)).all()
        assert (actual > 0).item() == bool(X.detach().any() and Y.any())


@pytest.mark.parametrize("level", [1e-18, 1e-20, 1e-31, 1e-38, 1e-39, 1e-42, 1e-45])
def test_faint_mixtures(level):
    """Below 1e-19 a mixture is silent; above, its level does not matter. Gradients are finite throughout."""
    mix = torch.from_numpy(oracle.noise(0, 4, 6))
    images = torch.from_numpy(oracle.noise(1, 2, 4, 6))
    images[0, 1] = 0
    desired = oracle.isms(mix.numpy(), images.numpy()) if level > 1e-19 else 0
    mix, images = ((level * x).to(torch.complex64).requires_grad_() for x in (mix, images))
    loss = isms(images, mix)
    loss.backward()
    assert loss.item() == pytest.approx(desired, rel=1e-4)
    for spectrum in (mix, images):
        assert torch.isfinite(torch.view_as_real(spectrum.grad)).all()


def test_one_frequency_does_not_scatter():
    """The unbiased variance of one value is 0 / 0: here it means no scatter and no NaN gradient."""
    X = torch.from_numpy(oracle.noise(12, 2, 1, 5)).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = isms(X, X.detach()[0])
    actual.backward()
    assert actual == 0
    assert not X.grad.any()


def test_wrong_shapes_are_refused():
    X, Y = torch.zeros(4, 2, 6, 7), torch.zeros(4, 6, 7)
    for images, mix in [(X, Y[:3]), (X, Y[:, :5]), (X, Y[..., :5]), (X, X), (X[0, 0], Y[0, 0])]:
        with pytest.raises(ValueError, match="do not fit"):
            isms(images, mix)
