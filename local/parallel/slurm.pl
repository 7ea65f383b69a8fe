#!/usr/bin/env bash
# Run a command, or an array of N copies, by Slurm's sbatch and wait for the end:
#     slurm.pl [--gpu G] [--num_threads T] [--num_nodes K] [--max_jobs_run M] [--OPTION VALUE] ... [JOB=1:N] \
#         LOG COMMAND [ARGUMENT ...]
# JOB in LOG and in the arguments is the copy's number. Any other option is one of sbatch, e.g. --partition gpu.
# Fails if one copy fails, and shows the end of its log. ESPnet's launcher knows Slurm by the name slurm.pl.
set -uo pipefail

options=() max_jobs_run=
option() {
    case "$1" in
        --gpu) [ "$2" -eq 0 ] || options+=(--gres "gpu:$2") ;;
        --num_threads|--num-threads)    # ESPnet's launcher adds it for several nodes: a thread for each GPU
            [[ " ${options[*]} " == *" --cpus-per-task "* ]] || options+=(--cpus-per-task "$2") ;;
        --num_nodes|--num-nodes) options+=(--nodes "$2" --ntasks-per-node 1) ;;
        --max_jobs_run|--max-jobs-run) max_jobs_run=%$2 ;;
        *) options+=("$1" "$2") ;;
    esac
}
. "$(dirname "$0")"/arguments.sh
log=$1
shift

# srun, which the launcher puts before a training on several nodes, does not take the CPUs from sbatch.
script="#!/usr/bin/env bash
command=(${*@Q})
[ -z \"\${SLURM_ARRAY_TASK_ID:-}\" ] || command=(\"\${command[@]//JOB/\${SLURM_ARRAY_TASK_ID}}\")
[ -z \"\${SLURM_CPUS_PER_TASK:-}\" ] || export SRUN_CPUS_PER_TASK=\${SLURM_CPUS_PER_TASK}
echo \"# \${command[*]}\"
echo \"# Started at \$(date) on \$(hostname)\"
\"\${command[@]}\"
status=\$?
echo \"# Ended (code \${status}) at \$(date)\"
exit \${status}"

options+=(--output "${log//JOB/%a}" --job-name "$(basename "${log}" .log)")
if [ -n "${first}" ]; then
    options+=(--array "${first}-${last}${max_jobs_run}")
else
    first=1 last=1
fi
for ((job = first; job <= last; job++)); do     # what an earlier run left says nothing about this one
    rm -f "${log//JOB/${job}}"
done
exec 3< <(exec sbatch --parsable --wait "${options[@]}" <<< "${script}")
sbatch=$!
read -r job_id <&3 || exit 1            # refused; sbatch has said why
trap 'scancel "${job_id%%;*}"; exit 130' INT TERM HUP
# sbatch looks for the end ever less often, at last twice a minute. The logs tell it sooner, unless a job was killed.
job=${first} deadline=
while [ "${job}" -le "${last}" ]; do
    if tail -n 1 "${log//JOB/${job}}" 2> /dev/null | grep -q '^# Ended'; then
        job=$((job + 1))
        continue
    fi
    if ! kill -0 "${sbatch}" 2> /dev/null; then
        # A log on a network's disk may be seen later; that of a job that was killed never ends.
        [ ! -e "${log//JOB/${job}}" ] || break
        deadline=${deadline:-$((SECONDS + 60))}
        [ "${SECONDS}" -lt "${deadline}" ] || break
        ls "$(dirname "${log}")" > /dev/null        # makes NFS look again
    fi
    sleep 0.5
done
kill "${sbatch}" 2> /dev/null
wait "${sbatch}" 2> /dev/null
"$(dirname "$0")"/failed_jobs.sh "${first}" "${last}" "${log}"
