"""The mixture-constraint loss against the literal equations: values, gradients, batch, silence."""

import itertools

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet2_m2m import fcp_weight, forward_convolutive_prediction
from espnet2_m2m.loss import MixtureConstraintLoss

# I, J, M, N all different, so that no two can be exchanged unseen.
TAPS = {"closetalk_past_taps": 3, "closetalk_future_taps": 1, "farfield_past_taps": 2, "farfield_future_taps": 0}
ORACLE_TAPS = {"closetalk_taps": (3, 1), "farfield_taps": (2, 0)}

# Settings that the class and the oracle call by the same name.
SETTINGS = [
    pytest.param({}, id="eq. (3)"),
    pytest.param({"alpha": 0.2}, id="alpha"),
    pytest.param({"anchor_weight": 0.7}, id="anchor"),
    pytest.param({"isms_weight": 0.3}, id="ISMS"),
    pytest.param({"ref_mic": 1, "ref_mic_weight": 0.2}, id="reference mic"),
    pytest.param(
        {"alpha": 0.4, "anchor_weight": 0.7, "isms_weight": 0.3, "ref_mic": 2, "ref_mic_weight": 0.2}, id="all"
    ),
]
MIXES = [pytest.param(True, id="M2M"), pytest.param(False, id="UNSSOR")]

# float64 rounding, 1e-16, times a condition number of at most 1e5 * taps, and sums.
RTOL = 1e-8


def batch(*items):
    """Utterances (Z, far_field, close_talk) -> one tensor each, with a batch axis."""
    return [torch.from_numpy(np.stack(parts)) for parts in zip(*items)]


def assert_same(actual, desired, rtol=RTOL):
    """Two (loss, stats)."""
    torch.testing.assert_close(actual[0], desired[0], rtol=rtol, atol=0)
    assert actual[1].keys() == desired[1].keys()
    for name in desired[1]:
        torch.testing.assert_close(actual[1][name], desired[1][name], rtol=rtol, atol=1e-12)


def loss_and_gradient(loss, est, *args, **kwargs):
    est = est.detach().clone().requires_grad_()
    value, _ = loss(est, *args, **kwargs)
    value.sum().backward()
    return value.detach(), est.grad


def assert_finite(*tensors):
    for tensor in tensors:
        assert torch.isfinite(torch.view_as_real(tensor) if tensor.is_complex() else tensor).all()


# ---- the literal equations -----------------------------------------------------------------------


@pytest.mark.parametrize("with_close_talk", MIXES)
@pytest.mark.parametrize("options", SETTINGS)
def test_as_oracle(options, with_close_talk):
    items = [oracle.scene(seed) for seed in (1, 2)]
    Z, far_field, close_talk = batch(*items)
    actual, stats = MixtureConstraintLoss(**TAPS, **options)(
        Z.requires_grad_(), far_field, close_talk if with_close_talk else None
    )
    assert actual.shape == (2,)
    assert actual.requires_grad
    for b, (Z_b, Y_p, Y_d) in enumerate(items):
        desired, parts = oracle.loss(Z_b, Y_p, Y_d if with_close_talk else None, **ORACLE_TAPS, **options)
        assert actual[b].item() == pytest.approx(desired, rel=RTOL)
        for name in stats:
            assert stats[name][b].item() == pytest.approx(parts[name], rel=RTOL), name
    desired_names = {"mc", "mc_far_field"}
    desired_names |= {"isms"} if "isms_weight" in options else set()
    if with_close_talk:
        desired_names |= {"mc_close_talk"} | ({"anchor"} if "anchor_weight" in options else set())
    assert stats.keys() == desired_names
    assert not any(value.requires_grad for value in stats.values())


def test_default_taps_are_the_papers():
    """19/1/19/1, and all else as in eq. (3)."""
    Z, Y_p, Y_d = oracle.scene(3, num_freqs=2, num_frames=25)
    actual, stats = MixtureConstraintLoss()(*batch((Z, Y_p, Y_d)))
    desired, _ = oracle.loss(Z, Y_p, Y_d, (19, 1), (19, 1))
    assert actual.item() == pytest.approx(desired, rel=RTOL)
    assert stats["mc"].item() == actual.item()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    num_sources=st.integers(1, 3),
    num_far=st.integers(1, 3),
    num_close=st.integers(0, 3),
    num_frames=st.integers(1, 8),
    taps=st.tuples(*[st.integers(0, 3)] * 4),
    alpha=st.floats(0, 2),
    floor=st.sampled_from([1e-4, 1e-2]),
    diag_load=st.sampled_from([1e-5, 1e-3]),
)
def test_any_shape_as_oracle(seed, num_sources, num_far, num_close, num_frames, taps, alpha, floor, diag_load):
    """More and fewer sources than headsets, one mic, one frame, fewer frames than taps."""
    Z, Y_p, Y_d = oracle.scene(seed % 1000, num_sources, num_far, num_close, 2, num_frames)
    inputs = batch((Z, Y_p, Y_d))
    if not num_close:
        inputs[2] = Y_d = None
    actual, _ = MixtureConstraintLoss(*taps, alpha=alpha, floor=floor, diag_load=diag_load)(*inputs)
    desired, _ = oracle.loss(Z, Y_p, Y_d, taps[:2], taps[2:], alpha, xi=floor, load=diag_load)
    # A loss near zero, one source explaining one mic, is a difference of nearly equal numbers.
    assert actual.item() == pytest.approx(desired, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("with_close_talk", MIXES)
def test_gradient_as_finite_differences_of_the_oracle(with_close_talk):
    """Through the filters: not only the code's own consistency, but the paper's function."""
    options = {"alpha": 0.4, "anchor_weight": 0.7, "isms_weight": 0.3, "ref_mic_weight": 0.2}
    Z, Y_p, Y_d = oracle.scene(4, num_far=2, num_freqs=2, num_frames=6)
    inputs = batch((Z, Y_p, Y_d))
    if not with_close_talk:
        inputs[2] = Y_d = None
    desired = oracle.gradient(lambda Z: oracle.loss(Z, Y_p, Y_d, (2, 1), (1, 0), **options)[0], Z)
    _, actual = loss_and_gradient(MixtureConstraintLoss(2, 1, 1, 0, **options), *inputs)
    # Central differences with step 1e-6: rounding 1e-16 * loss / step = 1e-9, magnified by the
    # condition number of the filters; the gradient itself is about 1.
    np.testing.assert_allclose(actual[0], desired, rtol=0, atol=1e-6)
    assert np.abs(desired).max() > 0.1


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 6])])
def test_gradcheck(lengths):
    est, far_field, close_talk = batch(*(oracle.scene(seed, num_far=2, num_freqs=2, num_frames=6) for seed in (5, 6)))
    loss = MixtureConstraintLoss(1, 1, 1, 0, anchor_weight=0.7, isms_weight=0.3)
    est.requires_grad_()
    assert torch.autograd.gradcheck(lambda est: loss(est, far_field, close_talk, lengths)[0], est, fast_mode=True)


@pytest.mark.parametrize("with_close_talk", MIXES)
def test_gradcheck_of_the_mixtures(with_close_talk):
    """A front end may be trained too. Once FCP took the mixtures for constants and the distance (5) did not: what
    reached them was neither the loss's gradient nor none."""
    est, *mixes = batch(*(oracle.scene(seed, num_far=2, num_freqs=2, num_frames=6) for seed in (5, 6)))
    mixes = [mix.requires_grad_() for mix in mixes[: 1 + with_close_talk]]
    loss = MixtureConstraintLoss(1, 1, 2, 0, anchor_weight=0.7 * with_close_talk, isms_weight=0.3)
    lengths = torch.tensor([4, 6])

    def of_all(est, far_field, close_talk=None):
        return loss(est, far_field, close_talk, lengths)[0]

    assert torch.autograd.gradcheck(of_all, (est.requires_grad_(), *mixes), fast_mode=True)


@pytest.mark.parametrize("order", ["fixed", "free"])
@pytest.mark.parametrize("num_sources, num_headsets", [(3, 2), (2, 1), (3, 1), (4, 4)])
def test_sources_without_headset(num_sources, num_headsets, order):
    """Sources, such as noise or talkers without a headset, are summed in eq. (3), but not anchored."""
    Z, Y_p, Y_d = oracle.scene(16, num_sources, num_close=num_headsets)
    desired = min(
        oracle.loss(Z[list(wearers)], Y_p, Y_d, **ORACLE_TAPS, anchor_weight=0.7)[0]
        for wearers in itertools.permutations(range(num_sources))
        if order == "free" or wearers == tuple(range(num_sources))
    )
    actual, _ = MixtureConstraintLoss(**TAPS, anchor_weight=0.7, anchor_order=order)(*batch((Z, Y_p, Y_d)))
    assert actual.item() == pytest.approx(desired, rel=RTOL)


def test_more_headsets_than_sources():
    """Eq. (3) holds for them too; the anchor has nobody for the third."""
    Z, Y_p, Y_d = oracle.scene(17, num_sources=2, num_close=3)
    desired, _ = oracle.loss(Z, Y_p, Y_d, **ORACLE_TAPS)
    actual, _ = MixtureConstraintLoss(**TAPS)(*batch((Z, Y_p, Y_d)))
    assert actual.item() == pytest.approx(desired, rel=RTOL)
    with pytest.raises(ValueError, match="2 sources and 3 close-talk mixtures"):
        MixtureConstraintLoss(**TAPS, anchor_weight=0.7)(*batch((Z, Y_p, Y_d)))


@pytest.mark.parametrize("past_taps, future_taps", [(2, 0), (2, 1)])
def test_true_sources_satisfy_the_constraint(past_taps, future_taps):
    """Sources that take turns, and so are uncorrelated at all lags: the loss (3) is zero."""
    Z = oracle.noise(7, 2, 3, 60)
    Z[0, :, 27:] = 0
    Z[1, :, :33] = 0
    mics = []
    for r in range(5):
        g = oracle.noise(8 + r, 2, 3, 3)
        mics.append(sum(oracle.convolve(Z[c], g[c], past=2) for c in range(2)))
    inputs = batch((Z, np.array(mics[:3]), np.array(mics[3:])))
    taps = (past_taps, future_taps, past_taps, future_taps)
    right, _ = MixtureConstraintLoss(*taps, diag_load=1e-12)(*inputs)
    assert right.item() < 1e-6
    wrong, _ = MixtureConstraintLoss(1, 1, 1, 1, diag_load=1e-12)(*inputs)  # the filters reach -2
    assert wrong.item() > 0.5


# ---- the parts and their weights -----------------------------------------------------------------


def test_alpha_weighs_the_far_field():
    inputs = batch(oracle.scene(9))
    for alpha in (0.0, 0.2, 1.0, 3.0):
        value, stats = MixtureConstraintLoss(**TAPS, alpha=alpha)(*inputs)
        desired = stats["mc_close_talk"] + alpha * stats["mc_far_field"]
        torch.testing.assert_close(value, desired, rtol=1e-12, atol=0)


def test_reference_mic_weight():
    """Zero leaves the reference mic's error out, not the mic: its power still weighs the others."""
    Z, Y_p, _ = oracle.scene(10)
    est, far_field = batch((Z, Y_p))
    lam = [oracle.farfield_weight(Y_p)] * 3
    X, _ = oracle.fcp(Z, Y_p, lam, 2, 0)
    desired = sum(oracle.mixture_constraint(Y_p[p], X[p]) for p in (0, 2))
    actual, stats = MixtureConstraintLoss(**TAPS, ref_mic=1, ref_mic_weight=0.0)(est, far_field)
    assert actual.item() == pytest.approx(desired, rel=RTOL)
    assert stats["mc_far_field"] > actual  # the statistics are not weighted


def test_copied_input_satisfies_one_far_field_mic():
    """Why alpha < 1 with one mic: Z = Y makes its constraint zero (Table III, alpha = 1)."""
    _, Y_p, Y_d = oracle.scene(11, num_far=1)
    _, stats = MixtureConstraintLoss(**TAPS)(*batch((Y_p, Y_p, Y_d)))
    assert stats["mc_far_field"] < 1e-3  # due to the diagonal loading
    assert stats["mc_close_talk"] > 0.1


def test_order_of_sources_and_mics_does_not_matter_to_eq_3():
    Z, Y_p, Y_d = oracle.scene(12)
    loss = MixtureConstraintLoss(**TAPS)
    desired = loss(*batch((Z, Y_p, Y_d)))
    assert_same(loss(*batch((Z[::-1], Y_p, Y_d))), desired)
    assert_same(loss(*batch((Z, Y_p[::-1], Y_d[::-1]))), desired)


def test_farfield_images():
    """At the far-field mics, and at other mics with the weight of the far-field ones."""
    Z, Y_p, Y_d = oracle.scene(13)
    est, far_field, other = batch((Z, Y_p, Y_d))
    loss = MixtureConstraintLoss(**TAPS)
    lam = oracle.farfield_weight(Y_p)
    for target, Y in [(None, Y_p), (other, Y_d), (far_field[:, :1], Y_p[:1])]:
        desired, _ = oracle.fcp(Z, Y, [lam] * len(Y), 2, 0)
        actual = loss.farfield_images(est, far_field, target=target)
        np.testing.assert_allclose(actual[0], desired, rtol=RTOL, atol=1e-9)


# ---- invariances ---------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), decades=st.integers(-12, 12))
def test_scaling_the_estimates_leaves_the_loss(seed, decades):
    """By a complex number for each source and frequency; the gradient scales inversely."""
    est, far_field, close_talk = batch(oracle.scene(seed % 1000, num_frames=8))
    scale = torch.from_numpy(10.0**decades * oracle.noise(seed, 2, 3, 1))
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0, isms_weight=0.1)
    desired, gradient = loss_and_gradient(loss, est, far_field, close_talk)
    actual, scaled_gradient = loss_and_gradient(loss, scale * est, far_field, close_talk)
    torch.testing.assert_close(actual, desired, rtol=RTOL, atol=0)
    torch.testing.assert_close(scaled_gradient * scale.conj(), gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype, rtol", [(torch.complex128, RTOL), (torch.complex64, 1e-4)])
@pytest.mark.parametrize("level", [1e-10, 1e-2, 1e4])
def test_level_of_the_recording_does_not_matter(level, dtype, rtol):
    """Headsets and far-field mics may have gains of their own; 1e-4: see the float32 test below."""
    est, far_field, close_talk = (x.to(dtype) for x in batch(oracle.scene(14)))
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0, isms_weight=0.1)
    assert_same(loss(est, level * far_field, close_talk / level), loss(est, far_field, close_talk), rtol)


def levels(*values):
    """Scenes of very different levels; 0 is an all-zero utterance."""
    return [[level * x for x in oracle.scene(30 + b)] for b, level in enumerate(values)]


@pytest.mark.parametrize("options", SETTINGS)
def test_batch_is_its_items_one_by_one(options):
    """Were lambda's maximum taken over the batch, the loud item would flatten all other weights."""
    items = levels(1.0, 1e3, 0.0, 1e-3)
    loss = MixtureConstraintLoss(**TAPS, **options)
    actual, gradient = loss_and_gradient(loss, *batch(*items))
    for b, item in enumerate(items):
        desired, desired_gradient = loss_and_gradient(loss, *batch(item))
        torch.testing.assert_close(actual[b : b + 1], desired, rtol=RTOL, atol=0)
        torch.testing.assert_close(gradient[b : b + 1], desired_gradient, rtol=1e-6, atol=1e-9)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    padding=st.integers(0, 5),
    options=st.sampled_from([p.values[0] for p in SETTINGS]),
    with_close_talk=st.booleans(),
)
def test_padding_has_no_influence(seed, lengths, padding, options, with_close_talk):
    """With `lengths`, an utterance in a padded batch has the loss and gradient it has alone.

    The padding holds noise, louder than the utterances: nothing may look at it.
    """
    num_frames = max(lengths) + padding
    items = [oracle.scene(seed + b, num_frames=n) for b, n in enumerate(lengths)]
    padded = [
        [np.concatenate([x, 100 * oracle.noise(b, *x.shape[:2], num_frames - n)], axis=2) for x in item]
        for b, (item, n) in enumerate(zip(items, lengths))
    ]
    loss = MixtureConstraintLoss(**TAPS, **options)
    inputs = batch(*padded)
    if not with_close_talk:
        inputs[2] = None
    actual, gradient = loss_and_gradient(loss, *inputs, lengths=torch.tensor(lengths))
    _, stats = loss(*inputs, lengths=torch.tensor(lengths))
    for b, (item, n) in enumerate(zip(items, lengths)):
        inputs = batch(item)
        if not with_close_talk:
            inputs[2] = None
        desired, desired_gradient = loss_and_gradient(loss, *inputs)
        _, desired_stats = loss(*inputs)
        assert_same(
            (actual[b : b + 1], {name: value[b : b + 1] for name, value in stats.items()}),
            (desired, desired_stats),
            rtol=1e-7,
        )
        torch.testing.assert_close(gradient[b : b + 1, ..., :n], desired_gradient, rtol=1e-6, atol=1e-8)
        assert not gradient[b, ..., n:].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38, 1e-42])
def test_anything_may_stand_in_the_padding(value):
    """Memory that nobody wrote, say. The neighbour in the batch, without padding, has its own loss as well."""
    inputs = [x.to(torch.complex64) for x in batch(*levels(1.0, 1.0))]
    lengths = torch.tensor([7, 12])
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0, isms_weight=0.1)
    desired, desired_gradient = loss_and_gradient(loss, *inputs, lengths=lengths)
    for spectrum in inputs:
        spectrum[0, ..., 7:] = complex(value, value)
    actual, gradient = loss_and_gradient(loss, *inputs, lengths=lengths)
    assert torch.equal(actual, desired) and torch.equal(gradient, desired_gradient)


def test_zero_padding_as_no_padding():
    """The usual case: zeros behind the utterance, in float32, and images that are zero there."""
    item = batch(oracle.scene(15))
    est, far_field, close_talk = (x.to(torch.complex64) for x in item)
    padded = [torch.nn.functional.pad(x, (0, 7)) for x in (est, far_field, close_talk)]
    lengths = torch.tensor([12])
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0, isms_weight=0.1)
    # float32 rounding of sums of another length
    assert_same(loss(*padded, lengths), loss(est, far_field, close_talk), rtol=1e-4)
    actual = loss.farfield_images(padded[0], padded[1], lengths)
    desired = loss.farfield_images(est, far_field)
    torch.testing.assert_close(actual[..., :12], desired, rtol=0, atol=1e-4)
    assert not actual[..., 12:].any()


def test_full_lengths_as_none():
    inputs = batch(*levels(1.0, 2.0))
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0, isms_weight=0.1)
    assert_same(loss(*inputs, torch.tensor([12, 12])), loss(*inputs), rtol=1e-12)


# ---- precision -----------------------------------------------------------------------------------


def test_compiled_loss_is_the_loss():
    """torch's compiler once ended in an IndexError within FCP; and what it made of the weights alone was wrong."""
    est, far_field, close_talk = batch(*(oracle.scene(seed) for seed in (1, 2)))
    loss = MixtureConstraintLoss(anchor_weight=0.7, anchor_order="free", isms_weight=0.3).eval()
    inputs = est, far_field, close_talk, torch.tensor([9, 12])
    compiled = torch.compile(loss)
    for actual, desired in zip(loss_and_gradient(compiled, *inputs), loss_and_gradient(loss, *inputs)):
        assert torch.equal(actual, desired)
    assert_same(compiled(*inputs), loss(*inputs), rtol=0)


def test_compiled_surroundings():
    """Of the loss and of FCP, which stay as they are within what is compiled; it is without code generation here."""
    est, far_field, close_talk = batch(*(oracle.scene(seed) for seed in (1, 2)))
    loss = MixtureConstraintLoss(**TAPS)

    def step(est):
        images, _ = forward_convolutive_prediction(2 * est, far_field, fcp_weight(far_field, shared=True))
        return loss(2 * est, far_field, close_talk)[0] + images.abs().sum(), None

    compiled = torch.compile(step, backend="aot_eager")
    for actual, desired in zip(loss_and_gradient(compiled, est), loss_and_gradient(step, est)):
        torch.testing.assert_close(actual, desired, rtol=RTOL, atol=1e-9)


@pytest.mark.parametrize("options", SETTINGS)
def test_float32_against_float64(options):
    """The covariance's rounding, 6e-8, over its loading, 1e-5, is 6e-3 in the least certain parts
    of a filter, and so of a gradient; the loss moves by much less: 1e-4."""
    inputs = batch(*levels(1.0, 1e3, 1e-3))
    loss = MixtureConstraintLoss(**TAPS, **options)
    desired, desired_gradient = loss_and_gradient(loss, *inputs)
    actual, gradient = loss_and_gradient(loss, *(x.to(torch.complex64) for x in inputs))
    assert (actual.dtype, gradient.dtype) == (torch.float32, torch.complex64)
    assert (desired.dtype, desired_gradient.dtype) == (torch.float64, torch.complex128)
    torch.testing.assert_close(actual.double(), desired, rtol=1e-4, atol=0)
    error = (gradient - desired_gradient).abs().flatten(1).amax(1)
    assert (error < 1e-2 * desired_gradient.abs().flatten(1).amax(1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_change_values(dtype):
    inputs = [x.to(torch.complex64) for x in batch(oracle.scene(16))]
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0, isms_weight=0.1)
    desired, desired_gradient = loss_and_gradient(loss, *inputs)
    with torch.autocast("cpu", dtype):  # forward and backward
        actual, gradient = loss_and_gradient(loss, *inputs)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, desired)
    assert torch.equal(gradient, desired_gradient)


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
def test_half_precision_input_is_computed_in_float32():
    half = [x.to(torch.complex32) for x in batch(oracle.scene(17))]
    loss = MixtureConstraintLoss(**TAPS, anchor_weight=1.0)
    actual, _ = loss(*half)
    desired, _ = loss(*(x.to(torch.complex64) for x in half))
    assert actual.dtype == torch.float32
    assert torch.equal(actual, desired)


# ---- silence and other degenerate input ----------------------------------------------------------


def degenerate(name):
    """(Z, far_field, close_talk) with the defect called `name`."""
    if name in ("one frame", "two frames", "fewer frames than taps"):
        return oracle.scene(18, num_frames={"one frame": 1, "two frames": 2}.get(name, 4))
    if name == "one frequency":
        return oracle.scene(18, num_freqs=1)
    if name == "one source, one mic":
        return oracle.scene(18, num_sources=1, num_far=1, num_close=1)
    Z, Y_p, Y_d = oracle.scene(18)
    if name in ("silent source", "all zero"):
        Z[0] = 0
    if name in ("silent frequency", "all zero"):
        Z[1, 1] = 0
        Y_p[:, 1] = 0
        Y_d[:, 1] = 0
    if name in ("silent far-field mic", "all zero"):
        Y_p[0] = 0
    if name in ("silent headset", "all zero"):
        Y_d[1] = 0
    if name in ("silent mixtures", "all zero"):
        Y_p[:] = 0
        Y_d[:] = 0
    if name in ("silent estimates", "all zero"):
        Z[:] = 0
    if name == "mostly silent":  # one active frame
        Z[..., 1:] = 0
        Y_p[..., :-1] = 0
        Y_d[..., :-1] = 0
    if name == "equal sources":
        Z[1] = Z[0]
    if name == "constant estimates":  # covariance of rank one
        Z[:] = 1.0
    if name == "huge estimates":  # the network diverges
        Z *= 1e12
    return Z, Y_p, Y_d


DEGENERATE = [
    "one frame",
    "two frames",
    "fewer frames than taps",
    "one frequency",
    "one source, one mic",
    "silent source",
    "silent frequency",
    "silent far-field mic",
    "silent headset",
    "silent mixtures",
    "silent estimates",
    "all zero",
    "mostly silent",
    "equal sources",
    "constant estimates",
    "huge estimates",
]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_input(name, dtype):
    """Finite value and gradient, the oracle's value, and no effect on a neighbour in the batch."""
    isms_weight = 0.0 if name == "one frequency" else 0.3  # one value has no variance
    options = {"alpha": 0.5, "anchor_weight": 0.7, "isms_weight": isms_weight}
    item = degenerate(name)
    loss = MixtureConstraintLoss(4, 1, 3, 1, **options)
    inputs = [x.to(dtype) for x in batch(item)]
    actual, gradient = loss_and_gradient(loss, *inputs)
    assert_finite(actual, gradient, *loss(*inputs)[1].values())
    desired, _ = oracle.loss(*item, (4, 1), (3, 1), **options)
    # float32: constant estimates leave nothing but loading and rounding to tell the taps apart.
    tolerance = 1e-7 if dtype == torch.complex128 else 1e-2
    assert actual.item() == pytest.approx(desired, rel=tolerance, abs=tolerance)

    neighbour = oracle.scene(19, *np.array([len(x) for x in item]), *item[0].shape[1:])
    alone, _ = loss(*(x.to(dtype) for x in batch(neighbour)))
    together, gradient = loss_and_gradient(loss, *(x.to(dtype) for x in batch(item, neighbour)))
    torch.testing.assert_close(together[1:], alone, rtol=10 * tolerance, atol=0)
    assert_finite(together, gradient)


def test_closed_forms_of_silence():
    """Silent estimates explain nothing: each mic's loss is sum(|Re| + |Im| + |Y|) / sum |Y|."""
    Z, Y_p, Y_d = oracle.scene(20)
    loss = MixtureConstraintLoss(**TAPS)
    actual, _ = loss(*batch((0 * Z, Y_p, Y_d)))
    desired = sum((np.abs(Y.real) + np.abs(Y.imag) + np.abs(Y)).sum() / np.abs(Y).sum() for Y in (*Y_p, *Y_d))
    assert actual.item() == pytest.approx(desired, rel=1e-12)
    # Silent mixtures are explained entirely, and teach nothing.
    actual, gradient = loss_and_gradient(loss, *batch((Z, 0 * Y_p, 0 * Y_d)))
    assert actual.item() == 0
    assert not gradient.any()


def test_silent_source_as_no_source():
    Z, Y_p, Y_d = oracle.scene(21)
    Z[1] = 0
    loss = MixtureConstraintLoss(**TAPS)
    assert_same(loss(*batch((Z, Y_p, Y_d))), loss(*batch((Z[:1], Y_p, Y_d))), rtol=1e-12)


def test_silent_mic_adds_nothing():
    """A broken far-field mic lowers Q by a factor for all units, which changes no filter."""
    Z, Y_p, Y_d = oracle.scene(22)
    broken = np.concatenate([Y_p, 0 * Y_p[:1]])
    loss = MixtureConstraintLoss(**TAPS)
    assert_same(loss(*batch((Z, broken, Y_d))), loss(*batch((Z, Y_p, Y_d))))


@pytest.mark.parametrize("level", [1e-30, 1e-38, 1e-39, 1e-42, 1e-45])
def test_faint_frequency_of_the_estimates(level):
    """A mask of 1e-20 on a quiet band. Denormal numbers are silence: the oracle's loss, and no gradient there."""
    Z, Y_p, Y_d = oracle.scene(18)
    options = {"alpha": 0.5, "anchor_weight": 0.7, "isms_weight": 0.3}
    loss = MixtureConstraintLoss(4, 1, 3, 1, **options)
    Z[:, 1] *= level
    inputs = [x.to(torch.complex64) for x in batch((Z, Y_p, Y_d))]
    actual, gradient = loss_and_gradient(loss, *inputs)
    assert_finite(actual, gradient)
    Z[:, 1] *= 0 if level < 1e-31 else 1 / level
    desired, _ = oracle.loss(Z, Y_p, Y_d, (4, 1), (3, 1), **options)
    assert actual.item() == pytest.approx(desired, rel=1e-3)
    assert gradient[:, :, 1].any() == (level > 1e-31)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, complex(0, torch.nan)])
@pytest.mark.parametrize("position, name", [(0, "est"), (1, "far_field"), (2, "close_talk")])
def test_non_finite_input_is_refused_by_name(position, name, value):
    inputs = batch(*levels(1.0, 1.0, 1.0))
    inputs[position][1, 0, 0, 3] = value
    with pytest.raises(ValueError, match=rf"^{name} has NaN or infinite .* \[1\]"):
        MixtureConstraintLoss(**TAPS)(*inputs)


def test_wrong_input_is_refused():
    est, far_field, close_talk = batch(*levels(1.0, 1.0))
    loss = MixtureConstraintLoss(**TAPS)

    def refused(match, est=est, far_field=far_field, close_talk=close_talk, lengths=None, loss=loss):
        with pytest.raises(ValueError, match=match):
            loss(est, far_field, close_talk, lengths)

    refused("^est must be a complex", est=est.real)
    refused("^est must be a complex", est=est[0])
    refused("^far_field must be a complex", far_field=far_field.real)
    refused("^close_talk must be a complex", close_talk=close_talk[0])
    refused(r"^far_field .* need the same batch, freq and frame", far_field=far_field[..., 1:])
    refused(r"^close_talk .* need the same batch", close_talk=close_talk[:1])
    for wrong in ([12], [0, 12], [12, 13], [[12, 12]]):
        refused(r"^lengths must be \(2,\) frames within 1..12, found", lengths=torch.tensor(wrong))
    refused("ref_mic is 3, but there are only 3", loss=MixtureConstraintLoss(ref_mic=3))
    refused("1 sources and 2 close-talk", est=est[:, :1], loss=MixtureConstraintLoss(anchor_weight=1.0))


def test_utterance_without_frames_is_refused():
    with pytest.raises(ValueError, match="frame"):
        MixtureConstraintLoss(**TAPS)(*(x[..., :0] for x in batch(oracle.scene(23))))


@pytest.mark.parametrize(
    "name",
    [
        "closetalk_past_taps",
        "closetalk_future_taps",
        "farfield_past_taps",
        "farfield_future_taps",
        "alpha",
        "anchor_weight",
        "isms_weight",
        "ref_mic",
        "ref_mic_weight",
    ],
)
def test_negative_settings_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 0, found -1"):
        MixtureConstraintLoss(**{name: -1})


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(floor="1e-4"), "floor must be a number, found '1e-4' .to YAML 1e-4 is text, 1.0e-4 a number"),
        (dict(anchor_weight=None), "anchor_weight must be a number, found None$"),
        (dict(farfield_past_taps=19.5), "farfield_past_taps must be a whole number, found 19.5"),
        (dict(ref_mic="0"), "ref_mic must be a whole number, found '0'"),
        (dict(anchor_fade=(1, 5)), "anchor_fade does nothing with anchor_weight: 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureConstraintLoss(**options)


@pytest.mark.parametrize("name", ["floor", "diag_load"])
def test_zero_settings_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be > 0, found 0"):
        MixtureConstraintLoss(**{name: 0})
