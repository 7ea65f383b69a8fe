"""The mixtures of a report page that are to be heard and seen: audio, spectrograms, scores, rooms."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_m2m.data_dir import atomic_path, read_table, write_wav
from espnet2_m2m.data_dir.scenes import Scene
from espnet2_m2m.data_dir.tables import is_there
from espnet2_m2m.report import figures
from espnet2_m2m.report.systems import System
from espnet2_m2m.scoring.results import DECIMALS, TITLES, format_scores

CLIP_RMS, CLIP_PEAK = 0.07, 0.95  # of full scale


def choose(gains: dict[str, float | None], num_examples: int) -> list[tuple[str, str]]:
    """(label, utt_id) of each example: evenly spaced ranks of the improvement, from worst to best.

    Args:
        gains: utt_id -> SI-SDR improvement in dB; None: unknown, the order of the ids counts.
    """
    unknown = None in gains.values()
    ranked = sorted(gains, key=lambda utt_id: utt_id if unknown else (gains[utt_id], utt_id))
    last = len(ranked) - 1
    count = min(num_examples, len(ranked))
    ranks = [last // 2] if count == 1 else np.linspace(0, last, count).round().astype(int)
    if unknown:
        return [(f"Mixture {rank + 1} of {len(ranked)}", ranked[rank]) for rank in ranks]
    labels = {ranks[count // 2]: "Median"} if count % 2 else {}
    labels |= {last: "Best", 0: "Worst"}
    return [(labels.get(rank, f"Rank {rank + 1} of {len(ranked)} from below"), ranked[rank]) for rank in ranks]


def read_texts(data_dir: Path | str, num_talkers: int) -> list[dict[str, str]]:
    """What the talkers say: utt_id -> words of each of them, empty without transcripts."""
    paths = [Path(data_dir) / f"text_spk{number}" for number in range(1, num_talkers + 1)]
    return [read_table(path, allow_empty=True) if is_there(path) else {} for path in paths]


def write_example(
    out_dir: Path,
    number: int,
    label: str,
    utt_id: str,
    systems: list[System],
    gain: float | None,
    scene: Scene | None,
    texts: list[dict[str, str]],
) -> dict[str, Any]:
    """Write the clips of one mixture, out_dir/media/example<number>_*, and say what the page needs.

    Args:
        out_dir: folder of the page.
        number: of the example, from 1.
        label: why it was chosen.
        utt_id: of the mixture.
        systems: in the order of their clips.
        gain: SI-SDR improvement in dB, mean over talkers and systems; None without references.
        scene: where everybody sits; None: unknown.
        texts: of `read_texts`.
    Returns:
        what index.html shows of it.
    """
    read = [system.jobs[utt_id].utterance.read(system.jobs[utt_id].ref_mic) for system in systems]
    first, sample_rate = read[0]
    streams = [waves["stream"] for waves, _ in read]
    rows = [
        sorted((r for r in system.scores if r["utt_id"] == utt_id), key=lambda r: r["speaker"]) for system in systems
    ]
    clip = partial(_write_clip, out_dir / "media", number, sample_rate)
    orders = [[own["estimate"] for own in of_system] for of_system in rows]  # the best permutation
    if not rows[0]:
        orders = [streams_of_speakers(of_system, first["closetalk"], sample_rate) for of_system in streams]
    speakers = []
    for index in range(systems[0].summary["num_speakers"]):
        speaker = index + 1
        row = rows[0][index] if rows[0] else {}
        shown = []
        if speaker in first["closetalk"]:
            scores = _scores(row, "closetalk") if "closetalk_si_sdr" in row else None
            shown.append(clip("closetalk", "Close-talk mixture", first["closetalk"][speaker], speaker, scores))
        if speaker in first.get("cleaned", {}):
            scores = _scores(row, "cleaned") if "cleaned_si_sdr" in row else None
            shown.append(clip("cleaned", "Close-talk mixture, cleaned", first["cleaned"][speaker], speaker, scores))
        for place, system in enumerate(systems):
            output = orders[place][index]
            scores = f"{_scores(rows[place][index], 'separated')} · " if row else ""
            scores += f"output {output}"
            title = "Separated" if len(systems) == 1 else system.name
            signal = streams[place][output]
            shown.append(clip(f"system{place + 1}", title, signal, speaker, scores, place))
        if speaker in first["spk"]:
            shown.append(clip("reference", "Reference", first["spk"][speaker], speaker))
        # Lines of scenes.jsonl carry the words too; text_spk{n} is what ASR is scored against.
        words = texts[index].get(utt_id)
        if words is None and scene is not None and index < len(scene["speakers"]):
            words = scene["speakers"][index].get("text")
        si_sdr = f"{row['mixture_si_sdr']:.1f}" if row else None
        speakers.append({"number": speaker, "text": words, "clips": shown, "mixture": si_sdr})
    mixture = first["wav"][1]
    return {
        "number": number,
        "label": label,
        "utt_id": utt_id,
        "gain": None if gain is None else f"{gain:+.1f}",
        "seconds": f"{len(mixture) / sample_rate:.1f}",
        "top_khz": f"{sample_rate / 2000:g}",
        "mixture": clip("mixture", f"Far-field mixture, mic {systems[0].jobs[utt_id].ref_mic}", mixture),
        "speakers": speakers,
        "room": None if scene is None else room(scene),
    }


def _write_clip(
    folder: Path,
    number: int,
    sample_rate: int,
    kind: str,
    title: str,
    samples: np.ndarray,
    speaker: int | None = None,
    scores: str | None = None,
    system: int | None = None,
) -> dict[str, Any]:
    """Write one clip of a mixture as wav and png, folder/example<number>_*.

    Args:
        folder: media.
        number: of the example, from 1.
        sample_rate: Hz.
        kind: part of the files' names.
        title: on the page.
        samples: (sample,) of any level.
        speaker: the talker's number, from 1; None: all talkers.
        scores: line under the title.
        system: place of the system that made the clip, from 0.
    Returns:
        what index.html shows of it.
    """
    of_speaker = "" if speaker is None else f"speaker{speaker}_"
    path = folder / f"example{number}_{of_speaker}{kind}"
    with atomic_path(path.with_suffix(".png")) as temporary:
        figures.save_spectrogram(temporary, samples, sample_rate)
    write_wav(path.with_suffix(".wav"), level_for_listening(samples), sample_rate, "PCM_16")
    return {
        "name": title,
        "label": title if speaker is None else f"Talker {speaker}: {title}",
        "scores": scores,
        "file": f"{folder.name}/{path.name}",
        "speaker": speaker,
        "system": system,
    }


def _scores(row: dict[str, Any], group: str) -> str:
    """The METRICS of a row of scores.csv, e.g. "SI-SDR 10.1 dB · ..."."""
    values = {metric: row[f"{group}_{metric}"] for metric in DECIMALS}
    values = {name: None if math.isnan(value) else value for name, value in values.items()}
    return " · ".join(
        f"{TITLES[metric].partition(' ')[0]} {value}"
        + (" dB" if TITLES[metric].endswith("(dB)") and value != "n/a" else "")
        for metric, value in zip(DECIMALS, format_scores(values))
    )


def streams_of_speakers(
    streams: dict[int, np.ndarray], closetalk: dict[int, np.ndarray], sample_rate: int
) -> list[int]:
    """The stream of each speaker, from 1: the headset's where there is one, else the next in the model's order."""
    headsets = [number for number in closetalk if number in streams]
    order = {}
    if headsets:
        from espnet2_m2m.headset_order import streams_of_headsets  # torch takes seconds, so only where needed

        waves = np.stack([closetalk[number] for number in headsets])
        fitted = streams_of_headsets(np.stack(list(streams.values())), waves, sample_rate)
        order = {number: list(streams)[stream] for number, stream in zip(headsets, fitted)}
    others = iter([stream for stream in streams if stream not in order.values()])
    return [order.get(number) or next(others) for number in streams]


def level_for_listening(samples: np.ndarray) -> np.ndarray:
    """(sample,) at CLIP_RMS, or below where its peak would pass CLIP_PEAK; silence stays silent.

    Clips of one loudness can be compared by switching between them.
    """
    peak = np.abs(samples).max(initial=0.0)
    if peak == 0:
        return samples
    scaled = samples / peak  # first, so that tiny samples do not vanish when squared
    return scaled * min(CLIP_RMS / np.sqrt(np.mean(scaled**2)), CLIP_PEAK)


def room(scene: Scene) -> dict[str, Any]:
    """Figure of a scene and the facts beside it."""
    size = scene["room_size_m"]
    centre = np.mean(scene["mic_positions_m"], axis=0)
    facts = [("Room", " × ".join(f"{side:.1f}" for side in size) + " m")]
    if scene.get("rt60_s") is not None:
        facts.append(("T60", f"{scene['rt60_s']:.2f} s"))
    if scene.get("snr_db") is not None:
        facts.append(("SNR", f"{scene['snr_db']:.0f} dB"))
    places = []
    for number, speaker in enumerate(scene["speakers"], start=1):
        distance = np.linalg.norm(np.subtract(speaker["position_m"], centre))
        text = f"{distance:.1f} m from the array"
        if speaker.get("closetalk_position_m") is not None:
            headset = np.subtract(speaker["position_m"], speaker["closetalk_position_m"])
            text += f", headset at {100 * np.linalg.norm(headset):.0f} cm"
        facts.append((f"Talker {number}", f"{speaker.get('speaker_id', '')}, {text}".lstrip(", ")))
        places.append(f"talker {number} {text}")
    return {
        "src": figures.room_from_above(scene),
        "alt": f"Room of {size[0]:.1f} by {size[1]:.1f} m from above: " + "; ".join(places),
        "facts": facts,
    }
