"""Seconds a mixture that the headsets of SMS-WSJ-FF-CT take, against the generator that made SMS-WSJ.

    python benchmarks/sms_wsj_headsets.py
    python benchmarks/sms_wsj_headsets.py --num_mixtures 30 --num_complete 5

Mixtures of SMS-WSJ's geometry and format (2 talkers, 6 mics, T60 evenly over 0.2-0.5 s, 6 s of noise for
speech, 8 kHz, early and tail files), one process, one thread, CPU time. A headset needs, of each talker, the
beginning of the six far-field RIRs (time of flight), the RIR of the reference mic (scale and check) and those
of both headsets. Ways:

- ours: `simulate_sms_wsj`'s work on a mixture, files read and written, RIRs of 2 * T60;
- rir-generator, 2 * T60: the same RIRs and convolutions, without files;
- rir-generator, 8,192 taps: the same with RIRs as SMS-WSJ has them;
- rir-generator, all mics: besides, the complete RIRs of all far-field mics for the time of flight.

Agreement: the worst image, talker by headset, with that of 8,192 taps. The second table is the time of one
RIR.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import rir_generator  # noqa: E402
from measuring import print_versions  # noqa: E402
from numpy.typing import ArrayLike  # noqa: E402
from scipy.signal import fftconvolve  # noqa: E402

from espnet2_m2m.data_dir import write_wav  # noqa: E402
from espnet2_m2m.simulation.rooms import RandomRoom  # noqa: E402
from espnet2_m2m.simulation.scene import Scene  # noqa: E402
from espnet2_m2m.simulation.sms_wsj_database import (  # noqa: E402
    Mixture,
    example_audio,
    load_dry,
    load_images,
    sms_wsj_scenes,
)
from espnet2_m2m.simulation.sms_wsj_headsets import (  # noqa: E402
    closetalk_images,
    generator_rirs,
    render_headsets,
    time_of_flight,
)

SAMPLE_RATE, NUM_SAMPLES, TAPS = 8000, 48000, 8192
SMS_WSJ_MIXTURES = 33_561 + 982 + 1_332


def generate(scene: Scene, talker: int, mics: ArrayLike, num_taps: int) -> np.ndarray:
    """(mic, tap)"""
    return rir_generator.generate(
        c=343.0,
        fs=SAMPLE_RATE,
        r=np.array(mics),
        s=scene["speakers"][talker]["position_m"],
        L=scene["room_size_m"],
        reverberation_time=scene["rt60_s"],
        nsample=num_taps,
    ).T


def make_mixture(folder: Path, index: int, rt60_s: float) -> Mixture:
    """Scene and files of a mixture with all its files; far-field images by the generator."""
    rng = np.random.default_rng(index)
    room = RandomRoom(rt60_s=(rt60_s, rt60_s)).draw(rng)
    example = {
        "room_dimensions": room.room_size_m[:, None].tolist(),
        "sound_decay_time": rt60_s,
        "sensor_position": room.mic_positions_m.T.tolist(),
        "source_position": room.talker_positions_m.T.tolist(),
        "speaker_id": ["01a", "01b"],
        "source_id": ["a", "b"],
        "kaldi_transcription": ["A", "B"],
        "log_weights": [0.0, 0.0],
        "offset": [0, 0],
        "snr": 25.0,
        "num_samples": {"observation": NUM_SAMPLES, "original_source": [NUM_SAMPLES] * 2},
    }
    (scene,) = sms_wsj_scenes({f"x{index}": example}, SAMPLE_RATE, -20.0)
    paths = {
        name: [str(folder / f"{name}_{index}_{k}.wav") for k in (0, 1)]
        for name in ("speech_reverberation_early", "speech_reverberation_tail", "original_source")
    }
    paths["observation"] = str(folder / f"observation_{index}.wav")
    observation = np.zeros((NUM_SAMPLES, 6))
    for k in (0, 1):
        dry = 0.05 * rng.standard_normal(NUM_SAMPLES)
        rir = generate(scene, k, scene["mic_positions_m"][:1], TAPS)[0]
        shift = time_of_flight(generate(scene, k, scene["mic_positions_m"], 1024))
        image = fftconvolve(dry, rir)[shift : shift + NUM_SAMPLES, None].repeat(6, axis=1)  # read at mic 0 only
        image *= 0.05 / image.std()
        for name, part in (("early", 0.5), ("tail", 0.5)):
            write_wav(paths[f"speech_reverberation_{name}"][k], part * image, SAMPLE_RATE, "FLOAT")
        write_wav(paths["original_source"][k], dry, SAMPLE_RATE, "FLOAT")
        observation += image
    write_wav(paths["observation"], observation, SAMPLE_RATE, "FLOAT")
    return scene, example_audio(scene["example_id"], {"audio_path": paths}, folder)


def with_generator(task: Mixture, num_taps: int | None, all_mics: bool = False) -> np.ndarray:
    """(talker, headset, sample) images; `num_taps` None: 2 * T60."""
    scene, audio = task
    num_taps = num_taps or round(2 * scene["rt60_s"] * SAMPLE_RATE)
    mics = scene["mic_positions_m"]
    headsets = [speaker["closetalk_position_m"] for speaker in scene["speakers"]]
    images = []
    for k, (dry, image) in enumerate(zip(load_dry(scene, audio), load_images(scene, audio))):
        shift = time_of_flight(generate(scene, k, mics, num_taps if all_mics else 1024))
        rirs = generate(scene, k, [mics[0], *headsets], num_taps)
        made = fftconvolve(dry[None], rirs, axes=-1)[:, shift : shift + len(dry)]
        images.append((made[0] @ image) / (made[0] @ made[0]) * made[1:])
    return 10 ** (scene["closetalk_gain_db"] / 20) * np.array(images)


def agreement_db(images: np.ndarray, desired: np.ndarray) -> float:
    """Energy of the desired images (..., sample) over that of the difference in dB, the worst of them."""
    errors = ((images - desired) ** 2).sum(-1) / (desired**2).sum(-1)
    return -10 * np.log10(errors.max())


def timed(function: Callable, tasks: list) -> tuple[float, list[Any]]:
    """CPU seconds a task, results."""
    start = time.process_time()
    results = [function(task) for task in tasks]
    return (time.process_time() - start) / len(tasks), results


def print_ways(tasks: list[Mixture], num_complete: int, folder: Path) -> None:
    """The first table."""
    render_headsets(tasks[0], folder / "first")  # imports
    chosen = tasks[len(tasks) // 2 :][:num_complete] or tasks[:1]
    ways = {
        "ours": (lambda task: render_headsets(task, folder / "out"), tasks),
        "rir-generator, 2 * T60": (lambda task: with_generator(task, None), tasks),
        "rir-generator, 8,192 taps": (lambda task: with_generator(task, TAPS), chosen),
        "rir-generator, all mics": (lambda task: with_generator(task, TAPS, all_mics=True), chosen),
    }
    agreement = np.inf
    print(
        "| method | mixtures | CPU seconds per mixture | ours is faster by | all 35,875 on 2 cores (hours) |\n"
        "|:--|--:|--:|--:|--:|"
    )
    ours = None
    for name, (way, some) in ways.items():
        seconds, results = timed(way, some)
        ours = ours or seconds
        print(
            f"| {name} | {len(some)} | {seconds:.3f} | {seconds / ours:.1f} |"
            f" {SMS_WSJ_MIXTURES * seconds / 2 / 3600:.1f} |",
            flush=True,
        )
        if name == "rir-generator, 8,192 taps":
            for (scene, audio), desired in zip(some, results):
                made = closetalk_images(scene, load_dry(scene, audio), load_images(scene, audio), audio)[0]
                agreement = min(agreement, agreement_db(made, desired))
    print(f"\nAgreement with 8,192 taps: {agreement:.1f} dB at least ({len(chosen)} mixtures).\n")


def print_taps(scene: Scene) -> None:
    """The second table."""
    print("| taps of one RIR | rir-generator (CPU s) | ours (CPU s) | ours is faster by |\n|--:|--:|--:|--:|")
    mics = scene["mic_positions_m"][:1]
    for num_taps in (1024, 2048, 4096, TAPS):
        theirs, _ = timed(lambda n: generate(scene, 0, mics, n), [num_taps])
        ours, _ = timed(lambda n: generator_rirs(scene, 0, mics, n), [num_taps] * 3)
        print(f"| {num_taps} | {theirs:.3f} | {ours:.4f} | {theirs / ours:.1f} |", flush=True)


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_mixtures", type=int, default=7)
    parser.add_argument("--num_complete", type=int, default=1, help="mixtures with all 8,192 taps")
    args = parser.parse_args()
    note = "one thread, 2 talkers, 6 mics, 2 headsets, 6 s at 8 kHz"
    print_versions("numpy", "scipy", "rir-generator", note=note)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tasks = [
            make_mixture(folder, index, rt60_s) for index, rt60_s in enumerate(np.linspace(0.2, 0.5, args.num_mixtures))
        ]
        print_ways(tasks, args.num_complete, folder)
        print_taps(tasks[-1][0])


if __name__ == "__main__":
    main()
