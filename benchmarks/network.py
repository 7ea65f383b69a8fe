"""Our TF-GridNet on spectra against ESPnet's tfgridnetv2 of the same sizes and weights.

    python benchmarks/network.py                            # two CPU threads, batch 1
    python benchmarks/network.py --device cuda --batch 4
    python benchmarks/network.py --parts --threads 1        # what a block of ours spends its time on

Both in float32 and in autocast to bfloat16 (model_conf's `precision`). Segments of 4 s at 8 kHz, six mics, two
sources; sizes of conf/tuning/size_small.yaml and size_paper.yaml. A training step is network, mixture-constraint loss
(float32), backward pass and Adam; with ESPnet's network, which takes and gives waveforms, its estimates are transformed
for the loss. The real-time factor is that of separation on one thread, network and FCP, of 10 s. Each line is measured
in a process of its own: a warm-up, then the shortest of several runs; on one CPU thread in CPU time, which other work
on the machine disturbs less.
"""

import argparse
import json
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from measuring import in_new_process, timed
from torch import Tensor, nn

CONF = Path(__file__).parents[1] / "conf/tuning"
RATE, SECONDS = 8000, 4
WAYS = ("ESPnet", "ours", "ours, checkpointing")
PRECISIONS = ("float32", "bfloat16")


def separator_conf(size: str) -> dict[str, Any]:
    """Options of the network of size "small" or "paper"."""
    conf = yaml.safe_load((CONF / "size_paper.yaml").read_text())["separator_conf"]
    if size == "small":
        conf.update(yaml.safe_load((CONF / "size_small.yaml").read_text())["separator_conf"])
    return conf


def networks(size: str) -> tuple[nn.Module, nn.Module]:
    """ESPnet's network, and ours with its weights."""
    from espnet2.enh.separator.tfgridnetv2_separator import TFGridNetV2

    from espnet2_m2m.enh.separator.tfgridnet import TFGridNet, from_espnet

    conf = separator_conf(size)
    torch.manual_seed(0)
    espnet = TFGridNetV2(
        None,
        n_fft=256,
        stride=64,
        attn_approx_qk_dim=129 * conf["attn_qk_dim"],
        **{name: value for name, value in conf.items() if name != "attn_qk_dim"},
    )
    ours = TFGridNet(129, **conf)
    ours.load_state_dict(from_espnet(espnet.state_dict(), conf["emb_hs"]))
    return espnet, ours


def difference(size: str) -> float:
    """Largest relative difference of the two networks' estimates of a spectrum of RMS 1."""
    espnet, ours = networks(size)
    spectra = torch.randn(1, 100, 6, 129, dtype=torch.complex64)
    spectra /= spectra.abs().square().mean().sqrt()
    x = spectra.transpose(1, 2)
    with torch.no_grad():
        x = espnet.conv(torch.cat((x.real, x.imag), dim=1))
        for block in espnet.blocks:
            x = block(x)
        x = espnet.deconv(x).unflatten(1, (2, 2))
        actual = torch.stack(ours(spectra, torch.tensor([100]))[0], dim=1)
    expected = torch.complex(x[:, :, 0], x[:, :, 1])
    return float((actual - expected).abs().max() / expected.abs().max())


def estimator(way: str, size: str, device: str) -> tuple[nn.Module, Callable[[Tensor], Tensor], nn.Module]:
    """The network, a function from waveforms (batch, sample, mic) to the estimates' spectra, and the STFT."""
    from espnet2_m2m import STFT

    espnet, ours = networks(size)
    stft = STFT().to(device)
    net = (espnet if way == "ESPnet" else ours).to(device)
    if way == "ESPnet":

        def estimate(wave: Tensor) -> Tensor:
            lengths = torch.full((len(wave),), wave.shape[1], device=device)
            return stft(torch.stack(net(wave, lengths)[0], dim=1).float())
    else:
        net.activation_checkpointing = way.endswith("checkpointing")

        def estimate(wave: Tensor) -> Tensor:
            spectra = stft(wave.transpose(1, 2)).permute(0, 3, 1, 2)
            lengths = torch.full((len(wave),), spectra.shape[1])
            return torch.stack(net(spectra, lengths)[0], dim=1).transpose(2, 3)

    return net, estimate, stft


def autocast(device: str, precision: str) -> torch.autocast:
    """Where a network works in this precision."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def clock(device: str) -> Callable[[], float]:
    """CPU time where one thread does the work, else the time that passes."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def measure(
    way: str, size: str, batch: int, device: str, precision: str, threads: int, repeats: int
) -> dict[str, float]:
    """Seconds of a step with and without the loss, bytes, and the real-time factor of one way."""
    from espnet2_m2m import MixtureConstraintLoss

    torch.set_num_threads(threads)
    net, estimate, stft = estimator(way, size, device)
    loss_of, optim = MixtureConstraintLoss(), torch.optim.Adam(net.parameters(), lr=1e-4)
    wave = torch.randn(batch, SECONDS * RATE, 6, device=device)
    far_field = stft(wave.transpose(1, 2))
    close_talk = stft(torch.randn(batch, 2, SECONDS * RATE, device=device))

    def network() -> None:
        optim.zero_grad()
        with autocast(device, precision):
            est = estimate(wave)
        torch.view_as_real(est).square().mean().backward()

    def training_step() -> None:
        optim.zero_grad()
        with autocast(device, precision):
            est = estimate(wave)
        loss_of(est, far_field, close_talk)[0].mean().backward()
        optim.step()

    step_seconds, num_bytes = timed(training_step, repeats, device, clock(device))
    return {
        "step": step_seconds,
        "network": timed(network, repeats, device, clock(device))[0],
        "bytes": num_bytes,
        "rtf": real_time_factor(net, estimate, stft, loss_of, device, precision, repeats),
    }


def real_time_factor(
    net: nn.Module,
    estimate: Callable[[Tensor], Tensor],
    stft: nn.Module,
    loss_of: nn.Module,
    device: str,
    precision: str,
    repeats: int,
    seconds: int = 10,
) -> float:
    """Seconds that the separation of a second takes, network and FCP, on one thread."""
    torch.set_num_threads(1)
    wave = torch.randn(1, seconds * RATE, 6, device=device)
    net.eval()

    @torch.no_grad()
    def separate() -> None:
        with autocast(device, precision):
            est = estimate(wave)
        far_field = stft(wave.transpose(1, 2))
        stft.inverse(loss_of.farfield_images(est, far_field, None, far_field[:, :1])[:, 0], wave.shape[1])

    return timed(separate, min(repeats, 3), device, clock(device))[0] / seconds


# Modules of a block by what they are; what none of them does is the rest.
PARTS = {
    "LSTMs": r"(intra|inter)\.lstm",
    "their projections": r"(intra|inter)\.linear",
    "norms before them": r"(intra|inter)\.norm",
    "attention": r"attention",
    "- its norms": r"attention\.(norms\.\d|out_norm)",
    "- its projections": r"attention\.(project|out)",
}
WITHIN_ATTENTION, WITHIN_BLOCK = "- its products, softmax, PReLU", "unfolding, transpositions, sums"


def measure_parts(size: str, precision: str, threads: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of the parts of a block on a segment, each with the input it has there: forward, and with backward."""
    torch.set_num_threads(threads)
    block = networks(size)[1].blocks[0]
    features = torch.randn(1, SECONDS * RATE // 64 + 1, 129, block.intra.norm.normalized_shape[0])
    features = features.to(getattr(torch, precision))  # as the first convolution leaves them
    inputs = {"": features}
    hooks = [
        part.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, args[0].detach()))
        for name, part in block.named_modules()
        if any(re.fullmatch(pattern, name) for pattern in PARTS.values())
    ]
    with autocast("cpu", precision), torch.no_grad():
        block(features)
    for hook in hooks:
        hook.remove()

    def seconds(name: str, train: bool) -> float:
        part, x = block.get_submodule(name), inputs[name].requires_grad_(train)

        def run() -> None:
            with autocast("cpu", precision), torch.set_grad_enabled(train):
                y = part(x)
            if train:
                y = y[0] if isinstance(y, tuple) else y
                y.backward(y)

        return timed(run, repeats, clock=clock("cpu"))[0]

    each = {name: [seconds(name, train) for train in (False, True)] for name in inputs}
    found = {
        title: [sum(column) for column in zip(*(each[name] for name in each if re.fullmatch(pattern, name)))]
        for title, pattern in PARTS.items()
    }
    within = [title for title in PARTS if title.startswith("-")]
    found[WITHIN_ATTENTION] = _rest(found["attention"], [found[title] for title in within])
    found[WITHIN_BLOCK] = _rest(each[""], [found[title] for title in PARTS if title not in within])
    return found | {"whole block": each[""]}


def _rest(whole: list[float], parts: list[list[float]]) -> list[float]:
    return [whole - sum(column) for whole, *column in zip(whole, *parts)]


def print_parts(sizes: list[str], threads: int, repeats: int) -> None:
    """The table of --parts."""
    print(
        "| size | part of a block | forward (ms), float32 | bfloat16 | ratio |"
        " and backward (ms), float32 | bfloat16 | ratio |\n|:--|:--|--:|--:|--:|--:|--:|--:|"
    )
    for size in sizes:
        exact, fast = (in_new_process(__file__, "parts", size, name, threads, repeats) for name in PRECISIONS)
        for title in exact:
            cells = [
                f"{1e3 * before:.1f} | {1e3 * after:.1f} | {before / after:.2f}"
                for before, after in zip(exact[title], fast[title])
            ]
            print(f"| {size} | {title} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=("small", "paper"), default=["small", "paper"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--networks", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="the parts of a block instead, on the CPU")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        way, *job = json.loads(args.measure)
        print(json.dumps(measure_parts(*job) if way == "parts" else measure(way, *job)))
        return
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {args.device}, "
        f"{args.threads} threads, batch {args.batch}; relative difference of the estimates in float32:",
        ", ".join(f"{size} {difference(size):.0e}" for size in args.sizes),
        "\n",
    )
    if args.parts:
        print_parts(args.sizes, args.threads, args.repeats)
        return
    print(
        "| size | network | precision | network (s) | ratio | step (s) | ratio | memory (GB) |"
        " real-time factor | ratio |\n|:--|:--|:--|--:|--:|--:|--:|--:|--:|--:|"
    )
    for size in args.sizes:
        theirs = None
        for precision in args.precisions:
            for way in args.networks:
                job = way, size, args.batch, args.device, precision, args.threads, args.repeats
                found = in_new_process(__file__, *job)
                theirs = theirs or found
                cells = [f"{found[key]:.3g} | {theirs[key] / found[key]:.2f}" for key in ("network", "step", "rtf")]
                print(
                    f"| {size} | {way} | {precision} | {cells[0]} | {cells[1]} | {found['bytes'] / 1e9:.2f} |"
                    f" {cells[2]} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
