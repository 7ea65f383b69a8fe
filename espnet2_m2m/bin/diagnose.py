"""Find out why a training does not separate.

    espnet2_m2m diagnose --train_config exp/X/config.yaml \\
        --model_file exp/X/valid.loss.best.pth --data_dir dump/raw/test \\
        --out_dir exp/X/enhanced_test/diagnosis

runs the model on some utterances of a data dir, looks at its estimates by FCP as the loss does, prints
a verdict (frequency permutation, a copy of the input ...), how sure it is, and what to change in the
config, and writes

    out_dir/DIAGNOSIS.md       verdict, reasons, remedies, and a table of the quantities
    out_dir/diagnosis.json     the same for programs, with the quantities of every utterance
    out_dir/agreement.png      over frequency: does the assignment of outputs to talkers agree?

References (spk{n}.scp) and headsets (closetalk{n}.scp) of the data dir are used where they exist; with
neither, copies of the input are still found. The report (stage 13) shows it from there.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet2_m2m.bin import cli_errors, command_parser, positive
from espnet2_m2m.data_dir import atomic_path, source_stamp, write_text
from espnet2_m2m.data_dir.signals import find_utterances
from espnet2_m2m.enh.training_config import DEFAULTS, TrainingConfig

if TYPE_CHECKING:
    from espnet2_m2m.enh.espnet_model import ESPnetM2MModel


def get_parser() -> argparse.ArgumentParser:
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--train_config", required=True, help="config.yaml that the training wrote")
    parser.add_argument("--model_file", required=True, help="the model, e.g. valid.loss.best.pth")
    parser.add_argument(
        "--data_dir", required=True, help="a set with wav.scp, best with closetalk{n}.scp and spk{n}.scp"
    )
    parser.add_argument("--out_dir", required=True, help="folder for the files above")
    parser.add_argument(
        "--num_utts", type=positive, default=10, help="utterances to look at, evenly spaced in the set (default 10)"
    )
    parser.add_argument("--ngpu", type=int, choices=(0, 1), default=0, help="1: work on the GPU (default 0)")
    return parser


@cli_errors
def main(cmd: list[str] | None = None) -> None:
    args = get_parser().parse_args(cmd)
    training = TrainingConfig.load(args.train_config)
    if not training.is_ours:
        names = ", ".join(criterion.name for criterion in training.criterions)
        raise ValueError(
            f"{args.train_config}: expected a criterion of this package ({', '.join(DEFAULTS)}), found"
            f" {names or 'none'}; only their models have estimates that FCP can be applied to"
        )
    if not Path(args.model_file).is_file():
        raise FileNotFoundError(f"{args.model_file}: no such file")
    found = find_utterances(args.data_dir, ["wav", "closetalk", "spk"])
    evenly = np.linspace(0, len(found) - 1, min(args.num_utts, len(found))).round().astype(int)
    chosen = [found[index] for index in evenly]
    from tqdm import tqdm

    from espnet2_m2m.diagnosis import words
    from espnet2_m2m.report import figures
    from espnet2_m2m.tasks.enh_m2m import M2MEnhancementTask  # takes seconds

    model, config = M2MEnhancementTask.build_model_from_file(
        args.train_config, args.model_file, "cuda" if args.ngpu else "cpu"
    )
    model.eval()
    if model.closetalk_from_ref:
        chosen = [
            replace(u, signals={"wav": u.signals["wav"], "closetalk": u.signals["spk"], "spk": {}}) for u in chosen
        ]
    utterances, rate = {}, config.sample_rate
    for utterance in tqdm(chosen, desc="diagnose", unit="utt"):
        waves, rate = utterance.read(model.separator.array.ref_mic, rate, all_mics=True)
        utterances[utterance.utt_id] = diagnose(model, utterance.utt_id, waves)
    settings = training.loss | {"close_talk": training.uses_headsets, "supervised": training.criterion is None}
    result = {
        "train_config": args.train_config,
        "model_file": args.model_file,
        "model_stamp": source_stamp(args.model_file),
        "data_dir": args.data_dir,
        "num_utterances": len(utterances),
        "sample_rate_hz": rate,
        **words.diagnose_set(utterances, settings),
        "utterances": utterances,
    }
    out_dir = Path(args.out_dir)
    with atomic_path(out_dir / "agreement.png") as temporary:
        figures.save_agreement(temporary, result["agrees"], rate)
    markdown = words.markdown(result)
    write_text(out_dir / "DIAGNOSIS.md", markdown + "\n![Agreement over frequency](agreement.png)\n")
    write_text(out_dir / "diagnosis.json", json.dumps(result, allow_nan=False) + "\n")
    print(markdown)
    print(f"{out_dir}: DIAGNOSIS.md, diagnosis.json, agreement.png")


def diagnose(model: "ESPnetM2MModel", utt_id: str, waves: dict[str, dict[int, np.ndarray]]) -> dict:
    """`diagnose_utterance` for a model and what `Utterance.read` gives: wav (sample, mic), closetalk, spk (sample,)."""
    import torch

    from espnet2_m2m.diagnosis.utterance import diagnose_utterance

    device = next(model.parameters()).device
    separator, domain = model.separator, model.separator.domain
    recording = torch.from_numpy(waves["wav"][1]).to(device)[None]  # (1, sample, mic)
    length = torch.tensor([recording.shape[1]])

    def spectra(family: str) -> torch.Tensor | None:
        """Mono recordings -> (mic, freq, frame), None without any."""
        if not waves[family]:
            return None
        stacked = np.stack(list(waves[family].values()), axis=1)
        return domain.spectra_of_waves(torch.from_numpy(stacked).to(device)[None], length)[0]

    def inverse(spectrum: torch.Tensor) -> torch.Tensor:
        """(signal, freq, frame) -> (signal, sample)."""
        return model.decoder(domain.feature(spectrum, recording), length.expand(len(spectrum)))[0]

    with torch.no_grad():
        mixture = domain.mixture(recording, length, model.normalize_variance)
        est = separator.estimate(mixture).spectra[0]
        if not torch.isfinite(est).all() and recording.any():
            raise ValueError(
                f"utterance '{utt_id}': the model's estimates have NaN or infinite values, so the "
                "training has diverged; use the model of an earlier epoch, and train with a "
                "lower learning rate"
            )
        est = torch.nan_to_num(est)  # of silence, some networks make 0 / 0
        for family, name in (("closetalk", "close-talk mixtures"), ("spk", "references")):
            if len(waves[family]) > len(est):
                raise ValueError(
                    f"utterance '{utt_id}' has {len(waves[family])} {name}, but the model has "
                    f"{len(est)} outputs; choose a set with at most as many talkers"
                )
        return diagnose_utterance(
            est,
            mixture.spectra[0],
            separator.mixture_constraint,
            spectra("closetalk"),
            spectra("spk"),
            inverse,
            separator.mixture_consistency,
        )


if __name__ == "__main__":
    main()
