"""Tables I-III of the M2M paper: their rows, captions and figures."""

from dataclasses import dataclass
from typing import NamedTuple

from espnet2_m2m.scoring.metrics import METRICS

PANELS = {"2": "Table II (P = 6)", "3": "Table III (P = 1)"}
CAPTIONS = {
    "1": "Table I: quality of close-talk mixtures (reference: close-talk speech)",
    "2": "Table II: separation, P = 6 (reference: talkers' images at the far-field reference mic)",
    "3": "Table III: separation, P = 1 (reference: talkers' images at the far-field reference mic)",
}


@dataclass(frozen=True)
class Row:
    """One row of a table: what the paper prints in it, or of ours, then without `paper`."""

    table: str  # "1", "2" or "3"
    label: str  # the paper's number of the row
    system: str
    taps: str  # I/J/M/N
    alpha: str
    paper: dict[str, float] | None = None  # METRICS -> figure

    @property
    def name(self) -> str:
        """What pictures call it."""
        parts = [self.label, self.system]
        if self.taps != "-":
            parts.append(self.taps)
        if self.table == "3" and self.alpha != "-":
            parts.append(f"α={self.alpha}")
        return " ".join(part for part in parts if part != "-")


# Z.-Q. Wang, "Mixture to Mixture", IEEE SPL 2024, on SMS-WSJ-FF-CT; keys are the files of
# conf/tuning, except for the two qualities that need no training.
PAPER = {
    key: Row(key[len("table")], *names, dict(zip(METRICS, scores, strict=True)))
    for key, (*names, scores) in {
        "table1_closetalk": ("-", "close-talk mixture", "-", "-", [14.7, 14.7, 2.92, 0.875]),
        "table2_0_mixture": ("0", "mixture", "-", "-", [0.0, 0.1, 1.87, 0.603]),
        "table2_1a_m2m": ("1a", "M2M", "19/1/19/1", "1.0", [16.9, 17.9, 3.85, 0.931]),
        "table2_1b_m2m": ("1b", "M2M", "19/2/19/1", "1.0", [15.8, 16.7, 3.76, 0.916]),
        "table2_1c_m2m": ("1c", "M2M", "19/3/19/1", "1.0", [16.3, 17.2, 3.79, 0.924]),
        "table2_1d_m2m": ("1d", "M2M", "19/4/19/1", "1.0", [15.9, 16.8, 3.74, 0.917]),
        "table2_1e_m2m": ("1e", "M2M", "19/5/19/1", "1.0", [15.8, 16.7, 3.75, 0.914]),
        "table2_2a_m2m": ("2a", "M2M", "19/0/19/0", "1.0", [16.0, 16.9, 3.77, 0.918]),
        "table2_2b_m2m": ("2b", "M2M", "19/2/19/2", "1.0", [15.8, 16.8, 3.74, 0.914]),
        "table2_2c_m2m": ("2c", "M2M", "19/3/19/3", "1.0", [16.1, 17.1, 3.77, 0.921]),
        "table2_4a_unssor": ("4a", "UNSSOR", "-", "-", [14.7, 15.6, 3.44, 0.886]),
        "table2_4b_pit": ("4b", "PIT", "-", "-", [18.9, 19.4, 4.06, 0.950]),
        "table3_0_mixture": ("0", "mixture", "-", "-", [0.0, 0.1, 1.87, 0.603]),
        "table3_1_m2m": ("1", "M2M", "19/1/19/1", "1.0", [-2.6, -1.3, 1.64, 0.479]),
        "table3_2a_m2m": ("2a", "M2M", "19/1/19/1", "1/5", [12.0, 12.9, 3.41, 0.857]),
        "table3_2b_m2m": ("2b", "M2M", "19/1/19/1", "1/6", [11.8, 12.7, 3.40, 0.853]),
        "table3_2c_m2m": ("2c", "M2M", "19/1/19/1", "1/7", [12.7, 13.7, 3.50, 0.872]),
        "table3_2d_m2m": ("2d", "M2M", "19/1/19/1", "1/8", [12.1, 13.0, 3.45, 0.859]),
        "table3_3_pit": ("3", "PIT", "-", "-", [13.7, 14.1, 3.61, 0.884]),
    }.items()
}
QUALITIES = {  # rows that need no training -> the signals of scores.csv that they are about
    "table1_closetalk": "closetalk",
    "table2_0_mixture": "mixture",
    "table3_0_mixture": "mixture",
}
OUR_SYSTEMS = {"table2_ours_m2m_anchor": "M2M with anchor", "table3_ours_m2m_anchor": "M2M with anchor"}


class Output(NamedTuple):
    """What a training gives besides the paper's output: a row of its own, `<row>_<tag>`."""

    system: str  # of the row, after that of the training
    inference_args: str  # options of enh_inference
    rows: str  # regular expression of the rows that have it


PAPER_OUTPUT = "--mixture_consistency false"  # options of enh_inference, whatever the training's config says
OUTPUTS = {  # by the tag at the end of the separated set's name
    "consistent": Output("consistent", "--mixture_consistency true", ".*"),
    # M2M's estimates are filtered anyway.
    "fcp": Output("then FCP", "--fcp_output true --mixture_consistency false", ".*_pit"),
}


def training_of(key: str) -> tuple[str, str | None]:
    """Key of a row -> key of the row that its training has, and the tag of another output than the paper's.

    Example:
        >>> training_of("table2_4b_pit_fcp"), training_of("table2_4b_pit")
        (('table2_4b_pit', 'fcp'), ('table2_4b_pit', None))
    """
    base, _, tag = key.rpartition("_")
    return (base, tag) if tag in OUTPUTS else (key, None)
