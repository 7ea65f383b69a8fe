"""A small corpus of modulated noise, so that most of the simulation's tests need no speech."""

import numpy as np
import pytest
from clean_speech import make_clean_speech


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Kaldi data dir of 6 speakers with 4 utterances each of about 0.8 s, 8 kHz."""
    rng = np.random.default_rng(0)

    def samples_of(speaker, utt):
        num_samples = round(6400 * rng.uniform(0.7, 1.3))
        return 0.05 * rng.standard_normal(num_samples) * np.abs(np.sin(2 * np.pi * 4 * np.arange(num_samples) / 8000))

    return make_clean_speech(tmp_path_factory.mktemp("source"), 4, samples_of, 8000)
