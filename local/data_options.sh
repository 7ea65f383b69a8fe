# Sourced by a script whose options have their defaults: shares "$@" out among the arrays options (those of the
# script), data_opts (those of --data_script: the variables that it sets) and other_opts.
options=() data_opts=() other_opts=()
data_names=
while [ $# -gt 0 ]; do
    name=${1#--}
    name=${name//-/_}
    case "$1" in
        --help|-h)
            [ -z "${data_script}" ] || "${data_script}" --help
            options+=("$1")
            shift
            continue ;;
        --data_script)
            data_script=${2?"$1 needs a value"}
            data_names=" $(sed -n '/^help_message/q; s/^\([a-z_]*\)=.*/\1/p' "${data_script}" | tr '\n' ' ')" ;;
    esac
    pair=("${@:1:2}")
    if [[ $1 != --* || ! ${name} =~ ^[a-z_]+$ ]]; then
        pair=("$1")
        other_opts+=("${pair[@]}")
    elif [ -n "${!name+defined}" ]; then
        options+=("${pair[@]}")
    elif [[ ${data_names} == *" ${name} "* ]]; then
        [ $# -ge 2 ] || { echo "$0: option $1 needs a value" >&2; exit 1; }
        data_opts+=("${pair[@]}")
    else
        other_opts+=("${pair[@]}")
    fi
    shift "${#pair[@]}"
done
unset name pair data_names
