"""Loss functions, in plain torch: what the network's estimates must satisfy."""

from espnet2_m2m.loss.isms import isms
from espnet2_m2m.loss.mixture_constraint import MixtureConstraintLoss
from espnet2_m2m.loss.pit import pit_ri_mag
from espnet2_m2m.loss.ri_mag import ri_mag_l1

__all__ = ["MixtureConstraintLoss", "isms", "pit_ri_mag", "ri_mag_l1"]
