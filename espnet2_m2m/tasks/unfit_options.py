"""Which options of a config do not go with the plug-in's losses: all of them, before anything is built or read."""

import argparse
import inspect
from collections.abc import Iterator

import torch
from espnet2.enh.espnet_model import ESPnetEnhancementModel
from espnet2.tasks import enh
from espnet2.train.class_choices import ClassChoices

from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
from espnet2_m2m.enh.loss import CRITERIONS, WRAPPERS, SpectraCriterion
from espnet2_m2m.enh.mics import check_mics
from espnet2_m2m.enh.precision import check_precision
from espnet2_m2m.enh.training_config import RI_MAG, TrainingConfig

# Encoders by what the network gets, and separators by what they work on. A separator of another name, which somebody
# has added to ESPnet's list, is judged by its estimates alone.
WAVES, SPECTRA, LEARNED = ("same",), ("stft", "spectra"), ("conv",)
SEPARATORS_OF_WAVES = ("asteroid", "fasnet", "tfgridnet", "tfgridnetv2")
SEPARATORS_OF_SPECTRA = (
    "bsrnn",
    "dc_crn",
    "dccrn",
    "tfgridnet_spectra",
    "tfgridnetv3",
    "uses",
    "uses2",
    "wpe_beamformer",
)
SEPARATORS_BY_MASKS = ("conformer", "dpcl_e2e", "dprnn", "dptnet", "rnn", "skim", "tcn", "transformer")
NOT_TRAINED = {
    "dan": "DANSeparator needs references in training, which {criterion} does without",
    "dpcl": "DPCLSeparator needs references in training, which {criterion} does without",
    "ineube": "ESPnet's task builds iNeuBe with one source, which separates nothing",
    "svoice": "in training SVoiceSeparator returns the estimates of several layers, which {criterion} does not take",
    "tcn_nomask": "it leaves the estimates to a mask_module, and {criterion} does not go with a mask_module",
}
# The last one lets ESPnet's inference divide every mic by its own level, so that FCP's weight, eq. (9), would be
# another one than in training; with normalize_variance it is one factor for all mics.
UNFIT_OF_MODEL = (
    "flexible_numspk",
    "always_forward_in_48k",
    "categories",
    "category_weights",
    "normalize_variance_per_ch",
)
# Options of `preprocessor: enh` -> what each does, at a probability if there is such an option.
REMIXING = {
    "rir_scp": ("convolves other far-field mixtures", "rir_apply_prob"),
    "noise_scp": ("adds noise to the far-field mixtures", "noise_apply_prob"),
    "data_aug_effects": ("distorts the far-field mixtures", "data_aug_prob"),
    "speech_volume_normalize": ("changes the level of the far-field mixtures alone", None),
    "speech_segment": ("cuts the far-field mixtures alone", None),
}


def refuse_unfit(problems: list[str]) -> None:
    """Raises ValueError: there are problems; names all."""
    if len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        numbered = "; ".join(f"({n}) {problem}" for n, problem in enumerate(problems, start=1))
        raise ValueError(f"{len(problems)} options of the config do not fit: {numbered}")


# ---- The model, also of a joint config ---------------------------------------------------------------


def unfit_model_options(args: argparse.Namespace) -> list[str]:
    """What keeps a model with the plug-in's criterions from being built, each with what to change.

    Args:
        args: the options that `EnhancementTask.build_model` takes; one criterion at least is the plug-in's.
    """
    return [
        *_of_criterions(args),
        *_of_model_conf(args),
        *_of_coders(args),
        *_of_separator(args),
    ]


def _criterion_name(args: argparse.Namespace) -> str:
    return next(entry["name"] for entry in args.criterions if entry["name"] in CRITERIONS)


def _criterions(args: argparse.Namespace) -> Iterator[SpectraCriterion | str]:
    """The plug-in's criterions, or why there is none with these options."""
    for entry in args.criterions:
        if entry["name"] in CRITERIONS:
            try:
                yield CRITERIONS[entry["name"]](**(entry.get("conf") or {}))
            except (TypeError, ValueError) as error:
                yield str(error)


def _of_criterions(args: argparse.Namespace) -> Iterator[str]:
    made = list(_criterions(args))
    yield from (problem for problem in made if isinstance(problem, str))
    if len({criterion.loss.ref_mic for criterion in made if not isinstance(criterion, str)}) > 1:
        yield "mixture_constraint and ri_mag need the same ref_mic"
    for entry in args.criterions:
        name, missing = entry["name"], [key for key in ("wrapper", "wrapper_conf") if key not in entry]
        if missing:
            yield f"criterion {name} lacks {' and '.join(missing)}, e.g. wrapper: pit, wrapper_conf: {{weight: 1.0}}"
            continue
        wrapper = entry["wrapper"]
        if wrapper in WRAPPERS and WRAPPERS[wrapper].goes_with != name:
            yield f"wrapper {wrapper} goes with criterion {WRAPPERS[wrapper].goes_with}, found {name}"
        elif name in CRITERIONS and wrapper not in WRAPPERS:
            (fit,) = (own for own, solver in WRAPPERS.items() if solver.goes_with == name)
            yield f"criterion {name} does not go with wrapper {wrapper}: {name} has wrapper: {fit}"


def _of_model_conf(args: argparse.Namespace) -> Iterator[str]:
    conf, name = args.model_conf, _criterion_name(args)
    known = {**inspect.signature(ESPnetEnhancementModel).parameters, **inspect.signature(ESPnetM2MModel).parameters}
    unknown = [option for option in conf if option not in known]
    if unknown:
        yield f"model_conf has no option {', '.join(unknown)}; remove it or correct its name"
    for option in UNFIT_OF_MODEL:
        if conf.get(option):
            yield f"{name} does not go with model_conf's {option}: {conf[option]}; remove it"
    if getattr(args, "diffusion_model", None) is not None:  # ESPnet would build a model without the criterions
        yield (
            f"criterion {name} does not go with diffusion_model: {args.diffusion_model}, which learns from clean "
            "speech; remove it"
        )
    criterions = [criterion for criterion in _criterions(args) if not isinstance(criterion, str)]
    if conf.get("closetalk_from_ref"):
        if not any(criterion.close_talk for criterion in criterions):
            yield (
                "closetalk_from_ref: true takes speech_ref for close-talk mixtures, but "
                f"{name} is configured without any; remove it"
            )
        elif len(args.criterions) > 1:
            yield (
                "with closetalk_from_ref: true there are no references, so mixture_constraint must be the only "
                "criterion"
            )
    if not isinstance(conf.get("mixture_consistency", False), bool):
        yield f"model_conf's mixture_consistency is true or false, found {conf['mixture_consistency']!r}"
    if args.separator in enh.separator_choices.classes:  # else said elsewhere
        try:
            check_precision(conf.get("precision", "float32"), enh.separator_choices.get_class(args.separator).__name__)
        except ValueError as error:
            yield f"model_conf's {error}"
    mics_fit = True
    for option in ("input_mics", "loss_mics"):
        try:
            check_mics(option, conf.get(option))
        except ValueError as error:
            mics_fit = False
            yield str(error)
    loss_mics = conf.get("loss_mics")
    if mics_fit and loss_mics is not None:
        for criterion in criterions:
            if criterion.loss.ref_mic >= len(loss_mics):
                yield (
                    f"ref_mic: {criterion.loss.ref_mic} of {criterion.name} counts within model_conf's loss_mics: "
                    f"{loss_mics}, so it must be below {len(loss_mics)}"
                )


def _of_coders(args: argparse.Namespace) -> Iterator[str]:
    encoder, decoder = args.encoder, args.decoder
    if encoder not in WAVES + SPECTRA + LEARNED:
        yield (
            f"{_criterion_name(args)} works on spectra, and this package knows no way to them from encoder: {encoder}; "
            f"take one of {', '.join(WAVES + SPECTRA + LEARNED)}, which docs/separators.md explains"
        )
        return
    conf = {}
    for coder, choices in (("encoder", enh.encoder_choices), ("decoder", enh.decoder_choices)):
        conf[coder] = yield from _conf_of(args, coder, choices)
        transform = conf[coder].get("spec_transform_type")
        if transform not in (None, "none"):
            yield f"FCP is linear and needs plain spectra: remove {coder}_conf's spec_transform_type: {transform}"
        if "win_length" in conf[coder]:
            conf[coder]["win_length"] = conf[coder]["win_length"] or conf[coder].get("n_fft")
    if decoder != encoder:
        yield f"decoder: {decoder} does not undo encoder: {encoder}; set decoder: {encoder}"
    else:  # training may never use the decoder, so that a wrong one would show in the output alone
        differ = [
            option
            for option in conf["encoder"]
            if option in conf["decoder"]
            and option != "default_fs"
            and not option.startswith("spec_")
            and conf["encoder"][option] != conf["decoder"][option]
        ]
        if differ:
            found = (f"{option}: {conf['encoder'][option]} and {conf['decoder'][option]}" for option in differ)
            yield f"encoder_conf and decoder_conf must be the same, found {', '.join(found)}"


def _of_separator(args: argparse.Namespace) -> Iterator[str]:
    name, criterion = args.separator, _criterion_name(args)
    if name in NOT_TRAINED:
        reason = NOT_TRAINED[name].format(criterion=criterion)
        yield f"separator: {name} cannot be trained: {reason}; choose another separator (docs/separators.md)"
        return
    fit = (
        WAVES
        if name in SEPARATORS_OF_WAVES
        else SPECTRA
        if name in SEPARATORS_OF_SPECTRA
        else SPECTRA + LEARNED
        if name in SEPARATORS_BY_MASKS
        else WAVES + SPECTRA + LEARNED
    )
    if args.encoder not in fit and args.encoder in WAVES + SPECTRA + LEARNED:
        yield (
            f"separator: {name} does not go with encoder: {args.encoder}; set encoder and decoder: {' or '.join(fit)}"
        )
    conf = yield from _conf_of(args, "separator", enh.separator_choices)
    options = ["predict_noise", "predict_dereverb"] + ["use_noise_mask"] * (name == "dccrn")
    for option in options:
        if conf.get(option):
            yield f"{criterion} takes the estimates of the sources alone: set separator_conf's {option}: false"
    if name == "wpe_beamformer" and str(conf.get("loss_type")).startswith("mask"):
        yield (
            f"in training wpe_beamformer gives masks but no estimates with separator_conf's loss_type: "
            f"{conf['loss_type']}; set loss_type: spectrum"
        )


def _conf_of(args: argparse.Namespace, part: str, choices: ClassChoices) -> Iterator[str]:
    """A generator that yields what is wrong with the names in PART_conf, and returns the conf with its defaults."""
    try:
        parameters = inspect.signature(choices.get_class(getattr(args, part))).parameters
    except ValueError as error:  # there is no such part; lists those that there are
        yield str(error)
        return {}
    conf = getattr(args, f"{part}_conf", None)
    if not isinstance(conf, dict):
        yield f"{part}_conf must be a mapping of options, found {conf!r}"
        return {}
    named = {name: option for name, option in parameters.items() if option.kind is not option.VAR_KEYWORD}
    if part == "separator":
        named.pop(next(iter(named)))  # the encoder's dimension, which ESPnet's task passes
    unknown = [option for option in conf if option not in named]
    if unknown and not any(option.kind is option.VAR_KEYWORD for option in parameters.values()):
        yield (
            f"{part}_conf has no option {', '.join(unknown)} with {part}: {getattr(args, part)}; remove it or correct "
            "its name"
        )
    defaults = {name: option.default for name, option in named.items() if option.default is not option.empty}
    missing = [name for name in named if name not in defaults and name not in conf]
    if missing:
        yield f"{part}: {getattr(args, part)} needs {part}_conf's {', '.join(missing)}"
    return defaults | conf


# ---- The training --------------------------------------------------------------------------------------


def unfit_training_options(args: argparse.Namespace) -> list[str]:
    """What keeps a training from doing what it is meant to, each with what to change; the model's options aside.

    Args:
        args: all options of `EnhancementTask.main_worker`; one criterion at least is the plug-in's.
    """
    return [*_of_precision(args), *_of_preprocessor(args), *_of_iterators(args)]


def _of_precision(args: argparse.Namespace) -> Iterator[str]:
    if args.train_dtype not in ("float32", "float64"):
        yield (
            f"train_dtype: {args.train_dtype} keeps weights and optimiser in half precision, in which networks become "
            "NaN within a few steps or do not run at all; set train_dtype: float32 and model_conf's precision: bfloat16"
        )
    precision = args.model_conf.get("precision", "float32")
    if precision == "bfloat16" and args.train_dtype == "float64":
        yield "model_conf's precision: bfloat16 contradicts train_dtype: float64; set train_dtype: float32"
    if not args.use_amp:
        return
    if not (args.ngpu > 0 and torch.cuda.is_available()):
        yield (
            "use_amp: true is for a GPU (--ngpu 1), without one ESPnet trains in float32; set use_amp: false, and "
            "model_conf's precision: bfloat16 if the CPU has units for it"
        )
    elif precision != "float32":
        yield f"use_amp: true and model_conf's precision: {precision} both choose the network's precision; remove one"


def _of_preprocessor(args: argparse.Namespace) -> Iterator[str]:
    if args.preprocessor is None:
        return
    uses_headsets = TrainingConfig(args).uses_headsets
    if args.preprocessor == "dynamic_mixing" and uses_headsets:
        yield (
            "preprocessor: dynamic_mixing trains on new far-field mixtures of other utterances, which the headsets "
            f"have not heard; remove it, or train by references (criterion {RI_MAG})"
        )
    if args.preprocessor != "enh":
        return
    options = {**vars(args), **args.preprocessor_conf}
    for option, (effect, probability) in REMIXING.items():
        # Only `data_aug_prob` is not among the options of ESPnet's task; its default is 0.
        if uses_headsets and options.get(option) and (probability is None or options.get(probability, 0) > 0):
            yield f"preprocessor: enh with {option} {effect}, which the headsets have not heard; remove {option}"
    passed = [name for _, name, _ in args.train_data_path_and_name_and_type]
    needed = [f"speech_ref{n}" for n in range(1, options.get("num_spk", 1) + 1)]
    missing = [name for name in needed if name not in passed]
    if missing:
        yield (
            f"preprocessor: enh needs {', '.join(missing)} among the training data, which the criterions do without; "
            "remove preprocessor: enh"
        )


def _of_iterators(args: argparse.Namespace) -> Iterator[str]:
    if args.collect_stats:  # which makes the shape files
        return
    option = "valid_iterator_type" if args.valid_iterator_type else "iterator_type"
    missing = {}
    if args.iterator_type == "sequence" and not args.train_shape_file and not args.multiple_iterator:
        missing["iterator_type"] = ["train_shape_file"]
    if getattr(args, option) == "sequence" and not args.valid_shape_file:
        missing.setdefault(option, []).append("valid_shape_file")
    for option, files in missing.items():
        yield (
            f"{option}: sequence needs {' and '.join(files)} (stage 5 of enh.sh makes them), "
            f"found none; set {option}: chunk and chunk_length, in samples"
        )
