"""Mixtures per second of the simulation, against pyroomacoustics and rir-generator as a user would call them.

    python benchmarks/simulation.py                     # both tables
    python benchmarks/simulation.py --num_scenes 100 --num_complete 800 --nj 1 2 4 8

Scenes as egs2/librispeech_ff_ct draws them (a random room for each mixture, T60 0.2-0.5 s, 2 talkers, 6
far-field mics and 2 headsets, 8 kHz), of noise that is modulated like speech, 5 s a talker. The first table is
signals alone, in one process with one thread, in CPU time; ours leaves out what is more than 60 dB down,
pyroomacoustics gives its complete responses, rir-generator the 8,192 taps that SMS-WSJ has. Agreement: of the
worst image, talker by mic, with pyroomacoustics's, over all mixtures. The second table is the command: speech
read, seven files a mixture written; CPU time is that of all processes, their start included, and does not grow
if they do not disturb each other.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np  # noqa: E402
from measuring import print_versions  # noqa: E402

from espnet2_m2m.corpora.clean_speech import CleanSpeech  # noqa: E402
from espnet2_m2m.data_dir import write_table, write_wav  # noqa: E402
from espnet2_m2m.simulation import render  # noqa: E402
from espnet2_m2m.simulation.rooms import RandomRoom  # noqa: E402
from espnet2_m2m.simulation.scene import Scene, SceneSettings, draw_scenes  # noqa: E402

SAMPLE_RATE = 8000
PAPER_MIXTURES = 33_561 + 982 + 1_332


def make_speech(folder: Path) -> CleanSpeech:
    """A corpus of 8 speakers with 4 utterances of 5 s."""
    rng = np.random.default_rng(0)
    num_samples = 5 * SAMPLE_RATE
    envelope = np.abs(np.sin(2 * np.pi * 4 * np.arange(num_samples) / SAMPLE_RATE))
    wav, utt2spk = {}, {}
    for speaker in range(8):
        for utterance in range(4):
            utt_id = f"s{speaker}-u{utterance}"
            wav[utt_id], utt2spk[utt_id] = folder / f"{utt_id}.wav", f"s{speaker}"
            write_wav(wav[utt_id], 0.05 * envelope * rng.standard_normal(num_samples), SAMPLE_RATE, "PCM_16")
    write_table(folder / "wav.scp", wav)
    write_table(folder / "utt2spk", utt2spk)
    return CleanSpeech(folder, SAMPLE_RATE)


def positions(scene: Scene) -> tuple[list, list]:
    """Sources (talker, 3) and mics (far-field mic then headset, 3)."""
    speakers = scene["speakers"]
    headsets = [speaker["closetalk_position_m"] for speaker in speakers]
    return [speaker["position_m"] for speaker in speakers], [*scene["mic_positions_m"], *headsets]


def mixed(images: np.ndarray, scene: Scene) -> np.ndarray:
    """Levels, sum and noise, plainly: images (talker, mic, sample) -> mixtures (mic, sample)."""
    for image, speaker in zip(images, scene["speakers"]):
        level_db = scene["farfield_level_dbfs"] + speaker["level_db"]
        image *= 10 ** (level_db / 20) / image[: len(scene["mic_positions_m"])].std()
    mixture = images.sum(axis=0)
    noise = np.random.default_rng(scene["noise_seed"]).standard_normal(mixture.shape)
    return mixture + noise * mixture.std(axis=1, keepdims=True) * 10 ** (-scene["snr_db"] / 20)


def pyroomacoustics_loop(scene: Scene, dry: np.ndarray) -> np.ndarray:
    """(talker, mic, sample) images, of one room with all sources and mics."""
    import pyroomacoustics as pra

    pra.constants.set("num_threads", 1)
    absorption, max_order = pra.inverse_sabine(scene["rt60_s"], scene["room_size_m"], c=343.0)
    room = pra.ShoeBox(scene["room_size_m"], fs=SAMPLE_RATE, materials=pra.Material(absorption), max_order=max_order)
    room.set_sound_speed(343.0)
    sources, mics = positions(scene)
    for source, signal in zip(sources, dry):
        room.add_source(source, signal=signal)
    room.add_microphone_array(np.transpose(mics))
    images = room.simulate(return_premix=True)
    delay = pra.constants.get("frac_delay_length") // 2
    images = images[..., delay : delay + dry.shape[1]]
    mixed(images, scene)
    return images


def rir_generator_loop(scene: Scene, dry: np.ndarray) -> np.ndarray:
    """(talker, mic, sample) images, a talker after the other."""
    import rir_generator
    from scipy.signal import fftconvolve

    sources, mics = positions(scene)
    images = []
    for source, signal in zip(sources, dry):
        rirs = rir_generator.generate(
            c=343.0,
            fs=SAMPLE_RATE,
            r=mics,
            s=source,
            L=scene["room_size_m"],
            reverberation_time=scene["rt60_s"],
            nsample=8192,
        )
        images.append([fftconvolve(signal, rir)[: len(signal)] for rir in rirs.T])
    images = np.array(images)
    mixed(images, scene)
    return images


def ours(scene: Scene, dry: np.ndarray) -> np.ndarray:
    """(talker, mic, sample) images by this package."""
    rendering = render.render(scene, dry)
    return np.concatenate([rendering.farfield_images, rendering.closetalk_images], axis=1)


def timed(way: Callable, scenes: list[Scene], dry: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
    """CPU seconds a mixture and the images."""
    start = time.process_time()
    images = [way(scene, signals) for scene, signals in zip(scenes, dry)]
    return (time.process_time() - start) / len(scenes), images


def agreement_db(images: list[np.ndarray], desired: list[np.ndarray]) -> float:
    """The worst over mixtures, talkers and mics; gains are free."""
    worst = np.inf
    for made, wanted in zip(images, desired):
        gain = (made * wanted).sum(-1, keepdims=True) / (made**2).sum(-1, keepdims=True)
        errors = ((wanted - gain * made) ** 2).sum(-1)
        worst = min(worst, 10 * np.log10((wanted**2).sum(-1) / errors).min())
    return worst


def print_ways(scenes: list[Scene], speech: CleanSpeech, num_generated: int) -> None:
    """The first table."""
    dry = [render.dry_signals(scene, speech) for scene in scenes]
    seconds, images = {}, {}
    ways = {"ours": ours, "pyroomacoustics": pyroomacoustics_loop}
    for name, way in ways.items():
        way(scenes[0], dry[0])  # imports
        seconds[name], images[name] = timed(way, scenes, dry)
    if num_generated:
        name = "rir-generator, 8,192 taps"
        seconds[name], _ = timed(rir_generator_loop, scenes[:num_generated], dry)
    print(
        "| signals alone | mixtures | CPU s per mixture | per s and core | factor | agreement (dB) |"
        " all 35,875 (core-hours) |\n|:--|--:|--:|--:|--:|--:|--:|"
    )
    for name, taken in seconds.items():
        count = len(scenes) if name in ways else num_generated
        agreement = f"{agreement_db(images['ours'], images['pyroomacoustics']):.1f}" if name == "ours" else ""
        print(
            f"| {name} | {count} | {taken:.3f} | {1 / taken:.2f} | {taken / seconds['ours']:.1f} |"
            f" {agreement} | {PAPER_MIXTURES * taken / 3600:.1f} |",
            flush=True,
        )


def print_command(scenes: list[Scene], speech: CleanSpeech, numbers: list[int], folder: Path) -> None:
    """The second table."""
    print(
        "\n| complete, processes | s per mixture | mixtures per s | times one process | CPU s per mixture |"
        " all 35,875 (hours) |\n|--:|--:|--:|--:|--:|--:|"
    )
    first = None
    for nj in numbers:
        start, cpu = time.perf_counter(), sum(os.times()[:4])
        render.render_set(scenes, folder / str(nj), speech, nj)
        cpu = (sum(os.times()[:4]) - cpu) / len(scenes)
        taken = (time.perf_counter() - start) / len(scenes)
        first = first or taken
        print(
            f"| {nj} | {taken:.3f} | {1 / taken:.2f} | {first / taken:.2f} | {cpu:.3f} |"
            f" {PAPER_MIXTURES * taken / 3600:.1f} |",
            flush=True,
        )


def main() -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_scenes", type=int, default=40, help="of the first table")
    parser.add_argument("--num_generated", type=int, default=1, help="scenes for rir-generator, some 20 s each")
    parser.add_argument("--num_complete", type=int, default=120, help="of the second table")
    parser.add_argument("--nj", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    packages = ("numpy", "scipy", "pyroomacoustics", "rir-generator")
    print_versions(*packages, note="one thread a process, 2 talkers, 8 mics, 5 s at 8 kHz")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        speech = make_speech(folder)
        settings = SceneSettings(sample_rate_hz=SAMPLE_RATE, min_duration_s=0)
        num_scenes = max(args.num_scenes, args.num_complete)
        scenes = draw_scenes("test", num_scenes, speech, speech.utts_of_speaker, RandomRoom(), settings, 0)
        print_ways(scenes[: args.num_scenes], speech, args.num_generated)
        print_command(scenes[: args.num_complete], speech, args.nj, folder)


if __name__ == "__main__":
    main()
