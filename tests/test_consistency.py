"""Mixture consistency: the formula in loops, sums, silence, known silence, gradients."""

import numpy as np
import oracle
import pytest
import torch

from espnet2_m2m import mixture_consistency


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_as_the_formula(power, num_sources):
    X, Y = oracle.noise(0, 2, num_sources, 4, 5), oracle.noise(1, 2, 4, 5)
    active = np.random.default_rng(2).random((2, num_sources, 5)) < 0.6
    desired = [oracle.mixture_consistency(*batch[:2], power, batch[2]) for batch in zip(X, Y, active)]
    actual = mixture_consistency(torch.from_numpy(X), torch.from_numpy(Y), power, torch.from_numpy(active))
    np.testing.assert_allclose(actual, desired, rtol=1e-12)


def test_results_add_up_to_the_mixture():
    X, Y = torch.from_numpy(oracle.noise(3, 1, 3, 4, 5)), torch.from_numpy(oracle.noise(4, 1, 4, 5))
    torch.testing.assert_close(mixture_consistency(X, Y).sum(1), Y, rtol=1e-12, atol=0)
    already = X * (Y / X.sum(1))[:, None]
    torch.testing.assert_close(mixture_consistency(already, Y), already, rtol=1e-12, atol=0)


def test_who_is_silent_takes_no_share():
    """An image of zeros stays so beside another, and an image known to be wrong gets no more of the mixture."""
    X, Y = torch.from_numpy(oracle.noise(5, 1, 2, 4, 5)), torch.from_numpy(oracle.noise(6, 1, 4, 5))
    silent = X * torch.tensor([1, 0]).reshape(1, 2, 1, 1)
    result = mixture_consistency(silent, Y)
    assert (result[:, 1] == 0).all()
    torch.testing.assert_close(result[:, 0], Y, rtol=1e-12, atol=0)
    result = mixture_consistency(X, Y, active=torch.tensor([[True, False]]))
    assert torch.equal(result[:, 1], X[:, 1])
    torch.testing.assert_close(result[:, 0], Y - X[:, 1], rtol=1e-12, atol=0)


def test_nothing_heard_or_nobody_active():
    X, Y = (
        torch.zeros(1, 2, 4, 5, dtype=torch.complex64),
        torch.from_numpy(oracle.noise(7, 1, 4, 5)).to(torch.complex64),
    )
    torch.testing.assert_close(mixture_consistency(X, Y), (Y / 2)[:, None].expand_as(X))
    assert torch.equal(mixture_consistency(X, Y, active=torch.zeros(1, 2, dtype=torch.bool)), X)


@pytest.mark.parametrize("level", [1e-42, 1e-39, 1e-20, 1e15])
@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_faint_and_loud_images_stay_finite(level, power):
    """Squares of 1e-39 are zero in float32; quotients of two of them would be NaN."""
    X = (level * torch.from_numpy(oracle.noise(8, 1, 2, 4, 5))).to(torch.complex64).requires_grad_()
    Y = torch.from_numpy(oracle.noise(9, 1, 4, 5)).to(torch.complex64)
    result = mixture_consistency(X, Y, power)
    assert torch.isfinite(torch.view_as_real(result)).all()
    torch.testing.assert_close(result.sum(1), Y, rtol=1e-5, atol=1e-6 * max(level, 1))
    result.abs().square().sum().backward()
    assert torch.isfinite(torch.view_as_real(X.grad)).all()


def test_gradients():
    X = torch.from_numpy(oracle.noise(10, 1, 2, 2, 3)).requires_grad_()
    Y = torch.from_numpy(oracle.noise(11, 1, 2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(mixture_consistency, (X, Y))
    X = torch.zeros(1, 2, 2, 3, dtype=torch.complex64, requires_grad=True)
    mixture_consistency(X, Y.detach().to(torch.complex64)).abs().sum().backward()
    assert torch.isfinite(torch.view_as_real(X.grad)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mix": torch.zeros(1, 4, 6, dtype=torch.complex64)}, "mix must be complex"),
        ({"power": -1}, "power must be >= 0, found -1"),
        ({"power": float("nan")}, "power must be >= 0"),
        ({"active": torch.ones(1, 2)}, "active must be bool"),
        ({"active": torch.ones(1, 3, dtype=torch.bool)}, "active must be bool"),
        ({"images": torch.zeros(2, 4, 5, dtype=torch.complex64)}, "images must be a complex"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {
        "images": torch.zeros(1, 2, 4, 5, dtype=torch.complex64),
        "mix": torch.zeros(1, 4, 5, dtype=torch.complex64),
    }
    with pytest.raises(ValueError, match=message):
        mixture_consistency(**good | change)
