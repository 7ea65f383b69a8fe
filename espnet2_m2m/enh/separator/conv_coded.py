"""Separators in the learned domain of `encoder: conv`, such as Conv-TasNet, as separators of waveforms."""

from collections import OrderedDict

from espnet2.enh.decoder.conv_decoder import ConvDecoder
from espnet2.enh.encoder.conv_encoder import ConvEncoder
from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor


class ConvCodedSeparator(AbsSeparator):
    """Encodes a waveform, separates, and decodes every estimate, so that losses and FCP get spectra of waveforms.

    Args:
        encoder, separator, decoder: as a config with `encoder: conv` gives them.
    """

    def __init__(self, encoder: ConvEncoder, separator: AbsSeparator, decoder: ConvDecoder) -> None:
        super().__init__()
        self.encoder, self.separator, self.decoder = encoder, separator, decoder

    @property
    def num_spk(self) -> int:
        return self.separator.num_spk

    def forward(
        self, input: Tensor, ilens: Tensor, additional: dict | None = None
    ) -> tuple[list[Tensor], Tensor, OrderedDict]:
        """Waveform (batch, sample) of one mic, and its samples (batch,) -> one (batch, sample) a source."""
        feature, lengths = self.encoder(input, ilens)
        estimates, _, others = self.separator(feature, lengths, additional)
        return [self.decoder(estimate, ilens)[0] for estimate in estimates], ilens, others
