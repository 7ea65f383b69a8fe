#!/usr/bin/env bash
# failed_jobs.sh FIRST LAST LOG: fail if a job's log does not say that it succeeded; show the end of three.
failed=()
for ((job = $1; job <= $2; job++)); do
    tail -n 5 "${3//JOB/${job}}" 2> /dev/null | grep -q '^# Ended (code 0)' || failed+=("${job}")
done
[ ${#failed[@]} -eq 0 ] && exit 0
echo "${#failed[@]} of $(($2 - $1 + 1)) jobs failed; their logs are ${3}, JOB = ${failed[*]}" >&2
for job in "${failed[@]:0:3}"; do
    log=${3//JOB/${job}}
    echo "---- the end of ${log}" >&2
    tail -n 20 "${log}" >&2 || echo "no log: the job did not begin" >&2
done
exit 1
