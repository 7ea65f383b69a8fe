"""Which source belongs to which target: one assignment for each utterance, the same at all frequencies."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def best_assignment(costs: Tensor) -> Tensor:
    """The assignment of sources to targets whose costs add up to the least.

    The N^2 costs of all pairs suffice; no need to try all N! permutations.

    Args:
        costs: (batch, target, source) real, finite, no more targets than sources.
    Returns:
        (batch, target) long: the source of each target.
    """
    sources = [linear_sum_assignment(cost)[1] for cost in costs.detach().cpu().numpy()]
    return torch.from_numpy(np.stack(sources)).to(costs.device)
