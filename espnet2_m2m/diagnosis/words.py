"""The diagnosis of a set in words: what is wrong, how sure, why, and what to change in the config."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from espnet2_m2m.diagnosis.utterance import SILENT_DB
from espnet2_m2m.markdown import table as markdown_table

UNEXPLAINED_DB = -1.0  # residual above which FCP hardly reaches a headset
ILL_CONDITIONED = 1e5  # networks that work have 1e2 to 1e4; the load's bound is 2e6
COPIES = ("outputs_are_mixture", "one_output_is_mixture", "mixture_is_shared_out")

SUMMARIES = {
    "separates": "The model separates; no fault was found.",
    "frequency_permutation": "Frequency permutation: each frequency is separated, but which output is which "
    "talker changes from frequency to frequency.",
    "outputs_are_mixture": "The network copies its input: every output is the mixture.",
    "one_output_is_mixture": "The network copies its input: one output is the whole mixture, nothing is "
    "left for the others.",
    "mixture_is_shared_out": "The network copies its input: the outputs add up to the mixture, but share it "
    "out in another way than by talkers.",
    "silent_output": "An output is silent, or has nothing in common with the mixture, and the others are not the whole "
    "mixture either.",
    "same_outputs": "The outputs are one and the same signal.",
    "mixed_outputs": "Every output holds all talkers, also within single frequencies, and which of them it tends to "
    "changes from frequency to frequency.",
    "weak": "The outputs tend to the right talkers, but separate them little.",
    "cannot_tell": "The outputs are neither copies nor silent nor the same. Whether they are the talkers cannot be "
    "told without references and headsets, and a frequency permutation cannot be seen.",
    "silent_recording": "The recordings are silent: there is nothing to separate.",
}


def diagnose_set(utterances: dict, settings: dict) -> dict:
    """What holds for a set: the verdict of most of its utterances, with reasons and remedies.

    Args:
        utterances: utt_id -> result of `diagnosis.diagnose_utterance`.
        settings: of the training: alpha, anchor_weight, anchor_order, anchor_fade and isms_weight of the
            loss, close_talk (bool): the loss uses headsets, supervised (bool): it is PIT on references
            instead.
    Returns:
        verdict: key of SUMMARIES; summary: it in words.
        confidence: "sure", "likely" or "unsure"; votes: {verdict: utterances}. Silent ones do not vote.
        why, change: lists of sentences.
        mean: of the quantities over utterances; explained_db with each headset's own output first, for
            the order of the outputs may differ between utterances.
        orders: {"2 1": utterances}: which output is talker (or headset) 1, 2 ...; empty if unknown.
        agrees: {"references", "headsets"}: (utterance, freq) lists of `compare_assignments`.
    Raises:
        ValueError: no utterance.
    """
    if not utterances:
        raise ValueError("no utterance to diagnose: the set is empty")
    votes = Counter(found["verdict"] for found in utterances.values())
    heard = [found for found in utterances.values() if found["verdict"] != "silent_recording"]
    if heard:
        chosen, count = Counter(found["verdict"] for found in heard).most_common(1)[0]
    else:
        chosen, count = "silent_recording", 0
    mean = _mean([_for_mean(found) for found in heard or utterances.values()])
    known = [name for name in ("references", "headsets") if mean[name]]
    judged = [found[name]["assignment"] for name in known[:1] for found in heard if found[name]]
    result = {
        "verdict": chosen,
        "summary": SUMMARIES[chosen],
        "confidence": _confidence(chosen, count, len(heard)),
        "votes": dict(votes.most_common()),
        "orders": dict(Counter(" ".join(str(c + 1) for c in order) for order in judged).most_common()),
        "mean": mean,
        "agrees": {name: [found[name]["agrees"] for found in heard if found[name]] for name in known},
    }
    return result | {"why": reasons(result), "change": changes(result, settings)}


def _confidence(chosen: str, count: int, num_heard: int) -> str:
    if chosen == "cannot_tell" or count < 0.6 * num_heard:
        return "unsure"
    return "sure" if num_heard >= 5 and count >= 0.8 * num_heard else "likely"


# ---- Words ---------------------------------------------------------------------------------------


def reasons(result: dict) -> list[str]:
    """Sentences with the numbers that speak for the verdict, and other findings that stand out."""
    kind, mean, lines = result["verdict"], result["mean"], []
    if kind == "silent_recording":
        return ["All far-field mixtures are zero at the reference mic."]
    if kind == "mixture_is_shared_out":
        lines.append(
            f"All outputs together leave {_worst(mean['residual_db']['far_field']):.1f} dB of the "
            "far-field mixtures. One output alone is the mixture at frequencies with "
            f"{_percent(mean['copied_share'])} of its energy."
        )
    elif kind in COPIES:
        lines += [
            f"Filtered by FCP, output {n} alone leaves {residual:.1f} dB of the mixture at the "
            "reference mic; one talker of two leaves about -3 dB."
            for n, residual in enumerate(mean["alone_residual_db"], start=1)
        ]
    lines += [
        f"The image of output {n} is {-level:.0f} dB below the mixture: as good as silent."
        for n, level in enumerate(mean["level_db"], start=1)
        if level < SILENT_DB
    ]
    if kind in ("same_outputs", "mixed_outputs", "weak") and mean["coherence"] is not None:
        lines.append(
            f"The coherence of the outputs is {mean['coherence']:.2f} and the correlation of their "
            f"magnitudes {mean['magnitude_correlation']:.2f}: separated talkers have less than 0.3."
        )
    meaningful = kind not in COPIES and kind != "same_outputs"  # which output belongs to whom
    references, headsets = mean["references"], mean["headsets"]
    if references is not None:
        lines.append(
            f"SI-SDR is {_db(references['si_sdr'])} dB, of the mixture {_db(references['si_sdr_mixture'])} dB."
        )
        if meaningful:
            lines.append(
                f"It would be {_db(references['si_sdr_oracle'])} dB if every frequency were given to the "
                f"talker that it fits best. {_percent(references['agreement'])} of the energy lies in "
                "frequencies that fit the utterance's assignment anyway."
            )
    if headsets is not None and meaningful:
        lines.append(
            f"By the headsets, {_percent(headsets['agreement'])} of the energy lies in frequencies that fit "
            "the utterance's assignment. Its own output explains a headset "
            f"{_db(headsets['contrast_db'])} dB better than another output does; "
            f"{_db(headsets['contrast_oracle_db'])} dB with the best assignment at every frequency."
        )
    if _headsets_unexplained(mean):
        lines.append(
            "The outputs explain the far-field mics, but not the headsets: all together they leave "
            f"{_worst(mean['residual_db']['close_talk']):.1f} dB of one."
        )
    worst = max(mean["condition_median"])
    if worst > ILL_CONDITIONED:
        lines.append(
            f"FCP is ill-conditioned: the median condition number is {worst:.0e}, where up to "
            "1e4 is usual. An estimate holds fewer independent frames than the filter has taps."
        )
    return lines


def changes(result: dict, settings: dict) -> list[str]:
    """What to change in config or data; options are named as in the config."""
    kind, lines = result["verdict"], []
    if kind in ("separates", "cannot_tell"):
        return []
    if kind == "silent_recording":
        return ["Check the audio of wav.scp, and the reference mic (ref_mic)."]
    one_mic = len(result["mean"]["residual_db"]["far_field"]) == 1
    copies = kind in COPIES and not settings["supervised"]  # PIT has no mixture-constraint loss
    if copies and settings["close_talk"]:
        lines.append(
            f"A copy of the input meets the far-field part of the loss: lower alpha (it is "
            f"{settings['alpha']:.3g}; with one far-field mic the paper uses 1/5 to 1/8), so that the "
            "headsets decide."
        )
    elif copies:
        lines.append(
            "The loss sees far-field mics alone and needs more of them than talkers"
            + (", but there is one" if one_mic else "")
            + ": give it more (loss_mics, input_mics), or headsets (close_talk: true)."
        )
    if kind in ("same_outputs", "silent_output") or settings["supervised"] and kind in COPIES:
        lines.append(
            "Look at the learning curve. Either the network has not left its start: train longer, try "
            "another seed or learning rate. Or the training has diverged: lower the learning rate."
        )
    lines += _anchor_changes(result, settings)
    if kind == "frequency_permutation" and not settings["close_talk"] and not settings["supervised"]:
        lines.append(
            f"Raise isms_weight (it is {settings['isms_weight']:g}), which works against frequency "
            "permutation without headsets."
        )
    if kind in ("weak", "mixed_outputs") or settings["supervised"] and kind == "frequency_permutation":
        lines.append(
            "Train longer while the validation loss still falls; if it does not fall any more, try "
            "another learning rate or a larger network."
        )
    if _headsets_unexplained(result["mean"]):
        lines.append(
            "Check that the headsets belong to the far-field recordings and are synchronous with them "
            "to within the filter (closetalk_past_taps, closetalk_future_taps)."
        )
    return lines


def _anchor_changes(result: dict, settings: dict) -> Iterator[str]:
    if settings["supervised"]:
        return
    if not settings["close_talk"]:
        if result["mean"]["residual_db"]["close_talk"] is not None:
            yield "The set has headsets: train with close_talk: true and anchor_weight: 5."
        return
    if settings["anchor_weight"] == 0:
        yield (
            "Set anchor_weight: 5, with anchor_order: free (or fixed, where headset n always belongs to the "
            "same seat). Each headset must then be explained by one output alone, the same at all "
            "frequencies."
        )
        return
    if settings["anchor_order"] == "fixed":
        yield (
            "anchor_order: fixed asks for the order of the headsets. Where the far-field recording does not "
            "tell it, nothing is learned: set anchor_order: free."
        )
    if settings["anchor_fade"] is not None:
        first, last = settings["anchor_fade"]
        yield f"The anchor fades between steps {first} and {last}: let it fade later, or not at all."
    if result["verdict"] != "weak":
        yield f"Raise anchor_weight (it is {settings['anchor_weight']:g})."


def _headsets_unexplained(mean: dict) -> bool:
    close_talk, far_field = mean["residual_db"]["close_talk"], mean["residual_db"]["far_field"]
    if close_talk is None or all(db is None for db in close_talk):
        return False
    return _worst(close_talk) > UNEXPLAINED_DB > _worst(far_field)


def _worst(values_db: Iterable[float | None]) -> float:
    """Of several mics; a silent one has None."""
    return max(db for db in values_db if db is not None)


def _db(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no "-0.0"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# ---- Tables --------------------------------------------------------------------------------------


def table(mean: dict) -> list[tuple[str, str, str]]:
    """(quantity, value, what is to be expected) for the means that exist; "n/a": nothing to say."""

    def listed(values: Iterable[float | None], form: Callable[[float], str] = _db) -> str:
        return ", ".join("n/a" if value is None else form(value) for value in values)

    rows = []
    references, headsets = mean["references"], mean["headsets"]
    if references is not None:
        rows += [
            ("SI-SDR of the mixture (dB)", _db(references["si_sdr_mixture"]), ""),
            ("SI-SDR of the outputs, filtered by FCP (dB)", _db(references["si_sdr"]), "at least 5 dB more"),
            (
                "SI-SDR, best assignment per frequency (dB)",
                _db(references["si_sdr_oracle"]),
                "nearly the same; much more: frequency permutation",
            ),
            ("frequencies that agree, by references", _percent(references["agreement"]), "above 90 %"),
        ]
    if headsets is not None:
        rows += [
            ("frequencies that agree, by headsets", _percent(headsets["agreement"]), "above 90 %"),
            ("own output explains a headset better than another by (dB)", _db(headsets["contrast_db"]), "above 2"),
            (
                "the same, best assignment per frequency (dB)",
                _db(headsets["contrast_oracle_db"]),
                "nearly the same; much more: frequency permutation",
            ),
        ]
    rows += [
        ("level of the outputs, re mixture (dB)", listed(mean["level_db"]), "0 to -10"),
        (
            "left of the mixture by one output alone (dB)",
            listed(mean["alone_residual_db"]),
            "-1 to -8; below -15: a copy of the mixture",
        ),
    ]
    if mean["copied_share"] is not None:
        rows.append(("frequencies where one output is the mixture", _percent(mean["copied_share"]), "below 20 %"))
    if mean["coherence"] is not None:
        rows += [
            ("coherence of the outputs", f"{mean['coherence']:.2f}", "below 0.3; 1: the same signal"),
            ("correlation of their magnitudes", f"{mean['magnitude_correlation']:.2f}", "below 0.4"),
        ]
    for family, name, expected in (
        ("far_field", "far-field mics", "-8 to -15"),
        ("close_talk", "headsets", "-3 to -12"),
    ):
        if mean["residual_db"][family]:
            rows += [
                (f"left of the {name} by all outputs (dB)", listed(mean["residual_db"][family]), expected),
                (f"MC loss of the {name}", listed(mean["mc"][family], "{:.2f}".format), ""),
            ]
    rows += [
        ("FCP condition number, median", listed(mean["condition_median"], "{:.1e}".format), "below 1e4"),
        ("FCP condition number, 95 % quantile", listed(mean["condition_q95"], "{:.1e}".format), "below 1e5"),
    ]
    return rows


def headset_table(mean: dict) -> tuple[list[str], list[list[str]]] | None:
    """Columns and rows: by how many dB one output alone lowers each headset's energy; None without."""
    explained = mean["explained_db"]
    if explained is None:
        return None
    others = len(explained[0]) - 1
    columns = ["own output"] + ["other output" if others == 1 else f"other output {n}" for n in range(1, others + 1)]
    rows = [
        [f"headset {number}"] + ["n/a" if value is None else _db(value) for value in row]
        for number, row in enumerate(explained, start=1)
    ]
    return columns, rows


def markdown(result: dict) -> str:
    """DIAGNOSIS.md: the verdict, reasons, remedies and tables of a `diagnose_set` result.

    Args:
        result: with the file's further keys train_config, model_file, data_dir, num_utterances.
    """
    lines = [
        "# Diagnosis",
        "",
        f"**{result['summary']}**",
        "",
        f"{sentence_of_votes(result)} Model `{result['model_file']}`, data `{result['data_dir']}`.",
        "",
    ]
    if result["why"]:
        lines += ["## Why", ""] + [f"- {line}" for line in result["why"]] + [""]
    if result["change"]:
        lines += ["## What to change", ""] + [f"- {line}" for line in result["change"]] + [""]
    lines += [
        "## Quantities",
        "",
        "Means over the utterances; lists are over outputs or mics.",
        "",
        markdown_table(["quantity", "value", "expected"], table(result["mean"]), left=3),
    ]
    headsets = headset_table(result["mean"])
    if headsets is not None:
        columns, rows = headsets
        lines += [
            "",
            "How much one output alone explains of each headset (dB by which its energy falls):",
            "",
            markdown_table(["", *columns], rows),
        ]
    return "\n".join(lines) + "\n"


def sentence_of_votes(result: dict) -> str:
    """How sure the verdict is, which utterances say so, and the order of the outputs."""
    chosen, total = result["votes"].get(result["verdict"], 0), result["num_utterances"]
    others = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in result["votes"].items() if name != result["verdict"]
    )
    text = f"{result['confidence'].capitalize()}: {chosen} of {total} utterances" + (f" ({others})." if others else ".")
    if result["orders"] and result["verdict"] in ("separates", "weak"):
        whose = "talkers" if result["mean"]["references"] else "headsets"
        orders = "; ".join(f"{order} in {count}" for order, count in result["orders"].items())
        text += f" Outputs of the {whose} 1, 2 ...: {orders}."
    return text


def _for_mean(found: dict) -> dict:
    """What has a mean: explained_db with own outputs first, without verdict and assignments."""
    found = {name: value for name, value in found.items() if name != "verdict"}
    if found["headsets"] is not None:
        found["explained_db"] = [
            [row[own]] + [value for source, value in enumerate(row) if source != own]
            for row, own in zip(found["explained_db"], found["headsets"]["assignment"])
        ]
    for name in ("headsets", "references"):
        if found[name] is not None:
            found[name] = {key: value for key, value in found[name].items() if key not in ("assignment", "agrees")}
    return found


def _mean(values: Iterable) -> dict | list | float | None:
    """Element by element through equal nests of dicts and lists; None counts nowhere."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], list):
        return [_mean(column) for column in zip(*values)]
    return float(np.mean(values))
