# Sourced by run.pl and slurm.pl, whose arguments are [--name value] ... [JOB=1:N] LOG COMMAND [ARGUMENT ...]. Each option
# goes to their function `option`, first and last become those of JOB (or empty), and LOG COMMAND ... stay in "$@".
first= last=
while [ $# -gt 0 ]; do
    case "$1" in
        --*) option "$1" "$2"; shift 2 ;;
        JOB=*:*) first=${1#JOB=}; last=${first#*:}; first=${first%:*}; shift ;;
        *) break ;;
    esac
done
if [ $# -lt 2 ]; then
    echo "usage: ${0##*/} [--name value] ... [JOB=1:N] LOG COMMAND [ARGUMENT ...]" >&2
    exit 1
fi
mkdir -p "$(dirname "$1")"
