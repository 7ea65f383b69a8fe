"""Our TF-GridNet on spectra against ESPnet's tfgridnetv2 of the same sizes and weights.

    python benchmarks/network.py                            # two CPU threads, batch 1
    python benchmarks/network.py --device cuda --batch 4    # and --amp for autocast to bfloat16

Segments of 4 s at 8 kHz, six mics, two sources; sizes of conf/tuning/size_small.yaml and size_paper.yaml. A
training step is network, mixture-constraint loss (float32), backward pass and Adam; with ESPnet's network,
which takes and gives waveforms, its estimates are transformed for the loss. The real-time factor is that of
separation on one thread, network and FCP, of 10 s. Each line is measured in a process of its own: a warm-up,
then the median of several runs.
"""

import argparse
import json
import platform
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


def measure(way: str, size: str, batch: int, device: str, amp: bool, threads: int, repeats: int) -> dict[str, float]:
    """Seconds of a step with and without the loss, bytes, and the real-time factor of one way."""
    from espnet2_m2m import MixtureConstraintLoss

    torch.set_num_threads(threads)
    net, estimate, stft = estimator(way, size, device)
    loss_of, optim = MixtureConstraintLoss(), torch.optim.Adam(net.parameters(), lr=1e-4)
    wave = torch.randn(batch, SECONDS * RATE, 6, device=device)
    far_field = stft(wave.transpose(1, 2))
    close_talk = stft(torch.randn(batch, 2, SECONDS * RATE, device=device))
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=amp)

    def network() -> None:
        optim.zero_grad()
        with autocast:
            est = estimate(wave)
        torch.view_as_real(est).square().mean().backward()

    def training_step() -> None:
        optim.zero_grad()
        with autocast:
            est = estimate(wave)
        loss_of(est, far_field, close_talk)[0].mean().backward()
        optim.step()

    step_seconds, num_bytes = timed(training_step, repeats, device)
    return {
        "step": step_seconds,
        "network": timed(network, repeats, device)[0],
        "bytes": num_bytes,
        "rtf": real_time_factor(net, estimate, stft, loss_of, device, amp, repeats),
    }


def real_time_factor(
    net: nn.Module,
    estimate: Callable[[Tensor], Tensor],
    stft: nn.Module,
    loss_of: nn.Module,
    device: str,
    amp: bool,
    repeats: int,
    seconds: int = 10,
) -> float:
    """Seconds that the separation of a second takes, network and FCP, on one thread."""
    torch.set_num_threads(1)
    wave = torch.randn(1, seconds * RATE, 6, device=device)
    net.eval()

    @torch.no_grad()
    def separate() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=amp):
            est = estimate(wave)
        far_field = stft(wave.transpose(1, 2))
        stft.inverse(loss_of.farfield_images(est, far_field, None, far_field[:, :1])[:, 0], wave.shape[1])

    return timed(separate, min(repeats, 3), device)[0] / seconds


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--amp", action="store_true", help="the network in bfloat16 autocast")
    parser.add_argument("--sizes", nargs="+", choices=("small", "paper"), default=["small", "paper"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*json.loads(args.measure))))
        return
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {args.device}, "
        f"{args.threads} threads, batch {args.batch}{', bfloat16 autocast' if args.amp else ''}; "
        "relative difference of the estimates:",
        ", ".join(f"{size} {difference(size):.0e}" for size in args.sizes),
        "\n",
    )
    print(
        "| size | network | forward + backward (s) | ratio | training step (s) | ratio | memory (GB) |"
        " real-time factor |\n|:--|:--|--:|--:|--:|--:|--:|--:|"
    )
    for size in args.sizes:
        theirs = None
        for way in WAYS:
            found = in_new_process(__file__, way, size, args.batch, args.device, args.amp, args.threads, args.repeats)
            theirs = theirs or found
            print(
                f"| {size} | {way} | {found['network']:.3g} | {theirs['network'] / found['network']:.2f} |"
                f" {found['step']:.3g} | {theirs['step'] / found['step']:.2f} | {found['bytes'] / 1e9:.2f} |"
                f" {found['rtf']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
