r"""All that is to be measured on a GPU, in one command that keeps within its time, on a machine where nothing can be
installed but torch, numpy and scipy for Python 3.12 are there.

On a machine with this repository's environment (`make setup`), collect what that machine lacks, 7 MB of packages and
25 MB of speech, in on_gpu/ (git ignores it):

    python -m pip download --no-deps --dest on_gpu/wheels --python-version 3.12 --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
        espnet==202611 torch-complex typeguard packaging pyyaml soundfile cffi
    espnet2_m2m make_demo_speech --num_sentences 20 --out_dir on_gpu/talkers
    espnet2_m2m format_data_dir --data_dir on_gpu/talkers --sample_rate 8000 --out_dir on_gpu/speech

Copy the repository with on_gpu/wheels and on_gpu/speech there, and in its root:

    for wheel in on_gpu/wheels/*.whl; do python3 -m zipfile -e $wheel on_gpu/packages; done
    PYTHONPATH=.:on_gpu/packages python3 benchmarks/on_gpu.py --out_dir on_gpu/results --minutes 9

The parts, in this order: `loss`, the mixture-constraint loss against the usual way to solve FCP (mc_loss.py);
`network`, ours against ESPnet's tfgridnetv2 (network.py), alone and in a training step with loss and Adam; `equality`,
loss and gradients against those of the CPU in float64; `ddp`, a training step in a process group of one rank; and for
the rest of the time `training` on random rooms, which are simulated meanwhile by the CPU's other cores. Every
measurement has a process of its own, so what fails or lacks the memory takes nothing else away.

OUT_DIR/results.json and results.md hold what has been found so far, training.pth the training, which the same command
continues (`--parts training`: that alone). The status is 1 if a part failed or differs from the CPU by too much.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before numpy is imported: the processes that simulate rooms have one thread each.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import mc_loss
import network
import numpy as np
import torch
import torch._dynamo  # every Adam imports it, and DDP: as the next, here, so that not every process has to
import yaml
from espnet2.enh.separator import tfgridnetv2_separator  # noqa: F401
from measuring import timed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from espnet2_m2m import STFT, MixtureConstraintLoss, markdown, mixture_consistency
from espnet2_m2m.bin import SEED, cli_errors, number, positive
from espnet2_m2m.corpora.clean_speech import CleanSpeech
from espnet2_m2m.data_dir.tables import atomic_path, write_text
from espnet2_m2m.enh.config import read_config
from espnet2_m2m.enh.separator.tfgridnet import TFGridNet
from espnet2_m2m.scoring import metrics
from espnet2_m2m.simulation.render import REF_MIC, dry_signals, render
from espnet2_m2m.simulation.rooms import RandomRoom
from espnet2_m2m.simulation.scene import SceneSettings, draw_scenes
from espnet2_m2m.simulation.seeds import generator_of
from espnet2_m2m.simulation.turns import split_speech

PARTS = ("loss", "network", "equality", "ddp", "training")
PRECISIONS = ("float32", "TF32", "bfloat16")  # the last by autocast
TOLERANCE = 1e-4  # of the loss and its gradients against the CPU, relative
# Of the network in float32: its PReLUs have a kink, where rounding may turn a gradient. TF32 loses more than that.
NETWORK_TOLERANCE = 1e-3
GRACE_S = 20  # beyond its time, for a training's last validation
OURS = "ours"

Record = Callable[..., None]  # notes a row of the results: record(work=..., seconds=...)


# ---- Results ---------------------------------------------------------------------------------------------


class Results:
    """Rows of what was measured, in OUT_DIR/results.json and, to be read, in results.md."""

    def __init__(self, out_dir: Path) -> None:
        self.path = out_dir / "results.json"

    def rows(self) -> list[dict[str, Any]]:
        return json.loads(self.path.read_text()) if self.path.is_file() else []

    def add(self, job: str, **row: Any) -> None:
        """Note a row, with the name of the job that found it."""
        print(job, json.dumps(row), file=sys.stderr, flush=True)
        self.write([*self.rows(), {"job": job, **row}])

    def write(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.path, "".join(["[\n", ",\n".join(map(json.dumps, rows)), "\n]\n"]))
        write_text(self.path.with_suffix(".md"), self.markdown(rows))

    def markdown(self, rows: list[dict[str, Any]]) -> str:
        """The versions, the table of all measurements and that of the training, as far as they are there."""
        by_kind = {kind: [row for row in rows if kind in row] for kind in ("device", "work", "step")}
        parts = [", ".join(f"{key} {row[key]}" for key in row if key != "job") for row in by_kind["device"]]
        if by_kind["work"]:
            parts.append(measurements(by_kind["work"]))
        if by_kind["step"]:
            parts.append(learning_curve(by_kind["step"]))
        return "\n\n".join(parts) + "\n"


def measurements(rows: list[dict[str, Any]]) -> str:
    """The table of everything but the training."""

    def alike(row: dict[str, Any]) -> tuple:
        return row["work"], row.get("precision"), row.get("batch")

    ours = {alike(row): row["seconds"] for row in rows if row.get("way") == OURS and "seconds" in row}
    lines = []
    for row in rows:
        seconds, num_bytes = row.get("seconds"), row.get("bytes")
        ratio = seconds / ours[alike(row)] if seconds and alike(row) in ours else None
        lines.append(
            [
                *(row.get(name, "") for name in ("work", "way", "precision", "batch")),
                row.get("failed") or ("" if seconds is None else f"{seconds:.3g}"),
                "" if ratio is None else f"{ratio:.2f}",
                "" if num_bytes is None else f"{num_bytes / 1e9:.2f}",
                *(_error(row, name) for name in ("loss_error", "grad_error")),
            ]
        )
    header = ["", "method", "precision", "batch", "seconds", "ours is faster by", "peak memory (GB)"]
    return markdown.table([*header, "loss differs by", "gradient differs by"], lines, left=3)


def _error(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return ""
    return f"{row[name]:.0e}" + (f" > {row['tolerance']:.0e}" if _too_much(row, name) else "")


def _too_much(row: dict[str, Any], name: str) -> bool:
    """Whether an error is above what is allowed, or NaN."""
    return "tolerance" in row and not row[name] <= row["tolerance"]


def learning_curve(rows: list[dict[str, Any]]) -> str:
    """The table of the training."""
    header = ["step", "seconds", "training loss", "validation: mixture constraint", "SI-SDR (dB), mixture"]
    lines = [
        [
            str(row["step"]),
            f"{row['seconds']:.0f}",
            "" if row["loss"] is None else f"{row['loss']:.3f}",
            f"{row['mc']:.3f}",
            *(f"{row[name]:.1f}" for name in ("mixture", "image", "consistent")),
        ]
        for row in rows
    ]
    return markdown.table([*header, "FCP image", "mixture-consistent"], lines, left=0)


# ---- Measurements ----------------------------------------------------------------------------------------


def use_precision(precision: str, device: str) -> torch.autocast:
    """Set TF32 for this process as users do, and give the context in which the network works."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def measure(step: Callable[[], Any], args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and, on a GPU, bytes: on a CPU they are known of a process's first measurement only."""
    seconds, num_bytes = timed(step, args.repeats, args.device)
    return {"seconds": seconds, "bytes": num_bytes if args.device == "cuda" else None}


def find_versions(args: argparse.Namespace, record: Record) -> None:
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    versions = {"torch": torch.__version__, "espnet": version("espnet"), "Python": platform.python_version()}
    record(device=device, size=args.size, segments=f"{args.seconds:g} s", **versions)


def each_batch(measurement: Callable, args: argparse.Namespace, way: str, precision: str, record: Record) -> None:
    """A measurement with every size of batch; what comes before one that lacks the memory has been noted."""
    for batch in args.batches:
        measurement(args, way, precision, batch, partial(record, way=way, precision=precision, batch=batch))


def measure_loss(args: argparse.Namespace, way: str, precision: str, batch: int, record: Record) -> None:
    """Forward and backward pass of the loss on noise; see mc_loss.py."""
    shape = {**mc_loss.REFERENCE, "batch": batch, "frames": num_frames(args.seconds)}
    est, *mixtures = mc_loss.inputs(shape, args.device, torch.complex64)
    est.requires_grad_()

    def step() -> None:
        est.grad = None
        mc_loss.loss_of(way, shape, est, *mixtures).backward()

    with use_precision(precision, args.device):
        record(work="loss", **measure(step, args))


def measure_network(args: argparse.Namespace, way: str, precision: str, batch: int, record: Record) -> None:
    """Forward and backward pass of the network, and a training step, both on noise; see network.py."""
    net, estimate, stft = network.estimator(way, args.size, args.device)
    optim, loss_of = torch.optim.Adam(net.parameters(), lr=1e-4), MixtureConstraintLoss()
    wave, far_field, close_talk = noise(args.size, args.seconds, batch, stft)
    autocast = use_precision(precision, args.device)

    def forward_backward() -> None:
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

    record(work="network", **measure(forward_backward, args))
    record(work="training step", **measure(training_step, args))


def compare_with_cpu(args: argparse.Namespace, record: Record) -> None:
    """Loss and gradients against those of the CPU in float64, which stand for the truth.

    TF32 and autocast may not change the mixture-constraint loss. The network they change, as they are meant to: it is
    only to be seen by how much. Of the network the mean power of the estimates is taken for a loss, since the other
    has the magnitudes of residuals in it: where rounding gives one of them another sign, the gradient jumps. For the
    same reason the loss is compared at few frequencies, with a residual so near to zero improbable (1 in 20).
    """
    seconds = min(args.seconds, 1.0)  # float64 is slow on CPUs
    shape = {**mc_loss.REFERENCE, "batch": 1, "frames": num_frames(seconds), "freqs": 33}
    true = mc_loss.run(OURS, shape, "cpu", torch.complex128, 1)
    for precision in PRECISIONS:
        with use_precision(precision, args.device):
            found = mc_loss.run(OURS, shape, args.device, torch.complex64, 1)
        record(
            work="loss, compared with the CPU",
            way=OURS,
            precision=precision,
            batch=1,
            tolerance=TOLERANCE,
            loss_error=abs(found["loss"] / true["loss"] - 1),
            grad_error=difference([found["grad"]], [true["grad"]]),
        )
    net, truth = network.networks(args.size)[1], network.networks(args.size)[1].double()
    _, far_field, _ = noise(args.size, seconds, 1, STFT())
    true_power, true_grads = power_and_gradients(truth, far_field.cdouble())
    net.to(args.device)
    for precision in PRECISIONS:
        autocast = use_precision(precision, args.device)
        power, grads = power_and_gradients(net, far_field.to(args.device), autocast)
        record(
            work="network, compared with the CPU",
            way=OURS,
            precision=precision,
            batch=1,
            **({"tolerance": NETWORK_TOLERANCE} if precision == "float32" else {}),
            loss_error=abs(power / true_power - 1),
            grad_error=difference(grads, true_grads),
        )


def measure_ddp(args: argparse.Namespace, record: Record) -> None:
    """Forward and backward pass of our network under DDP with one process, and what they are without it."""
    cuda = args.device == "cuda"
    backend = "nccl" if cuda else "gloo"
    use_precision("float32", args.device)
    net = network.networks(args.size)[1].to(args.device)
    _, far_field, _ = noise(args.size, args.seconds, args.train_batch, STFT().to(args.device))
    record = partial(record, work="network, DDP", precision="float32", batch=args.train_batch)
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(backend, init_method=f"file://{folder}/ranks", rank=0, world_size=1)
        ddp = nn.parallel.DistributedDataParallel(net, device_ids=[0] if cuda else None)
        alone, joined = (partial(power_and_gradients, model, far_field) for model in (net, ddp))
        power, grads = alone()
        ddp_power, ddp_grads = joined()
        errors = {"loss_error": abs(ddp_power / power - 1), "grad_error": difference(ddp_grads, grads)}
        record(way=OURS, **measure(alone, args))
        record(way=f"ours in DDP, one rank, {backend}", tolerance=TOLERANCE, **measure(joined, args), **errors)
        torch.distributed.destroy_process_group()


def num_frames(seconds: float) -> int:
    return STFT().num_frames(round(seconds * network.RATE))


def noise(size: str, seconds: float, batch: int, stft: STFT) -> tuple[Tensor, Tensor, Tensor]:
    """Waveform (batch, sample, mic) and spectra of noise at the far-field mics and at headsets, as many as sources."""
    conf = network.separator_conf(size)
    mics, sources = conf["n_imics"], conf["n_srcs"]
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(batch, round(seconds * network.RATE), mics + sources, generator=generator)
    wave = wave.to(stft.window.device)
    spectra = stft(wave.transpose(1, 2))
    return wave[..., :mics], spectra[:, :mics], spectra[:, mics:]


def estimates(net: nn.Module, far_field: Tensor) -> Tensor:
    """Our network on spectra: (batch, mic, freq, frame) -> (batch, source, freq, frame)."""
    lengths = torch.full((len(far_field),), far_field.shape[-1])
    return torch.stack(net(far_field.permute(0, 3, 1, 2), lengths)[0], dim=1).transpose(2, 3)


def power_and_gradients(
    net: nn.Module, far_field: Tensor, autocast: torch.autocast | None = None
) -> tuple[float, list[Tensor]]:
    """Mean power of the estimates, and its gradients with respect to the network's parameters."""
    net.zero_grad()
    with autocast or torch.autocast(far_field.device.type, enabled=False):
        est = estimates(net, far_field)
    power = torch.view_as_real(est).square().mean()
    power.backward()
    return float(power.detach()), [parameter.grad.clone() for parameter in net.parameters()]


def difference(found: list[Tensor], true: list[Tensor]) -> float:
    """Largest difference of any number in lists of tensors, relative to the largest true one."""
    largest = max(float(t.abs().max()) for t in true)
    errors = torch.stack([(f.to(t) - t).abs().max() for f, t in zip(found, true, strict=True)])
    return float(errors.max()) / largest  # torch's max(): Python's overlooks NaN


# ---- Training --------------------------------------------------------------------------------------------


class RandomMixtures(Dataset):
    """Segments of endlessly many mixtures of a set, "train" or "valid", each in a room of its own.

    Mixture n follows from the set's name, n and the seed alone, so that a training that was interrupted meets the
    same ones, however many processes simulate them.
    """

    def __init__(self, name: str, speech: CleanSpeech, seconds: float, seed: int) -> None:
        self.name, self.speech, self.seed = name, speech, seed
        self.num_samples = round(seconds * network.RATE)
        self.settings = SceneSettings(sample_rate_hz=network.RATE, min_duration_s=seconds)
        self.utts_of_speaker = split_speech(self.speech.utts_of_speaker, "speaker", seed)[name]

    def __getitem__(self, n: int) -> tuple[np.ndarray, ...]:
        """(mic, sample) far-field mixture, (headset, sample) close-talk mixtures, (talker, sample) reference images."""
        scenes = draw_scenes(
            f"{self.name}{n}-", 1, self.speech, self.utts_of_speaker, RandomRoom(), self.settings, self.seed
        )
        signals = render(scenes[0], dry_signals(scenes[0], self.speech))
        rng = generator_of(self.seed, self.name, n, "segment")
        start = rng.integers(scenes[0]["num_samples"] - self.num_samples + 1)
        return tuple(
            signal[:, start : start + self.num_samples].astype(np.float32)
            for signal in (signals.farfield, signals.closetalk, signals.farfield_images[:, REF_MIC])
        )


def train(args: argparse.Namespace, speech: CleanSpeech, stop: float, results: Results, record: Record) -> None:
    """Train M2M with anchor from where the last call stopped until `stop` (of time.monotonic)."""
    device, path = args.device, args.out_dir / "training.pth"
    settings = {name: getattr(args, name) for name in ("size", "seconds", "seed", "train_batch", "train_precision")}
    torch.manual_seed(args.seed)
    net = TFGridNet(STFT().n_fft // 2 + 1, **network.separator_conf(args.size)).to(device)
    stft, autocast = STFT().to(device), use_precision(args.train_precision, device)
    row = read_config(network.CONF / "table2_ours_m2m_anchor.yaml")
    loss_of = MixtureConstraintLoss(
        **next(criterion["conf"] for criterion in row["criterions"] if criterion["name"] == "mixture_constraint")
    )
    size = yaml.safe_load((network.CONF / f"size_{args.size}.yaml").read_text())
    optim = torch.optim.Adam(net.parameters(), **size["optim_conf"])
    state = {"settings": settings, "step": 0, "seconds": 0.0}
    if path.is_file():
        state = torch.load(path, map_location="cpu")
        if state["settings"] != settings:
            raise ValueError(
                f"{path} is of a training with {state['settings']}, not {settings}; give another --out_dir"
            )
        net.load_state_dict(state["net"])
        optim.load_state_dict(state["optim"])
    first, before = state["step"], state["seconds"]
    if first >= args.max_steps:
        return
    # What a killed call noted after its last checkpoint comes again.
    results.write([r for r in results.rows() if r.get("step", -1) < first or (r["step"] == first and path.is_file())])

    def loader(name: str, batches: Iterator[list[int]]) -> DataLoader:
        mixtures = RandomMixtures(name, speech, args.seconds, args.seed)
        return DataLoader(mixtures, batch_sampler=batches, num_workers=args.workers, multiprocessing_context="fork")

    started = time.monotonic()
    valid = list(loader("valid", ([n] for n in range(args.num_valid))))
    batches = ([step * args.train_batch + n for n in range(args.train_batch)] for step in itertools.count(first))
    losses, longest = [], 0.0

    def finish_interval(step: int) -> None:
        """Validate and save: what a killed call loses is at most one interval."""
        nonlocal longest
        begun = time.monotonic()
        seconds = before + begun - started
        scores = validate(net, loss_of, stft, autocast, valid, device)
        record(step=step, seconds=seconds, loss=float(torch.stack(losses).mean()) if losses else None, **scores)
        losses.clear()
        state.update(step=step, seconds=seconds, net=net.state_dict(), optim=optim.state_dict())
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
        longest = max(longest, time.monotonic() - begun)

    if not first:
        finish_interval(0)
    noted = time.monotonic()
    for step, (far_wave, close_wave, _) in enumerate(loader("train", batches), first + 1):
        far_field, close_talk = (stft(wave.to(device)) for wave in (far_wave, close_wave))
        optim.zero_grad()
        with autocast:
            est = estimates(net, far_field)
        loss = loss_of(est, far_field, close_talk)[0].mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), row["grad_clip"], error_if_nonfinite=True)
        optim.step()
        losses.append(loss.detach())
        last = step == args.max_steps or time.monotonic() + 1.5 * longest > stop
        if last or time.monotonic() - noted > args.interval_s:
            finish_interval(step)
            noted = time.monotonic()
        if last:
            break


@torch.no_grad()
def validate(
    net: nn.Module,
    loss_of: MixtureConstraintLoss,
    stft: STFT,
    autocast: torch.autocast,
    mixtures: list[list[Tensor]],
    device: str,
) -> dict[str, float]:
    """Means over mixtures: the mixture constraint, and the SI-SDR of mixture and outputs at the reference mic."""
    net.eval()
    loss_of.eval()
    rows = []
    for far_wave, close_wave, refs in mixtures:
        far_field, close_talk = (stft(wave.to(device)) for wave in (far_wave, close_wave))
        with autocast:
            est = estimates(net, far_field)
        target = far_field[:, REF_MIC]
        images = loss_of.farfield_images(est, far_field, None, target[:, None])[:, 0]
        row = {"mc": float(loss_of(est, far_field, close_talk)[1]["mc"])}
        outputs = {
            "mixture": target[:, None].expand_as(images),
            "image": images,
            "consistent": mixture_consistency(images, target),
        }
        for name, spectrum in outputs.items():
            waves = stft.inverse(spectrum, far_wave.shape[-1])[0].cpu().numpy()
            order, pairs = metrics.best_permutation(refs[0].numpy(), waves)
            row[name] = float(np.mean([pairs[n, k] for n, k in enumerate(order)]))
        rows.append(row)
    net.train()
    loss_of.train()
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


# ---- The whole -------------------------------------------------------------------------------------------


def jobs(args: argparse.Namespace, stop: float, results: Results) -> Iterator[tuple[str, Callable[[Record], None]]]:
    """What is to be done, each in a process of its own: a name and a function. Ours comes first, for the ratios."""
    # Read first of all: without speech the training would fail when all the time has been spent.
    speech = CleanSpeech(args.speech, network.RATE) if "training" in args.parts else None
    yield "versions", partial(find_versions, args)
    if "loss" in args.parts:
        for precision in PRECISIONS:
            yield f"loss, {OURS}, {precision}", partial(each_batch, measure_loss, args, OURS, precision)
        # Of the others the one that is nearest, and in float32, since it does nothing against TF32 in its products.
        yield "loss, stacked taps, float32", partial(each_batch, measure_loss, args, "stacked taps", "float32")
    if "network" in args.parts:
        for precision in PRECISIONS:
            for way in sorted(network.WAYS, key=lambda way: way != OURS):
                yield f"network, {way}, {precision}", partial(each_batch, measure_network, args, way, precision)
    if "equality" in args.parts:
        yield "equality", partial(compare_with_cpu, args)
    if "ddp" in args.parts:
        yield "DDP", partial(measure_ddp, args)
    if "training" in args.parts:
        yield "training", partial(train, args, speech, stop, results)


def run(job: Callable[[Record], None], record: Record, stop: float) -> str | None:
    """Do a job in a process of its own, which is killed after `stop` (of time.monotonic); returns what went wrong.

    The process is forked, so that it has all imports at once; a GPU is used by none but such processes.
    """
    if time.monotonic() > stop:
        return "out of time"
    process = multiprocessing.get_context("fork").Process(target=job, args=(record,))
    process.start()
    process.join(stop + GRACE_S - time.monotonic())
    if process.is_alive():
        process.kill()
        process.join()
        return "out of time"
    return None if process.exitcode == 0 else f"failed (status {process.exitcode})"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, above_zero = parser.add_argument, number(0.01, 1e6)
    add("--out_dir", required=True, type=Path)
    add("--minutes", type=above_zero, default=9.0, help="when to be done, the training included")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--size", choices=("paper", "small"), default="paper", help="of the network")
    add("--seconds", type=above_zero, default=4.0, help="length of the segments")
    add("--batches", type=positive, nargs="+", default=[1, 2, 4, 8], help="segments of a measured step, rising")
    add("--repeats", type=positive, default=3, help="of a measured step, after one that warms up")
    add("--speech", type=Path, default="on_gpu/speech", help="of the training: a Kaldi data dir of clean speech")
    add("--train_batch", type=positive, default=4)
    add("--train_precision", choices=PRECISIONS, default="TF32")
    add("--max_steps", type=positive, default=10**9, help="of the training, if time does not end it before")
    add("--interval_s", type=above_zero, default=60.0, help="seconds of training between two validations")
    add("--num_valid", type=positive, default=20, help="mixtures of a validation")
    add("--seed", type=SEED, default=0)
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    add("--workers", type=positive, default=workers, help="processes that simulate rooms")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    started = time.monotonic()
    args = get_parser().parse_args(cmd)
    stop = started + 60 * args.minutes - GRACE_S
    args.out_dir.mkdir(parents=True, exist_ok=True)
    results, failed = Results(args.out_dir), False
    for name, job in jobs(args, stop, results):
        if name != "training":  # which goes on
            results.write([row for row in results.rows() if row["job"] != name])
        problem = run(job, partial(results.add, name), stop)
        if problem:
            failed = True
            results.add(name, work=name, failed=problem)
    rows = results.rows()
    print(results.markdown(rows))
    if failed or any(_too_much(row, name) for row in rows for name in ("loss_error", "grad_error") if name in row):
        sys.exit(1)


if __name__ == "__main__":
    main()
