"""Training configs that hold only what differs from others.

    base: size_paper.yaml           # one or several files, relative to this one; later ones win
    separator_conf:
      n_imics: 1

Mappings are merged key by key, except that options are dropped with the choice they belong to: another
`scheduler` does not keep the old `scheduler_conf`. Entries of `criterions` are merged by their `name`
(`{name: si_snr, remove: true}` takes one away), an empty list and other lists replace what there was.
"""

import re
from pathlib import Path

import yaml


def read_config(*paths: str | Path) -> dict:
    """Merge configs, the files they are based on first, later ones over earlier ones.

    Args:
        paths: yaml files.
    Returns:
        the merged config, without `base`.
    Raises:
        FileNotFoundError, ValueError: a file that is missing, not YAML, not a mapping, or based on itself or on no
            file; names the file.
    """
    merged = {}
    for path in paths:
        merged = merge(merged, _read(Path(path), ()))
    return merged


def merge(config: object, changes: object) -> object:
    """`config` with `changes` made to it; neither is altered."""
    if isinstance(config, dict) and isinstance(changes, dict):
        merged = dict(config)
        for key, value in changes.items():
            choice = key.removesuffix("_conf")
            other_choice = choice != key and choice in changes and changes[choice] != config.get(choice)
            merged[key] = merge(config[key], value) if key in config and not other_choice else value
            if f"{key}_conf" in config and f"{key}_conf" not in changes and value != config.get(key):
                del merged[f"{key}_conf"]
        return merged
    if changes and _are_named(config) and _are_named(changes):
        merged = {entry["name"]: entry for entry in config}
        for entry in changes:
            merged[entry["name"]] = merge(merged.get(entry["name"], {}), entry)
        return [entry for entry in merged.values() if not entry.get("remove")]
    return changes


def read_file(path: Path) -> dict:
    """What one file says by itself, `base` included; errors as in `read_config`."""
    raw = path.read_bytes()
    try:
        content = yaml.safe_load(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); convert the file with iconv") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # no mark for a character that YAML does not know
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        where = f"{path}:{mark.line + 1}" if mark else path
        raise ValueError(f"{where}: not plain YAML ({problem}); correct it there or in the line before") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, thousands of brackets
        raise ValueError(f"{path}: not the YAML of a config ({error})") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"{path}: expected a mapping of options, `name: value`, found {type(content).__name__}")
    return content or {}


def _are_named(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) and "name" in entry for entry in value)


def _read(path: Path, users: tuple[Path, ...]) -> dict:
    if path.resolve() in users:
        raise ValueError(f"{path}: is `base` of itself, through {users[-1]}")
    if not path.is_file():
        asked = f", the base of {users[-1]}" if users else ""
        raise FileNotFoundError(f"{path}: no such config{asked}")
    content = read_file(path)
    bases = content.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: `base` is a file or a list of files, relative to this one, found {bases!r}")
    merged = {}
    for base in bases:
        merged = merge(merged, _read(path.parent / base, (*users, path.resolve())))
    return merge(merged, content)


def check_numbers(options: dict, name: str = "") -> None:
    """Refuse numbers such as 2e-3 in ESPnet's *_conf options and criterions: to YAML they are text.

    Args:
        options: name -> value, of a config or the command line.
        name: of the option that holds them, if any.
    Raises:
        ValueError: there is one; ESPnet or torch would fail deep inside without its name.
    """
    for key, value in options.items():
        if not name and key != "criterions" and not key.endswith("_conf"):
            continue
        key = f"{name}.{key}" if name else key
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+\.?\d*e[+-]?\d+", value, re.IGNORECASE):
            raise ValueError(
                f"{key} is text to YAML, found {value}; write a number with a point and a sign, such as 1.0e-4"
            )
        if isinstance(value, (list, tuple)):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            check_numbers(value, key)
