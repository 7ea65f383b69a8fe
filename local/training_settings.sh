# Sourced by m2m.sh and run_table.sh: a folder holds one training, and a rerun with other options is refused. ESPnet
# would go on from the checkpoint, or take a finished model for what was asked for.

# training_settings CONFIGS ARGS DUMPDIR: what decides on a training; not for how many epochs it goes on.
training_settings() {
    local args
    args=$(sed 's/--max_epoch  *[0-9]*//g' <<< "$2")
    echo $1 ${args} "$(realpath "$3")" "$(contents_of $1 | sha256sum | cut -c 1-16)"
}
contents_of() {     # of configs and of those that they are based on, without comments and max_epoch
    local config base
    for config in "$@"; do
        sed 's/ *#.*//; /^ *$/d; /^max_epoch:/d' "${config}"
        for base in $(sed -n 's/^base: *\[\{0,1\}\([^]#]*\).*/\1/p' "${config}" | tr ',' ' '); do
            contents_of "$(dirname "${config}")/${base}"
        done
    done
}

# has_other_settings EXP SETTINGS: whether EXP is a training with others.
has_other_settings() {
    [ -f "$1/checkpoint.pth" ] && [ -f "$1/train.settings" ] && [ "$(< "$1/train.settings")" != "$2" ]
}

# keep_settings EXP SETTINGS: note them before the training, or say why it must not begin.
keep_settings() {
    if has_other_settings "$1" "$2"; then
        echo "$1 is a training with other options ($(< "$1/train.settings")); now they are ($2). Choose another" \
            "--expdir or --enh_tag, or remove the folder; to go on nevertheless, remove $1/train.settings" >&2
        return 1
    fi
    mkdir -p "$1"
    echo "$2" > "$1/train.settings.tmp"
    mv "$1/train.settings.tmp" "$1/train.settings"
}
