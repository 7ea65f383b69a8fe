"""The diagnosis of made-up estimates whose fault is known.

The mixtures are made of waveforms: two talkers with their own syllables, convolved with short random
impulse responses to each mic. Estimates are the talkers themselves, or what a failing network makes of
them; what is expected comes from the true images.
"""

import json

import numpy as np
import oracle
import pytest
import scipy.signal
import torch

from espnet2_m2m import STFT, MixtureConstraintLoss, metrics
from espnet2_m2m.diagnosis.utterance import (
    compare_assignments,
    condition_numbers,
    diagnose_utterance,
    likeness,
    ratio_db,
    verdict,
)
from espnet2_m2m.diagnosis.words import SUMMARIES, diagnose_set, headset_table, markdown, table

NUM_SAMPLES = 6000
STFT_ = STFT(64, 16)
LOSS = MixtureConstraintLoss(
    closetalk_past_taps=3, closetalk_future_taps=1, farfield_past_taps=3, farfield_future_taps=1
)
SETTINGS = {
    "alpha": 1.0,
    "anchor_weight": 0.0,
    "anchor_order": "fixed",
    "anchor_fade": None,
    "isms_weight": 0.0,
    "close_talk": True,
    "supervised": False,
}


def make_scene(seed=0, num_speakers=2, num_far=3, cross_talk=0.2):
    """Spectra (…, freq, frame) of the talkers, images at all far-field mics and headsets, mixtures."""
    rng = np.random.default_rng(seed)
    time = np.arange(NUM_SAMPLES)
    talkers = rng.standard_normal((num_speakers, NUM_SAMPLES))
    for n, talker in enumerate(talkers):
        syllables = np.sin(2 * np.pi * (time / (400 + 90 * n) + rng.uniform())) > -0.2
        talker *= 0.03 + syllables
        talker[:] = scipy.signal.lfilter([1], [1, -0.6], talker)  # speech falls with frequency
    images = []  # (mic, speaker, sample)
    for mic in range(num_far + num_speakers):
        for n, talker in enumerate(talkers):
            rir = rng.standard_normal(30) * np.exp(-np.arange(30) / 6)
            level = cross_talk if mic >= num_far and mic - num_far != n else 1.0
            images.append(level * scipy.signal.lfilter(rir / np.linalg.norm(rir), [1], talker))
    images = STFT_(torch.tensor(np.array(images))).unflatten(0, (-1, num_speakers))
    return {
        "talkers": STFT_(torch.tensor(talkers)),
        "images": images,
        "far_field": images[:num_far].sum(1),
        "close_talk": images[num_far:].sum(1),
        "refs": images[0],
    }


SCENE = make_scene()


def inverse(spectra):
    return STFT_.inverse(spectra, NUM_SAMPLES)


def diagnose(est, scene=SCENE, refs=True, close_talk=True, loss=LOSS):
    return diagnose_utterance(
        est,
        scene["far_field"],
        loss,
        scene["close_talk"] if close_talk else None,
        scene["refs"] if refs else None,
        inverse,
    )


def swapped(talkers, every=2):
    """Every second frequency has the talkers in the other order."""
    swapped = talkers.clone()
    swapped[:, 1::every] = talkers.flip(0)[:, 1::every]
    return swapped


def estimates(scene=SCENE):
    """Name of the verdict -> estimates Z that deserve it, with references."""
    talkers, mix = scene["talkers"], scene["far_field"][0]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(mix.shape, generator=generator, dtype=mix.dtype)
    silence = torch.zeros_like(mix)
    poor = talkers + 0.6 * talkers.flip(0) + 0.7 * make_scene(seed=9)["talkers"]
    even = torch.where(torch.arange(len(mix))[:, None] % 2 == 0, mix, 0)
    return {
        "separates": [talkers, talkers.flip(0), 1e-6 * talkers, talkers + 0.1 * talkers.flip(0)],
        "frequency_permutation": [swapped(talkers), swapped(talkers).flip(0)],
        "outputs_are_mixture": [torch.stack([mix, mix]), torch.stack([mix, -1e3j * mix])],
        "one_output_is_mixture": [torch.stack([mix, silence]), torch.stack([noise, mix])],
        "mixture_is_shared_out": [torch.stack([even, mix - even])],
        "silent_output": [torch.stack([talkers[0], silence]), torch.stack([noise, noise])],
        "same_outputs": [torch.stack([talkers[0], 2 * talkers[0]])],
        "mixed_outputs": [swapped(poor)],
        "weak": [poor],
    }


CASES = [(name, index) for name, cases in estimates().items() for index in range(len(cases))]


@pytest.mark.parametrize("name, index", CASES)
def test_verdict(name, index):
    found = diagnose(estimates()[name][index])
    assert found["verdict"] == name, json.dumps(found)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("name, index", CASES)
def test_verdict_by_headsets_alone(name, index):
    assert diagnose(estimates()[name][index], refs=False)["verdict"] == name


@pytest.mark.parametrize("name, index", CASES)
def test_verdict_without_anything_to_compare_with(name, index):
    """Copies, silence and equality are seen in the outputs themselves; the rest is not guessed."""
    seen = name not in ("separates", "frequency_permutation", "mixed_outputs", "weak")
    found = diagnose(estimates()[name][index], refs=False, close_talk=False)
    assert found["verdict"] == (name if seen else "cannot_tell")
    assert found["headsets"] is None and found["references"] is None and found["explained_db"] is None


def energy(spectra):
    return float(spectra.abs().square().sum())


def test_quantities_of_a_perfect_separation():
    """Against the true images: what FCP leaves is what the other talker has at that mic."""
    found = diagnose(SCENE["talkers"])
    mix = energy(SCENE["far_field"][0])
    for n, (level, alone) in enumerate(zip(found["level_db"], found["alone_residual_db"])):
        assert level == pytest.approx(10 * np.log10(energy(SCENE["refs"][n]) / mix), abs=0.3)
        assert alone == pytest.approx(10 * np.log10(energy(SCENE["refs"][1 - n]) / mix), abs=0.3)
    for d in range(2):
        at_headset = SCENE["images"][3 + d]
        cross_talk = energy(at_headset[1 - d]) / energy(SCENE["close_talk"][d])
        left = cross_talk + 10 ** (found["residual_db"]["close_talk"][d] / 10)  # and what FCP cannot do
        assert found["explained_db"][d][d] == pytest.approx(-10 * np.log10(left), abs=0.5)
        assert found["explained_db"][d][1 - d] == pytest.approx(0.2, abs=0.2)
    assert found["headsets"]["contrast_db"] == pytest.approx(
        np.mean([row[d] - row[1 - d] for d, row in enumerate(found["explained_db"])]), abs=1e-3
    )
    for judged in (found["headsets"], found["references"]):
        assert judged["agreement"] == pytest.approx(1.0) and judged["agrees"] == pytest.approx([1.0] * 33)
        assert judged["assignment"] == [0, 1]
    references = found["references"]
    refs, mixture = inverse(SCENE["refs"]).numpy(), inverse(SCENE["far_field"][:1])[0].numpy()
    assert references["si_sdr_mixture"] == pytest.approx(np.mean([metrics.si_sdr(ref, mixture) for ref in refs]))
    assert references["si_sdr"] == references["si_sdr_oracle"] > 15
    assert max(found["residual_db"]["far_field"]) < -15 and found["coherence"] < 0.1
    assert abs(found["magnitude_correlation"]) < 0.1 and found["copied_share"] < 0.1


def test_permutation_is_located_and_undone():
    """The orange frequencies are those that were exchanged, and the oracle gets the separation back."""
    perfect, found = diagnose(SCENE["talkers"]), diagnose(swapped(SCENE["talkers"], every=3))
    exchanged = np.arange(33) % 3 == 1
    for name, targets in (("references", SCENE["refs"]), ("headsets", SCENE["close_talk"])):
        np.testing.assert_array_equal(np.array(found[name]["agrees"]) == 0, exchanged)
        power = targets.abs().square().sum(-1)
        weight = (power / power.sum(1, keepdim=True)).mean(0).numpy()
        assert found[name]["agreement"] == pytest.approx(1 - weight[exchanged].sum())
    assert found["references"]["si_sdr_oracle"] == pytest.approx(perfect["references"]["si_sdr"], abs=1e-3)
    assert found["references"]["si_sdr"] < 8
    assert found["headsets"]["contrast_oracle_db"] == pytest.approx(perfect["headsets"]["contrast_db"], abs=1e-3)
    # The loss cannot tell them apart (docs/method.md): only the assignments can.
    for family in ("far_field", "close_talk"):
        np.testing.assert_allclose(found["mc"][family], perfect["mc"][family], rtol=1e-4)


def test_consistent_exchange_is_no_fault_but_known():
    found = diagnose(SCENE["talkers"].flip(0))
    assert found["references"]["assignment"] == found["headsets"]["assignment"] == [1, 0]
    result = diagnose_set({"a": found, "b": diagnose(SCENE["talkers"])}, SETTINGS)
    assert result["orders"] == {"2 1": 1, "1 2": 1} and result["verdict"] == "separates"
    own, other = result["mean"]["explained_db"][0]
    assert own > 10 and other < 1, "the mean is over own outputs, not over output numbers"


def test_mc_is_the_loss():
    est = estimates()["weak"][0]
    found = diagnose(est)
    _, stats = LOSS(est[None], SCENE["far_field"][None], SCENE["close_talk"][None])
    assert sum(found["mc"]["far_field"]) == pytest.approx(float(stats["mc_far_field"]), rel=1e-5)
    assert sum(found["mc"]["close_talk"]) == pytest.approx(float(stats["mc_close_talk"]), rel=1e-5)


def test_three_talkers_and_two_headsets():
    scene = make_scene(num_speakers=3)
    order = [2, 0, 1]
    scene["close_talk"] = scene["close_talk"][:2]
    found = diagnose(scene["talkers"][order], scene)
    assert found["references"]["assignment"] == [1, 2, 0] and found["headsets"]["assignment"] == [1, 2]
    assert found["verdict"] == "separates"
    columns, rows = headset_table(diagnose_set({"a": found}, SETTINGS)["mean"])
    assert columns == ["own output", "other output 1", "other output 2"] and len(rows) == 2


@pytest.mark.parametrize("silent", ["est", "far_field", "close_talk", "refs", "everything"])
def test_silence_is_never_nan(silent):
    scene = {name: spectra.clone() for name, spectra in SCENE.items()}
    if silent == "everything":
        scene = {name: 0 * spectra for name, spectra in scene.items()}
    est = scene["talkers"]
    if silent == "est":
        est = 0 * est
    elif silent != "everything":
        scene[silent][-1] = 0
    found = diagnose(est, scene)
    desired = {"est": "silent_output", "everything": "silent_recording"}.get(silent, "separates")
    assert found["verdict"] == desired
    assert (found["headsets"] is None) == (silent in ("close_talk", "everything"))
    assert (found["references"] is None) == (silent in ("refs", "everything"))
    if silent == "far_field":
        assert found["residual_db"]["far_field"][-1] is None
    result = diagnose_set({"a": found, "b": found}, SETTINGS) | {
        "num_utterances": 2,
        "model_file": "m",
        "data_dir": "d",
    }
    text = markdown(result) + json.dumps(result, allow_nan=False)
    assert "nan" not in text.lower() and "None" not in text


def test_silent_reference_mic():
    scene = {name: spectra.clone() for name, spectra in SCENE.items()}
    scene["far_field"][0] = 0
    assert diagnose(SCENE["talkers"], scene)["verdict"] == "silent_recording"


def test_level_of_the_recording_does_not_matter():
    scene = {name: 1e-6 * spectra for name, spectra in SCENE.items()}
    desired, actual = (
        diagnose(SCENE["talkers"]),
        diagnose(
            SCENE["talkers"].to(torch.complex64), {name: spectra.to(torch.complex64) for name, spectra in scene.items()}
        ),
    )
    assert actual["references"]["si_sdr"] == pytest.approx(desired["references"]["si_sdr"], abs=0.01)
    np.testing.assert_allclose(actual["explained_db"], desired["explained_db"], atol=0.01)
    np.testing.assert_allclose(actual["condition_median"], desired["condition_median"], rtol=0.01)


def test_condition_numbers_by_singular_values():
    """The root of the covariance is the matrix of stacked frames; its singular values give the condition."""
    Z = oracle.noise(0, 2, 3, 20)
    lam = np.abs(oracle.noise(1, 3, 20)) + 0.1
    load = 1e-3
    actual = condition_numbers(torch.from_numpy(Z), torch.from_numpy(lam), 4, 1, load)
    for c in range(2):
        for f in range(3):
            A = np.array([oracle.stacked(Z[c], t, f, 4, 1) / np.sqrt(lam[f, t]) for t in range(20)])
            beta = load * np.sum(np.abs(A) ** 2) / 6
            loaded = np.vstack([A, np.sqrt(beta) * np.eye(6)])
            assert actual[c, f] == pytest.approx(np.linalg.cond(loaded) ** 2, rel=1e-6)


def test_condition_of_few_frames_is_that_of_the_load():
    """One frame, six taps: rank one, so the largest eigenvalue is the trace."""
    est = torch.ones(1, 2, 1, dtype=torch.complex128)
    est[0, 1] = 0
    actual = condition_numbers(est, torch.ones(2, 1), 0, 0, 1e-5)
    np.testing.assert_allclose(actual, [[1, 1]])
    est = torch.zeros(1, 1, 6, dtype=torch.complex128)
    est[..., 0] = 1  # an impulse: every tap sees it once, all uncorrelated
    np.testing.assert_allclose(condition_numbers(est, torch.ones(1, 6), 5, 0, 1e-5), [[1]])
    est = torch.ones(1, 1, 2000, dtype=torch.complex128)  # a constant: all taps the same but for the edges
    assert condition_numbers(est, torch.ones(1, 2000), 19, 1, 1e-5)[0, 0] > 1e4


def test_compare_assignments_by_hand():
    #                 frequency:   0    1    2
    similarity = torch.tensor(
        [[[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]], [[0.2, 0.1, 0.9], [0.7, 0.9, 0.2]]]
    )  # (target, source, freq)
    energy = torch.tensor([[2.0, 1.0, 1.0], [3.0, 3.0, 2.0]])
    found, own = compare_assignments(similarity, energy)
    assert found["assignment"] == [0, 1] and found["agrees"] == [1, 1, 0]
    assert found["agreement"] == pytest.approx(1 - (1 / 4 + 2 / 8) / 2)
    np.testing.assert_array_equal(own, [[0, 1], [0, 1], [1, 0]])


def test_likeness_by_hand():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(oracle.noise(0, 1, 3, 500))[0]
    phase = torch.from_numpy(np.exp(2j * np.pi * rng.uniform(size=(3, 500))))
    assert likeness(torch.stack([x, -2j * x])) == pytest.approx((1, 1))
    coherence, correlation = likeness(torch.stack([x, 5 * x * phase]))
    assert coherence < 0.1 and correlation == pytest.approx(1)
    # A common slope over frequencies is no likeness.
    y = torch.from_numpy(oracle.noise(7, 1, 3, 500))[0]
    slope = torch.tensor([100.0, 10.0, 1.0])[:, None]
    assert abs(likeness(torch.stack([x * slope, y * slope]))[1]) < 0.15
    assert likeness(torch.stack([x, 0 * x])) == (None, None) == likeness(x[None])


def test_ratio_db():
    assert ratio_db(torch.tensor([1.0, 4.0]), torch.tensor([20.0, 30.0])) == pytest.approx(-10)
    assert ratio_db(torch.zeros(2), torch.ones(2)) == -100 and ratio_db(torch.ones(2), torch.zeros(2)) is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"far_field": SCENE["far_field"][:, :5]}, r"far_field .* and est \(2, 33, 376\) need the same freq and frame"),
        ({"refs": SCENE["images"][0][[0, 1, 0]]}, "3 refs need at least as many estimates, found 2"),
        ({"close_talk": SCENE["close_talk"] * np.nan}, "close_talk has values that are not finite"),
        ({"refs": SCENE["refs"].real}, "refs must be a complex"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        diagnose(SCENE["talkers"], SCENE | change)


# ---- A set, in words -----------------------------------------------------------------------------


def set_of(*names, **settings):
    cases = estimates()
    found = {f"utt{n}": diagnose(cases[name][0]) for n, name in enumerate(names)}
    return diagnose_set(found, SETTINGS | settings)


def test_votes_and_confidence():
    assert set_of(*5 * ["weak"])["confidence"] == "sure"
    assert set_of(*4 * ["weak"])["confidence"] == "likely"
    result = set_of("weak", "separates", "separates")
    assert (result["verdict"], result["confidence"]) == ("separates", "likely")
    assert result["votes"] == {"separates": 2, "weak": 1}
    assert set_of("weak", "separates")["confidence"] == "unsure"
    with pytest.raises(ValueError, match="set is empty"):
        diagnose_set({}, SETTINGS)


def test_silent_recordings_do_not_vote():
    silent = diagnose_utterance(0 * SCENE["talkers"], 0 * SCENE["far_field"], LOSS)
    good = diagnose(SCENE["talkers"])
    result = diagnose_set({"a": silent, "b": silent, "c": good}, SETTINGS)
    assert result["verdict"] == "separates" and result["votes"]["silent_recording"] == 2
    assert result["mean"]["references"]["si_sdr"] == good["references"]["si_sdr"]


@pytest.mark.parametrize(
    "name, settings, expected, missing",
    [
        ("separates", {}, [], [""]),
        ("frequency_permutation", {}, ["Set anchor_weight: 5"], ["alpha", "isms_weight"]),
        (
            "frequency_permutation",
            {"anchor_weight": 0.3},
            ["Raise anchor_weight (it is 0.3)", "anchor_order: free"],
            ["Set anchor_weight"],
        ),
        (
            "frequency_permutation",
            {"anchor_weight": 1, "anchor_order": "free", "anchor_fade": (10, 300)},
            ["fades between steps 10 and 300"],
            ["anchor_order"],
        ),
        ("frequency_permutation", {"close_talk": False}, ["Raise isms_weight (it is 0)", "close_talk: true"], []),
        ("outputs_are_mixture", {}, ["lower alpha (it is 1;"], []),
        ("one_output_is_mixture", {"close_talk": False}, ["more of them than talkers:"], ["alpha"]),
        ("mixture_is_shared_out", {}, ["lower alpha"], []),
        ("same_outputs", {}, ["lower the learning rate"], []),
        ("weak", {"anchor_weight": 1, "anchor_order": "free"}, ["Train longer"], ["anchor"]),
        ("mixed_outputs", {"supervised": True}, ["Train longer"], ["anchor", "alpha"]),
        ("outputs_are_mixture", {"supervised": True}, ["learning rate"], ["anchor", "alpha"]),
    ],
)
def test_changes(name, settings, expected, missing):
    lines = set_of(name, **settings)["change"]
    for words in expected:
        assert any(words in line for line in lines), lines
    for words in missing:
        assert not any(words in line for line in lines), lines


def test_copy_of_the_only_mic():
    scene = make_scene(num_far=1)
    mix = scene["far_field"][0]
    found = diagnose(torch.stack([mix, 0 * mix]), scene)
    assert found["verdict"] == "one_output_is_mixture"
    (line, *_) = diagnose_set({"a": found}, SETTINGS | {"close_talk": False})["change"]
    assert "more of them than talkers, but there is one" in line


def test_headsets_of_another_recording():
    other = make_scene(seed=3)
    found = diagnose(SCENE["talkers"], SCENE | {"close_talk": other["close_talk"]})
    result = diagnose_set({"a": found}, SETTINGS)
    assert any("not the headsets" in line for line in result["why"]), result["why"]


def test_every_verdict_has_words():
    assert set(estimates()) | {"cannot_tell", "silent_recording"} == set(SUMMARIES)
    for name in estimates():
        result = set_of(name)
        assert len(result["why"]) >= 1 and (bool(result["change"]) == (name != "separates"))
        text = markdown(result | {"num_utterances": 1, "model_file": "m", "data_dir": "d"})
        assert SUMMARIES[name] in text and all(line in text for line in result["why"] + result["change"])
        for row in table(result["mean"]):
            assert "| " + " | ".join(row) + " |" in text


def test_agreement_without_gain_is_no_permutation():
    """Where each frequency is poor as well, exchanged frequencies are not what is wrong."""
    found = diagnose(estimates()["frequency_permutation"][0])
    assert verdict(found) == "frequency_permutation"
    poor = {**found["references"], "si_sdr_oracle": found["references"]["si_sdr_mixture"] + 2}
    assert verdict(found | {"references": poor}) == "mixed_outputs"
    met = {"far_field": [-25.0, None, -21.0], "close_talk": None}
    assert verdict(found | {"references": poor, "residual_db": met}) == "mixture_is_shared_out"
