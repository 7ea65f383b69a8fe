#!/usr/bin/env bash
# Run a command on this machine, or N copies of it, as many at the same time as there are CPUs:
#     run.pl [--max_jobs_run M] [JOB=1:N] LOG COMMAND [ARGUMENT ...]
# JOB in LOG and in the arguments is the copy's number. Fails if one copy fails, and shows the end of its log.
# The name and the convention are those of Kaldi's run.pl, which ESPnet's recipes and its launcher know; other
# options of Kaldi's (--gpu, --mem ...) are ignored, with their value.
set -uo pipefail

max_jobs_run=$(env -u OMP_NUM_THREADS nproc)     # which would be nproc's answer
option() { case "$1" in --max_jobs_run|--max-jobs-run) max_jobs_run=$2 ;; esac; }
. "$(dirname "$0")"/arguments.sh

begin_log() { { echo "# ${*:2}"; echo "# Started at $(date) on $(hostname)"; } > "$1"; }
end_log() { echo "# Ended (code $2) at $(date)" >> "$1"; }
run_copy() {        # run_copy LOG COMMAND ...
    begin_log "$@"
    "${@:2}" >> "$1" 2>&1 < /dev/null
    end_log "$1" $?
}

if [ -z "${first}" ]; then      # a single command is shown as well
    begin_log "$@"
    "${@:2}" 2>&1 < /dev/null | tee -a "$1"
    status=${PIPESTATUS[0]}
    end_log "$1" "${status}"
    exit "${status}"
fi

[ "${first}" -eq "${last}" ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}     # copies share the cores
# Each copy is a process group (set -m), which ends with this script.
trap 'trap - INT TERM HUP; for group in $(jobs -p); do kill -- "-${group}" 2> /dev/null; done; exit 130' INT TERM HUP
for ((job = first; job <= last; job++)); do
    while [ "$(jobs -rp | wc -l)" -ge "${max_jobs_run}" ]; do
        wait -n
    done
    set -m
    run_copy "${@//JOB/${job}}" &
    set +m
done
wait
"$(dirname "$0")"/failed_jobs.sh "${first}" "${last}" "$1"
