"""M2M inside ESPnet's enhancement task."""

import copy
from contextlib import contextmanager
from pathlib import Path

import torch
from espnet2.tasks import enh
from espnet2.tasks.enh import EnhancementTask

from espnet2_m2m.data_dir import atomic_path
from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
from espnet2_m2m.enh.loss import MixtureConstraintCriterion, MixtureSolver
from espnet2_m2m.enh.preprocessor import CheckedPreprocessor

CRITERION = "mixture_constraint"
WRAPPER = "mixture"
MODEL_OPTIONS = ("input_mics", "loss_mics", "closetalk_from_ref")

_stock_build_model = EnhancementTask.__dict__["build_model"].__func__


class M2MEnhancementTask(EnhancementTask):
    """ESPnet's enhancement task with close-talk mixtures as data and checks that name the utterance.

    A config with criterion `mixture_constraint` builds an `ESPnetM2MModel`; any other config behaves
    as in ESPnet.
    """

    @classmethod
    def required_data_names(cls, train=True, inference=False):
        """The far-field mixture is all that every set must have."""
        return ("speech_mix",)

    @classmethod
    def optional_data_names(cls, train=True, inference=False):
        """ESPnet's names, and closetalk_mix1 .. for the headsets."""
        closetalk = tuple(f"closetalk_mix{n}" for n in range(1, enh.MAX_REFERENCE_NUM + 1))
        return super().optional_data_names(train, inference) + ("speech_ref1",) + closetalk

    @classmethod
    def build_preprocess_fn(cls, args, train):
        """ESPnet's preprocessor, followed by checks of what reaches the model."""
        return CheckedPreprocessor(super().build_preprocess_fn(args, train))

    @classmethod
    def main_worker(cls, args):
        """ESPnet's training process, whose checkpoints survive being killed at any moment."""
        with atomic_torch_save():
            super().main_worker(args)

    @classmethod
    def build_model_from_file(cls, config_file=None, model_file=None, device="cpu"):
        """ESPnet's loader, but weights that do not fit the config are refused.

        ESPnet loads what fits and leaves the rest random, without a word.
        """
        model, args = super().build_model_from_file(config_file, model_file, device)
        if model_file is not None:
            saved = torch.load(model_file, map_location="cpu", weights_only=True)
            unmatched = sorted(set(saved) ^ set(model.state_dict()))
            if unmatched:
                raise ValueError(
                    f"{model_file} does not fit its config: {len(unmatched)} tensors exist on one "
                    f"side only, e.g. {', '.join(unmatched[:3])}; use the config.yaml that the "
                    "training wrote beside it")
        return model, args


@contextmanager
def atomic_torch_save():
    """Within this context torch.save writes files whole or not at all.

    ESPnet's trainer overwrites checkpoint.pth in place once an epoch; killed just then, it could not
    resume.
    """
    save = torch.save

    def save_atomically(obj, f, *args, **kwargs):
        if not isinstance(f, (str, Path)):
            return save(obj, f, *args, **kwargs)
        with atomic_path(f) as temporary:
            save(obj, temporary, *args, **kwargs)

    torch.save = save_atomically
    try:
        yield
    finally:
        torch.save = save


def register() -> None:
    """Add the plug-in's names to espnet2.tasks.enh, so that stock ESPnet code knows them; idempotent.

    Criterion `mixture_constraint` and wrapper `mixture` become available in configs, and
    `EnhancementTask.build_model` builds an `ESPnetM2MModel` for a config that names that criterion:
    with the stock model such a config would train nothing, and a trained one would separate
    without FCP.
    """
    enh.criterion_choices.classes[CRITERION] = MixtureConstraintCriterion
    enh.loss_wrapper_choices.classes[WRAPPER] = MixtureSolver
    EnhancementTask.build_model = classmethod(_build_model)


def _build_model(cls, args):
    names = [criterion["name"] for criterion in getattr(args, "criterions", None) or []]
    if CRITERION not in names:
        return _stock_build_model(cls, args)
    options = {name: args.model_conf[name] for name in MODEL_OPTIONS if name in args.model_conf}
    args = copy.copy(args)
    args.model_conf = {k: v for k, v in args.model_conf.items() if k not in options}
    stock = _stock_build_model(cls, args)       # also initialises the weights
    return ESPnetM2MModel(stock.encoder, stock.separator, stock.decoder, stock.mask_module,
                          stock.loss_wrappers, **options, **args.model_conf)


register()
