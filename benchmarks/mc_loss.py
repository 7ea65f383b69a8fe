"""Time and memory of the mixture-constraint loss, against the two usual ways to solve FCP.

    python benchmarks/mc_loss.py                    # the table, forward + backward
    python benchmarks/mc_loss.py --device cuda
    python benchmarks/mc_loss.py --plot cost.png    # ours against taps, mics, sources, frames, batch

Random signals of 2 sources, 6 far-field mics and 2 headsets, 129 frequencies, 21 taps, float32. Each way runs
in a process of its own: a warm-up, then the shortest of several runs. Memory is what the process's peak rises
by over that with the inputs alone (on a GPU, the allocator's peak). All ways must agree with float64.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from measuring import in_new_process, timed
from torch import Tensor

from espnet2_m2m import MixtureConstraintLoss, fcp_weight, ri_mag_l1
from espnet2_m2m.fir_least_squares import stack_taps

Shape = dict[str, int]  # sizes of the signals, and `past` taps
REFERENCE = dict(batch=4, sources=2, mics=6, headsets=2, freqs=129, frames=500, past=19)
DIAG_LOAD = 1e-5


def inputs(shape: Shape, device: str, dtype: torch.dtype) -> list[Tensor]:
    """est, far_field, close_talk: (batch, source | mic, freq, frame) complex noise."""
    generator = torch.Generator().manual_seed(0)
    # Drawn in single precision for all, so that the signals are the same, and no peak comes before the loss.
    return [
        torch.randn(
            shape["batch"], shape[axis], shape["freqs"], shape["frames"], dtype=torch.complex64, generator=generator
        ).to(device, dtype)
        for axis in ("sources", "mics", "headsets")
    ]


def ours(shape: Shape) -> MixtureConstraintLoss:
    """Our loss."""
    return MixtureConstraintLoss(
        closetalk_past_taps=shape["past"], farfield_past_taps=shape["past"], diag_load=DIAG_LOAD
    )


def loaded(covariance: Tensor) -> Tensor:
    """Covariances (..., tap, tap) with a load on their diagonal, relative to its mean."""
    mean_diagonal = covariance.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
    return covariance + DIAG_LOAD * mean_diagonal * torch.eye(covariance.shape[-1], device=covariance.device)


def stacked_images(est: Tensor, mix: Tensor, weight: Tensor, past: int) -> Tensor:
    """Stacked taps times stacked taps: one covariance for each weight. (batch, mic, source, freq, frame)"""
    taps = stack_taps(est, past, 1)  # (batch, source, freq, tap, frame)
    weighted = taps.conj() / weight[:, :, :, None]
    filters = torch.linalg.solve(loaded(weighted @ taps.mT), weighted @ mix.permute(0, 2, 3, 1)[:, None])
    return (filters.mT @ taps).permute(0, 3, 1, 2, 4)


def stacked_taps(est: Tensor, far_field: Tensor, close_talk: Tensor, past: int) -> list[Tensor]:
    """Far-field mics share a weight and so a covariance; each headset has its own."""
    return [
        stacked_images(est, far_field, fcp_weight(far_field, shared=True), past),
        torch.cat(
            [
                stacked_images(est, close_talk[:, d : d + 1], fcp_weight(close_talk[:, d : d + 1]), past)
                for d in range(close_talk.shape[1])
            ],
            dim=1,
        ),
    ]


def outer_images(est: Tensor, mix: Tensor, weight: Tensor, past: int) -> Tensor:
    """An outer product for every frame, then their weighted sum, for one mic."""
    taps = stack_taps(est, past, 1).mT  # (batch, source, freq, frame, tap)
    scale = weight[:, 0][:, None, :, :, None]
    outer = taps.conj()[..., :, None] * taps[..., None, :] / scale[..., None]
    target = taps.conj() * mix[:, 0][:, None, :, :, None] / scale
    filters = torch.linalg.solve(loaded(outer.sum(-3)), target.sum(-2)[..., None])
    return (taps @ filters)[..., 0][:, None]


def outer_products(est: Tensor, far_field: Tensor, close_talk: Tensor, past: int) -> list[Tensor]:
    """One covariance for each mic, as published implementations of FCP have it."""
    shared = fcp_weight(far_field, shared=True).expand(-1, far_field.shape[1], -1, -1)
    return [
        torch.cat(
            [outer_images(est, mix[:, r : r + 1], weight[:, r : r + 1], past) for r in range(mix.shape[1])], dim=1
        )
        for mix, weight in ((far_field, shared), (close_talk, fcp_weight(close_talk)))
    ]


WAYS = {"ours": None, "stacked taps": stacked_taps, "outer products": outer_products}


def loss_of(way: str, shape: Shape, est: Tensor, far_field: Tensor, close_talk: Tensor) -> Tensor:
    """() mean over the batch."""
    if way == "ours":
        return ours(shape).to(est.device)(est, far_field, close_talk)[0].mean()
    images = WAYS[way](est, far_field, close_talk, shape["past"])
    return sum(ri_mag_l1(image.sum(2), mix).sum(-1) for image, mix in zip(images, (far_field, close_talk))).mean()


def run(way: str, shape: Shape, device: str, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Seconds, bytes, loss and gradient of one way."""
    est, far_field, close_talk = inputs(shape, device, dtype)
    est.requires_grad_()

    def step() -> None:
        est.grad = None
        step.loss = loss_of(way, shape, est, far_field, close_talk)
        step.loss.backward()

    seconds, num_bytes = timed(step, repeats, device)
    return {"seconds": seconds, "bytes": num_bytes, "loss": float(step.loss), "grad": est.grad}


def measure(way: str, shape: Shape, device: str, threads: int, repeats: int) -> dict[str, float]:
    """Seconds and bytes of one way, and the errors of its loss and gradient."""
    torch.set_num_threads(threads)
    result = run(way, shape, device, torch.complex64, repeats)
    # A quarter of the batch suffices to compare with float64, whose results stand for the truth.
    small = dict(shape, batch=1, frames=min(shape["frames"], 200))
    found, truth = run(way, small, device, torch.complex64, 1), run("ours", small, "cpu", torch.complex128, 1)
    grad, true_grad = found.pop("grad").cpu().to(torch.complex128), truth["grad"]
    result.pop("grad")
    return {
        **result,
        "loss_error": abs(found["loss"] / truth["loss"] - 1),
        "grad_error": float((grad - true_grad).abs().max() / true_grad.abs().max()),
    }


def print_table(batches: list[int], device: str, threads: int, repeats: int) -> None:
    """Lines appear as they are measured: outer products of a batch take minutes."""
    print(
        "| batch | method | seconds | ours is faster by | peak memory (GB) | ours / this | loss error |"
        " gradient error |\n|--:|:--|--:|--:|--:|--:|--:|--:|"
    )
    for batch in batches:
        mine = None
        for way in WAYS:
            result = in_new_process(__file__, way, dict(REFERENCE, batch=batch), device, threads, repeats)
            mine = mine or result
            print(
                f"| {batch} | {way} | {result['seconds']:.3g} | {result['seconds'] / mine['seconds']:.1f} |"
                f" {result['bytes'] / 1e9:.3f} | {mine['bytes'] / result['bytes']:.2f} |"
                f" {result['loss_error']:.0e} | {result['grad_error']:.0e} |",
                flush=True,
            )


def plot(path: Path, device: str, threads: int, repeats: int) -> None:
    """Cost of ours when one size of the reference shape changes; batch 1 but for the sweep of it."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sweeps = {
        "past": [4, 9, 19, 39],
        "mics": [1, 3, 6, 12],
        "sources": [1, 2, 4],
        "frames": [125, 250, 500, 1000],
        "batch": [1, 2, 4, 8],
    }
    figure, axes = plt.subplots(1, len(sweeps), figsize=(14, 3), layout="constrained")
    for axis, (name, values) in zip(axes, sweeps.items()):
        base = dict(REFERENCE, batch=1)
        seconds = [
            in_new_process(__file__, "ours", {**base, name: value}, device, threads, repeats)["seconds"]
            for value in values
        ]
        axis.plot([value + 2 for value in values] if name == "past" else values, seconds, "o-")
        label = {"past": "taps", "mics": "far-field mics"}.get(name, name)
        axis.set(xlabel=label, xlim=(0, None), ylim=(0, None))
        axis.grid(color="0.9")
    axes[0].set_ylabel("seconds, forward + backward")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--plot", type=Path, help="write this picture instead of the table")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*json.loads(args.measure))))
    elif args.plot:
        plot(args.plot, args.device, args.threads, args.repeats)
    else:
        print(
            f"torch {torch.__version__}, Python {platform.python_version()}, {args.device}, "
            f"{args.threads} threads; {REFERENCE}"
        )
        print_table(args.batches, args.device, args.threads, args.repeats)


if __name__ == "__main__":
    main()
