# Sourced by a script whose options have their defaults: shares "$@" out among the arrays options (those of the
# script), data_opts (those of --data_script: the variables that it sets) and other_opts.
_names_of() { sed -n '/^help_message/q; s/^\([a-z_]*\)=.*/ \1 /p' "$1" | tr -d '\n'; }
options=() data_opts=() other_opts=()
_own_names=$(_names_of "$0") _data_names=       # not ${!name+defined}: the environment has variables, too
while [ $# -gt 0 ]; do
    _name=${1#--}
    _name=${_name//-/_}
    case "$1" in
        --help|-h)
            [ -z "${data_script}" ] || "${data_script}" --help
            options+=("$1")
            shift
            continue ;;
        --data_script)
            data_script=${2?"$1 needs a value"}
            _data_names=$(_names_of "${data_script}") ;;
    esac
    _pair=("${@:1:2}")
    if [[ $1 != --* || ! ${_name} =~ ^[a-z_]+$ ]]; then
        _pair=("$1")
        other_opts+=("${_pair[@]}")
    elif [[ ${_own_names} == *" ${_name} "* ]]; then
        options+=("--${_name}" "${_pair[@]:1}")         # with `_`, as scripts look for it
    elif [[ ${_data_names} == *" ${_name} "* ]]; then
        [ $# -ge 2 ] || { echo "$0: option $1 needs a value" >&2; exit 1; }
        data_opts+=("${_pair[@]}")
    else
        other_opts+=("${_pair[@]}")
    fi
    shift "${#_pair[@]}"
done
unset _name _pair _data_names _own_names
