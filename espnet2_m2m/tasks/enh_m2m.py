"""M2M inside ESPnet's enhancement task."""

import argparse
import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks import enh
from espnet2.tasks.abs_task import IteratorOptions
from espnet2.tasks.enh import EnhancementTask
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.distributed_utils import DistributedOption, get_rank

from espnet2_m2m.data_dir import audio_header, read_table
from espnet2_m2m.enh.config import check_numbers
from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
from espnet2_m2m.enh.precision import training_precision
from espnet2_m2m.enh.preprocessor import CheckedCollate, CheckedPreprocessor, with_equal_mics
from espnet2_m2m.enh.segments import NeverEmpty, SegmentDataset
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.tasks.checkpoints import load_weights, repair_checkpoints, without_step
from espnet2_m2m.tasks.espnet_patches import add_names, atomic_torch_save, replace_build_model, stock_build_model
from espnet2_m2m.tasks.unfit_options import refuse_unfit, unfit_model_options, unfit_training_options

MODEL_OPTIONS = ("input_mics", "loss_mics", "closetalk_from_ref", "mixture_consistency", "precision")


class M2MEnhancementTask(EnhancementTask):
    """ESPnet's enhancement task with close-talk mixtures as data and checks that name the utterance.

    A config with criterion `mixture_constraint` or `ri_mag` builds an `ESPnetM2MModel`; any other config
    behaves as in ESPnet.
    """

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """The far-field mixture is all that every set must have."""
        return ("speech_mix",)

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """ESPnet's names, and closetalk_mix1 .. for the headsets."""
        closetalk = tuple(f"closetalk_mix{n}" for n in range(1, enh.MAX_REFERENCE_NUM + 1))
        return super().optional_data_names(train, inference) + ("speech_ref1",) + closetalk

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable | None:
        """ESPnet's preprocessor, followed by checks of what reaches the model."""
        preprocess = super().build_preprocess_fn(args, train)
        return CheckedPreprocessor(preprocess) if TrainingConfig(args).is_ours else preprocess

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        """ESPnet's function that makes batches, preceded by a check that they can be made."""
        return CheckedCollate(super().build_collate_fn(args, train))

    @classmethod
    def build_iter_factory(
        cls, args: argparse.Namespace, distributed_option: DistributedOption, mode: str, kwargs: dict | None = None
    ) -> AbsIterFactory:
        """ESPnet's, which must give batches in training and in validation."""
        factory = super().build_iter_factory(args, distributed_option, mode, kwargs)
        return NeverEmpty(factory, mode) if TrainingConfig(args).is_ours and mode != "plot_att" else factory

    @classmethod
    def build_chunk_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> AbsIterFactory:
        """ESPnet's iterator over chunks, which are read from the files where they are all that is needed."""
        factory = super().build_chunk_iter_factory(args, iter_options, mode)
        if iter_options.batch_size > 1:  # chunks of different utterances become a batch
            sequence = factory.per_sample_iter_factory
            build_iter = sequence.build_iter
            sequence.build_iter = lambda *args, **kwargs: with_equal_mics(build_iter(*args, **kwargs))
        data = iter_options.data_path_and_name_and_type
        if (
            TrainingConfig(args).is_ours
            and args.preprocessor is None
            and str(args.chunk_length).isdigit()
            and args.chunk_default_fs is None
            and args.train_dtype == "float32"
            and not iter_options.max_cache_size
            and all(kind == "sound" for _, _, kind in data)
        ):
            length = int(args.chunk_length)
            sequence = factory.per_sample_iter_factory
            sequence.dataset = SegmentDataset(
                sequence.dataset,
                length,
                int(length * args.chunk_shift_ratio),
                random_place=iter_options.train,
                sample_rate=None if args.allow_multi_rates else args.sample_rate,
            )
        return factory

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """ESPnet's training process, whose checkpoints survive being killed at any moment."""
        with atomic_torch_save():
            if args.resume and (not args.distributed or get_rank(args.dist_rank, args.dist_launcher) == 0):
                repair_checkpoints(args.output_dir, args.best_model_criterion)
            _check_loggers(args)
            if not TrainingConfig(args).is_ours:
                EnhancementTask.main_worker(args)  # a stock config meets ESPnet's own checks
                return
            check_numbers(vars(args))
            refuse_unfit(unfit_model_options(args) + unfit_training_options(args))
            rate = common_sample_rate(args)
            if rate is not None:
                args.sample_rate = rate  # into config.yaml
            args.init_param = [without_step(init_param) for init_param in args.init_param]
            super().main_worker(args)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> AbsESPnetModel:
        """An `ESPnetM2MModel`, or ESPnet's for any other config."""
        if not TrainingConfig(args).is_ours:
            return stock_build_model(cls, args)
        refuse_unfit(unfit_model_options(args))
        stock_args = copy.copy(args)
        stock_args.model_conf = {k: v for k, v in args.model_conf.items() if k not in MODEL_OPTIONS}
        stock = stock_build_model(cls, stock_args)  # also initialises the weights
        # In place, so that the training's config.yaml says it, a joint model's as well.
        args.model_conf["precision"] = training_precision(
            args.model_conf.get("precision", "float32"), type(stock.separator).__name__
        )
        return ESPnetM2MModel(
            stock.encoder,
            stock.separator,
            stock.decoder,
            stock.mask_module,
            stock.loss_wrappers,
            **args.model_conf,
        )

    @classmethod
    def build_model_from_file(
        cls, config_file: str | Path | None = None, model_file: str | Path | None = None, device: str = "cpu"
    ) -> tuple[AbsESPnetModel, argparse.Namespace]:
        """ESPnet's loader, but the weights of a plug-in's model are read as data, and all of them or none.

        ESPnet unpickles whatever the file holds, loads what fits, and leaves the rest random, without a
        word.
        """
        if config_file is None:
            config_file = Path(model_file).parent / "config.yaml"
        if model_file is None or not TrainingConfig.load(config_file).is_ours:
            return super().build_model_from_file(config_file, model_file, device)
        model, args = super().build_model_from_file(config_file, None, device)
        load_weights(model, model_file, args.train_dtype)
        return model, args


def _check_loggers(args: argparse.Namespace) -> None:
    """Tensorboard is ESPnet's default, but nothing requires it: without it, it is off. Wandb is asked for: required.

    Raises:
        ValueError: `use_wandb` without wandb.
    """
    if args.use_tensorboard and importlib.util.find_spec("tensorboard") is None:
        args.use_tensorboard = False
        # Not logged: see repair_checkpoints.
        print("tensorboard is not installed, so nothing is written for it: pip install tensorboard", file=sys.stderr)
    if args.use_wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError("use_wandb needs wandb: pip install wandb, or set use_wandb: false")


def common_sample_rate(args: argparse.Namespace) -> int | None:
    """Sample rate in Hz of the training data, by the first recording of each list.

    Returns:
        None where it cannot be told: data of several rates on purpose, or that are not sound files.
    Raises:
        ValueError: training and validation data differ.
    """
    if getattr(args, "allow_multi_rates", False):
        return None
    rates = {}
    for path, name, kind in [*args.train_data_path_and_name_and_type, *args.valid_data_path_and_name_and_type]:
        if name == "speech_mix" and kind == "sound":
            entry = next(iter(read_table(path).values()), None)
            if entry is not None:
                rates[path] = audio_header(entry)[2]
    if len(set(rates.values())) > 1:
        found = ", ".join(f"{path} {rate} Hz" for path, rate in rates.items())
        raise ValueError(
            f"training and validation data need one sample rate, found {found}; resample them (stage 3 of the recipe)"
        )
    return next(iter(rates.values()), None)


def register() -> None:
    """Make ESPnet's own commands and classes know the plug-in; idempotent.

    Its names become available in configs of espnet2.tasks.enh and enh_s2t, and `EnhancementTask.build_model` builds
    an `ESPnetM2MModel` for a config that names one of the criterions: with the stock model such a config would train
    nothing, and a trained one would separate without FCP.

    Example:
        >>> register()
        >>> from espnet2.tasks import enh
        >>> sorted({"mixture_constraint", "ri_mag"} & enh.criterion_choices.classes.keys())
        ['mixture_constraint', 'ri_mag']
    """
    add_names()
    replace_build_model(M2MEnhancementTask.build_model.__func__)


add_names()  # without them no config of the task could be read
