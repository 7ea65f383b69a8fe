"""PIT against a loop over all permutations, written out literally."""

import itertools

import pytest
import torch

from espnet2_m2m import pit_ri_mag


def spectra(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 5, 7, dtype=torch.complex128, generator=generator)


def literal(est, ref, mix):
    """(loss, order) of one utterance: every permutation, every bin."""
    losses = {}
    for order in itertools.permutations(range(len(ref))):
        total = 0.0
        for speaker, source in enumerate(order):
            for f in range(mix.shape[0]):
                for t in range(mix.shape[1]):
                    x, z = ref[speaker, f, t], est[source, f, t]
                    total += abs(x.real - z.real) + abs(x.imag - z.imag) + abs(abs(x) - abs(z))
        losses[order] = float(total / mix.abs().sum())
    return min(losses.values()), list(min(losses, key=losses.get))


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_against_all_permutations(sources):
    est, ref, mix = spectra(3, sources, seed=0), spectra(3, sources, seed=1), spectra(3, seed=2)
    loss, order = pit_ri_mag(est, ref, mix)
    for item in range(3):
        expected_loss, expected_order = literal(est[item], ref[item], mix[item])
        assert float(loss[item]) == pytest.approx(expected_loss, rel=1e-12)
        assert order[item].tolist() == expected_order


def test_exchanged_estimates_have_loss_zero_and_the_right_gradient():
    ref, mix = spectra(1, 2, seed=1), spectra(1, seed=2)
    est = ref.flip(1).clone().requires_grad_()
    loss, order = pit_ri_mag(est, ref, mix)
    assert loss.item() == 0 and order.tolist() == [[1, 0]]
    est = (ref.flip(1) * 1.1).requires_grad_()
    pit_ri_mag(est, ref, mix)[0].sum().backward()
    with torch.no_grad():
        assert float(pit_ri_mag(est - 1e-3 * est.grad, ref, mix)[0]) < float(pit_ri_mag(est, ref, mix)[0])


def test_silent_talker_is_harmless():
    est, ref, mix = spectra(1, 2, seed=0), spectra(1, 2, seed=1), spectra(1, seed=2)
    ref[:, 0] = 0
    assert float(pit_ri_mag(est, ref, mix)[0]) < 10


def test_criterion_calls_are_of_the_order_of_the_square_of_the_sources():
    """Twelve sources have 479,001,600 permutations."""
    est = spectra(1, 12, seed=0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert pit_ri_mag(est, est[:, order], spectra(1, seed=2))[1].tolist() == [order.tolist()]


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="must both be"):
        pit_ri_mag(spectra(1, 2, seed=0), spectra(1, 3, seed=0), spectra(1, seed=0))
