# Where the jobs of the stages run. In ESPnet's habit: each command takes options, JOB=1:N for an array, a log
# file and a command line, in which JOB stands for the job's number.
cmd_backend=${cmd_backend:-local}       # local: on this machine | slurm: by sbatch

# Options go to sbatch, e.g. cuda_cmd="slurm.pl --partition gpu --cpus-per-task 20 --time 24:00:00"; run.pl ignores
# them. Training wants five CPUs a GPU: a process and its num_workers, 4.
if [ "${cmd_backend}" = local ]; then
    export train_cmd="run.pl"           # data
    export cuda_cmd="run.pl"            # training, and separation with --ngpu
    export decode_cmd="run.pl"          # separation without a GPU, scoring
elif [ "${cmd_backend}" = slurm ]; then
    export train_cmd="slurm.pl"
    export cuda_cmd="slurm.pl"
    export decode_cmd="slurm.pl"
else
    echo "cmd.sh: cmd_backend is local or slurm, found '${cmd_backend}'" >&2
    return 1
fi
