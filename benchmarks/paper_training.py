"""An estimate of the paper's training, from a measured step: 33,561 mixtures, 100 epochs, batches of 4.

    python benchmarks/paper_training.py                 # measures on a CPU, and says what it would take on GPUs
    python benchmarks/paper_training.py --device cuda   # measures on this GPU, in float32; --precision bfloat16

Arithmetic is counted, not measured: matrix products and convolutions by torch, LSTMs from their sizes; a
backward pass takes twice the forward's. Without a GPU at hand its seconds follow from that and from a supposed
rate of arithmetic (--tflops), which one measurement there replaces.
"""

import argparse
import platform
from typing import Any

import network
import torch
from measuring import in_new_process
from torch.utils.flop_counter import FlopCounterMode

MIXTURES, EPOCHS, BATCH = 33561, 100, 4


def arithmetic() -> tuple[int, float, float]:
    """Parameters, operations of a 4-s mixture's forward and backward pass, and the LSTMs' share in them."""
    from espnet2_m2m.enh.separator.tfgridnet import TFGridNet

    net = TFGridNet(129, **network.separator_conf("paper"))
    lstm = []

    def count(module: torch.nn.LSTM, inputs: tuple[torch.Tensor, ...], _: Any) -> None:
        sequences, steps, size = inputs[0].shape
        lstm.append(2 * 2 * sequences * steps * 4 * module.hidden_size * (size + module.hidden_size))

    for module in net.modules():
        if isinstance(module, torch.nn.LSTM):
            module.register_forward_hook(count)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        frames = network.SECONDS * 125 + 1
        net(torch.randn(1, frames, 6, 129, dtype=torch.complex64), torch.tensor([frames]))
    others = counter.get_total_flops()
    return sum(p.numel() for p in net.parameters()), 3 * (sum(lstm) + others), sum(lstm) / (sum(lstm) + others)


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--tflops",
        type=float,
        nargs="+",
        default=[3, 10],
        help="arithmetic that a GPU is supposed to do, in 10^12 operations a second",
    )
    parser.add_argument("--link", type=float, default=10, help="GB/s between GPUs, for the gradients' sum")
    args = parser.parse_args()
    num_parameters, flops, lstm_share = arithmetic()
    cuda = args.device == "cuda"
    batch = BATCH if cuda else 1
    found = in_new_process(
        network.__file__, "ours", "paper", batch, args.device, args.precision, args.threads, args.repeats
    )
    mixture = found["step"] / batch
    steps = MIXTURES * EPOCHS // BATCH
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {args.device}, "
        f"{args.threads} threads\n\n"
        f"{num_parameters / 1e6:.2f} M parameters; {flops / 1e12:.2f} * 10^12 operations for "
        f"{network.SECONDS} s of a mixture, {100 * lstm_share:.0f} % of them in LSTMs; "
        f"{steps} steps of {BATCH} mixtures.\n"
        f"Measured: {found['step']:.3g} s for a step of {batch} "
        f"({flops / mixture / 1e12:.2f} * 10^12 operations/s), {found['bytes'] / 1e9:.2f} GB.\n"
    )
    rates = [(f"{args.device}, measured", mixture)] + (
        []
        if cuda
        else [(f"GPU with {rate:g} * 10^12 operations/s, assumed", flops / rate / 1e12) for rate in args.tflops]
    )
    print(
        "| device | devices | mixtures per step, each | seconds per step | for the gradients' sum | days |\n"
        "|:--|--:|--:|--:|--:|--:|"
    )
    for name, seconds in rates:
        for devices in (1, 4, 8):
            each = max(1, BATCH // devices)  # 8 devices cannot share 4 mixtures: batches of 8 then
            total = each * devices
            # A ring sends every gradient twice, but for a device's own part.
            reduce = 2 * (devices - 1) / devices * 4 * num_parameters / args.link / 1e9
            step = each * seconds + reduce
            print(
                f"| {name} | {devices} | {each} | {step:.3g} | {reduce:.1g} | "
                f"{MIXTURES * EPOCHS / total * step / 86400:.1f} |"
            )
            if name.startswith("cpu"):
                break


if __name__ == "__main__":
    main()
