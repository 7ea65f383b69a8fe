"""ESPnet's SeparateSpeech for the plug-in's models."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from espnet2_m2m.enh.config import read_config
from espnet2_m2m.enh.espnet_model import ESPnetM2MModel
from espnet2_m2m.enh.loss import CRITERIONS
from espnet2_m2m.enh.precision import separation_precision
from espnet2_m2m.enh.training_config import TrainingConfig
from espnet2_m2m.espnet_imports import import_espnet
from espnet2_m2m.model_files import model_files
from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask
from espnet2_m2m.tasks.espnet_patches import replaced_in_inference

stock = import_espnet("espnet2.bin.enh_inference")


class SeparateSpeech(stock.SeparateSpeech):
    """ESPnet's, whose weights are read as data, and which says before work begins what does not fit.

    Args:
        args, kwargs: as ESPnet's.
        fcp_output: the output is the FCP image of the estimates, or the estimates; None leaves it to the model.
        mixture_consistency: the output gets what its sources leave of the mixture, or not; None leaves it to the model.
        precision: in which the network of a model of the plug-in works, "auto", "float32" or "bfloat16"
            (enh/precision.py), whatever it was trained in.
        recordings: name -> number of mics, of those to come; a model of the plug-in must take them.
    Raises:
        ValueError: weights, recordings or options that do not go with the model.
    """

    def __init__(
        self,
        *args: Any,
        fcp_output: bool | None = None,
        mixture_consistency: bool | None = None,
        precision: str = "auto",
        recordings: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        with replaced_in_inference(EnhancementTask=M2MEnhancementTask):
            super().__init__(*args, **kwargs)
        if isinstance(self.enh_model, ESPnetM2MModel):
            separator = self.enh_model.separator
            for name, num_mics in (recordings or {}).items():
                separator.array.check(
                    name,
                    num_mics,
                    separator.ref_channel,
                    ("--ref_channel", "espnet2_m2m format_data_dir --channels"),
                )
        options = {"fcp_output": fcp_output, "mixture_consistency": mixture_consistency}
        if isinstance(self.enh_model, ESPnetM2MModel):
            network = self.enh_model.separator.separator
            options["precision"] = separation_precision(precision, network, self.device, self.dtype)
        elif precision != "auto":
            options["precision"] = precision  # refused
        for name, value in options.items():
            if value is None:
                continue
            if not isinstance(self.enh_model, ESPnetM2MModel):
                raise ValueError(
                    f"--{name} is for models that were trained by a criterion of the "
                    f"plug-in, found {type(self.enh_model).__name__}"
                )
            setattr(self.enh_model.separator, name, value)

    def __call__(self, speech_mix: Tensor | np.ndarray, fs: int = 8000, **kwargs: Any) -> list[np.ndarray]:
        """ESPnet's, except that normalize_output_wav leaves a silent estimate silent."""
        normalize, self.normalize_output_wav = self.normalize_output_wav, False
        try:
            waves = super().__call__(speech_mix, fs=fs, **kwargs)
        finally:
            self.normalize_output_wav = normalize
        if not normalize:
            return waves
        peaks = [np.abs(wave).max(axis=1, keepdims=True) for wave in waves]
        return [wave / np.where(peak > 0, peak, 1) * 0.9 for wave, peak in zip(waves, peaks)]

    @staticmethod
    def from_pretrained(model_tag: str | None = None, **kwargs: Any) -> "SeparateSpeech":
        """Load a model that somebody else may have made; none of its code runs.

        Args:
            model_tag: as `model_files`; None takes train_config and model_file of `kwargs`.
            kwargs: as the constructor.
        Raises:
            ValueError, OSError: no such model, not one of the plug-in, or a config that does not fit the
                weights.
        """
        if model_tag is None:
            return SeparateSpeech(**kwargs)
        with model_files(model_tag) as (train_config, model_file):
            kwargs |= {"train_config": str(train_config), "model_file": str(model_file)}
            try:
                _check_foreign_config(train_config)
                return SeparateSpeech(**kwargs)
            except (ValueError, OSError) as error:
                raise ValueError(f"{model_tag}: {error}") from error
            except Exception as error:  # of any kind, about options that are unknown or missing
                raise ValueError(f"{model_tag}: no network can be built from its config: {error!r}") from error


def _check_foreign_config(train_config: Path) -> None:
    """Refuse configs whose loading is ESPnet's, which unpickles anything."""
    content = read_config(train_config)
    if not TrainingConfig(content).is_ours:
        raise ValueError(
            f"expected a model that was trained by a criterion of this package ({', '.join(CRITERIONS)}), found "
            "another config; ESPnet's espnet2.bin.enh_inference loads its own models"
        )
    if content.get("separator") == "asteroid":
        raise ValueError(
            "separator: asteroid may load further files by code of its own, which "
            "is refused; give a training of your own by --train_config and --model_file"
        )
