"""Separate: ESPnet's enh_inference, which with an M2M model writes FCP images at the reference mic.

    python -m espnet2_m2m.bin.enh_inference --train_config exp/X/config.yaml \\
        --model_file exp/X/valid.loss.best.pth --fs 8000 \\
        --data_path_and_name_and_type data/test/wav.scp,speech_mix,sound --output_dir exp/X/enhanced

The options are ESPnet's. Output is float at the level it has in the mixture (unless
--normalize_output_wav true), each file is written whole or not at all, and a rerun separates only
what is missing. `SeparateSpeech` is the same from Python.
"""

import json
import os
import tempfile
from pathlib import Path

import soundfile

from espnet2_m2m.bin import cli_errors
from espnet2_m2m.data_dir import AudioError, atomic_path, audio_header, read_table, write_table


def __getattr__(name):      # SeparateSpeech, without ESPnet's slow import for those who need it not
    if name == "SeparateSpeech":
        return _stock().SeparateSpeech
    raise AttributeError(name)


@cli_errors
def main(cmd=None):
    stock = _stock()
    args = stock.get_parser().parse_args(cmd)
    tables = [path for path, _, kind in args.data_path_and_name_and_type if kind == "sound"]
    for path in tables:
        check_sample_rate(path, args.fs)
    output_dir = Path(args.output_dir)
    utt_ids = list(read_table(args.key_file or args.data_path_and_name_and_type[0][0]))
    inputs = [path for path in (args.model_file, args.train_config, *tables) if path is not None]
    newest_input = max(os.path.getmtime(path) for path in [*inputs, _write_settings(args)])
    todo = [utt_id for utt_id in utt_ids if not _done(args, utt_id, newest_input)]
    print(f"enh_inference: {len(utt_ids) - len(todo)} of {len(utt_ids)} utterances are done already")
    if todo:
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as key_file:
            key_file.writelines(f"{utt_id} -\n" for utt_id in todo)
            key_file.flush()
            options = vars(args) | {"key_file": key_file.name}
            options.pop("config", None)
            stock.inference(**options)
    for folder in output_dir.glob("wavs/*"):
        entries = {utt_id: str((folder / f"{utt_id}.{args.output_format}").resolve())
                   for utt_id in utt_ids}
        write_table(output_dir / f"spk{folder.name}.scp", entries)


class AtomicWriter:
    """Stands in for ESPnet's SoundScpWriter: 32-bit float files, whole or not at all.

    Args: as SoundScpWriter; the scp is written by `main` once all files exist.
    """

    def __init__(self, outdir, scpfile, format="wav"):
        self.folder = Path(outdir)
        # Before the first file, so that an interrupted run shows how many streams belong together.
        self.folder.mkdir(parents=True, exist_ok=True)
        self.format = format

    def __setitem__(self, utt_id, value):
        sample_rate, signal = value
        subtype = "FLOAT" if "FLOAT" in soundfile.available_subtypes(self.format) else None
        with atomic_path(self.folder / f"{utt_id}.{self.format}") as temporary:
            soundfile.write(temporary, signal, sample_rate, subtype=subtype)

    def close(self):
        pass


def check_sample_rate(scp: str, sample_rate: int) -> None:
    """ESPnet writes its output at --fs whatever the rate of the input; refuse a mismatch.

    Args:
        scp: Kaldi wav.scp.
        sample_rate: Hz.
    Raises:
        ValueError: a file that is missing, cannot be opened or has another rate; names it.
    """
    for utt_id, entry in read_table(scp).items():
        try:
            _, _, found = audio_header(entry)
        except AudioError as error:
            raise ValueError(f"{scp}: {utt_id}: {error}") from error
        if found != sample_rate:
            raise ValueError(f"{scp}: {utt_id}: {entry} has {found} Hz, but --fs is {sample_rate}; "
                             "use the rate that the model was trained with and resample the "
                             "recordings to it (stage 3 of run.sh)")


def _write_settings(args) -> Path:
    """Note the options that shape the output; rewritten only when they change, so its age tells."""
    options = {name: value for name, value in vars(args).items()
               if name not in ("output_dir", "key_file", "log_level", "num_workers", "ngpu")}
    content = json.dumps(options, indent=1, sort_keys=True, default=str)
    path = Path(args.output_dir) / "settings.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return path


def _done(args, utt_id: str, newest_input: float) -> bool:
    """Whether all streams of an utterance exist and are newer than model, data list and settings."""
    folders = sorted(Path(args.output_dir).glob("wavs/*"))
    files = [folder / f"{utt_id}.{args.output_format}" for folder in folders]
    return bool(files) and all(f.is_file() and f.stat().st_mtime > newest_input for f in files)


def _stock():
    """ESPnet's module, whose functions look up these names when they run."""
    from espnet2.bin import enh_inference as stock

    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask

    stock.EnhancementTask = M2MEnhancementTask
    stock.SoundScpWriter = AtomicWriter
    return stock


if __name__ == "__main__":
    main()
