"""Run an ESPnet module with the plug-in registered.

    python -m espnet2_m2m.run espnet2.bin.enh_train --config conf.yaml ...

ESPnet's own scripts get the plug-in with `--python "python3 -m espnet2_m2m.run"`; they then call it
as `... -m espnet2.bin.enh_train`, so a leading -m is accepted. enh_train and enh_inference are those
of the plug-in; any other module runs as it is, after `register()`.
"""

import runpy
import sys

OURS = {
    "espnet2.bin.enh_train": "espnet2_m2m.bin.enh_train",
    "espnet2.bin.enh_inference": "espnet2_m2m.bin.enh_inference",
}
# These build no model; importing the task for them would cost some 4 s each time.
WITHOUT_MODEL = (
    "espnet2.bin.launch",
    "espnet2.bin.pack",
    "espnet2.bin.aggregate_stats_dirs",
    "espnet2.bin.enh_scoring",
)


def requested() -> list[str]:
    """The module to run and its arguments; empty if there is none.

    main() leaves them as sys.argv, which processes that the module spawns (ESPnet's multi-GPU
    training) inherit; those import this file under the name `__mp_main__`.
    """
    if __name__ == "__mp_main__":
        return sys.argv
    arguments = sys.argv[1:]
    return arguments[1:] if arguments[:1] == ["-m"] else arguments


# At import, not in main(), because a spawned process must know the plug-in as well.
if requested() and requested()[0] not in WITHOUT_MODEL:
    from espnet2_m2m.tasks.enh_m2m import register

    register()


def main() -> None:
    arguments = requested()
    if not arguments or arguments[0].startswith("-"):
        sys.exit("usage: python -m espnet2_m2m.run [-m] MODULE [ARGUMENT ...], e.g. MODULE = espnet2.bin.enh_train")
    module = OURS.get(arguments[0], arguments[0])
    sys.argv = [module, *arguments[1:]]
    runpy.run_module(module, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
