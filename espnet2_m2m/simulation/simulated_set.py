"""The files of a simulated set beside its audio: scenes.jsonl, simulation.json and the Kaldi tables."""

import hashlib
import json
from pathlib import Path
from typing import Any

from espnet2_m2m.data_dir.directory import spk2utt_from
from espnet2_m2m.data_dir.scenes import Scene, read_scenes
from espnet2_m2m.data_dir.tables import is_there, require_file, write_bytes, write_table
from espnet2_m2m.simulation.scene import scenes_to_text


def read_drawn_scenes(set_dir: Path | str, origin: dict[str, Any]) -> list[Scene] | None:
    """The scenes that an earlier command or another job drew from the same origin, or None.

    For tens of thousands of scenes reading takes seconds, drawing a minute.

    Args:
        set_dir: folder of the set.
        origin: all that the scenes depend on, in JSON types.
    Raises:
        ValueError: as `read_scenes`.
    """
    path, note = Path(set_dir, "scenes.jsonl"), Path(set_dir, "simulation.json")
    if not (path.is_file() and note.is_file()):
        return None
    if note.read_bytes() != _note(origin, path.read_text(encoding="utf-8", errors="replace")):
        return None
    return list(read_scenes(path).values())


def write_scenes(scenes: list[Scene], set_dir: Path | str, origin: dict[str, Any]) -> None:
    """Write scenes.jsonl and, for `read_drawn_scenes`, simulation.json.

    All jobs of a simulation write the same bytes, and whole files only.
    """
    text = scenes_to_text(scenes)
    write_bytes(Path(set_dir, "scenes.jsonl"), text.encode("utf-8"))
    write_bytes(Path(set_dir, "simulation.json"), _note(origin, text))


def _note(origin: dict[str, Any], scenes_text: str) -> bytes:
    return (json.dumps({**origin, "scenes_sha256": digest(scenes_text)}, indent=2) + "\n").encode()


def digest(content: Any) -> str:
    """Hash of JSON types, hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same_scenes(scenes: list[Scene], set_dir: Path | str) -> None:
    """Refuse to mix two simulations in one folder.

    Raises:
        ValueError: `set_dir` has a scenes.jsonl with other scenes.
    """
    path = Path(set_dir, "scenes.jsonl")
    if not is_there(path):
        return
    require_file(path)
    if path.read_bytes() != scenes_to_text(scenes).encode("utf-8"):
        raise ValueError(
            f"{set_dir} holds another simulation: its scenes.jsonl is not what these options and"
            " this source data give; choose another --out_dir (--datadir of run.sh) or remove the"
            " folder"
        )


def write_tables(scenes: list[Scene], set_dir: Path | str, paths: list[dict[str, Path]]) -> None:
    """Write the set's Kaldi tables; wav.scp comes last: a set that has it is complete.

    Args:
        scenes: as scene.draw_scenes makes them.
        set_dir: folder of the set.
        paths: for each scene its files, as `render.wav_paths` gives them.
    """
    set_dir = Path(set_dir)
    utt2spk = {scene["utt_id"]: "-".join(speaker["speaker_id"] for speaker in scene["speakers"]) for scene in scenes}
    write_table(set_dir / "utt2spk", utt2spk)
    write_table(set_dir / "spk2utt", spk2utt_from(utt2spk))
    durations = {s["utt_id"]: f"{s['num_samples'] / s['sample_rate_hz']:.6f}" for s in scenes}
    write_table(set_dir / "utt2dur", durations)
    for n in range(len(scenes[0]["speakers"])):
        texts = {scene["utt_id"]: scene["speakers"][n]["text"] for scene in scenes}
        if None not in texts.values():
            write_table(set_dir / f"text_spk{n + 1}", texts)
    for name in sorted(paths[0], key=lambda name: name == "farfield"):
        scp = "wav.scp" if name == "farfield" else f"{name}.scp"
        write_table(set_dir / scp, {s["utt_id"]: files[name] for s, files in zip(scenes, paths)})
