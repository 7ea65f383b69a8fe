"""Run as `python -m espnet2_m2m.run ddp_driver ENH_TRAIN_OPTIONS`: ESPnet's training in two processes.

ESPnet spawns one process per GPU; this does the same without GPUs: a "spawn" context whose target
runs `main_worker` of ESPnet's own task, with gloo as the backend. The children know the plug-in only
if importing espnet2_m2m.run as their main module registers it. Each leaves output_dir/rank{n}.json:
its rank, whether mixture_constraint was registered before anything else ran, the optimiser steps of
the loss, and a checksum of its final weights.
"""

import argparse
import hashlib
import json
import socket
from pathlib import Path

import torch
from espnet2.tasks import enh
from espnet2.tasks.enh import EnhancementTask


def main():
    from ddp_driver import train  # by this name the children find it; here it is __main__

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
        processes.append(context.Process(target=train, args=(local,)))
        processes[-1].start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a training process ended with status {process.exitcode}")


def train(args):
    """One process: train, then write rank{n}.json."""
    registered = "mixture_constraint" in enh.criterion_choices.classes
    models = []
    build_model = EnhancementTask.build_model

    def keep_model(args):
        models.append(build_model(args))
        return models[-1]

    EnhancementTask.build_model = staticmethod(keep_model)
    EnhancementTask.main_worker(args)
    digest = hashlib.sha256()
    for _, parameter in sorted(models[0].named_parameters()):
        digest.update(parameter.detach().numpy().tobytes())
    result = {
        "rank": torch.distributed.get_rank(),
        "world_size": torch.distributed.get_world_size(),
        "registered": registered,
        "weights_sha256": digest.hexdigest(),
        "steps": int(models[0].separator.mixture_constraint.step),
    }
    Path(args.output_dir, f"rank{args.dist_rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
