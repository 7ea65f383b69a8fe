"""Where a model's config and weights are: in a folder, a zip of ESPnet's packer, or on Hugging Face.

Whatever a model brings is data here; nothing of it is executed, and nothing is written but a copy of its
config and weights.
"""

import math
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import yaml

from espnet2_m2m.data_dir.tables import temporary_folder

META = "meta.yaml"  # the packer's list of contents
MAX_YAML_BYTES = 10_000_000  # a hundred times what a config with a list of 5,000 tokens takes
MAX_YAML_DEPTH = 50  # lists and mappings within each other
MAX_YAML_VALUES = 1_000_000
MAX_RATIO = 20  # of a file to what it is packed to; weights are hardly packed at all, zeros to a thousandth
DEFAULT_MODEL = "valid.loss.best.pth"
HF_TAG = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@contextmanager
def model_files(model: Path | str) -> Iterator[tuple[Path, Path]]:
    """Paths of a model's (config, weights), valid within the context.

    Args:
        model: one of
            - a training's folder (config.yaml and valid.loss.best.pth, or a single other .pth),
            - a .pth file with a config.yaml beside it,
            - a zip made by ESPnet's packer, or the folder it was unpacked to,
            - a Hugging Face tag, "user/name" or "user/name@revision"; a path of that name comes first.
    Raises:
        ValueError: a zip or a list of contents that points elsewhere or is broken, or files that would take up
            much more memory than they seem to.
        OSError: no such model, or no room to unpack it.
    """
    path = Path(model)
    if path.is_dir():
        yield _checked(*_in_folder(path))
    elif path.suffix == ".pth" and path.is_file():
        yield _checked(*_existing(path.parent / "config.yaml", path))
    elif path.is_file():
        with temporary_folder() as folder:
            yield _checked(*_unpack(path, folder), f"{path}/")
    elif HF_TAG.fullmatch(str(model)) and path.suffix not in (".zip", ".pth"):
        yield _checked(*_from_hub(str(model)))
    else:
        raise FileNotFoundError(
            f"{model}: no such file or folder; expected a training's folder, a .pth file, "
            "a packed .zip, or a Hugging Face tag such as user/name"
        )


def _checked(config: Path, weights: Path, archive: str = "") -> tuple[Path, Path]:
    """The same paths, of files that take up no more memory than they seem to.

    Args:
        archive: what they are unpacked from, for messages.
    """
    _check_yaml(_small(config), f"{archive}{config.name if archive else config}")
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(weights) as file:  # of an old torch: no zip, no room for a bomb
        size = sum(member.file_size for member in file.infolist())
        if size > weights.stat().st_size:
            raise ValueError(
                f"{archive}{weights.name if archive else weights}: refused, because its {weights.stat().st_size} bytes "
                f"would become {size} in memory; torch.save writes none such, save the weights again"
            )
    return config, weights


def _check_yaml(content: bytes | None, where: str) -> None:
    """Refuse YAML that loads into much more than it is; None stands for more than MAX_YAML_BYTES.

    What is no YAML is for those who load it to say.
    """
    if content is None:
        raise ValueError(f"{where}: refused, because its YAML has more than {MAX_YAML_BYTES} bytes")
    sizes, stack = {}, [(None, 0)]  # anchor -> values; (anchor, values) of what has begun
    try:
        for event in yaml.parse(content, Loader=yaml.SafeLoader):  # one by one, whatever the depth
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append((event.anchor, 1))
                anchor, size = None, 0
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, size = stack.pop()
            elif isinstance(event, yaml.AliasEvent):
                anchor, size = None, sizes.get(event.anchor, math.inf)  # infinite within itself
            else:
                anchor, size = getattr(event, "anchor", None), isinstance(event, yaml.ScalarEvent)
            sizes[anchor] = size
            stack[-1] = (stack[-1][0], stack[-1][1] + size)
            if len(stack) > MAX_YAML_DEPTH or stack[-1][1] > MAX_YAML_VALUES:
                raise ValueError(
                    f"{where}:{event.start_mark.line + 1}: refused, because its YAML has more than {MAX_YAML_DEPTH}"
                    f" levels or, with aliases written out, {MAX_YAML_VALUES} values"
                )
    except yaml.YAMLError:
        return


def _in_folder(folder: Path) -> tuple[Path, Path]:
    if (folder / META).is_file():
        config, weights = _contents(_small(folder / META), folder / META)
        return _existing(folder / config, folder / weights)
    models = sorted(path for path in folder.glob("[!.]*.pth") if path.name != "checkpoint.pth")
    default = folder / DEFAULT_MODEL
    if not default.exists():
        if len(models) != 1:
            found = ", ".join(path.name for path in models) or "none"
            raise FileNotFoundError(
                f"{folder}: expected {META}, {DEFAULT_MODEL}, or exactly one other model "
                f"file (.pth), found {found}; name the file itself"
            )
        (default,) = models
    return _existing(folder / "config.yaml", default)


def _existing(config: Path, weights: Path) -> tuple[Path, Path]:
    for path in (config, weights):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a model is its config.yaml and a .pth file")
    return config, weights


def _contents(meta: bytes | None, where: Path | str) -> tuple[str, str]:
    """(config, weights) of a meta.yaml, two relative paths within the model."""
    _check_yaml(meta, f"{where}")
    try:
        content = yaml.safe_load(meta)
        names = content["yaml_files"]["train_config"], content["files"]["model_file"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: expected what ESPnet's packer writes for enh models, with train_config and model_file: {error}"
        ) from error
    for name in names:
        if not isinstance(name, str) or leaves_folder(name):
            raise ValueError(
                f"{where}: '{name}' is not a file of this model; pack it again, with paths "
                "relative to the working directory"
            )
    return names


def leaves_folder(name: str) -> bool:
    """Whether a member's name would leave the folder that an archive is unpacked to."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or re.match("[a-zA-Z]:", name) is not None


def _unpack(archive: Path, folder: Path) -> tuple[Path, Path]:
    """Copy config and weights of a packed model to `folder`; the rest stays packed."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if leaves_folder(member.filename) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ValueError(
                        f"{archive}: refused, because its member '{member.filename}' is a link or "
                        "would be unpacked outside of its folder"
                    )
                if member.file_size > max(MAX_YAML_BYTES, MAX_RATIO * member.compress_size):
                    raise ValueError(
                        f"{archive}: refused, because its member '{member.filename}' would grow from"
                        f" {member.compress_size} to {member.file_size} bytes, as neither a config nor weights do;"
                        " pack it again"
                    )
            names = packed.namelist()
            if META not in names:
                raise ValueError(
                    f"{archive}: has no {META}; expected a zip made by ESPnet's packer (stage 11 of run.sh)"
                )
            meta = None if packed.getinfo(META).file_size > MAX_YAML_BYTES else packed.read(META)
            contents = _contents(meta, f"{archive}/{META}")
            for name, target in zip(contents, ("config.yaml", "model.pth")):
                if name not in names:
                    raise ValueError(f"{archive}: lacks '{name}', which its {META} names; pack it again")
                with packed.open(name) as source, open(folder / target, "wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # or encrypted
        raise ValueError(f"{archive}: not readable as a packed model ({error}); copy it again") from error
    return folder / "config.yaml", folder / "model.pth"


def _from_hub(tag: str) -> tuple[Path, Path]:
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise FileNotFoundError(
            f"{tag}: no such file or folder; to load the Hugging Face model of this name, "
            "install huggingface_hub: pip install huggingface_hub"
        ) from None
    repository, revision = HF_TAG.fullmatch(tag).groups()

    def download(name: str) -> Path:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except (ValueError, OSError, errors.HTTPError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise FileNotFoundError(
                f"{tag}: no such file or folder here, and {name} of a Hugging Face model "
                f"of this name cannot be had: {reason}"
            ) from error

    meta = download(META)
    return tuple(download(name) for name in _contents(_small(meta), f"{tag}/{META}"))


def _small(path: Path) -> bytes | None:
    """The content of a YAML file; None if it is too large for one."""
    return path.read_bytes() if path.stat().st_size <= MAX_YAML_BYTES else None
