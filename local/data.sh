#!/usr/bin/env bash
# Stage 1 of ESPnet's enh.sh: the data script of the recipe, as local/enh_sh.sh exports it.
set -euo pipefail

eval "${data_command:?use run.sh, which sets it}"
