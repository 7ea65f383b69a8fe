"""Kinds of damage to configs, weights, checkpoints and packed models."""

import functools
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml
from damage_case import RATE, Case, Spot, kind
from damage_tables import BREAKS, break_file

# ---- Models

CONFIG = {
    "sample_rate": RATE,
    "encoder": "stft",
    "separator": "tfgridnetv2",
    "criterions": [{"name": "mixture_constraint", "conf": {"alpha": 1.0}, "wrapper": "mixture"}],
}
CONFIGS = {  # name -> content of config.yaml
    "not YAML": lambda case, content: content + b"\n\t{: ]\n",
    "latin-1": lambda case, content: content + b"note: \xe9\n",
    "zeros": lambda case, content: bytes(len(content)),
    "a list": lambda case, content: b"- a\n- b\n",
    "nested 10,000 deep": lambda case, content: content + b"x: " + b"[" * 10_000 + b"]" * 10_000,
    "aliases without end": lambda case, content: (
        content
        + b"a0: &a0 [x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10))
    ),
    "an alias of itself": lambda case, content: content + b"x: &x [*x]\n",
    "runs code": lambda case, content: (
        content + f"x: !!python/object/apply:os.system ['touch {case.root}/ran']\n".encode()
    ),
    "criterions a text": lambda case, content: yaml.safe_dump({**CONFIG, "criterions": "all"}).encode(),
    "criterions without names": lambda case, content: yaml.safe_dump({**CONFIG, "criterions": [{"conf": {}}]}).encode(),
    "integer of 10,000 digits": lambda case, content: content + b"x: " + b"9" * 10_000 + b"\n",
    "option twice": lambda case, content: content + b"sample_rate: 8000\n",
    "byte order mark": lambda case, content: b"\xef\xbb\xbf" + content,
}


def damage_config(case: Case, change: Callable) -> Spot:
    path = case.root / "model" / "config.yaml"
    path.write_bytes(change(case, path.read_bytes()))
    return Spot((str(path),))


for config_name, config_change in CONFIGS.items():
    kind("models", f"config: {config_name}", ("utterances",), "model")(
        functools.partial(damage_config, change=config_change)
    )


class RunsCode:
    """What a pickle may hold."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def make_model(case: Case) -> Path:
    """A training's folder with weights and checkpoint."""
    import torch

    folder = case.root / "model"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    torch.save(weights, folder / "valid.loss.best.pth")
    stats = {1: {"train": {"loss": 1.0}, "valid": {"loss": 2.0}}}
    torch.save({"model": weights, "reporter": {"stats": stats, "epoch": 1}}, folder / "checkpoint.pth")
    return folder


WEIGHTS = {
    "cut": lambda case, content: content[: case.rng.integers(1, len(content))],
    "empty": lambda case, content: b"",
    "text": lambda case, content: b"not weights\n",
    "random bytes": lambda case, content: case.rng.bytes(2000),
    "a byte of the first half changed": lambda case, content: flipped(case, content, 0, len(content) // 2),
    "zeros": lambda case, content: bytes(len(content)),
}


def flipped(case: Case, content: bytes, first: int, last: int) -> bytes:
    content = bytearray(content)
    content[case.rng.integers(first, last)] ^= 0xFF
    return bytes(content)


def damage_weights(case: Case, change: Callable, name: str) -> Spot:
    path = case.root / "model" / name
    path.write_bytes(change(case, path.read_bytes()))
    return Spot((str(path),))


for weights_name, weights_change in WEIGHTS.items():
    for weights_file in ("valid.loss.best.pth", "checkpoint.pth"):
        if weights_name.startswith("a byte"):
            continue  # numbers may be others: nobody can know
        kind("models", f"{weights_file}: {weights_name}", ("utterances",), "model")(
            functools.partial(damage_weights, change=weights_change, name=weights_file)
        )


def damage_objects(case: Case, content: Callable, name: str) -> Spot:
    import torch

    path = case.root / "model" / name
    torch.save(content(case), path)
    return Spot((str(path),))


OBJECTS = {
    "runs code": lambda case: {"weight": RunsCode(f"touch {case.root}/ran"), "reporter": {"stats": {}}},
    "a number": lambda case: 3,
    "a list": lambda case: [1, 2],
    "other names": lambda case: {"other": 1},
    "statistics a text": lambda case: {"model": {}, "reporter": {"stats": "many"}},
    "statistics of numbers": lambda case: {"model": {}, "reporter": {"stats": {1: 2}}},
}
for objects_name, objects_content in OBJECTS.items():
    for objects_file in ("valid.loss.best.pth", "checkpoint.pth"):
        kind("models", f"{objects_file}: {objects_name}", ("utterances",), "model")(
            functools.partial(damage_objects, content=objects_content, name=objects_file)
        )

MODEL_FILES = ("config.yaml", "valid.loss.best.pth")


def break_model(case: Case, how: str) -> Spot:
    path = case.root / "model" / case.choose(*MODEL_FILES)
    break_file(path, how)
    return Spot((str(path), str(path.parent)))


for break_name in BREAKS:
    kind("models", f"a file: {break_name}", ("utterances",), "model")(functools.partial(break_model, how=break_name))


def pack(case: Case, **members: bytes | None) -> Path:
    """A packed model, with other members or without."""
    folder, archive = case.root / "model", case.root / "packed.zip"
    meta = {"yaml_files": {"train_config": "config.yaml"}, "files": {"model_file": "model.pth"}}
    content = {
        "meta.yaml": yaml.safe_dump(meta).encode(),
        "config.yaml": (folder / "config.yaml").read_bytes(),
        "model.pth": (folder / MODEL_FILES[1]).read_bytes(),
    } | members
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            if data is not None:
                packed.writestr(name, data)
    return archive


ZIPS = {  # name -> members that are others
    "right": lambda case: {},
    "without meta.yaml": lambda case: {"meta.yaml": None},
    "without weights": lambda case: {"model.pth": None},
    "meta.yaml a list": lambda case: {"meta.yaml": b"- a\n"},
    "meta.yaml nested deep": lambda case: {"meta.yaml": b"[" * 10_000},
    "meta.yaml names a file outside": lambda case: {
        "meta.yaml": b"yaml_files: {train_config: ../../config.yaml}\nfiles: {model_file: model.pth}\n"
    },
    "meta.yaml names numbers": lambda case: {"meta.yaml": b"yaml_files: {train_config: 1}\nfiles: {model_file: 2}\n"},
    "member outside": lambda case: {"../evil": b"x"},
    "absolute member": lambda case: {f"{case.root}/evil": b"x"},
    "bomb of a config": lambda case: {"config.yaml": bytes(400_000_000)},
    "bomb of weights": lambda case: {"model.pth": bytes(400_000_000)},
    "bomb of meta.yaml": lambda case: {"meta.yaml": bytes(400_000_000)},
}


def damage_zip(case: Case, members: Callable) -> Spot:
    return Spot((str(pack(case, **members(case))),))


for zip_name, zip_members in ZIPS.items():
    kind("models", f"zip: {zip_name}", ("utterances",), "model")(functools.partial(damage_zip, members=zip_members))

ZIP_BYTES = {
    "cut": WEIGHTS["cut"],
    "a byte changed": lambda case, content: flipped(case, content, 30, len(content)),
    "bytes before": lambda case, content: b"#!/bin/sh\n" + content,
    "empty": WEIGHTS["empty"],
    "zeros at the end": lambda case, content: content + bytes(70_000),
}


def damage_zip_bytes(case: Case, change: Callable) -> Spot:
    archive = pack(case)
    archive.write_bytes(change(case, archive.read_bytes()))
    return Spot((str(archive),))


for zip_name, zip_change in ZIP_BYTES.items():
    kind("models", f"zip: {zip_name}", ("utterances",), "model")(functools.partial(damage_zip_bytes, change=zip_change))
