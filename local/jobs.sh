# Sourced by the recipe's scripts: how a command becomes jobs.
. ./cmd.sh

# run_jobs CMD N LOG COMMAND ...: COMMAND as N jobs that do a share each (--job k/N), then COMMAND alone, which
# joins what they did and does what is missing. The logs are LOG.k.log and LOG.log.
run_jobs() {
    local cmd=$1 num=$2 log=$3
    shift 3
    if [ "${num}" -gt 1 ]; then
        ${cmd} JOB=1:"${num}" "${log}.JOB.log" "$@" --job "JOB/${num}"
    fi
    ${cmd} "${log}.log" "$@"
}

# pool N: of N processes, those that a single job may have: all on this machine, one on a cluster.
pool() { if [ "${cmd_backend}" = local ]; then echo "$1"; else echo 1; fi; }

# run_processes CMD N LOG COMMAND ...: COMMAND, which has an option --nj, with N processes: those of its pool on
# this machine, N jobs on a cluster.
run_processes() {
    local cmd=$1 num=$2 log=$3 pool
    shift 3
    pool=$(pool "${num}")
    run_jobs "${cmd}" "$((num / pool))" "${log}" "$@" --nj "${pool}"
}
