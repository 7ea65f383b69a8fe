"""TF-GridNet on spectra: the network of the paper, from the STFTs of all mics to those of all sources.

Z.-Q. Wang, S. Cornell, S. Choi, Y. Lee, B.-Y. Kim, S. Watanabe, "TF-GridNet: Integrating Full- and
Sub-Band Modeling for Speech Separation", TASLP 2023. The function is that of ESPnet's tfgridnetv2,
without its STFT and its inverse: the loss works on spectra, so estimates need not be waveforms.

Features stay (batch, frame, freq, channel) throughout, so that norms, projections and unfolding act on
the last axis and need no copies.
"""

import re
from collections import OrderedDict

import torch
from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

EPS = 1e-5  # of all norms
SILENCE = 1e-12  # RMS of a spectrum up to which it counts as silence


class TFGridNet(AbsSeparator):
    """`separator: tfgridnet_spectra`, to be used with `encoder: spectra` and `decoder: spectra`.

    The far-field mixtures are divided by their RMS, all mics together, and the estimates multiplied by
    it: silence gives silence. Utterances of unequal length go through one by one, so that padding has
    no influence.

    Args:
        input_dim: frequencies of the encoder.
        n_srcs: sources to estimate.
        n_imics: mics of the recording.
        n_layers: number B of blocks.
        emb_dim: D, channels of every unit.
        emb_ks, emb_hs: I and J, units that an LSTM's step sees and by which it advances.
        lstm_hidden_units: H, of either direction.
        attn_n_head: L, heads of the attention across frames.
        attn_qk_dim: E, channels of a unit's query and key.
        activation_checkpointing: training computes a block's activations anew in the backward pass instead
            of keeping them: less memory, about a third more time.
    Raises:
        ValueError: emb_ks is no multiple of emb_hs, or emb_dim none of attn_n_head.
    """

    def __init__(
        self,
        input_dim: int,
        n_srcs: int = 2,
        n_imics: int = 6,
        n_layers: int = 4,
        emb_dim: int = 96,
        emb_ks: int = 2,
        emb_hs: int = 2,
        lstm_hidden_units: int = 192,
        attn_n_head: int = 4,
        attn_qk_dim: int = 4,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if emb_ks % emb_hs:
            raise ValueError(f"separator_conf: emb_ks: {emb_ks} must be a multiple of emb_hs: {emb_hs}")
        if emb_dim % attn_n_head:
            raise ValueError(f"separator_conf: emb_dim: {emb_dim} must be a multiple of attn_n_head: {attn_n_head}")
        self.n_srcs = n_srcs
        self.n_imics = n_imics
        self.activation_checkpointing = activation_checkpointing
        self.conv_in = nn.Conv2d(2 * n_imics, emb_dim, 3, padding=1)
        self.norm_in = nn.GroupNorm(1, emb_dim, eps=EPS)
        self.blocks = nn.ModuleList(
            TFGridNetBlock(input_dim, emb_dim, emb_ks, emb_hs, lstm_hidden_units, attn_n_head, attn_qk_dim)
            for _ in range(n_layers)
        )
        self.conv_out = nn.Conv2d(emb_dim, 2 * n_srcs, 3, padding=1)

    @property
    def num_spk(self) -> int:
        return self.n_srcs

    def forward(
        self, input: Tensor, ilens: Tensor, additional: dict | None = None
    ) -> tuple[list[Tensor], Tensor, OrderedDict]:
        """Estimate the spectra of all sources.

        Args:
            input: (batch, frame, freq) or (batch, frame, mic, freq) complex, the far-field mixtures.
            ilens: (batch,) frames.
        Returns:
            estimates: one (batch, frame, freq) complex for each source, zero beyond `ilens`.
            ilens: as given.
            others: empty.
        """
        spectra = input[:, :, None] if input.dim() == 3 else input
        if int(ilens.min()) == spectra.shape[1]:
            estimates = self.estimate(spectra)
        else:
            estimates = spectra.new_zeros(len(spectra), self.n_srcs, spectra.shape[1], spectra.shape[3])
            for i, length in enumerate(ilens.tolist()):
                estimates[i, :, :length] = self.estimate(spectra[i : i + 1, :length])[0]
        return list(estimates.unbind(1)), ilens, OrderedDict()

    def estimate(self, spectra: Tensor) -> Tensor:
        """(batch, frame, mic, freq) complex, without padding -> (batch, source, frame, freq) complex."""
        power = spectra.real.square() + spectra.imag.square()
        level = power.mean(dim=(1, 2, 3)).sqrt()[:, None, None, None]
        x = spectra / level.clamp(min=SILENCE)
        x = torch.cat([x.real, x.imag], dim=2).permute(0, 2, 1, 3)  # (batch, channel, frame, freq)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        x = self.norm_in(x).permute(0, 2, 3, 1)  # (batch, frame, freq, channel)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        x = self.conv_out(x.permute(0, 3, 1, 2)).unflatten(1, (self.n_srcs, 2))
        x = x.to(level.dtype) * level[..., None]  # autocast: no half precision from here on
        return torch.complex(x[:, :, 0], x[:, :, 1])


class TFGridNetBlock(nn.Module):
    """Intra-frame full-band LSTM, sub-band temporal LSTM, full-band self-attention across frames.

    Input and output: (batch, frame, freq, channel).
    """

    def __init__(
        self,
        num_freqs: int,
        emb_dim: int,
        emb_ks: int,
        emb_hs: int,
        lstm_hidden_units: int,
        attn_n_head: int,
        attn_qk_dim: int,
    ) -> None:
        super().__init__()
        self.overlap = emb_ks - emb_hs
        self.emb_hs = emb_hs
        self.intra = UnfoldedLSTM(emb_dim, emb_ks, emb_hs, lstm_hidden_units)
        self.inter = UnfoldedLSTM(emb_dim, emb_ks, emb_hs, lstm_hidden_units)
        self.attention = FrameAttention(num_freqs, emb_dim, attn_n_head, attn_qk_dim)

    def forward(self, x: Tensor) -> Tensor:
        frames, freqs = x.shape[1:3]
        # Zeros before and after, so that every unit lies in as many LSTM steps as any other.
        before = self.overlap
        after = [before + -(size + before) % self.emb_hs for size in (freqs, frames)]
        x = functional.pad(x, (0, 0, before, after[0], before, after[1]))
        x = self.intra(x)
        x = self.inter(x.transpose(1, 2)).transpose(1, 2)
        x = x[:, before : before + frames, before : before + freqs]
        return self.attention(x)


class UnfoldedLSTM(nn.Module):
    """A bidirectional LSTM along an axis, whose steps see `emb_ks` units and advance by `emb_hs`.

    x + overlap_add(linear(lstm(unfold(norm(x))))): (batch, any, step axis, channel) -> the same shape.
    """

    def __init__(self, emb_dim: int, emb_ks: int, emb_hs: int, hidden_units: int) -> None:
        super().__init__()
        self.emb_ks, self.emb_hs = emb_ks, emb_hs
        self.norm = nn.LayerNorm(emb_dim, eps=EPS)
        self.lstm = nn.LSTM(emb_ks * emb_dim, hidden_units, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * hidden_units, emb_ks * emb_dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, others, size, channels = x.shape
        hops = self.emb_ks // self.emb_hs
        # (batch * others, hop, emb_hs * channel): a step sees `hops` of them.
        units = self.norm(x).reshape(batch * others, size // self.emb_hs, self.emb_hs * channels)
        steps = units.shape[1] - hops + 1
        if hops > 1:
            units = torch.cat([units[:, hop : hop + steps] for hop in range(hops)], dim=-1)
        y = self.linear(self.lstm(units)[0])
        if hops > 1:
            y = y.unflatten(-1, (hops, -1))
            y = sum(functional.pad(y[:, :, hop], (0, 0, hop, hops - 1 - hop)) for hop in range(hops))
        return x + y.reshape(batch, others, size, channels)


class FrameAttention(nn.Module):
    """Self-attention across frames; queries, keys and values hold all frequencies of a frame.

    (batch, frame, freq, channel) -> the same shape.
    """

    def __init__(self, num_freqs: int, emb_dim: int, n_head: int, qk_dim: int) -> None:
        super().__init__()
        self.sizes = [n_head * qk_dim, n_head * qk_dim, emb_dim]
        self.n_head = n_head
        self.project = nn.Linear(emb_dim, sum(self.sizes))
        self.slopes = nn.Parameter(torch.full((3, n_head), 0.25))  # PReLU of queries, keys, values
        self.norms = nn.ModuleList(HeadNorm(n_head, num_freqs, size // n_head) for size in self.sizes)
        self.out = nn.Linear(emb_dim, emb_dim)
        self.out_slope = nn.Parameter(torch.full((1,), 0.25))
        self.out_norm = nn.LayerNorm((num_freqs, emb_dim), eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, freqs, channels = x.shape
        slopes = torch.cat(
            [slope.repeat_interleave(size // self.n_head) for slope, size in zip(self.slopes, self.sizes)]
        )
        projected = self.project(x)
        # Whole frames as rows: rows of as few channels as a small network has are slow in bfloat16.
        rows, slopes = projected.flatten(0, 1).flatten(1), slopes.to(projected.dtype).repeat(freqs)
        projected = functional.prelu(rows, slopes).view_as(projected)
        query, key, value = (
            norm(part.unflatten(-1, (self.n_head, -1)).permute(0, 3, 1, 2, 4))
            for norm, part in zip(self.norms, projected.split(self.sizes, dim=-1))
        )
        # Faster on CPUs than scaled_dot_product_attention, whose kernel suits narrower heads than these
        # (129 frequencies * 4 numbers and more).
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)
        y = scores.softmax(dim=-1) @ value  # (batch, head, frame, freq * channel)
        y = y.unflatten(-1, (freqs, -1)).permute(0, 2, 3, 1, 4).flatten(3)
        y = functional.prelu(self.out(y), self.out_slope.to(y.dtype))
        return x + self.out_norm(y)


class HeadNorm(nn.Module):
    """Layer norm over frequencies and channels of a frame, with a gain and bias for each head.

    (batch, head, frame, freq, channel) -> (batch, head, frame, freq * channel)
    """

    def __init__(self, n_head: int, num_freqs: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_head, 1, num_freqs * channels))
        self.bias = nn.Parameter(torch.zeros(n_head, 1, num_freqs * channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(3)
        x = functional.layer_norm(x, x.shape[-1:], eps=EPS)
        return torch.addcmul(self.bias.to(x.dtype), x, self.gain.to(x.dtype))  # autocast: x remains in half precision


def from_espnet(weights: dict[str, Tensor], emb_hs: int) -> dict[str, Tensor]:
    """Weights of ESPnet's tfgridnetv2 (its state_dict) as weights of a `TFGridNet` of the same sizes.

    Given the same spectra, of RMS 1, both then return the same. In a whole model they differ slightly:
    ESPnet's divides by the waveform's standard deviation and has a Hann window.
    """
    num_blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    ours = {
        f"{new}.{kind}": weights[f"{old}.{kind}"]
        for old, new in (("conv.0", "conv_in"), ("conv.1", "norm_in"))
        for kind in ("weight", "bias")
    }
    # A transposed convolution of stride 1 is a convolution with the mirrored kernel.
    ours["conv_out.weight"] = weights["deconv.weight"].transpose(0, 1).flip(2, 3)
    ours["conv_out.bias"] = weights["deconv.bias"]
    for n in range(num_blocks):
        block = {
            name.removeprefix(f"blocks.{n}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{n}.")
        }
        ours |= {f"blocks.{n}.{name}": value for name, value in _block_from_espnet(block, emb_hs).items()}
    return ours


def _block_from_espnet(weights: dict[str, Tensor], emb_hs: int) -> dict[str, Tensor]:
    ours = {
        name.replace("_", ".", 1).replace(".rnn.", ".lstm."): value
        for name, value in weights.items()
        if re.match("(intra|inter)_(norm|rnn)", name)
    }
    for part in ("intra", "inter"):
        linear, bias = weights[f"{part}_linear.weight"], weights[f"{part}_linear.bias"]
        if linear.dim() == 3:  # ConvTranspose1d where LSTM steps overlap: (2 H, channel, unit)
            channels, units = linear.shape[1:]
            for direction in ("l0", "l0_reverse"):
                name = f"{part}.lstm.weight_ih_{direction}"
                ours[name] = ours[name].unflatten(1, (channels, units)).transpose(1, 2).flatten(1)
            linear = linear.permute(2, 1, 0).flatten(0, 1)
            # Its bias counts once a unit, ours once for each of the steps that see the unit.
            bias = (bias * emb_hs / units).repeat(units)
        ours[f"{part}.linear.weight"], ours[f"{part}.linear.bias"] = linear, bias
    names = ("Q", "K", "V")
    for kind in ("weight", "bias"):
        ours[f"attention.project.{kind}"] = torch.cat(
            [
                weights[f"attn_conv_{name}.{kind}"].flatten(1)
                if kind == "weight"
                else weights[f"attn_conv_{name}.{kind}"]
                for name in names
            ]
        )
    ours["attention.slopes"] = torch.stack([weights[f"attn_norm_{name}.act.weight"] for name in names])
    for n, name in enumerate(names):
        for kind, our_kind in (("gamma", "gain"), ("beta", "bias")):
            value = weights[f"attn_norm_{name}.{kind}"][0, :, :, 0]  # (head, channel, freq)
            ours[f"attention.norms.{n}.{our_kind}"] = value.transpose(1, 2).flatten(1)[:, None]
    ours["attention.out.weight"] = weights["attn_concat_proj.0.weight"].flatten(1)
    ours["attention.out.bias"] = weights["attn_concat_proj.0.bias"]
    ours["attention.out_slope"] = weights["attn_concat_proj.1.weight"]
    for kind, our_kind in (("gamma", "weight"), ("beta", "bias")):
        ours[f"attention.out_norm.{our_kind}"] = weights[f"attn_concat_proj.2.{kind}"][0, :, 0].T
    return ours
