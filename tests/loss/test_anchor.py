"""The anchor: wearer d alone explains headset d; it sees frequency permutations; its fade."""

import itertools

import numpy as np
import oracle
import pytest
import torch

from espnet2_m2m.loss import MixtureConstraintLoss
from espnet2_m2m.loss.anchor import anchor_loss, faded_weight

TAPS = {"closetalk_past_taps": 3, "closetalk_future_taps": 1, "farfield_past_taps": 3, "farfield_future_taps": 1}


def tensor(*arrays):
    return [torch.from_numpy(array[None]) for array in arrays]


@pytest.mark.parametrize("num_sources, num_headsets", [(2, 2), (3, 2), (3, 1), (4, 4)])
def test_as_oracle(num_sources, num_headsets):
    """Images at random: mic d is compared with source d of the source axis, no other."""
    X = oracle.noise(0, 2, num_headsets, num_sources, 3, 5)
    Y = oracle.noise(1, 2, num_headsets, 3, 5)
    desired = [[oracle.distance(Y[b, d], X[b, d, d]) for d in range(num_headsets)] for b in range(2)]
    actual = anchor_loss(torch.from_numpy(X), torch.from_numpy(Y))
    np.testing.assert_allclose(actual, desired, rtol=1e-12)  # float64 rounding of sums


@pytest.mark.parametrize("num_sources, num_headsets", [(2, 2), (3, 2), (3, 3)])
def test_free_order_is_the_best_of_all_assignments(num_sources, num_headsets):
    X = oracle.noise(2, 6, num_headsets, num_sources, 3, 5)
    Y = oracle.noise(3, 6, num_headsets, 3, 5)
    X[1, 0, 1] = Y[1, 0]  # in one utterance, headset 0 is clearly source 1's
    desired, chosen = [], set()
    for b in range(6):
        sums = {
            wearers: [oracle.distance(Y[b, d], X[b, d, c]) for d, c in enumerate(wearers)]
            for wearers in itertools.permutations(range(num_sources), num_headsets)
        }
        best = min(sums, key=lambda wearers: sum(sums[wearers]))
        desired.append(sums[best])
        chosen.add(best)
    assert len(chosen) > 1, "each utterance has its own assignment"
    actual = anchor_loss(torch.from_numpy(X), torch.from_numpy(Y), order="free")
    np.testing.assert_allclose(actual, desired, rtol=1e-12)  # float64 rounding of sums


def test_free_order_forgives_an_exchange_of_all_frequencies_only():
    Z, far_field, close_talk = tensor(*oracle.scene(3, num_freqs=6, num_frames=30))
    loss = MixtureConstraintLoss(anchor_weight=1.0, anchor_order="free", **TAPS)
    _, right = loss(Z, far_field, close_talk)
    _, exchanged = loss(Z.flip(1), far_field, close_talk)
    torch.testing.assert_close(exchanged["anchor"], right["anchor"], rtol=1e-12, atol=0)
    partly = Z.clone()
    partly[:, :, ::2] = Z.flip(1)[:, :, ::2]
    _, wrong = loss(partly, far_field, close_talk)
    assert wrong["anchor"] > 1.2 * right["anchor"]


def test_unknown_order_is_refused():
    with pytest.raises(ValueError, match="anchor_order must be one of"):
        MixtureConstraintLoss(anchor_order="loose")


def test_more_headsets_than_sources_are_refused():
    X, Y = torch.zeros(1, 3, 2, 4, 5), torch.zeros(1, 3, 4, 5)
    with pytest.raises(ValueError, match="2 sources and 3 close-talk mixtures"):
        anchor_loss(X, Y)


@pytest.mark.parametrize(
    "exchanged",
    [pytest.param(slice(None, None, 2), id="every second frequency"), pytest.param(slice(None), id="all frequencies")],
)
def test_frequency_permutation(exchanged):
    """MC (3) cannot see the speakers exchanged in some frequencies, or in all; the anchor can."""
    Z, far_field, close_talk = tensor(*oracle.scene(3, num_freqs=6, num_frames=30))
    swapped = Z.clone()
    swapped[:, :, exchanged] = Z.flip(1)[:, :, exchanged]
    loss = MixtureConstraintLoss(anchor_weight=1.0, **TAPS)
    _, right = loss(Z, far_field, close_talk)
    _, wrong = loss(swapped, far_field, close_talk)
    # Equal but for the order of the sums: float64 rounding.
    for name in ("mc", "mc_far_field", "mc_close_talk"):
        torch.testing.assert_close(wrong[name], right[name], rtol=1e-12, atol=0)
    assert wrong["anchor"] > 1.2 * right["anchor"]


def test_source_without_headset_is_not_anchored():
    """A third source changes nothing in the anchor of the first two."""
    Z, far_field, close_talk = tensor(*oracle.scene(4, num_sources=3))
    loss = MixtureConstraintLoss(anchor_weight=1.0, **TAPS)
    _, desired = loss(Z[:, :2], far_field, close_talk)
    _, actual = loss(Z, far_field, close_talk)
    torch.testing.assert_close(actual["anchor"], desired["anchor"], rtol=1e-12, atol=0)
    assert (actual["mc"] - desired["mc"]).abs() > 1e-3


@pytest.mark.parametrize(
    "step, desired", [(0, 0.3), (99, 0.3), (100, 0.3), (150, 0.15), (175, 0.075), (200, 0.0), (10**6, 0.0)]
)
def test_fade(step, desired):
    assert faded_weight(0.3, (100, 200), step) == pytest.approx(desired)
    assert faded_weight(0.3, None, step) == 0.3


def anchor_weight_of_next_call(loss, inputs):
    """The weight in force, found from the loss itself."""
    value, stats = loss(*inputs)
    return ((value - stats["mc"]) / stats["anchor"]).item()


def test_fade_counts_training_calls_only():
    inputs = tensor(*oracle.scene(5))
    loss = MixtureConstraintLoss(anchor_weight=0.8, anchor_fade=(1, 5), **TAPS)
    desired = [0.8, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]
    actual = []
    for _ in desired:
        loss.train()
        weight = anchor_weight_of_next_call(loss, inputs)
        actual.append(weight)
        loss.eval()  # a validation between the steps does not count
        anchor_weight_of_next_call(loss, inputs)
    np.testing.assert_allclose(actual, desired, atol=1e-12)


def test_fade_goes_on_after_a_checkpoint(tmp_path):
    inputs = tensor(*oracle.scene(5))
    options = dict(anchor_weight=0.8, anchor_fade=(1, 5), **TAPS)
    interrupted = MixtureConstraintLoss(**options)
    for _ in range(3):
        interrupted(*inputs)
    torch.save(interrupted.state_dict(), tmp_path / "checkpoint.pt")
    resumed = MixtureConstraintLoss(**options)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt"))
    desired = anchor_weight_of_next_call(interrupted, inputs)
    actual = anchor_weight_of_next_call(resumed, inputs)
    assert desired == pytest.approx(0.4)
    assert actual == desired


@pytest.mark.parametrize("fade", [(5, 5), (5, 4), (-1, 4), [1], 5, ("1", 5)])
def test_wrong_fade_is_refused(fade):
    with pytest.raises(ValueError, match="anchor_fade must be two steps"):
        MixtureConstraintLoss(anchor_fade=fade)
