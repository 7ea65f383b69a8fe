# Sourced by every script of the recipe, in an ESPnet checkout by its path.sh.
export LC_ALL=C             # Kaldi's sort order
export PYTHONIOENCODING=UTF-8
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-1}      # seconds; progress bars also go into log files
if [ ! -e utils/run.pl ]; then      # not in a checkout, which has its own
    export PATH=$PWD/local/parallel:$PATH
fi
