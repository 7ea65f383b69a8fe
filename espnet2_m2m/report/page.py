"""The report page: what stands in an experiment's folders, as one self-contained HTML file."""

import base64
import csv
import io
import json
import math
import re
from pathlib import Path

import jinja2
import numpy as np

from espnet2_m2m import scoring
from espnet2_m2m.data_dir import read_table, source_stamp
from espnet2_m2m.data_dir.directory import name_some
from espnet2_m2m.report import figures
from espnet2_m2m.report.results import DECIMALS, ROWS, TITLES, format_scores
from espnet2_m2m.simulation.scene import read_scenes

# Counters, times and memory that the trainer reports beside the losses.
NOT_A_CURVE = re.compile(r".*(_time|_mem_GB)|time|total_count|clip|loss_scale|grad_norm")
LISTEN_PEAK = 0.7  # of full scale: clips are equally loud to listen to
NUM_HARDEST = 20


def render(exp_dir, data_dir, enhanced_dir, num_examples=3):
    """The page as HTML text.

    Args:
        exp_dir: folder of the training, with checkpoint.pth for the learning curves.
        data_dir, enhanced_dir: the scored set (bin/enh_scoring.py has been run).
        num_examples: number of test mixtures to look at and listen to.
    Raises:
        FileNotFoundError, ValueError: not scored yet, or not the audio that is there now.
    """
    data_dir, enhanced_dir = Path(data_dir), Path(enhanced_dir)
    summary, rows = read_scores(enhanced_dir)
    fixed_order = summary["fixed_order_agrees"] is not None
    jobs = scoring.list_jobs(data_dir, enhanced_dir, summary["ref_mic"], fixed_order)
    jobs = {job["utt_id"]: job for job in jobs}
    require_current(rows, jobs, data_dir, enhanced_dir / "scoring")
    gains = utterance_gains(rows)
    scenes_path = data_dir / "scenes.jsonl"
    scenes = read_scenes(scenes_path) if scenes_path.is_file() else {}  # real recordings: none
    texts = read_texts(data_dir, summary["num_speakers"])
    chosen = choose_examples(gains, num_examples)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html").render(
        title=Path(exp_dir).resolve().name,
        summary=summary,
        tables=score_tables(summary),
        training=read_training(Path(exp_dir) / "checkpoint.pth"),
        diagnosis=read_diagnosis(enhanced_dir / "diagnosis" / "diagnosis.json"),
        distribution=distribution_figures(rows),
        hardest=hardest(rows, gains),
        examples=[
            example(label, jobs[utt_id], rows, gains, scenes, texts) for label, utt_id in chosen
        ],
        has_scenes=bool(scenes),
    )


# ---- Scores --------------------------------------------------------------------------------------


def read_scores(enhanced_dir):
    """summary.json and the rows of scores.csv, numbers as numbers (undefined: NaN)."""
    scoring_dir = enhanced_dir / "scoring"
    for name in ("summary.json", "scores.csv"):
        if not (scoring_dir / name).is_file():
            raise FileNotFoundError(
                f"{scoring_dir / name}: no such file; run espnet2_m2m.bin.enh_scoring first"
            )
    summary = json.loads((scoring_dir / "summary.json").read_text(encoding="utf-8"))
    with open(scoring_dir / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in row:
            if name in ("speaker", "estimate"):
                row[name] = int(row[name])
            elif name not in ("utt_id", "estimate_is_silent"):
                row[name] = float(row[name] or "nan")
    return summary, rows


def require_current(rows, jobs, data_dir, scoring_dir):
    """Refuse scores of other audio than is there now; of pipes, nobody can tell.

    Args:
        rows: of scores.csv.
        jobs: utt_id -> job of `scoring.list_jobs`.
        data_dir, scoring_dir: for the message, and to read the keys that the scores were kept with.
    Raises:
        ValueError: other utterances, or files that changed since they were scored.
    """
    different = {row["utt_id"] for row in rows} ^ jobs.keys()
    if different:
        raise ValueError(
            f"{scoring_dir}/scores.csv and {data_dir} need the same utterances, but only one has"
            f" {name_some(sorted(different))}; run stage 8 (espnet2_m2m.bin.enh_scoring) again"
        )
    kept = scoring.read_cache(scoring_dir / "utterances.jsonl")
    changed = [
        utt_id
        for utt_id, job in jobs.items()
        if utt_id not in kept or kept[utt_id][0] != scoring.input_key(job)
    ]
    if changed:
        raise ValueError(
            f"{scoring_dir}/scores.csv: the audio is not what was scored, for utterance"
            f" {name_some(changed)}; run stage 8 (espnet2_m2m.bin.enh_scoring) again"
        )


def utterance_gains(rows):
    """utt_id -> SI-SDR improvement in dB, mean over speakers."""
    gains = {}
    for row in rows:
        gain = row["separated_si_sdr"] - row["mixture_si_sdr"]
        gains.setdefault(row["utt_id"], []).append(gain)
    return {utt_id: float(np.mean(values)) for utt_id, values in gains.items()}


def score_tables(summary):
    """Caption and rows of the tables: separation, and the close-talk mixtures where scored."""
    mean = summary["mean"]
    separation = [(title, group) for group, title in ROWS.items() if group in mean]
    tables = [("Reference: speaker images at the far-field reference mic", separation)]
    if "closetalk" in mean:
        tables.append(("Reference: close-talk speech", [("close-talk mixture", "closetalk")]))
    return [
        {
            "caption": caption,
            "columns": list(TITLES.values()),
            "rows": [(title, group, format_scores(mean[group])) for title, group in groups],
        }
        for caption, groups in tables
    ]


def distribution_figures(rows):
    mixture = np.array([row["mixture_si_sdr"] for row in rows])
    separated = np.array([row["separated_si_sdr"] for row in rows])
    speakers = np.array([row["speaker"] for row in rows])
    better = int((separated > mixture).sum())
    return [
        {
            "src": figures.before_and_after(mixture, separated, speakers),
            "alt": f"Scatter plot: {better} of {len(rows)} signals have a higher SI-SDR separated"
            " than in the mixture",
            "caption": f"{better} of {len(rows)} signals gain (above the dotted line).",
        },
        {
            "src": figures.histogram(mixture, separated),
            "alt": f"Histogram: SI-SDR of the mixture has mean {mixture.mean():.1f} dB, separated"
            f" {separated.mean():.1f} dB, from {separated.min():.1f} to {separated.max():.1f} dB",
            "caption": f"Mean {mixture.mean():.1f} dB before, {separated.mean():.1f} dB after.",
        },
    ]


def hardest(rows, gains):
    """The rows of the utterances that gain least, for the table below the figures."""
    worst = sorted(gains, key=lambda utt_id: (gains[utt_id], utt_id))[:NUM_HARDEST]
    by_utterance = {utt_id: [] for utt_id in worst}
    for row in rows:
        if row["utt_id"] in by_utterance:
            by_utterance[row["utt_id"]].append(row)
    return [
        (
            row["utt_id"],
            row["speaker"],
            f"{row['mixture_si_sdr']:.1f}",
            f"{row['separated_si_sdr']:.1f}",
            f"{row['separated_si_sdr'] - row['mixture_si_sdr']:+.1f}",
        )
        for utt_id in worst
        for row in by_utterance[utt_id]
    ]


def choose_examples(gains, num_examples):
    """[(label, utt_id)]: evenly spaced ranks of the improvement, from worst to best."""
    ranked = sorted(gains, key=lambda utt_id: (gains[utt_id], utt_id))
    last = len(ranked) - 1
    count = min(num_examples, len(ranked))
    ranks = [last // 2] if count == 1 else np.linspace(0, last, count).round().astype(int)
    middle = ranks[len(ranks) // 2] if count % 2 else None
    labels = {last: "Best", 0: "Worst"}
    if middle is not None:
        labels.setdefault(int(middle), "Median")
    return [
        (labels.get(int(rank), f"Rank {rank + 1} of {len(ranked)} from below"), ranked[rank])
        for rank in ranks
    ]


# ---- Training ------------------------------------------------------------------------------------


def read_training(path):
    """Learning curves from ESPnet's checkpoint; None where there is no checkpoint."""
    if not path.is_file():
        return None
    import torch  # takes seconds, so only where needed

    try:
        # The reporter's statistics hold timedeltas, which weights_only refuses.
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        stats = checkpoint["reporter"]["stats"]
    except Exception as error:  # unpickling raises anything
        raise ValueError(f"{path}: not a checkpoint of an ESPnet training ({error!r})") from error
    epochs = sorted(stats)
    names = {name for epoch in epochs for phase in stats[epoch].values() for name in phase}
    names = {name for name in names if not NOT_A_CURVE.fullmatch(name)}
    is_rate = {name: bool(re.fullmatch(r"optim\d+_lr\d+", name)) for name in names}
    curves = []
    for name in sorted(names, key=lambda name: (name != "loss", is_rate[name], name)):
        phases = {}
        for phase in ("train", "valid"):
            values = [float(stats[epoch].get(phase, {}).get(name, math.nan)) for epoch in epochs]
            if np.isfinite(values).any():
                phases[phase] = (epochs, values)
        if phases:
            curves.append(
                {
                    "name": f"learning rate ({name})" if is_rate[name] else name,
                    "src": figures.learning_curve(phases),
                    "alt": f"{name} over {len(epochs)} epochs: "
                    + "; ".join(f"{phase} {_span(*curve)}" for phase, curve in phases.items()),
                }
            )
    valid = {epoch: stats[epoch].get("valid", {}).get("loss", math.nan) for epoch in epochs}
    valid = {epoch: value for epoch, value in valid.items() if math.isfinite(value)}
    phases = [phase for epoch in epochs for phase in stats[epoch].values()]
    seconds = sum(phase["time"].total_seconds() for phase in phases if "time" in phase)
    return {
        "curves": curves,
        "num_epochs": len(epochs),
        "best_epoch": min(valid, key=valid.get) if valid else None,
        "duration": _duration(seconds) if seconds else None,
    }


def _span(epochs, values):
    finite = [value for value in values if math.isfinite(value)]
    return f"from {finite[0]:.3g} to {finite[-1]:.3g}"


def _duration(seconds):
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def read_diagnosis(path):
    """What bin/diagnose.py found, in words, numbers and a figure; None where it has not been run."""
    if not path.is_file():
        return None
    from espnet2_m2m.report import diagnosis  # torch takes seconds, so only where needed

    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        model = Path(result["model_file"])
        figure = None
        if result["agrees"]:
            shares = {name: 100 * np.mean(rows) for name, rows in result["agrees"].items()}
            figure = {
                "src": figures.agreement(result["agrees"], result["sample_rate_hz"]),
                "height": 336 if len(result["agrees"]) == 1 else 461,
                "alt": "Share of utterances, over frequency, whose outputs belong to the same talkers"
                " as at the other frequencies; on average "
                + ", ".join(f"{share:.0f} % by {name}" for name, share in shares.items()),
            }
        return {
            "ok": result["verdict"] == "separates",
            "summary": result["summary"],
            "votes": diagnosis.sentence_of_votes(result),
            "why": result["why"],
            "change": result["change"],
            "model": model.name,
            "outdated": model.is_file() and source_stamp(model) != result["model_stamp"],
            "data_dir": result["data_dir"],
            "table": diagnosis.table(result["mean"]),
            "headsets": diagnosis.headset_table(result["mean"]),
            "figure": figure,
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a diagnosis ({error!r}); run espnet2_m2m.bin.diagnose again"
        ) from error


# ---- Examples ------------------------------------------------------------------------------------


def read_texts(data_dir, num_speakers):
    """What the speakers say: a list with a table utt_id -> words for every speaker."""
    paths = [data_dir / f"text_spk{number}" for number in range(1, num_speakers + 1)]
    return [read_table(path, allow_empty=True) if path.is_file() else {} for path in paths]


def example(label, job, rows, gains, scenes, texts):
    """One test mixture: clips with spectrogram and scores, and where everybody stood."""
    utt_id = job["utt_id"]
    signals = scoring.read_signals(job)
    sample_rate = signals["sample_rate"]
    rows = sorted((r for r in rows if r["utt_id"] == utt_id), key=lambda row: row["speaker"])
    scene = scenes.get(utt_id)

    def clip(name, samples, scores=None):
        note = None
        if scores is not None:
            note = " · ".join(
                f"{TITLES[metric].partition(' ')[0]} {value}"
                + (" dB" if TITLES[metric].endswith("(dB)") and value != "n/a" else "")
                for metric, value in zip(DECIMALS, format_scores(scores))
            )
        return {
            "name": name,
            "scores": note,
            "audio": audio_uri(samples, sample_rate),
            "label": f"{name}, {label.lower()} example",
            "src": figures.spectrogram(samples, sample_rate),
            "alt": f"Spectrogram: {name}, {len(samples) / sample_rate:.1f} s",
        }

    def scores_of(row, group):
        values = {metric: row[f"{group}_{metric}"] for metric in DECIMALS}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    speakers = []
    for index, row in enumerate(rows):
        clips = []
        if signals["closetalk"]:
            scores = scores_of(row, "closetalk") if "closetalk_si_sdr" in row else None
            headset = signals["closetalk"][index]
            clips.append(clip(f"Close-talk mixture {index + 1}", headset, scores))
        estimate = signals["estimates"][row["estimate"] - 1]
        clips.append(clip(f"Separated {index + 1}", estimate, scores_of(row, "separated")))
        clips.append(clip(f"Reference {index + 1}", signals["references"][index]))
        # Lines of scenes.jsonl carry the words too; text_spk{n} is what ASR is scored against.
        words = texts[index].get(utt_id)
        if words is None and scene is not None:
            words = scene["speakers"][index].get("text")
        speakers.append(
            {
                "number": index + 1,
                "text": words,
                "clips": clips,
                "output": row["estimate"],
                "mixture": f"{row['mixture_si_sdr']:.1f}",
            }
        )
    return {
        "label": label,
        "utt_id": utt_id,
        "gain": f"{gains[utt_id]:+.1f}",
        "seconds": f"{len(signals['mixture'][0]) / sample_rate:.1f}",
        "mixture": clip(f"Far-field mixture, mic {job['ref_mic']}", signals["mixture"][0]),
        "speakers": speakers,
        "room": None if scene is None else room(scene),
    }


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


def audio_uri(samples, sample_rate):
    """(sample,) as a 16-bit wav in a `data:` URI, peak at LISTEN_PEAK (silence stays silent)."""
    import soundfile

    peak = np.abs(samples).max()
    scaled = samples * (LISTEN_PEAK / peak) if peak > 0 else samples
    buffer = io.BytesIO()
    soundfile.write(buffer, scaled, sample_rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
