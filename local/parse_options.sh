# Sourced by a recipe's scripts: `--some_name value` sets the variable some_name, as in Kaldi's
# parse_options.sh. The variable must have a default, so a misspelt option is an error. The rest of
# the arguments stay in "$@". --help prints help_message and the variables that the script sets above it.

while [ $# -gt 0 ]; do
    case "$1" in
        --help|-h)
            printf '%s\n' "${help_message}"
            while IFS= read -r _line && [[ ${_line} != help_message=* ]]; do
                if [[ ${_line} =~ ^([a-z_]+)=[^#]*(#.*)?$ ]]; then
                    _name=${BASH_REMATCH[1]}
                    printf '  --%s [%s]  %s\n' "${_name}" "${!_name}" "${BASH_REMATCH[2]:-}"
                fi
            done < "$0"
            exit 0 ;;
        --*=*)
            echo "$0: expected '--name value', found '$1'" >&2
            exit 1 ;;
        --*)
            _name=${1#--}
            _name=${_name//-/_}
            if [[ ! ${_name} =~ ^[a-z][a-zA-Z0-9_]*$ ]] || [ -z "${!_name+defined}" ]; then
                echo "$0: unknown option $1; see $0 --help" >&2
                exit 1
            fi
            if [ $# -lt 2 ]; then
                echo "$0: option $1 needs a value" >&2
                exit 1
            fi
            if [[ ${!_name} == true || ${!_name} == false ]] && [[ $2 != true && $2 != false ]]; then
                echo "$0: option $1 is true or false, found '$2'" >&2
                exit 1
            fi
            case "${_name}" in      # counts, and what each is at least; in every script the same
                nj|*_nj|num_nodes|num_channels|num_speakers|fs) _least=1 _expected="a number above 0" ;;
                stage|stop_stage|ngpu|num_*) _least=0 _expected="a number" ;;
                *) _least= ;;
            esac
            if [ -n "${_least}" ] && { [[ ! $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || [ "$2" -lt "${_least}" ]; }; then
                echo "$0: option $1 is ${_expected}, found '$2'" >&2
                exit 1
            fi
            printf -v "${_name}" '%s' "$2"
            shift 2 ;;
        *)
            break ;;
    esac
done
unset _name _least _expected
