"""An untrained ESPnet ASR of a few thousand weights, as a training would leave it."""

import torch
import yaml
from espnet2.tasks.asr import ASRTask

TOKENS = ["<blank>", "<unk>", "one", "two", "three", "<sos/eos>"]
ENCODER = {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1, "input_layer": "conv2d"}
DECODER = {"attention_heads": 2, "linear_units": 8, "num_blocks": 1}


def make_asr(folder, sample_rate=8000, seed=0):
    """Write config.yaml and valid.acc.ave.pth to `folder`; returns it."""
    torch.manual_seed(seed)
    parser = ASRTask.get_parser()
    args = parser.parse_args(["--output_dir", str(folder), "--token_type", "word"])
    args.token_list, args.use_preprocessor = TOKENS, True
    args.frontend_conf = {"fs": sample_rate, "n_fft": 128, "hop_length": 64, "n_mels": 16}
    args.normalize = "utterance_mvn"
    args.encoder, args.encoder_conf = "transformer", ENCODER
    args.decoder, args.decoder_conf = "transformer", DECODER
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(ASRTask.build_model(args).state_dict(), folder / "valid.acc.ave.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    return folder
