"""Scores: of separated speech (metrics, sets, RESULTS.md) and of what a recogniser made of it (word errors)."""

from espnet2_m2m.scoring import metrics

__all__ = ["metrics"]
