"""What the commands say to damaged data: is it named, harmless, or harmful?

    python benchmarks/damage.py
    python benchmarks/damage.py --num 200 --seed 1000 --nj 2
    python benchmarks/damage.py --only 17,391 --keep

Each of --num small sets gets a random instance of one kind of damage (damage_kinds.py), and goes the way of the
recipes: validate_data_dir, and independently of what that said format_data_dir, filter_data_dir and validate_data_dir
again; what all of them accept is read, scored and made into a line per talker. Separated speech that is damaged is
scored, clean speech goes through simulate, recordings go through `separate` with a stand-in for the network, and models
through what loads them. Everything runs in a forked process for each set, with limits of time, memory and file size.

    named           refused, with the file and, in tables, the line or id
    harmless        accepted, and the result is that of the undamaged set, or right by the rule of the kind
    vague or late   refused without the place, or by a later command than the one that is there to refuse it
    harmful         accepted, and the result differs; or something was written where it must not
    traceback, hang

What is vague, harmful, a traceback or a hang is listed with its seed; --only with --keep shows all that was said, and
keeps the folders.
"""

import argparse
import contextlib
import functools
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import numpy as np
import soundfile
from damage_case import MICS, RATE, SIGNALS, TALKERS, Case, Spot, make_case
from damage_kinds import KINDS
from damage_models import make_model
from damage_others import clean_speech
from measuring import print_versions

from espnet2_m2m.bin import (
    cli_errors,
    filter_data_dir,
    format_data_dir,
    separate,
    simulate,
    talker_data_dir,
    validate_data_dir,
)
from espnet2_m2m.data_dir.scenes import read_scenes
from espnet2_m2m.data_dir.signals import find_utterances
from espnet2_m2m.enh.mics import MicArray
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.model_files import model_files
from espnet2_m2m.report import training
from espnet2_m2m.scoring.scored_set import score_set
from espnet2_m2m.separate import SeparateRecording

VERDICTS = ("named", "harmless", "vague or late", "harmful", "traceback", "hang")
TIMEOUT_S, MEMORY, FILE_SIZE = 30, 3 << 30, 64 << 20
SETTINGS = ["--sample_rate", RATE, "--num_channels", MICS, "--num_speakers", TALKERS]
PYTHON_OBJECT = re.compile(r"\bat 0x[0-9a-f]{6,}")


class Step(NamedTuple):
    """A command that was run: what it printed, and how it ended: "ok", "refused" or "traceback"."""

    name: str
    end: str
    output: str


class Verdict(NamedTuple):
    """What became of a set: one of VERDICTS, why, and the steps."""

    verdict: str
    why: str
    steps: list[Step]


def run(name: str, main: Callable, *options: object) -> Step:
    """Run a command in this process."""
    output = io.StringIO()
    end = "ok"
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main([str(option) for option in options])
        except SystemExit as error:
            end = "ok" if error.code in (None, 0) else "refused"
        except BaseException:
            print(traceback.format_exc(limit=-4))
            end = "traceback"
    text = output.getvalue()
    return Step(name, "traceback" if "Traceback (most recent call last)" in text else end, text)


def names(output: str, spot: Spot) -> bool:
    """Whether a line of the output names what is damaged."""

    def has(line: str, word: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line) is not None

    return not PYTHON_OBJECT.search(output) and any(
        any(has(line, file) for file in spot.files)
        and (not spot.places or any(has(line, place) for place in spot.places))
        for line in output.split("\n")
    )


# ---- The ways of the data: each returns a Verdict ------------------------------------------------


def judge_set(case: Case, spot: Spot, scores: bool) -> Verdict:
    """Validate the set, and bring it through stages 3, 4 and what reads it."""
    check = run("validate", validate_data_dir.main, case.data, *SETTINGS)
    data_dir, dump = case.data, case.root / "dump"
    commands = []
    if case.form != "formatted":
        commands.append(
            ("format", format_data_dir.main, "--data_dir", data_dir, "--out_dir", dump / "org", "--sample_rate", RATE)
        )
        data_dir = dump / "org"
    commands.append(
        ("filter", filter_data_dir.main, "--data_dir", data_dir, "--out_dir", dump / "test", "--min_duration", 0)
    )
    commands.append(("validate the result", validate_data_dir.main, dump / "test", *SETTINGS))
    done = [check]
    for command in commands:
        done.append(run(*command))
        if done[-1].end != "ok":
            break
    accepted = done[-1].end == "ok"
    if accepted:
        rooms = [case.root / "rooms"] if "scenes.jsonl" in spot.files else []
        done.append(run("read", read, dump / "test", *rooms))
        talkers = case.root / "talkers"
        if done[-1].end == "ok":
            signal = ["--signal", "spk", "--out_dir", talkers]
            done.append(run("talkers", talker_data_dir.main, "--data_dir", dump / "test", *signal))
        if done[-1].end == "ok" and scores:
            done.append(run("score", score, dump / "test", case.enhanced))
        late = done[-1].end == "refused"
    if any(step.end == "traceback" for step in done):
        return Verdict("traceback", "", done)
    if not accepted and (dump / "test" / "utt2spk").is_file() and done[-1].name != "validate the result":
        return Verdict("harmful", "refused, but the result stands there as if it were whole", done)
    if accepted and not late:
        different = differences(case, dump / "test", talkers)
        if scores and not different and not case.similar:
            different = wrong_scores(case)
        if different:
            return Verdict("harmful", different, done)
    refused = [step for step in done if step.end == "refused"]
    if accepted and late:
        return Verdict("vague or late", f"only {done[-1].name} refuses it", done)
    if not accepted and check.end == "ok":
        return Verdict("vague or late", f"validate_data_dir says OK, {done[-1].name} refuses it", done)
    for step in refused:
        if not names(step.output, spot):
            return Verdict("vague or late", f"{step.name} does not name {spot.files} and {spot.places}", done)
    return Verdict("named" if refused else "harmless", "", done)


@cli_errors
def read(cmd: list[str]) -> None:
    """All that is read of a set: signals and scenes. What the report shows of these goes to a file."""
    from espnet2_m2m.report import examples

    data_dir, *to = cmd
    for utterance in find_utterances(data_dir, ["wav", "spk", "closetalk", "closetalk_spk"]):
        utterance.read()
    scenes = Path(data_dir, "scenes.jsonl")
    if to and scenes.is_file():
        rooms = map(examples.room, read_scenes(scenes).values())
        Path(*to).write_text("".join(f"{room['alt']} {room['facts']}\n" for room in rooms if room is not None))


@cli_errors
def score(cmd: list[str]) -> None:
    """enh_scoring in this process."""
    score_set(*cmd, nj=0)


def rows(path: Path) -> dict[str, str]:
    """A table, by the definition: a line each, the id up to the first blank or tab, the rest."""
    pairs = (re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1) for line in path.read_text().split("\n")[:-1])
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def differences(case: Case, data_dir: Path, talkers: Path) -> str:
    """In what a formatted set is not what it should be; empty if in nothing."""
    for name, table in case.tables.items():
        if name != "scenes.jsonl" and rows(data_dir / name) != table:
            return f"{name} is not as it was"
    if [*rows(data_dir / "utt2spk")] != sorted(case.tables["utt2spk"], key=str.encode):
        return "utt2spk has another order"
    for name in SIGNALS:
        table = rows(data_dir / f"{name}.scp")
        if table.keys() != case.signals[name].keys():
            return f"{name}.scp has other utterances"
        for utt, desired in case.signals[name].items():
            actual, rate = soundfile.read(table[utt], dtype="float32", always_2d=True)
            if rate != RATE:
                return f"{name} of {utt} has {rate} Hz"
            if actual.shape != desired.shape:
                return f"{name} of {utt} is {actual.shape}, not {desired.shape}"
            error = np.abs(actual - desired)
            if (name, utt) in case.similar:
                if np.mean(error**2) > 0.1 * np.mean(desired**2):
                    return f"{name} of {utt} is another signal"
            elif error.max() > case.tolerances.get((name, utt), 0):
                return f"{name} of {utt} differs by {error.max():.2g}"
    rooms = case.root / "rooms"
    if rooms.is_file() and re.search(r"\b(nan|inf)\b", rooms.read_text()):
        return f"the report shows {rooms.read_text()}"
    expected = {
        f"{speaker['speaker_id']}-{utt}"
        for utt, scene in case.tables["scenes.jsonl"].items()
        for speaker in scene["speakers"]
    }
    generic = {
        f"{case.tables['utt2spk'][utt]}-spk{n + 1}-{utt}" for utt in case.tables["utt2spk"] for n in range(TALKERS)
    }
    if (data_dir / "scenes.jsonl").is_file() and set(rows(talkers / "utt2spk")) != expected:
        return "other talkers"
    if not (data_dir / "scenes.jsonl").is_file() and set(rows(talkers / "utt2spk")) != generic:
        return "other talkers"
    return ""


def si_sdr(ref: np.ndarray, est: np.ndarray) -> float:
    """From the definition, dB; -100 for silence."""
    ref, est = ref.astype(np.float64), est.astype(np.float64)
    scale = np.abs(est).max()
    if scale == 0:
        return -100.0
    est = est / scale
    target = (est @ ref) / (ref @ ref) * ref
    error = est - target
    with np.errstate(divide="ignore"):
        return float(np.clip(10 * np.log10((target @ target) / (error @ error)), -100, 100))


def wrong_scores(case: Case) -> str:
    """In what scores.csv is not what the truth gives; empty if in nothing."""
    import csv

    with open(case.enhanced / "scoring" / "scores.csv", encoding="utf-8", newline="") as file:
        found = {(row["utt_id"], int(row["speaker"])): row for row in csv.DictReader(file)}
    if {utt for utt, _ in found} != set(case.tables["utt2spk"]):
        return "scores of other utterances"
    for utt in case.tables["utt2spk"]:
        refs = [case.signals[f"spk{n}"][utt][:, 0] for n in range(1, TALKERS + 1)]
        ests = [case.streams[n][utt] for n in range(1, TALKERS + 1)]
        values = np.array([[si_sdr(ref, est) for est in ests] for ref in refs])
        best = max(permutations(range(TALKERS)), key=lambda order: sum(values[n, o] for n, o in enumerate(order)))
        mixture = case.signals["wav"][utt][:, 0]
        for n, order in enumerate(best):
            row = found[utt, n + 1]
            desired = values[n, order], si_sdr(refs[n], mixture)
            actual = float(row["separated_si_sdr"]), float(row["mixture_si_sdr"])
            # A signal that is the reference, or has nothing of it, is a matter of rounding.
            if not np.allclose(np.clip(actual, -60, 60), np.clip(desired, -60, 60), atol=0.01):
                return f"SI-SDR of {utt}, {n + 1}: {actual}, not {desired}"
    return ""


def judge_scoring(case: Case, spot: Spot, scores: bool) -> Verdict:
    """Score separated speech that is damaged."""
    step = run("score", score, case.data, case.enhanced)
    return one_step(step, spot, lambda: wrong_scores(case))


def one_step(step: Step, spot: Spot, different: Callable[[], str]) -> Verdict:
    if step.end == "traceback":
        return Verdict("traceback", "", [step])
    if step.end == "refused":
        if names(step.output, spot):
            return Verdict("named", "", [step])
        return Verdict("vague or late", f"does not name {spot.files} and {spot.places}", [step])
    why = different()
    return Verdict("harmful" if why else "harmless", why, [step])


def simulation(source: Path, out_dir: Path) -> Step:
    options = "--num_train 2 --num_valid 0 --num_test 0 --min_duration 0 --nj 1".split()
    return run("simulate", simulate.main, "--source_data", source, "--out_dir", out_dir, *options)


def tree(folder: Path) -> dict[str, bytes]:
    """Files below a folder, whose own name is masked in them."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"OUT") for path in paths}


@functools.cache
def undamaged_simulation() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), np.random.default_rng(0), "utterances")
        step = simulation(clean_speech(case), case.root / "simulated")
        assert step.end == "ok", step
        return tree(case.root / "simulated")


def judge_simulation(case: Case, spot: Spot, scores: bool) -> Verdict:
    """Simulate from clean speech that is damaged."""
    step = simulation(case.root / "clean", case.root / "simulated")

    def different() -> str:
        desired, actual = undamaged_simulation(), tree(case.root / "simulated")
        return ", ".join(sorted(name for name in desired | actual if desired.get(name) != actual.get(name))[:3])

    verdict = one_step(step, spot, different)
    if verdict.verdict == "named" and (case.root / "simulated" / "train" / "wav.scp").exists():
        return Verdict("harmful", "refused, but the result stands there as if it were whole", [step])
    return verdict


def judge_separation(case: Case, spot: Spot, scores: bool) -> Verdict:
    """Separate two recordings, of which the second is damaged, with a network that gives back the mics."""
    recordings = [Path(line.decode().split()[1]) for line in case.lines("wav.scp")][-2:]
    out_dir = case.root / "separated"
    with stand_in_network():
        step = run("separate", separate.main, "--model", "none", "-o", out_dir, *recordings)

    def different() -> str:
        for path in recordings:
            for mic in range(MICS):
                actual, _ = soundfile.read(out_dir / f"{path.stem}_spk{mic + 1}.wav", dtype="float32")
                desired = case.signals["wav"][path.stem][:, mic]
                if actual.shape != desired.shape or np.abs(actual - desired).max() > 0:
                    return f"stream {mic + 1} of {path} is another signal"
        return ""

    verdict = one_step(step, spot, different)
    if verdict.verdict == "named" and list(out_dir.glob("*.wav")):
        return Verdict("vague or late", "the other recording was separated before", [step])
    return verdict


@contextlib.contextmanager
def stand_in_network() -> Iterator[None]:
    """`separate` works with a network of which the streams are the mics, and does not import ESPnet."""

    class Network:
        enh_train_args = SimpleNamespace(sample_rate=RATE)
        num_spk = MICS
        enh_model = SimpleNamespace(
            separator=SimpleNamespace(
                array=MicArray(None, None, 0, MICS),
                fcp_output=True,
                ref_channel=0,
                mixture_consistency=False,
                precision="float32",
            )
        )

        def __call__(self, mixture: np.ndarray, fs: int) -> list[np.ndarray]:
            return list(mixture.transpose(2, 0, 1))

    def load(model: str, device: str, precision: str, **options: object) -> SeparateRecording:
        return SeparateRecording(Network(), **options)

    with (
        mock.patch.object(SeparateRecording, "from_pretrained", load),
        mock.patch.object(separate, "model_files", contextlib.nullcontext),
        mock.patch.dict(sys.modules, {"espnet2_m2m.tasks.separate_speech": SimpleNamespace()}),
    ):
        yield


def judge_model(case: Case, spot: Spot, scores: bool) -> Verdict:
    """Load a training's folder or a packed model, its weights and its checkpoint."""
    packed = case.root / "packed.zip"
    model = packed if packed.is_file() else case.root / "model"
    loaded = {}
    step = run("load", functools.partial(load, loaded), model, case.root / "model" / "checkpoint.pth")

    def different() -> str:
        desired = {"rate": RATE, "criterions": ["mixture_constraint"], "weight": 15.0, "loss": 2.0}
        return "" if loaded == desired else f"loaded {loaded}"

    return one_step(step, spot, different)


@cli_errors
def load_model(cmd: list[str], loaded: dict) -> None:
    """What the commands read of a model."""
    import torch

    from espnet2_m2m.tasks.checkpoints import load_weights

    with model_files(cmd[0]) as (config, weights):
        content = TrainingConfig.load(config)
        loaded["rate"] = content.sample_rate
        loaded["criterions"] = [criterion.name for criterion in content.criterions]
        network = torch.nn.Linear(3, 2)
        load_weights(network, weights)
        loaded["weight"] = float(network.weight.sum())
    stats = training.read_stats(cmd[1])
    training.summarise(stats)
    loaded["loss"] = stats[1]["valid"]["loss"]


def load(loaded: dict, cmd: list[str]) -> None:
    """`load_model`, with a place for what it loads."""
    cli_errors(functools.wraps(load_model)(lambda cmd: load_model.__wrapped__(cmd, loaded)))(cmd)


JUDGES = {
    "set": judge_set,
    "score": judge_scoring,
    "simulate": judge_simulation,
    "separate": judge_separation,
    "model": judge_model,
}


# ---- One set ------------------------------------------------------------------------------------


def damaged(root: Path, seed: int, scores: bool) -> Verdict:
    """Make the set of a seed in a folder, damage it and judge what is said."""
    kind = KINDS[seed % len(KINDS)]
    forms = kind.forms
    case = make_case(root, seed, forms[seed // len(KINDS) % len(forms)])
    if kind.route == "simulate":
        clean_speech(case)
    if kind.route == "model":
        make_model(case)
    before = set(root.rglob("*"))
    spot = kind.do(case)
    before |= set(root.rglob("*"))
    verdict = JUDGES[kind.route](case, spot, scores)
    own = [root / name for name in ("rooms", "dump", "exp", "talkers", "simulated", "separated")]
    outside = [path for path in root.parents[1].rglob("*") if path not in before and path not in (root, root.parent)]
    outside = [path for path in outside if not any(folder in (path, *path.parents) for folder in own)]
    if outside:
        return Verdict("harmful", f"wrote {outside[0]}", verdict.steps)
    return verdict


def in_own_process(seed: int, root: Path, scores: bool) -> Verdict:
    """`damaged` in a forked process with limits; what it does not survive is a traceback or a hang."""
    answer = root / "answer.json"
    root.mkdir(parents=True)
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.setsid()
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 2)  # libraries in C talk as well
            with open("/proc/self/statm") as statm:
                in_use = int(statm.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.environ["TMPDIR"] = tempfile.tempdir = str(root / "tmp")
            (root / "tmp").mkdir()
            answer.write_text(json.dumps(damaged(root / "a" / "b" / "c", seed, scores)))
            status = 0
        except BaseException:
            answer.write_text(json.dumps(Verdict("traceback", "of the benchmark: " + traceback.format_exc(), [])))
        finally:
            os._exit(status)
    deadline = time.monotonic() + TIMEOUT_S
    while (done := os.waitpid(process, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if done[0] == 0:
        os.waitpid(process, 0)
        return Verdict("hang", f"not ended after {TIMEOUT_S} s", [])
    if not answer.is_file():
        return Verdict("traceback", f"died with status {done[1]}", [])
    verdict, why, steps = json.loads(answer.read_text())
    return Verdict(verdict, why, [Step(*step) for step in steps])


def judge(seed: int, work: Path, scores: bool, keep: bool) -> tuple[int, Verdict]:
    root = work / str(seed)
    verdict = in_own_process(seed, root, scores)
    if not keep:
        shutil.rmtree(root, ignore_errors=True)
    return seed, verdict


def judge_all(seeds: list[int], work: Path, nj: int = 1, scores: bool = True, keep: bool = False) -> dict[int, Verdict]:
    """Verdict of each seed.

    Args:
        seeds: the kind is KINDS[seed % len(KINDS)].
        work: folder for the sets.
        nj: processes.
        scores: also score what is accepted.
        keep: leave the sets there.
    """
    job = functools.partial(judge, work=work, scores=scores, keep=keep)
    verdicts = {}
    # A fork of a process without torch takes half the time.
    for needs_torch in (False, True):
        routes = [route for route in JUDGES if (scores or route in ("model", "score")) == needs_torch]
        group = [seed for seed in seeds if KINDS[seed % len(KINDS)].route in routes]
        if group:
            warm_up(needs_torch)
            with multiprocessing.get_context("fork").Pool(nj) if nj > 1 else contextlib.nullcontext() as pool:
                verdicts |= dict(map(job, group) if pool is None else pool.imap(job, group))
    return verdicts


def warm_up(needs_torch: bool) -> None:
    """Import here what the forked processes would each import."""
    import espnet2_m2m.report.examples

    if needs_torch:
        import espnet2_m2m.scoring.metrics
        import espnet2_m2m.tasks.checkpoints  # noqa: F401

    undamaged_simulation()


def table(verdicts: dict[int, Verdict]) -> str:
    """The counts by group of kinds, in Markdown."""
    groups = list(dict.fromkeys(kind.group for kind in KINDS))
    counts = {group: Counter() for group in [*groups, "all"]}
    kinds = {group: set() for group in [*groups, "all"]}
    for seed, verdict in verdicts.items():
        kind = KINDS[seed % len(KINDS)]
        for group in (kind.group, "all"):
            counts[group][verdict.verdict] += 1
            kinds[group].add((kind.group, kind.name))
    lines = [f"| damage to | kinds | sets | {' | '.join(VERDICTS)} |", "|:--|" + "--:|" * (2 + len(VERDICTS))]
    for group, count in counts.items():
        cells = [len(kinds[group]), sum(count.values()), *(count[verdict] for verdict in VERDICTS)]
        lines.append(f"| {group} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def describe(seed: int, verdict: Verdict, everything: bool = False) -> str:
    """A line for the list; with everything that was said."""
    kind = KINDS[seed % len(KINDS)]
    said = verdict.steps[-1].output.strip().splitlines() if verdict.steps else []
    text = f"{verdict.verdict}: seed {seed}, {kind.group}: {kind.name}: {verdict.why or (said or [''])[-1]}"
    if everything:
        return "\n".join([text, *(f"--- {step.name}: {step.end}\n{step.output}" for step in verdict.steps)])
    return text if len(text) < 400 else f"{text[:400]} ..."


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=1000, help="sets (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first set; the others follow (default 0)")
    parser.add_argument("--only", help="seeds, with commas between; all that was said is shown")
    parser.add_argument("--kinds", help="only kinds whose group or name has this")
    parser.add_argument("--nj", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--work", type=Path, help="folder for the sets (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="leave the sets there")
    return parser


def main() -> None:
    args = get_parser().parse_args()
    seeds = list(range(args.seed, args.seed + args.num))
    if args.only:
        seeds = [int(seed) for seed in args.only.split(",")]
    if args.kinds:
        named = [f"{kind.group}: {kind.name}" for kind in KINDS]
        seeds = [seed for seed in seeds if args.kinds in named[seed % len(KINDS)]]
    work = Path(tempfile.mkdtemp(dir=args.work))
    begin = time.monotonic()
    verdicts = judge_all(seeds, work, args.nj, keep=args.keep)
    seconds = time.monotonic() - begin
    if args.keep:
        print(f"the sets are in {work}")
    else:
        shutil.rmtree(work)
    for seed, verdict in verdicts.items():
        if args.only or verdict.verdict not in ("named", "harmless"):
            print(describe(seed, verdict, bool(args.only)))
    print()
    print(table(verdicts))
    print()
    print_versions("soundfile", "numpy", "torch", note=f"{seconds:.0f} s, {args.nj} process(es)")


if __name__ == "__main__":
    main()
