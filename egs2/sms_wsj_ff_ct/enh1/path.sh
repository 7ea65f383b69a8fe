# Sourced by every script of the recipe.
export LC_ALL=C             # Kaldi's sort order
export PYTHONIOENCODING=UTF-8
