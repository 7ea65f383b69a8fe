"""Run as `python -m espnet2_m2m.run ddp_driver ENH_TRAIN_OPTIONS`: ESPnet's training in two processes.

ESPnet spawns one process per GPU; this does the same without GPUs: a "spawn" context whose target
is the pickled `main_worker` of ESPnet's own task, with gloo as the backend. The children know the
plug-in only if importing espnet2_m2m.run as their main module registers it.
"""

import argparse
import socket

import torch
from espnet2.tasks.enh import EnhancementTask


def main():
    args = EnhancementTask.get_parser().parse_args()
    args.version = "test"
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    processes = []
    for rank in range(2):
        local = argparse.Namespace(**vars(args))
        local.distributed = True
        local.dist_backend = "gloo"
        local.dist_init_method = f"tcp://localhost:{port}"
        local.dist_world_size, local.dist_rank, local.local_rank = 2, rank, rank
        processes.append(context.Process(target=EnhancementTask.main_worker, args=(local,)))
        processes[-1].start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a training process ended with status {process.exitcode}")


if __name__ == "__main__":
    main()
