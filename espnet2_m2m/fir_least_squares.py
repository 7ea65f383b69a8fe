"""Weighted least-squares FIR filters between complex sequences: the linear algebra behind FCP.

For every pair of an input z and a target y (sequences over frames, one problem per frequency),

    h = argmin_h sum_t w(t) |y(t) - sum_k h_k z(t - past + k)|^2 + load,     k = 0 ... taps - 1

The covariance of the normal equations is made of lag products of z,

    R[k, k + l] = sum_t w(t) z*(t - past + k) z(t - past + k + l)
                = sum_s w(s + past - k) q_l(s),        q_l(s) = z*(s) z(s + l)

so that one real matrix product, [weights x taps shifted copies of w] times [lag products of all
inputs], gives the covariances of all inputs under all weights: half the arithmetic of products of
stacked taps, which are then needed for the images alone. Frequencies are worked through in blocks
small enough for the processor's cache; nothing the size of the stacked taps is kept for the
backward pass, whose formulae stand in `backward`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**28}  # of the lag products of one block of frequencies


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """No autocast, and neither TF32 nor bfloat16 in matrix products: they lose more than `diag_load` covers."""
    with torch.autocast(device_type, enabled=False), _exact_products:
        yield


class _ExactProducts:
    """Exact matrix products while any thread is within this context.

    The setting is the whole process's. If each thread put back what it had found, the first to leave would take exact
    products from the others, and the last would leave them on for good.
    """

    # Only these: the older settings refuse to be read once a program has used the newer ones.
    BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_inside = 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.num_inside:
                self.before = [backend.fp32_precision for backend in self.BACKENDS]
                for backend in self.BACKENDS:
                    backend.fp32_precision = "ieee"
            self.num_inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.num_inside -= 1
            if not self.num_inside:
                for backend, precision in zip(self.BACKENDS, self.before):
                    backend.fp32_precision = precision


_exact_products = _ExactProducts()


def stack_taps(z: Tensor, past_taps: int, future_taps: int) -> Tensor:
    """Beside each frame, those before and after it: Z_tilde of eq. (7).

    Args:
        z: (..., frame), real or complex.
        past_taps, future_taps: frames before / after the current one, >= 0.
    Returns:
        (..., tap, frame), a view of the padded `z`: tap k of frame t is z(t - past_taps + k), from the oldest
        frame to the farthest future one; zero outside the utterance.
    Example:
        >>> stack_taps(torch.arange(1, 6), past_taps=2, future_taps=1)
        tensor([[0, 0, 1, 2, 3],
                [0, 1, 2, 3, 4],
                [1, 2, 3, 4, 5],
                [2, 3, 4, 5, 0]])
    """
    padded = functional.pad(z, (past_taps, future_taps))
    return padded.unfold(-1, z.shape[-1], 1)


class FIRLeastSquares(torch.autograd.Function):
    """images, filters = FIRLeastSquares.apply(z, y, w, mics_per_weight, past_taps, future_taps, diag_load)

    Args:
        z: (batch, source, freq, frame) complex inputs.
        y: (batch, mic, freq, frame) complex targets.
        w: (batch, weight, freq, frame) real weights, >= 0.
            Gradients flow to all three.
        mics_per_weight: how many consecutive targets each weight is for.
        past_taps, future_taps: see `stack_taps`.
        diag_load: load of the covariance's diagonal, relative to its mean.
    Returns:
        images: (batch, mic, source, freq, frame), the filtered inputs.
        filters: (batch, mic, source, freq, tap).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        z: Tensor,
        y: Tensor,
        w: Tensor,
        mics_per_weight: tuple[int, ...],
        past_taps: int,
        future_taps: int,
        diag_load: float,
    ) -> tuple[Tensor, Tensor]:
        taps = past_taps + 1 + future_taps
        batch, sources, freqs, frames = z.shape
        mics, weights = y.shape[1], w.shape[1]
        covariance = z.new_empty(batch, weights, sources, freqs, taps, taps)
        correlation = z.new_empty(batch, sources, freqs, taps, mics)
        for block in _blocks(z, taps):
            covariance[:, :, :, block] = _covariance(z[:, :, block], w[:, :, block], past_taps, future_taps)
            stacked = stack_taps(z[:, :, block], past_taps, future_taps)
            target = _weighted(y[:, :, block], w[:, :, block], mics_per_weight)  # (batch, 1, freq, mic, frame)
            correlation[:, :, block] = stacked.conj() @ target.mT
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        mean_diagonal = diagonal.real.mean(-1, keepdim=True)
        # A silent input has a zero covariance; loaded with 1 it is solvable and its filter is zero.
        diagonal += torch.where(mean_diagonal > 0, diag_load * mean_diagonal, 1.0)
        # LU rather than Cholesky: rounding may leave a rank-deficient covariance slightly indefinite.
        lu, pivots, _ = torch.linalg.lu_factor_ex(covariance.to(torch.complex128))
        solution = _solve(lu, pivots, correlation, mics_per_weight)  # (batch, source, freq, tap, mic)
        images = z.new_empty(batch, mics, sources, freqs, frames)
        for block in _blocks(z, taps):
            stacked = stack_taps(z[:, :, block], past_taps, future_taps)
            images[:, :, :, block] = (solution[:, :, block].mT @ stacked).permute(0, 3, 1, 2, 4)
        ctx.save_for_backward(z, y, w, lu, pivots, solution)
        ctx.options = mics_per_weight, past_taps, future_taps, diag_load
        return images, solution.permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_images: Tensor, grad_filters: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in torch's convention, written x' for x: dL = Re(conj(x') dx).

            image = h^T z~         h' += conj(z~) image'       z~' += conj(h) image'
            R h = p                p' = R^-1 h'                R' = -p' h^H  (+ its loaded trace)
            p = sum_t w conj(z~) y                             z~' += conj(p') w y
            R[k, k + l] = sum_s w(s + past - k) q_l(s)         q_l'(s) = sum_k w(s + past - k) G'[k, l]
            q_l(s) = conj(z(s)) z(s + l)                       z'(s) += conj(q_l'(s)) z(s + l),
                                                               z'(s + l) += q_l'(s) z(s)
            with u = p'^T z~:                                  y' += w u
                                                               w' += Re(conj(u) (y - image))  (+ R's load)

        with G'[k, l] = R'[k, k + l] + conj(R'[k + l, k]), since the lower triangle is the upper's
        conjugate.
        """
        with full_precision(grad_images.device.type):
            return FIRLeastSquares._backward(ctx, grad_images, grad_filters)

    @staticmethod
    def _backward(ctx: FunctionCtx, grad_images: Tensor, grad_filters: Tensor) -> tuple[Tensor | None, ...]:
        z, y, w, lu, pivots, solution = ctx.saved_tensors
        mics_per_weight, past_taps, future_taps, diag_load = ctx.options
        taps = past_taps + 1 + future_taps
        grad_images = grad_images.permute(0, 2, 3, 1, 4)  # (batch, source, freq, mic, frame)
        grad_h = grad_filters.permute(0, 2, 3, 1, 4).clone()  # added to below
        for block in _blocks(z, taps):
            stacked = stack_taps(z[:, :, block], past_taps, future_taps)
            grad_h[:, :, block] += grad_images[:, :, block] @ stacked.mH
        grad_p = _solve(lu, pivots, grad_h.mT, mics_per_weight)
        grad_r = torch.stack(
            [-p @ h.mH for p, h in zip(grad_p.split(mics_per_weight, dim=-1), solution.split(mics_per_weight, dim=-1))],
            dim=1,
        )
        diagonal = grad_r.diagonal(dim1=-2, dim2=-1)
        grad_load = diag_load * diagonal.real.mean(-1, keepdim=True)  # (batch, weight, source, freq, 1)
        diagonal += grad_load
        grad_lags = _gather_lags(grad_r)  # (batch, weight, source, freq, 2, lag, tap)
        conj_h, conj_p = solution.mT.conj(), grad_p.mT.conj()  # (batch, source, freq, mic, tap)

        grad_z, grad_y, grad_w = torch.zeros_like(z), None, None
        for block in _blocks(z, taps):
            zb, wb = z[:, :, block], w[:, :, block]
            target = _weighted(y[:, :, block], wb, mics_per_weight)  # (batch, 1, freq, mic, frame)
            outer = torch.cat([conj_h[:, :, block], conj_p[:, :, block]], dim=-2)
            inner = torch.cat([grad_images[:, :, block], target.expand_as(grad_images[:, :, block])], dim=-2)
            grad_stacked = outer.transpose(-1, -2) @ inner  # (batch, source, freq, tap, frame)
            grad_block = _unstack(grad_stacked, past_taps)
            grad_block += _grad_of_lag_products(zb, wb, grad_lags[..., block, :, :, :], past_taps, future_taps)
            grad_z[:, :, block] = grad_block
        if any(ctx.needs_input_grad[1:3]):
            grad_y, grad_w = _grad_of_targets(z, y, w, solution, grad_p, grad_load, *ctx.options[:3])
        return grad_z, grad_y, grad_w, None, None, None, None


def _grad_of_targets(
    z: Tensor,
    y: Tensor,
    w: Tensor,
    solution: Tensor,
    grad_p: Tensor,
    grad_load: Tensor,
    mics_per_weight: tuple[int, ...],
    past_taps: int,
    future_taps: int,
) -> tuple[Tensor, Tensor]:
    """y' and w' from h and p', (batch, source, freq, tap, mic), and the load's share in R', (batch, weight, source,
    freq, 1): (batch, mic, freq, frame), (batch, weight, freq, frame)."""
    grad_y, grad_w = torch.empty_like(y), torch.empty_like(w)
    for block in _blocks(z, solution.shape[-2]):
        zb, yb, wb = z[:, :, block], y[:, :, block], w[:, :, block]
        stacked = stack_taps(zb, past_taps, future_taps)
        u = (grad_p[:, :, block].mT @ stacked).permute(0, 3, 1, 2, 4)  # (batch, mic, source, freq, frame)
        images = (solution[:, :, block].mT @ stacked).permute(0, 3, 1, 2, 4)
        grad_y[:, :, block] = _repeat(wb, mics_per_weight) * u.sum(2)
        of_mics = (u.conj() * (yb[:, :, None] - images)).real.sum(2)  # (batch, mic, freq, frame)
        power = stacked.abs().square().sum(-2)  # (batch, source, freq, frame)
        of_load = (grad_load[:, :, :, block] * power[:, None]).sum(2)  # (batch, weight, freq, frame)
        of_weights = [part.sum(1) for part in of_mics.split(mics_per_weight, dim=1)]
        grad_w[:, :, block] = torch.stack(of_weights, dim=1) + of_load
    return grad_y, grad_w


def _covariance(z: Tensor, w: Tensor, past_taps: int, future_taps: int) -> Tensor:
    """(batch, source, freq, frame), (batch, weight, freq, frame) -> (batch, weight, source, freq, tap, tap)."""
    taps = past_taps + 1 + future_taps
    products = _lag_products(z, taps)  # (batch, freq, source * 2 * lag, frame)
    shifted = _shifted_weights(w, past_taps, future_taps)  # (batch, freq, weight * tap, frame)
    sums = shifted @ products.transpose(-1, -2)
    sums = sums.unflatten(-1, (z.shape[1], 2, taps)).unflatten(2, (w.shape[1], taps))
    sums = torch.complex(sums[..., 0, :], sums[..., 1, :])  # (batch, freq, weight, tap, source, lag)
    sums = sums.permute(0, 2, 4, 1, 3, 5)
    covariance = sums.new_zeros(sums.shape[:-2] + (taps, taps))
    for lag in range(taps):
        entries = sums[..., : taps - lag, lag]
        covariance.diagonal(lag, -2, -1).copy_(entries)
        if lag:
            covariance.diagonal(-lag, -2, -1).copy_(entries.conj())
    return covariance


def _lag_products(z: Tensor, lags: int) -> Tensor:
    """q_l(s) = z*(s) z(s + l): (batch, source, freq, frame) -> (batch, freq, source * 2 * lag, frame).

    The 2 are real and imaginary part.
    """
    real, imag = z.real.transpose(1, 2).contiguous(), z.imag.transpose(1, 2).contiguous()
    later_real, later_imag = stack_taps(real, 0, lags - 1), stack_taps(imag, 0, lags - 1)
    real, imag = real[..., None, :], imag[..., None, :]
    products = real.new_empty(real.shape[:3] + (2, lags, z.shape[-1]))
    torch.mul(real, later_real, out=products[:, :, :, 0]).addcmul_(imag, later_imag)
    torch.mul(real, later_imag, out=products[:, :, :, 1]).addcmul_(imag, later_real, value=-1)
    return products.flatten(2, 4)


def _shifted_weights(w: Tensor, past_taps: int, future_taps: int) -> Tensor:
    """w(s + past - k): (batch, weight, freq, frame) -> (batch, freq, weight * tap, frame)."""
    shifted = stack_taps(w, future_taps, past_taps).flip(-2)
    return shifted.transpose(1, 2).flatten(2, 3)


def _gather_lags(grad_r: Tensor) -> Tensor:
    """G'[k, l] as real numbers: (..., freq, tap, tap) -> (..., freq, 2, lag, tap), zero where k + l >= taps."""
    taps = grad_r.shape[-1]
    gathered = grad_r.real.new_zeros(grad_r.shape[:-2] + (2, taps, taps))
    for lag in range(taps):
        entries = grad_r.diagonal(lag, -2, -1)
        if lag:
            entries = entries + grad_r.diagonal(-lag, -2, -1).conj()
        gathered[..., 0, lag, : taps - lag] = entries.real
        gathered[..., 1, lag, : taps - lag] = entries.imag
    return gathered


def _grad_of_lag_products(z: Tensor, w: Tensor, grad_lags: Tensor, past_taps: int, future_taps: int) -> Tensor:
    """z' from G': z (batch, source, freq, frame), w (batch, weight, freq, frame) and
    G' (batch, weight, source, freq, 2, lag, tap) of a block of frequencies -> as z."""
    taps = past_taps + 1 + future_taps
    shifted = _shifted_weights(w, past_taps, future_taps)
    # (batch, weight, source, freq, 2, lag, tap) -> (batch, freq, source * 2 * lag, weight * tap)
    grad_lags = grad_lags.permute(0, 3, 2, 4, 5, 1, 6).flatten(5, 6).flatten(2, 4)
    grad_q = (grad_lags @ shifted).unflatten(2, (z.shape[1], 2, taps)).transpose(1, 2)
    grad_q = torch.complex(grad_q[..., 0, :, :], grad_q[..., 1, :, :])  # (batch, source, freq, lag, frame)
    grad_z = (grad_q.conj() * stack_taps(z, 0, taps - 1)).sum(-2)
    return grad_z + _unstack(grad_q * z[..., None, :], past_taps=0)


def _unstack(stacked: Tensor, past_taps: int) -> Tensor:
    """Transpose of `stack_taps`: sum_k x_k(s + past_taps - k), (..., tap, frame) -> (..., frame)."""
    taps, frames = stacked.shape[-2:]
    total = stacked.new_zeros(stacked.shape[:-2] + (frames + taps - 1,))
    for k in range(taps):
        total[..., k : k + frames] += stacked[..., k, :]
    return total[..., past_taps : past_taps + frames]


def _weighted(y: Tensor, w: Tensor, mics_per_weight: tuple[int, ...]) -> Tensor:
    """w y: (batch, mic, freq, frame), (batch, weight, freq, frame) -> (batch, 1, freq, mic, frame), for all sources."""
    return (_repeat(w, mics_per_weight) * y).transpose(1, 2)[:, None]


def _repeat(w: Tensor, mics_per_weight: tuple[int, ...]) -> Tensor:
    """(batch, weight, freq, frame) -> (batch, mic, freq, frame): each mic its weight."""
    return torch.cat(
        [weight.expand(-1, mics, -1, -1) for weight, mics in zip(w.split(1, dim=1), mics_per_weight)], dim=1
    )


def _solve(lu: Tensor, pivots: Tensor, right: Tensor, mics_per_weight: tuple[int, ...]) -> Tensor:
    """Solve for all mics of a weight by its one factorisation: (batch, source, freq, tap, mic)."""
    parts = right.to(lu.dtype).split(mics_per_weight, dim=-1)
    solved = [torch.linalg.lu_solve(lu[:, n], pivots[:, n], part) for n, part in enumerate(parts)]
    return torch.cat(solved, dim=-1).to(right.dtype)


def _blocks(z: Tensor, taps: int) -> list[slice]:
    batch, sources, freqs, frames = z.shape
    bytes_per_freq = batch * sources * taps * frames * z.element_size()
    size = max(1, BLOCK_BYTES.get(z.device.type, BLOCK_BYTES["cpu"]) // bytes_per_freq)
    return [slice(start, min(start + size, freqs)) for start in range(0, freqs, size)]
