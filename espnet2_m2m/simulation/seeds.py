"""Random generators from names, so that nothing depends on the order in which things are drawn."""

import hashlib

import numpy as np


def generator_of(*names: str | int) -> np.random.Generator:
    """Random generator that depends on the names, such as a seed and an example's id, and on nothing else."""
    key = "/".join(map(str, names)).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "little"))
