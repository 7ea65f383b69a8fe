"""What does not go with the plug-in's losses is named before anything is built, all of it at once."""

import argparse

import pytest
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet_configs import M2M, PIT, STFT_CODER, VALID_SI_SNR, config, criterion

from espnet2_m2m.enh.segments import NeverEmpty
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask
from espnet2_m2m.tasks.unfit_options import refuse_unfit, unfit_model_options, unfit_training_options

FROM_REF = {"closetalk_from_ref": True}
CONV = {"channel": 8, "kernel_size": 16, "stride": 8}
WAVES = {"encoder": "same", "decoder": "same", "encoder_conf": {}, "decoder_conf": {}}


def training(criterions=(M2M,), references=0, **changes):
    """All options of a training that fits, with changes."""
    options = {**M2MEnhancementTask.get_default_config(), **vars(config("rnn", criterions))}
    options |= {"iterator_type": "chunk", "ngpu": 0}
    names = ["speech_mix", *(f"speech_ref{n}" for n in range(1, references + 1))]
    options["train_data_path_and_name_and_type"] = [(f"{name}.scp", name, "sound") for name in names]
    return argparse.Namespace(**{**options, **changes})


def test_a_config_that_fits_is_not_refused():
    refuse_unfit(unfit_model_options(training()) + unfit_training_options(training()))
    assert not unfit_model_options(training([M2M, VALID_SI_SNR]))


def test_all_that_is_wrong_stands_in_one_message():
    args = training(
        [criterion(alpha=-1.0), dict(VALID_SI_SNR, wrapper="mixture")],
        encoder_conf={"n_fft": 64, "hop_length": 16, "hop": 3},
        separator_conf={"num_spk": 2, "predict_noise": True},
        model_conf={"categories": ["real"], "input_mics": []},
        train_dtype="float16",
        preprocessor="dynamic_mixing",
        iterator_type="sequence",
        resume=False,
    )
    with pytest.raises(ValueError) as error:
        M2MEnhancementTask.main_worker(args)
    message = str(error.value)
    assert message.startswith("9 options of the config do not fit: (1) alpha must be >= 0") and "\n" not in message
    parts = (
        "wrapper mixture goes with",
        "categories: ['real']; remove it",
        "input_mics must be",
        "encoder_conf has no option hop with encoder: stft",
        "predict_noise: false",
        "train_dtype: float16",
        "dynamic_mixing",
        "needs train_shape_file and valid_shape_file",
    )
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "changes, messages",
    [
        (dict(separator="dccrn", separator_conf={"use_noise_mask": True}), ["separator_conf's use_noise_mask: false"]),
        (dict(separator="ineube", separator_conf={"n_spk": 2}), ["builds iNeuBe with one source"]),
        (dict(separator="nonet"), ["nonet"]),
        (dict(separator_conf={"num_spk": 2, "input_dim": 5}), ["no option input_dim"]),
        (dict(separator_conf=None), ["separator_conf must be a mapping of options, found None"]),
        (dict(WAVES, separator="svoice"), ["returns the estimates of several layers"]),
        (dict(WAVES, separator="fasnet", separator_conf={"sr": 8000}), ["fasnet needs separator_conf's enc_dim, "]),
        (dict(WAVES), ["does not go with encoder: same; set encoder and decoder: stft or spectra"]),
        (dict(encoder="conv", encoder_conf={"channel": 8}), ["encoder_conf's kernel_size, stride", "set decoder"]),
        (dict(decoder="spectra"), ["decoder: spectra does not undo encoder: stft; set decoder: stft"]),
        (dict(decoder_conf={**STFT_CODER, "window": None}), ["must be the same, found window: hann and None"]),
        (dict(encoder="fbank"), ["no way to them from encoder: fbank"]),
        (dict(criterions=[{"name": "mixture_constraint"}]), ["lacks wrapper and wrapper_conf"]),
        (dict(model_conf={"input_mic": [0]}), ["model_conf has no option input_mic;"]),
        (
            dict(model_conf={"precision": "half"}),
            ["model_conf's precision is one of auto, float32, bfloat16, found 'h"],
        ),
        (dict(model_conf={"precision": None}), ["model_conf's precision is one of auto, float32, bfloat16, found Non"]),
        (dict(model_conf={"precision": "bfloat16"}), []),
        (
            {**vars(config("dccrn", [M2M])), "model_conf": {"precision": "bfloat16"}},
            ["model_conf's precision: bfloat16 does not go with DCCRNSeparator"],
        ),
    ],
)
def test_options_of_the_model(changes, messages):
    found = unfit_model_options(training(**changes))
    assert len(found) == len(messages), found
    for message, problem in zip(messages, found):
        assert message in problem


def test_a_window_that_one_coder_names_and_the_other_leaves_to_its_default_is_the_same():
    assert not unfit_model_options(training(decoder_conf={**STFT_CODER, "win_length": 64, "default_fs": 8000}))
    conv = {"encoder": "conv", "decoder": "conv", "encoder_conf": CONV, "decoder_conf": CONV}
    assert not unfit_model_options(training(**conv))


REMADE = "which the headsets have not heard"


@pytest.mark.parametrize(
    "changes, messages",
    [
        (dict(preprocessor="dynamic_mixing"), [REMADE]),
        (dict(preprocessor="dynamic_mixing", criterions=[PIT]), []),
        (dict(preprocessor="dynamic_mixing", criterions=[M2M], model_conf=FROM_REF, references=2), [REMADE]),
        (dict(preprocessor="enh", num_spk=2), ["needs speech_ref1, speech_ref2 among"]),
        (dict(preprocessor="enh", preprocessor_conf={"num_spk": 2}, references=1), ["needs speech_ref2 among"]),
        (dict(preprocessor="enh", num_spk=2, references=2), []),
        (dict(preprocessor="enh", references=1, channel_reordering=True, force_single_channel=True), []),
        (dict(preprocessor="enh", references=1, noise_scp="n"), ["noise_scp adds noise"]),
        (dict(preprocessor="enh", references=1, noise_scp="n", noise_apply_prob=0.0), []),
        (dict(preprocessor="enh", references=1, noise_scp="n", rir_scp="r"), ["rir_scp convolves", "noise_scp adds"]),
        (dict(preprocessor="enh", references=1, noise_scp="n", rir_scp="r", criterions=[PIT]), []),
        (dict(preprocessor="enh", references=1, speech_volume_normalize="0.5_1.0"), ["changes the level"]),
        (dict(preprocessor="enh", references=1, preprocessor_conf={"speech_segment": 8000}), ["speech_segment cuts"]),
        (dict(preprocessor="enh", references=1, preprocessor_conf={"data_aug_effects": [1, "clip"]}), []),
        (
            dict(
                preprocessor="enh",
                references=1,
                preprocessor_conf={"data_aug_effects": [[1.0, "clipping", {}]], "data_aug_prob": 0.5},
            ),
            ["data_aug_effects distorts"],
        ),
        (dict(iterator_type="sequence"), ["sequence needs train_shape_file and valid_shape_file"]),
        (dict(iterator_type="sequence", train_shape_file=["s"]), ["needs valid_shape_file"]),
        (dict(iterator_type="sequence", collect_stats=True), []),
        (dict(iterator_type="sequence", train_shape_file=["s"], valid_shape_file=["s"]), []),
        (dict(iterator_type="sequence", multiple_iterator=True, valid_iterator_type="chunk"), []),
        (dict(valid_iterator_type="sequence"), ["valid_iterator_type: sequence needs valid_shape_file"]),
        (
            dict(iterator_type="sequence", valid_iterator_type="sequence"),
            ["iterator_type: sequence needs train_", "valid_iterator_type: sequence needs valid_"],
        ),
        (dict(train_dtype="float64"), []),
        (dict(train_dtype="bfloat16"), ["train_dtype: bfloat16"]),
        (dict(train_dtype="float64", model_conf={"precision": "bfloat16"}), ["contradicts train_dtype: float64"]),
        (
            dict(use_amp=True),
            ["use_amp: true is for a GPU (--ngpu 1), without one ESPnet trains in float32; set use_a"],
        ),
        (dict(use_amp=True, train_dtype="float16"), ["train_dtype: float16", "use_amp"]),
    ],
)
def test_options_of_the_training(changes, messages):
    found = unfit_training_options(training(**changes))
    assert len(found) == len(messages), found
    for message, problem in zip(messages, found):
        assert message in problem


def test_use_amp_goes_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not unfit_training_options(training(use_amp=True, ngpu=1))
    assert unfit_training_options(training(use_amp=True, ngpu=0))
    for precision in ("auto", "bfloat16"):
        both = training(use_amp=True, ngpu=1, model_conf={"precision": precision})
        (problem,) = unfit_training_options(both)
        assert problem.endswith(f"precision: {precision} both choose the network's precision; remove one")


class Batches(AbsIterFactory):
    def __init__(self, num):
        self.num = num

    def build_iter(self, epoch, shuffle=None):
        return iter(range(self.num))


@pytest.mark.parametrize("mode, option", [("train", " batch_size"), ("valid", " valid_batch_size")])
def test_an_epoch_without_a_batch_ends_the_training(mode, option):
    assert list(NeverEmpty(Batches(3), mode).build_iter(1)) == [0, 1, 2]
    with pytest.raises(ValueError, match=f"^epoch 4 has no {mode} batch: .*chunk_length or{option}"):
        list(NeverEmpty(Batches(0), mode).build_iter(4))
