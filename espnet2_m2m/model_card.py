"""The model card of a training, README.md of its packed form: Markdown with Hugging Face's front matter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from espnet2_m2m.enh.config import read_config
from espnet2_m2m.enh.training_config import TrainingConfig

TAGS = ["espnet", "audio", "audio-to-audio", "source-separation"]
CITATIONS = """@article{wang2024mixture,
  title={Mixture to Mixture: Leveraging Close-talk Mixtures as Weak-supervision for Speech Separation},
  author={Wang, Zhong-Qiu},
  journal={IEEE Signal Processing Letters},
  volume={31},
  year={2024}
}
@inproceedings{watanabe2018espnet,
  title={{ESPnet}: End-to-End Speech Processing Toolkit},
  author={Watanabe, Shinji and Hori, Takaaki and Karita, Shigeki and Hayashi, Tomoki and Nishitoba, Jiro and
          Unno, Yuya and Soplin, Nelson Enrique Yalta and Heymann, Jahn and Wiesner, Matthew and
          Chen, Nanxin and Renduchintala, Adithya and Ochiai, Tsubasa},
  booktitle={Proc. Interspeech},
  pages={2207--2211},
  year={2018}
}"""


def model_card(exp_dir: Path | str, tag: str, language: str, dataset: str, license: str) -> str:
    """The card.

    Args:
        exp_dir: the training: config.yaml, and RESULTS.md where it was scored.
        tag: what `from_pretrained` is to be given.
        language, dataset, license: of the speech, the corpus, the weights; as Hugging Face names them.
    Returns:
        Markdown.
    Raises:
        FileNotFoundError: there is no config.yaml.
        ValueError: it is not that of an enhancement model trained by this package.
    """
    exp_dir = Path(exp_dir)
    config = read_config(exp_dir / "config.yaml")
    missing = [name for name in ("criterions", "separator", "sample_rate") if not config.get(name)]
    if missing:
        raise ValueError(
            f"{exp_dir}/config.yaml: expected that of a training by this package, found no {', '.join(missing)}"
        )
    front_matter = {"tags": TAGS, "language": language, "datasets": [dataset], "license": license}
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front_matter, sort_keys=False).rstrip(),
            "---",
            "",
            f"# {exp_dir.resolve().name}",
            "",
            *_description(config, TrainingConfig(config, exp_dir / "config.yaml"), dataset),
            "",
            "## Use",
            "",
            "Where [ESPnet](https://github.com/espnet/espnet) and its plug-in espnet2_m2m are installed:",
            "",
            "```python",
            "from espnet2_m2m import SeparateRecording",
            f'separate = SeparateRecording.from_pretrained("{tag}")',
            'separate.file("meeting.wav", "out")     # -> out/meeting_spk1.wav, ...; any length',
            "```",
            "",
            f"or `espnet2_m2m separate --model {tag} meeting.wav -o out`.",
            "",
            "## Results",
            "",
            *_results(exp_dir / "RESULTS.md"),
            "",
            "## Training config",
            "",
            "<details><summary>config.yaml</summary>",
            "",
            "```yaml",
            (exp_dir / "config.yaml").read_text(encoding="utf-8").rstrip(),
            "```",
            "",
            "</details>",
            "",
            "## Citation",
            "",
            "```bibtex",
            CITATIONS,
            "```",
            "",
        ]
    )


def _description(config: dict[str, Any], training: TrainingConfig, dataset: str) -> Iterator[str]:
    """What it is, and what a recording must be like."""
    separator_conf = config.get("separator_conf") or {}
    model_conf = config.get("model_conf") or {}
    if training.criterion is None:
        how = "supervised by the talkers' true images at the reference mic (PIT)"
    elif training.uses_headsets:
        how = (
            "trained by mixture-to-mixture (M2M): supervised by headset recordings, cross-talk "
            "included, not by clean speech"
        )
    else:
        how = "trained on far-field mixtures alone (UNSSOR)"
    yield f"Separates far-field recordings of several talkers; {how}."
    yield ""
    yield f"- network: `{config['separator']}`"
    mics = model_conf.get("input_mics")
    if mics is not None:
        yield f"- mics: channels {mics} of the recording, counted from 0"
    elif "n_imics" in separator_conf:
        yield f"- mics: {separator_conf['n_imics']}, of the array that it was trained with, in its order"
    num_talkers = separator_conf.get("n_srcs", separator_conf.get("num_spk"))
    if num_talkers is not None:
        yield f"- talkers: {num_talkers}"
    image = "the network's estimate" if training.criterion is None else "the FCP image"
    consistent = ", made consistent with the mixture" * training.mixture_consistency
    yield f"- output: {image} of each talker at the reference mic{consistent}"
    yield f"- sample rate: {config['sample_rate']} Hz"
    yield f"- trained on: {dataset}"


def _results(path: Path) -> list[str]:
    """The sections of RESULTS.md, one level down."""
    if not path.is_file():
        return ["Not scored."]
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith("## ")), len(lines))
    return [f"#{line}" if line.startswith("#") else line for line in lines[first:]]
