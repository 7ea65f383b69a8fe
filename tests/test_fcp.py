"""FCP: known filters come back; agreement with the literal equations; invariances; silence."""

import threading

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet2_m2m import fir_least_squares
from espnet2_m2m.fcp import fcp_weight, forward_convolutive_prediction
from espnet2_m2m.fir_least_squares import FIRLeastSquares, full_precision, stack_taps

# Orthogonalisation (oracle) and normal equations (code) differ by float64 rounding, 1e-16, times
# the condition number, at most about 1e5 by the diagonal loading, and some more for sums.
FLOAT64 = {"rtol": 1e-8, "atol": 1e-9}


def batch(*items):
    """Arrays of one utterance each -> one tensor with a batch axis."""
    return torch.from_numpy(np.stack(items))


def flat_weight(mix):
    return torch.ones(mix.shape, dtype=torch.float64)


# ---- known filters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "past_taps, future_taps, active",
    [
        pytest.param(0, 0, [0], id="one tap"),
        pytest.param(4, 0, [-4, -3, -2, -1, 0], id="causal"),
        pytest.param(0, 3, [0, 1, 2, 3], id="anti-causal"),
        pytest.param(3, 2, [-3, -2, -1, 0, 1, 2], id="non-causal"),
        pytest.param(5, 1, [-3], id="delayed by three frames"),
        pytest.param(2, 2, [2], id="advanced by two frames"),
        pytest.param(6, 0, [-6, -5, -4], id="delayed and reverberant"),
    ],
)
def test_known_filter_comes_back(past_taps, future_taps, active):
    """`active`: the frames, relative to the current one, that the true filter takes."""
    num_freqs, num_taps = 3, past_taps + 1 + future_taps
    Z = oracle.noise(0, 1, num_freqs, 40)
    desired = np.zeros((2, num_freqs, num_taps), dtype=complex)
    for offset in active:
        desired[:, :, past_taps + offset] = oracle.noise(7 + offset, 2, num_freqs)
    Y = np.stack([oracle.convolve(Z[0], g, past_taps) for g in desired])
    est, mix = batch(Z), batch(Y)
    for weight in (fcp_weight(mix), fcp_weight(mix, shared=True), flat_weight(mix)):
        images, filters = forward_convolutive_prediction(est, mix, weight, past_taps, future_taps, diag_load=1e-13)
        # Noise-free: any weight gives the true filter, up to the loading of 1e-13.
        torch.testing.assert_close(filters[0, :, 0], torch.from_numpy(desired), rtol=0, atol=1e-10)
        torch.testing.assert_close(images[0, :, 0], mix[0], rtol=0, atol=1e-10)

    # The default loading of 1e-5 shrinks a filter of level 1 by about that. (With the weights of
    # (8) and (9), which span 1e4, a few quiet frames decide, and it may be 1e-3 and more.)
    _, filters = forward_convolutive_prediction(est, mix, flat_weight(mix), past_taps, future_taps)
    torch.testing.assert_close(filters[0, :, 0], torch.from_numpy(desired), rtol=0, atol=1e-4)


def test_known_filters_of_two_sources_that_take_turns():
    """Each source is fitted to the whole mixture; without overlap both filters are exact."""
    past_taps, future_taps = 2, 1
    Z = oracle.noise(1, 2, 3, 60)
    Z[0, :, 28:] = 0
    Z[1, :, :32] = 0  # the gap is longer than the filter's reach
    desired = oracle.noise(2, 2, 2, 3, 4)  # (mic, source, freq, tap)
    X = np.stack([[oracle.convolve(Z[c], desired[r, c], past_taps) for c in range(2)] for r in range(2)])
    est, mix = batch(Z), batch(X.sum(axis=1))
    images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix), past_taps, future_taps, diag_load=1e-13)
    torch.testing.assert_close(filters[0], torch.from_numpy(desired), rtol=0, atol=1e-10)
    torch.testing.assert_close(images[0], torch.from_numpy(X), rtol=0, atol=1e-10)


@pytest.mark.parametrize("past_taps, future_taps", [(0, 0), (2, 0), (0, 2), (2, 1), (5, 6)])
def test_stacked_taps_as_oracle(past_taps, future_taps):
    """Z_tilde of the text below eq. (4), one frame after the other; more taps than frames too."""
    Z = oracle.noise(17, 3, 4)
    desired = [[oracle.stacked(Z, t, f, past_taps, future_taps) for t in range(4)] for f in range(3)]
    actual = stack_taps(torch.from_numpy(Z), past_taps, future_taps)
    np.testing.assert_array_equal(actual.mT, desired)


def test_closed_form_of_one_tap():
    """One tap and a flat weight: h = <z, y> / (<z, z> (1 + diag_load))."""
    z, y = oracle.noise(3, 1, 20), oracle.noise(4, 1, 20)
    desired = np.vdot(z, y) / np.vdot(z, z) / (1 + 1e-2)
    mix = batch(y[None])
    _, filters = forward_convolutive_prediction(batch(z[None]), mix, flat_weight(mix), 0, 0, diag_load=1e-2)
    assert filters.item() == pytest.approx(desired, rel=1e-12)


def test_solution_minimises_the_objective():
    """Eq. (7) as it stands: no neighbouring filter has a smaller sum."""
    Z, Y, _ = oracle.scene(5)
    est, mix = batch(Z), batch(Y)
    _, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix), 2, 1, diag_load=1e-13)
    for seed in range(20):
        r, c, f = seed % 3, seed % 2, seed % 3
        g = filters[0, r, c, f].conj().resolve_conj().numpy()
        problem = (Z[c], Y[r], oracle.closetalk_weight(Y[r]), f, 2, 1)
        neighbour = g + 1e-3 * oracle.noise(seed, 4)
        assert oracle.objective(g, *problem) < oracle.objective(neighbour, *problem)


# ---- the literal equations -----------------------------------------------------------------------


def test_weight_as_eq_8_and_9():
    # Utterances of very different levels: the maximum is each one's own.
    mixes = [level * oracle.noise(b, 3, 4, 9) for b, level in enumerate([1, 1e3, 1e-3])]
    mixes[0][1] *= 20  # and each mic's, in eq. (8)
    own, shared = fcp_weight(batch(*mixes)), fcp_weight(batch(*mixes), shared=True)
    assert (own.shape, shared.shape) == ((3, 3, 4, 9), (3, 1, 4, 9))
    for b, Y in enumerate(mixes):
        np.testing.assert_allclose(shared[b, 0], oracle.farfield_weight(Y), rtol=1e-12)
        for r in range(3):
            np.testing.assert_allclose(own[b, r], oracle.closetalk_weight(Y[r]), rtol=1e-12)


def test_weight_floor():
    Y = oracle.noise(0, 1, 3, 5)
    actual = fcp_weight(batch(Y), floor=0.1)
    np.testing.assert_allclose(actual[0, 0], oracle.closetalk_weight(Y[0], xi=0.1), rtol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    num_sources=st.integers(1, 3),
    num_mics=st.integers(1, 3),
    num_frames=st.integers(1, 9),
    past_taps=st.integers(0, 3),
    future_taps=st.integers(0, 2),
    shared=st.booleans(),
    diag_load=st.sampled_from([1e-5, 1e-3]),
)
def test_as_oracle(seed, num_sources, num_mics, num_frames, past_taps, future_taps, shared, diag_load):
    """Images and filters of eqs. (7)-(10), fewer frames than taps included."""
    Z = oracle.noise(seed, num_sources, 2, num_frames)
    Y = oracle.noise(seed + 1, num_mics, 2, num_frames)
    lam = [oracle.farfield_weight(Y)] * num_mics if shared else [oracle.closetalk_weight(Y_r) for Y_r in Y]
    X, g = oracle.fcp(Z, Y, lam, past_taps, future_taps, diag_load)
    mix = batch(Y)
    images, filters = forward_convolutive_prediction(
        batch(Z), mix, fcp_weight(mix, shared=shared), past_taps, future_taps, diag_load
    )
    torch.testing.assert_close(images[0], torch.from_numpy(X), **FLOAT64)
    torch.testing.assert_close(filters[0], torch.from_numpy(g.conj()), **FLOAT64)


def test_images_are_the_filtered_estimates():
    """The relation that the docstring states for `filters`."""
    Z, Y, _ = oracle.scene(6)
    mix = batch(Y)
    images, filters = forward_convolutive_prediction(batch(Z), mix, fcp_weight(mix), 3, 1)
    for r in range(len(Y)):
        for c in range(len(Z)):
            desired = oracle.convolve(Z[c], filters[0, r, c].numpy(), past=3)
            np.testing.assert_allclose(images[0, r, c], desired, atol=1e-12)


def test_shared_weight_is_every_mic_by_itself_with_that_weight():
    """The fast path (one factorisation for all mics) against the general one."""
    Z, Y, _ = oracle.scene(7)
    est, mix = batch(Z, 2 * Z), batch(Y, Y[::-1])
    weight = fcp_weight(mix, shared=True)
    actual = forward_convolutive_prediction(est, mix, weight, 3, 1)
    for desired in (
        forward_convolutive_prediction(est, mix, weight.expand(mix.shape).contiguous(), 3, 1),
        [
            torch.cat(parts, dim=1)
            for parts in zip(*(forward_convolutive_prediction(est, mix[:, [r]], weight, 3, 1) for r in range(3)))
        ],
    ):
        for a, d in zip(actual, desired):
            torch.testing.assert_close(a, d, **FLOAT64)


# ---- invariances ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), decades=st.integers(-12, 12), shared=st.booleans())
def test_scaling_the_estimates_leaves_the_images(seed, decades, shared):
    """By another complex number for every source and frequency; the filters undo it."""
    Z, Y, _ = oracle.scene(seed % 1000, num_frames=8)
    scale = 10.0**decades * oracle.noise(seed, 2, 3)
    mix = batch(Y)
    weight = fcp_weight(mix, shared=shared)
    desired, filters = forward_convolutive_prediction(batch(Z), mix, weight, 3, 1)
    actual, scaled_filters = forward_convolutive_prediction(batch(scale[..., None] * Z), mix, weight, 3, 1)
    torch.testing.assert_close(actual, desired, **FLOAT64)
    undone = scaled_filters * torch.from_numpy(scale)[..., None]
    torch.testing.assert_close(undone, filters, **FLOAT64)


def test_weights_of_groups_of_mics_are_the_groups_one_by_one():
    """Values and gradients, for groups of three, one and two mics."""
    sizes = (3, 1, 2)
    est = torch.from_numpy(oracle.noise(0, 2, 2, 3, 30)).requires_grad_()
    mix = torch.from_numpy(oracle.noise(1, 2, 6, 3, 30))
    parts = mix.split(sizes, dim=1)
    weights = [fcp_weight(part, shared=True) for part in parts]
    together = forward_convolutive_prediction(est, mix, torch.cat(weights, dim=1), 3, 1, mics_per_weight=sizes)
    one_by_one = [forward_convolutive_prediction(est, part, weight, 3, 1) for part, weight in zip(parts, weights)]
    one_by_one = [torch.cat(output, dim=1) for output in zip(*one_by_one)]
    for actual, desired in zip(together, one_by_one):
        torch.testing.assert_close(actual, desired, **FLOAT64)
    direction = torch.from_numpy(oracle.noise(2, *together[0].shape))
    actual, desired = (
        torch.autograd.grad((images * direction).real.sum(), est)[0] for images, _ in (together, one_by_one)
    )
    torch.testing.assert_close(actual, desired, **FLOAT64)


@pytest.mark.parametrize(
    "levels",
    [pytest.param([level] * 3, id=f"{level:g}") for level in (1e-30, 1e-15, 1e15, 1e30)]
    + [pytest.param([1e-30, 1.0, 1e30], id="each frequency its own")],
)
def test_level_of_the_estimates_in_float32(levels):
    """The squares of such levels under- or overflow in float32; the images must not notice."""
    Z, Y, _ = oracle.scene(8)
    est, mix = batch(Z).to(torch.complex64), batch(Y).to(torch.complex64)
    weight = fcp_weight(mix)
    desired, _ = forward_convolutive_prediction(est, mix, weight, 3, 1)
    actual, filters = forward_convolutive_prediction(est * torch.tensor(levels)[:, None], mix, weight, 3, 1)
    torch.testing.assert_close(actual, desired, rtol=0, atol=1e-4)  # as in float32 below
    assert torch.isfinite(filters).all()


@pytest.mark.parametrize("level", [1e-12, 1e-3, 1e6])
def test_scaling_the_mixture_scales_the_images(level):
    Z, Y, _ = oracle.scene(9)
    est, mix = batch(Z), batch(Y)
    desired, _ = forward_convolutive_prediction(est, mix, fcp_weight(mix), 3, 1)
    actual, _ = forward_convolutive_prediction(est, level * mix, fcp_weight(level * mix), 3, 1)
    torch.testing.assert_close(actual / level, desired, **FLOAT64)


def test_weight_matters_only_up_to_a_factor():
    Z, Y, _ = oracle.scene(10)
    est, mix = batch(Z), batch(Y)
    weight = fcp_weight(mix)
    desired, _ = forward_convolutive_prediction(est, mix, weight, 3, 1)
    actual, _ = forward_convolutive_prediction(est, mix, 1e-7 * weight, 3, 1)
    torch.testing.assert_close(actual, desired, **FLOAT64)


def test_frequencies_are_independent():
    Z, Y, _ = oracle.scene(11)
    est, mix = batch(Z), batch(Y)
    weight = fcp_weight(mix)
    desired, _ = forward_convolutive_prediction(est, mix, weight, 3, 1)
    for f in range(3):
        actual, _ = forward_convolutive_prediction(est[:, :, [f]], mix[:, :, [f]], weight[:, :, [f]], 3, 1)
        torch.testing.assert_close(actual, desired[..., [f], :], **FLOAT64)


@pytest.mark.parametrize("shared", [False, True])
def test_batch_is_its_items_one_by_one(shared):
    """Levels of 1e-3 to 1e3 and a silent item beside them."""
    items = []
    for b, level in enumerate([1.0, 1e3, 0.0, 1e-3]):
        Z, Y, _ = oracle.scene(20 + b)
        items.append((Z, level * Y))
    est, mix = (batch(*parts) for parts in zip(*items))
    actual = forward_convolutive_prediction(est, mix, fcp_weight(mix, shared=shared), 3, 1)
    for b in range(len(items)):
        one = mix[b : b + 1]
        desired = forward_convolutive_prediction(est[b : b + 1], one, fcp_weight(one, shared=shared), 3, 1)
        for a, d in zip(actual, desired):
            torch.testing.assert_close(a[b : b + 1], d, **FLOAT64)


@pytest.mark.parametrize("shared", [False, True])
def test_infinite_weight_leaves_a_frame_out(shared):
    """So padding is left out: whatever the mixture has there."""
    Z, Y, _ = oracle.scene(12, num_frames=15)
    Z[..., 10:] = 0
    est, mix = batch(Z), batch(Y)
    short = mix[..., :10]
    weight = fcp_weight(short, shared=shared)
    desired = forward_convolutive_prediction(est[..., :10], short, weight, 3, 1)
    padded = torch.nn.functional.pad(weight, (0, 5), value=torch.inf)
    actual = forward_convolutive_prediction(est, mix, padded, 3, 1)
    torch.testing.assert_close(actual[0][..., :10], desired[0], **FLOAT64)
    torch.testing.assert_close(actual[1], desired[1], **FLOAT64)


# ---- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_float32_against_float64(shared):
    """Sustained tones, whose neighbouring frames are almost the same: badly conditioned.

    The loading of 1e-5 bounds the condition number by 1e5 * taps; the covariance is rounded to
    6e-8. So some 1e-2 of the least certain parts of a filter may differ, and much less of an image.
    """
    t = np.arange(100)
    tone = np.exp(0.05j * t) * (1 + 0.02 * oracle.noise(1, 2, 4, 100))
    Y = np.stack([oracle.convolve(tone[0], oracle.noise(r, 4, 5), 3) for r in range(2)])
    images = {}
    for dtype in (torch.complex64, torch.complex128):
        est, mix = batch(tone).to(dtype), batch(Y).to(dtype)
        weight = fcp_weight(mix, shared=shared)
        images[dtype], filters = forward_convolutive_prediction(est, mix, weight)
        assert (images[dtype].dtype, filters.dtype) == (dtype, dtype)
        assert weight.dtype == est.real.dtype
    error = images[torch.complex64] - images[torch.complex128]
    assert error.abs().max() < 1e-3 * mix.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_change_values(dtype):
    Z, Y, _ = oracle.scene(13)
    est, mix = batch(Z).to(torch.complex64), batch(Y).to(torch.complex64)
    results = []
    for enabled in (True, False):
        est = est.detach().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=enabled):
            images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix), 3, 1)
            (images.abs().sum() + filters.abs().sum()).backward()  # inside, as some trainers do
        results.append((images, filters, est.grad))
    for actual, desired in zip(*results):
        torch.testing.assert_close(actual, desired, rtol=0, atol=0)


@pytest.fixture
def precision():
    """Puts torch's settings of matrix products back."""
    yield
    torch.set_float32_matmul_precision("highest")
    for owner in (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        owner.fp32_precision = "none"


def readable_settings():
    """Settings of matrix products; torch refuses to read the older ones next to some of the newer ones."""
    settings = {}
    for name in (
        "get_float32_matmul_precision()",
        "backends.cuda.matmul.allow_tf32",
        "backends.cuda.matmul.fp32_precision",
        "backends.mkldnn.matmul.fp32_precision",
    ):
        try:
            settings[name] = eval(f"torch.{name}")
        except RuntimeError:  # refused
            settings[name] = None
    return settings


@pytest.mark.parametrize(
    "setting",
    [
        "set_float32_matmul_precision('medium')",
        "set_float32_matmul_precision('high')",
        "backends.cuda.matmul.allow_tf32 = True",
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "backends.mkldnn.matmul.fp32_precision = 'bf16'",
        "backends.fp32_precision = 'tf32'",
    ],
)
def test_faster_matrix_products_do_not_change_values(setting, precision, monkeypatch):
    """Values differ on CPUs with units for bfloat16 (amx) alone, so the settings within are looked at."""
    mix = torch.from_numpy(oracle.noise(15, 1, 6, 65, 200)).to(torch.complex64)
    seen = []
    solve = fir_least_squares._solve
    monkeypatch.setattr(fir_least_squares, "_solve", lambda *args: (seen.append(readable_settings()), solve(*args))[1])

    def values():
        est = torch.from_numpy(oracle.noise(16, 1, 2, 65, 200)).to(torch.complex64).requires_grad_()
        images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix, shared=True))
        images.abs().sum().backward()
        return images.detach(), filters.detach(), est.grad

    desired = values()
    exec(f"torch.{setting}")
    before = readable_settings()
    actual = values()
    assert readable_settings() == before
    for name in ("backends.cuda.matmul.fp32_precision", "backends.mkldnn.matmul.fp32_precision"):
        assert {settings[name] for settings in seen} <= {"ieee", None}
    for one, other in zip(actual, desired):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_threads_leave_the_setting_of_the_process_as_it_was(precision):
    """Each once put back what it had found: the first to leave took exact products from the other, for good."""
    backend = torch.backends.mkldnn.matmul
    backend.fp32_precision = "bf16"
    second_is_inside, first_has_left, seen = threading.Event(), threading.Event(), []

    def second():
        with full_precision("cpu"):
            second_is_inside.set()
            first_has_left.wait()
            seen.append(backend.fp32_precision)

    thread = threading.Thread(target=second)
    with full_precision("cpu"):
        thread.start()
        second_is_inside.wait()
    first_has_left.set()
    thread.join()
    assert seen == ["ieee"] and backend.fp32_precision == "bf16"


def test_arguments_are_not_changed():
    Z, Y, _ = oracle.scene(14)
    est, mix = batch(Z), batch(Y)
    weight = fcp_weight(mix)
    copies = [x.clone() for x in (est, mix, weight)]
    forward_convolutive_prediction(est, mix, weight, 3, 1)
    assert all(torch.equal(x, copy) for x, copy in zip((est, mix, weight), copies))


# ---- gradients and silence -----------------------------------------------------------------------


@pytest.mark.parametrize("past_taps, future_taps", [(0, 0), (2, 1), (0, 3), (6, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_gradient(shared, past_taps, future_taps):
    """Of images and filters together; with 9 taps there are more of them than frames.

    To the estimates alone, as in training, and to the mixtures too, through their weights as well.
    """
    Z, Y, _ = oracle.scene(15, num_far=2, num_freqs=2, num_frames=6)
    est, mix = batch(Z, Z[::-1]).requires_grad_(), batch(Y, 2 * Y[::-1])

    def both(est, mix):
        weight = fcp_weight(mix, shared=shared)
        return forward_convolutive_prediction(est, mix, weight, past_taps, future_taps, diag_load=1e-2)

    assert torch.autograd.gradcheck(both, (est, mix), fast_mode=True)
    sum(x.abs().sum() for x in both(est, mix)).backward()
    assert est.grad.any()
    assert torch.autograd.gradcheck(both, (est, mix.requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("mics_per_weight", [(1, 1, 1), (3,), (2, 1)])
def test_gradient_to_any_weight(mics_per_weight):
    """Not made of the mixture, with a frame that takes no part; each weight for its own mics."""
    Z, Y, _ = oracle.scene(18, num_far=3, num_freqs=2, num_frames=6)
    est, mix = batch(Z), batch(Y)
    weight = batch(np.abs(oracle.noise(19, len(mics_per_weight), 2, 6)) ** 2 + 0.1)
    weight[..., 2] = torch.inf

    def both(mix, finite):
        whole = torch.cat([finite[..., :2], weight[..., 2:3], finite[..., 2:]], dim=-1)
        return forward_convolutive_prediction(est, mix, whole, 2, 1, 1e-2, mics_per_weight)

    finite = torch.cat([weight[..., :2], weight[..., 3:]], dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(both, (mix.requires_grad_(), finite))


@pytest.mark.parametrize("index", [pytest.param(0, id="images"), pytest.param(1, id="filters")])
def test_gradient_of_one_output(index):
    """The other output has no gradient then."""
    Z, Y, _ = oracle.scene(15, num_far=1, num_freqs=2, num_frames=6)
    mix = batch(Y)
    assert torch.autograd.gradcheck(
        lambda est: forward_convolutive_prediction(est, mix, fcp_weight(mix), 2, 1, diag_load=1e-2)[index],
        batch(Z).requires_grad_(),
        fast_mode=True,
    )


def test_gradients_of_the_outputs_are_not_changed():
    """The backward pass must not add to tensors that are not its own: others may read them."""
    z, y = (torch.from_numpy(oracle.noise(seed, 1, 1, 3, 8)) for seed in (1, 2))
    outputs = FIRLeastSquares.apply(z.requires_grad_(), y, torch.ones_like(y.real), (1,), 2, 1, 1e-3)
    gradients = [torch.ones_like(output) for output in outputs]
    torch.autograd.backward(outputs, gradients)
    assert all((gradient == 1).all() for gradient in gradients)


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_of_frequencies(shared, monkeypatch):
    """Whether frequencies are worked through all at once, in twos, or one by one."""
    Z, Y, _ = oracle.scene(23, num_freqs=5)
    mix = batch(Y, Y[::-1])
    bytes_per_freq = 2 * 2 * 5 * 12 * 16  # batch, source, tap, frame, complex128
    results = []
    for block_bytes in (10**9, 2 * bytes_per_freq, 1):
        monkeypatch.setitem(fir_least_squares.BLOCK_BYTES, "cpu", block_bytes)
        est = batch(Z, Z[::-1]).requires_grad_()
        images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix, shared=shared), 3, 1)
        (images.abs().sum() + filters.abs().sum()).backward()
        results.append((images, filters, est.grad))
    for result in results[1:]:
        for actual, desired in zip(result, results[0]):
            torch.testing.assert_close(actual, desired, rtol=1e-6, atol=1e-8)


SILENT = ["source", "one frequency of a source", "mic", "all mics", "all sources", "everything"]


def silent(name, dtype):
    """(est, mix) where the part called `name` is silent."""
    Z, Y, _ = oracle.scene(16)
    if name in ("source", "everything"):
        Z[0] = 0
    if name == "one frequency of a source":
        Z[0, 1] = 0
    if name == "mic":
        Y[1] = 0
    if name in ("all mics", "everything"):
        Y[:] = 0
    if name in ("all sources", "everything"):
        Z[:] = 0
    return batch(Z).to(dtype), batch(Y).to(dtype)


def assert_finite(spectrum):
    assert torch.isfinite(torch.view_as_real(spectrum)).all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", SILENT)
def test_silence(name, shared, dtype):
    """Silent sources and mics have zero filters and images, and finite gradients."""
    est, mix = silent(name, dtype)
    est.requires_grad_()
    mix.requires_grad_()
    images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix, shared=shared), 3, 1)
    source_active = (est != 0).any(-1)[:, None]  # (batch, 1, source, freq)
    mic_active = (mix != 0).flatten(2).any(-1)[:, :, None, None]  # (batch, mic, 1, 1)
    desired = (source_active & mic_active).expand(filters.shape[:-1])
    assert torch.equal((filters != 0).any(-1), desired)
    assert torch.equal((images != 0).any(-1), desired)
    assert_finite(images)
    images.abs().sum().backward()
    assert_finite(est.grad)
    assert_finite(mix.grad)


@pytest.mark.parametrize("dtype, least", [(torch.complex64, 1e-31), (torch.complex128, 1e-292)])
@pytest.mark.parametrize("level", [10.0, 1.0, 1e-1, 1e-7, 1e-8, 1e-11, 1e-14])
def test_faint_estimates(level, dtype, least):
    """Down to the least level that has all digits the images do not notice; below, where the gradient would not be
    finite and the numbers lose their digits (denormal: 1e-38 in float32), an estimate is silence, exactly."""
    Z, Y, _ = oracle.scene(8)
    Z_faint = Z.copy()
    Z_faint[0, 1] = 0
    desired, _ = oracle.fcp(Z if level >= 10 else Z_faint, Y, [oracle.closetalk_weight(Y_r) for Y_r in Y], 3, 1)
    Z[0, 1] *= level * least
    est, mix = batch(Z).to(dtype).requires_grad_(), batch(Y).to(dtype).requires_grad_()
    images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix), 3, 1)
    if level != 1.0:  # about the limit
        torch.testing.assert_close(images[0], torch.from_numpy(desired).to(dtype), rtol=0, atol=1e-4)
    images.abs().sum().backward()
    for spectrum in (images, filters, est.grad, mix.grad):
        assert_finite(spectrum)
    if level < 1.0:
        assert not filters[:, :, 0, 1].any() and not est.grad[:, 0, 1].any()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("level", [1e-17, 1e-19, 1e-21, 1e-23, 1e-30, 1e-38, 1e-42])
def test_faint_mixtures(level, shared):
    """Their power underflows in float32, and its reciprocal overflows; images and gradients stay finite and small."""
    Z, Y, _ = oracle.scene(8)
    est, mix = batch(Z).to(torch.complex64).requires_grad_(), batch(level * Y).to(torch.complex64).requires_grad_()
    images, filters = forward_convolutive_prediction(est, mix, fcp_weight(mix, shared=shared), 3, 1)
    assert images.abs().max() <= 10 * mix.abs().max()
    images.real.sum().backward()
    for spectrum in (images, filters, est.grad, mix.grad):
        assert_finite(spectrum)


def test_estimates_that_are_not_finite_are_not_taken_for_silence():
    est, mix = (x.to(torch.complex64) for x in silent("source", torch.complex64))
    est[0, 1, 0, 2] = torch.nan
    images, _ = forward_convolutive_prediction(est, mix, fcp_weight(mix), 3, 1)
    assert images[:, :, 1, 0].isnan().any() and images[:, :, 1, 1:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_fewer_frames_than_taps(num_frames, dtype):
    """21 taps explain any short mixture nearly entirely; the loading makes the answer unique."""
    Z, Y, _ = oracle.scene(17, num_frames=num_frames)
    est, mix = batch(Z).to(dtype).requires_grad_(), batch(Y).to(dtype)
    images, _ = forward_convolutive_prediction(est, mix, fcp_weight(mix))
    images.abs().sum().backward()
    assert_finite(est.grad)
    desired, _ = oracle.fcp(Z, Y, [oracle.closetalk_weight(Y_r) for Y_r in Y], 19, 1)
    # float32: as in test_float32_against_float64, the covariance is rounded to 6e-8, loaded by 1e-5
    tolerance = FLOAT64 if dtype == torch.complex128 else {"rtol": 0, "atol": 1e-2}
    torch.testing.assert_close(images[0], torch.from_numpy(desired).to(dtype), **tolerance)
    # The rest that the loading leaves is some hundredths of a mixture of level 1.
    np.testing.assert_allclose(desired, np.broadcast_to(Y[:, None], desired.shape), atol=0.1)


# ---- errors --------------------------------------------------------------------------------------


def test_wrong_input_is_refused():
    est, mix = batch(oracle.noise(0, 2, 3, 8)), batch(oracle.noise(1, 4, 3, 8))
    weight = fcp_weight(mix)

    def refused(match, est=est, mix=mix, weight=weight, **options):
        with pytest.raises(ValueError, match=match):
            forward_convolutive_prediction(est, mix, weight, **options)

    refused("past_taps=-1", past_taps=-1)
    refused("future_taps=-2", future_taps=-2)
    refused("est must be", est=est[0])
    refused("mix must be", mix=mix[0])
    refused("weight must be real .batch, mic, freq, frame", weight=weight[0])
    refused("same batch, freq", est=est[..., 1:])
    refused("same batch, freq", est=est[:, :, 1:])
    refused("same batch, freq", est=torch.cat([est, est]))
    refused("weight .* must be as mix", weight=weight[:, :2])
    refused("mics_per_weight, found", weight=weight[:, :2], mics_per_weight=(1, 2))
    refused("mics_per_weight, found", weight=weight[:, :2], mics_per_weight=(4, 0))
    refused("real", weight=weight.to(torch.complex128))
    refused("complex", est=est.real)
    refused("complex", mix=mix.real)
    with pytest.raises(ValueError, match="floor must be > 0"):
        fcp_weight(mix, floor=0)
    for wrong in (mix[0], mix.real):
        with pytest.raises(ValueError, match="mix must be a complex"):
            fcp_weight(wrong)
