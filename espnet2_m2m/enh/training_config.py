"""What a model was trained with, as its config tells it. No torch here: the commands that ask must start fast."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from espnet2_m2m.enh.config import read_config

MIXTURE_CONSTRAINT, RI_MAG = "mixture_constraint", "ri_mag"
PRECISIONS = ("auto", "float32", "bfloat16")  # of the network, precision.py

# The plug-in's criterions, and what an option is where a config does not name it. The signatures of
# MixtureConstraintCriterion, MixtureConstraintLoss and RIMagCriterion say the same, but importing them takes seconds;
# a test compares.
DEFAULTS = {
    MIXTURE_CONSTRAINT: {
        "close_talk": True,
        "n_fft": 256,
        "hop_length": 64,
        "closetalk_past_taps": 19,
        "closetalk_future_taps": 1,
        "farfield_past_taps": 19,
        "farfield_future_taps": 1,
        "alpha": 1.0,
        "anchor_weight": 0.0,
        "anchor_order": "fixed",  # as the anchor is defined; "free" gives up that output n is the wearer of headset n
        "anchor_fade": None,
        "isms_weight": 0.0,
        "ref_mic": 0,
        "ref_mic_weight": 1.0,
        "floor": 1e-4,
        "diag_load": 1e-5,
    },
    RI_MAG: {"n_fft": 256, "hop_length": 64, "ref_mic": 0, "only_for_test": False},
}


@dataclass(frozen=True)
class Criterion:
    """An entry of `criterions`, the plug-in's or ESPnet's."""

    name: str
    conf: dict  # its options, with the defaults of the plug-in's criterions

    @property
    def needs_references(self) -> bool:
        """The true images, spk{n}.scp; only the mixture constraint does without."""
        return self.name != MIXTURE_CONSTRAINT

    @property
    def only_for_test(self) -> bool:
        """Computed in validation only."""
        return bool(self.conf.get("only_for_test"))


class TrainingConfig:
    """The answers of a training's config; stock ESPnet's have some as well.

    Args:
        content: the config's keys and values.
        where: the file it is from, for messages.
    Attributes:
        criterions: tuple of Criterion, in the config's order.
        criterion: the mixture constraint among them, None where there is none.
        loss: options of the mixture constraint, the defaults where the config has none.
        sample_rate: Hz, None where the config does not tell.
    Raises:
        ValueError: `criterions` or `model_conf` are not what ESPnet takes.
    """

    def __init__(self, content: dict | argparse.Namespace, where: str | Path = "training config") -> None:
        content = vars(content) if isinstance(content, argparse.Namespace) else content
        entries, self._model_conf = content.get("criterions") or [], content.get("model_conf") or {}
        if not isinstance(entries, (list, tuple)) or not all(map(_is_criterion, entries)):
            raise ValueError(
                f"{where}: criterions must be a list whose entries have a name and, as a mapping, conf, such as"
                f" [{{name: {MIXTURE_CONSTRAINT}, conf: {{alpha: 1.0}}, wrapper: mixture}}], found {entries!r}"
            )
        if not isinstance(self._model_conf, dict):
            raise ValueError(f"{where}: model_conf must be a mapping of options, found {self._model_conf!r}")
        self.criterions = tuple(
            Criterion(entry["name"], DEFAULTS.get(entry["name"], {}) | (entry.get("conf") or {})) for entry in entries
        )
        self.criterion = next((criterion for criterion in self.criterions if not criterion.needs_references), None)
        self.loss = self.criterion.conf if self.criterion else DEFAULTS[MIXTURE_CONSTRAINT]
        self.sample_rate = content.get("sample_rate")
        self._preprocessor = content.get("preprocessor")

    @classmethod
    def load(cls, path: str | Path) -> "TrainingConfig":
        """Read a config.yaml as a training writes it, or a config that it may begin with; errors as `read_config`."""
        return cls(read_config(path), path)

    @property
    def is_ours(self) -> bool:
        """A criterion of the plug-in trains the model, so an `ESPnetM2MModel` is built for it."""
        return any(criterion.name in DEFAULTS for criterion in self.criterions)

    @property
    def uses_headsets(self) -> bool:
        """Close-talk mixtures are training data: M2M, but not UNSSOR or PIT."""
        return self.criterion is not None and bool(self.loss["close_talk"])

    @property
    def closetalk_family(self) -> str:
        """The files of a data dir that hold its headsets: closetalk{n}.scp, or spk{n}.scp with closetalk_from_ref."""
        return "spk" if self._model_conf.get("closetalk_from_ref") else "closetalk"

    def reads(self, name: str) -> bool:
        """Whether data of this name mean anything to the model.

        enh.sh passes a set's utt2fs and utt2category as "fs" and "category". The preprocessor `enh` makes numbers of
        them; without it ESPnet stops at them, in training and in inference.
        """
        return name not in ("fs", "category") or self._preprocessor == "enh"

    @property
    def mixture_consistency(self) -> bool:
        """What the sources leave of the mixture is given back to the model's output."""
        return bool(self._model_conf.get("mixture_consistency"))

    @property
    def has_fixed_order(self) -> bool:
        """The training tied source n to headset n."""
        return self.uses_headsets and self.loss["anchor_weight"] > 0 and self.loss["anchor_order"] == "fixed"


def _is_criterion(entry: object) -> bool:
    conf = isinstance(entry, dict) and (entry.get("conf") or {})
    return isinstance(conf, dict) and isinstance(entry.get("name"), str)
