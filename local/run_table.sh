#!/usr/bin/env bash
# The study of the M2M paper with one command: train, separate and score rows of Tables II and III for several
# seeds, then print Tables I-III. Run it in egs2/<corpus>/enh1 after stages 1 to 4 of run.sh; --help says more.
set -euo pipefail

. ./path.sh
. ./cmd.sh
export cmd_backend
python=python3
for ((n = 1; n < $#; n++)); do
    if [ "${!n}" = --python ]; then
        python=${*:n+1:1}
    fi
done
exec ${python} -m espnet2_m2m.bin.run_study "$@"
