"""The distance of eq. (5): closed forms, the literal loop, silence."""

import numpy as np
import oracle
import pytest
import torch

from espnet2_m2m.loss import ri_mag_l1


def test_by_eye():
    """ref 3 + 4j and 0, est 0 and 1: (3 + 4 + 5) + (1 + 0 + 1) over 5."""
    ref = torch.tensor([[3.0 + 4.0j, 0.0]])
    est = torch.tensor([[0.0, 1.0 + 0.0j]])
    assert ri_mag_l1(est, ref).item() == pytest.approx(14 / 5)


def test_magnitude_error_ignores_the_phase():
    """est = j ref has no magnitude error; real and imaginary part err by |y| each for real y."""
    ref = torch.tensor([[1.0, 2.0]], dtype=torch.complex128)
    assert ri_mag_l1(1j * ref, ref).item() == pytest.approx(2.0)
    assert ri_mag_l1(-1 * ref, ref).item() == pytest.approx(2.0)
    assert ri_mag_l1(0 * ref, ref).item() == pytest.approx(2.0)
    assert ri_mag_l1(3 * ref, ref).item() == pytest.approx(4.0)
    assert ri_mag_l1(ref, ref).item() == 0


def test_as_oracle():
    est, ref = oracle.noise(0, 2, 3, 4, 7), oracle.noise(1, 2, 3, 4, 7)
    desired = [[oracle.distance(ref[b, r], est[b, r]) for r in range(3)] for b in range(2)]
    actual = ri_mag_l1(torch.from_numpy(est), torch.from_numpy(ref))
    np.testing.assert_allclose(actual, desired, rtol=1e-12)  # float64 rounding of sums


@pytest.mark.parametrize("level", [1e-12, 1e-3, 1e6])
def test_level_does_not_matter(level):
    """The denominator of eq. (5) balances mics and utterances, in float32 too."""
    est, ref = (torch.from_numpy(oracle.noise(s, 4, 7)).to(torch.complex64) for s in (2, 3))
    torch.testing.assert_close(
        ri_mag_l1(level * est, level * ref), ri_mag_l1(est, ref), rtol=1e-5, atol=0
    )  # float32 rounding of sums


def test_references_broadcast():
    est = torch.from_numpy(oracle.noise(4, 2, 3, 4, 7))
    ref = torch.from_numpy(oracle.noise(5, 4, 7))
    torch.testing.assert_close(ri_mag_l1(est, ref), ri_mag_l1(est, ref.expand(est.shape)))


def test_gradient():
    est = torch.from_numpy(oracle.noise(6, 2, 4)).requires_grad_()
    ref = torch.from_numpy(oracle.noise(7, 2, 4)).requires_grad_()
    assert torch.autograd.gradcheck(ri_mag_l1, (est, ref))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_silence(dtype):
    """A silent reference: zero when the estimate is silent too, else finite; gradients finite."""
    zero, one = torch.zeros(2, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype)
    for est, ref in [(zero, zero), (one, zero), (zero, one), (one, one)]:
        est = est.clone().requires_grad_()
        distance = ri_mag_l1(est, ref)
        distance.backward()
        assert torch.isfinite(distance)
        assert torch.isfinite(torch.view_as_real(est.grad)).all()
    assert ri_mag_l1(zero, zero) == 0
    assert ri_mag_l1(one, zero) > 1e6


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("num_units", [1, 64])  # torch takes other code for few numbers than for many
def test_denormal_units(num_units, dtype):
    """Numbers below the least normal one have a magnitude, but torch's gradient of it is NaN: they are as zero."""
    tiny = torch.finfo(dtype).tiny
    levels = torch.tensor([1.0, 0.5, 1e-3, 1e-6, 0.0], dtype=torch.float64)
    est = (levels * tiny).repeat(num_units)[None].to(dtype) * (0.6 + 0.8j)
    est.requires_grad_()
    ref = torch.ones_like(est).requires_grad_()
    ri_mag_l1(est, ref).sum().backward()
    # |1 - Re| + |Im| + |1 - |est||: all units pull alike on the real part, none on the imaginary part of a zero.
    assert torch.isfinite(torch.view_as_real(est.grad)).all() and torch.isfinite(torch.view_as_real(ref.grad)).all()
    for unit, level in enumerate(levels.repeat(num_units)):
        assert est.grad[0, unit].real.item() * len(ref[0]) == pytest.approx(-1.6 if level == 1 else -1.0, rel=1e-3)


@pytest.mark.parametrize("level", [1e-20, 1e-31, 1e-38, 1e-39, 1e-42, 1e-45])
def test_faint_references(level):
    """Whatever the level of both, the loss is at most that of ordinary numbers, and its gradients are finite."""
    ref, est = (torch.from_numpy(level * oracle.noise(seed, 4, 30)).to(torch.complex64) for seed in (0, 1))
    for spectrum in (ref, est):
        spectrum.requires_grad_()
    loss = ri_mag_l1(est, ref)
    loss.backward()
    assert 0 <= loss.item() < 6
    for spectrum in (ref, est):
        assert torch.isfinite(torch.view_as_real(spectrum.grad)).all()


def test_different_frames_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 4\) and ref \(2, 5\) need the same freq and frame"):
        ri_mag_l1(torch.zeros(2, 4), torch.zeros(2, 5))
