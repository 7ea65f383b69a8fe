"""The mixtures of a report page that are to be heard and seen: audio, spectrograms, scores, rooms."""

import math
from pathlib import Path

import numpy as np

from espnet2_m2m.data_dir import atomic_path, read_table, write_wav
from espnet2_m2m.report import figures
from espnet2_m2m.scoring.results import DECIMALS, TITLES, format_scores

CLIP_RMS, CLIP_PEAK = 0.07, 0.95  # of full scale


def choose(gains, num_examples):
    """[(label, utt_id)]: evenly spaced ranks of the improvement, from worst to best.

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
    middle = ranks[len(ranks) // 2] if count % 2 else None
    labels = {last: "Best", 0: "Worst"}
    if middle is not None:
        labels.setdefault(int(middle), "Median")
    return [(labels.get(int(rank), f"Rank {rank + 1} of {len(ranked)} from below"), ranked[rank]) for rank in ranks]


def read_texts(data_dir, num_speakers):
    """What the speakers say: a list with a table utt_id -> words for every speaker."""
    paths = [Path(data_dir) / f"text_spk{number}" for number in range(1, num_speakers + 1)]
    return [read_table(path, allow_empty=True) if path.is_file() else {} for path in paths]


def write_example(out_dir, number, label, utt_id, systems, gain, scene, texts):
    """Write the clips of one mixture, out_dir/media/example<number>_*, and say what the page needs.

    Args:
        systems: of report/systems.py; the order of their clips.
        gain: SI-SDR improvement in dB, mean over speakers and systems; None without references.
        scene: line of scenes.jsonl or None.
        texts: of `read_texts`.
    Returns:
        dict for index.html.
    """
    read = [system.jobs[utt_id].utterance.read(system.jobs[utt_id].ref_mic) for system in systems]
    first, sample_rate = read[0]
    streams = [waves["stream"] for waves, _ in read]
    rows = [
        sorted((r for r in system.scores if r["utt_id"] == utt_id), key=lambda r: r["speaker"]) for system in systems
    ]

    def clip(file_name, name, samples, scores=None, speaker=None, system=None):
        path = out_dir / "media" / f"example{number}_{file_name}"
        with atomic_path(path.with_suffix(".png")) as temporary:
            figures.save_spectrogram(temporary, samples, sample_rate)
        write_wav(path.with_suffix(".wav"), level_for_listening(samples), sample_rate, "PCM_16")
        return {
            "name": name,
            "label": name if speaker is None else f"Speaker {speaker}: {name}",
            "scores": scores,
            "file": f"media/{path.name}",
            "speaker": speaker,
            "system": system,
        }

    orders = [[own["estimate"] for own in of_system] for of_system in rows]  # the best permutation
    if not rows[0]:
        orders = [streams_of_speakers(of_system, first["closetalk"], sample_rate) for of_system in streams]
    speakers = []
    for index in range(systems[0].summary["num_speakers"]):
        speaker = index + 1
        row = rows[0][index] if rows[0] else {}
        clips = []
        if speaker in first["closetalk"]:
            scores = _scores(row, "closetalk") if "closetalk_si_sdr" in row else None
            name = f"speaker{speaker}_closetalk"
            clips.append(clip(name, "Close-talk mixture", first["closetalk"][speaker], scores, speaker))
        for place, system in enumerate(systems):
            output = orders[place][index]
            scores = f"{_scores(rows[place][index], 'separated')} · " if row else ""
            clips.append(
                clip(
                    f"speaker{speaker}_system{place + 1}",
                    "Separated" if len(systems) == 1 else system.name,
                    streams[place][output],
                    f"{scores}output {output}",
                    speaker,
                    place,
                )
            )
        if speaker in first["spk"]:
            clips.append(clip(f"speaker{speaker}_reference", "Reference", first["spk"][speaker], speaker=speaker))
        # Lines of scenes.jsonl carry the words too; text_spk{n} is what ASR is scored against.
        words = texts[index].get(utt_id)
        if words is None and scene is not None:
            words = scene["speakers"][index].get("text")
        speakers.append(
            {
                "number": speaker,
                "text": words,
                "clips": clips,
                "mixture": f"{row['mixture_si_sdr']:.1f}" if row else None,
            }
        )
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


def _scores(row, group):
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


def level_for_listening(samples):
    """(sample,) at CLIP_RMS, or below where its peak would pass CLIP_PEAK; silence stays silent.

    Clips of one loudness can be compared by switching between them.
    """
    peak = np.abs(samples).max(initial=0.0)
    if peak == 0:
        return samples
    scaled = samples / peak  # first, so that tiny samples do not vanish when squared
    return scaled * min(CLIP_RMS / np.sqrt(np.mean(scaled**2)), CLIP_PEAK)


def room(scene):
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
        facts.append((f"Speaker {number}", f"{speaker.get('speaker_id', '')}, {text}".lstrip(", ")))
        places.append(f"speaker {number} {text}")
    return {
        "src": figures.room_from_above(scene),
        "alt": f"Room of {size[0]:.1f} by {size[1]:.1f} m from above: " + "; ".join(places),
        "facts": facts,
    }
