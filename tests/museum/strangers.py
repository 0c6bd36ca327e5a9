"""Models as a stranger writes them in plain PyTorch: a GPT, a translator on nn.Transformer, an LSTM with attention.

Each takes ``bug``, the name of one mistake; without it the model is right. The mistakes are those that people make.
"""

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB, WIDTH, HEADS, LAYERS, LONGEST = 31, 32, 4, 4, 32


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, bug: str | None):
        super().__init__()
        self.heads, self.bug = heads, bug
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if bug == "saturated":
            with torch.no_grad():
                self.qkv.weight.mul_(12)
        if bug == "dead_heads":
            with torch.no_grad():
                self.qkv.weight[:width].zero_()
                self.qkv.bias[:width].zero_()

    def split(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        if self.bug == "heads_by_view":
            return x.reshape(B, self.heads, T, D // self.heads)
        return x.view(B, T, self.heads, D // self.heads).transpose(1, 2)

    def mask(self, Q: int, K: int) -> Tensor:
        shown = torch.ones(Q, K).tril(K - Q).bool()
        if self.bug == "no_causal_mask":
            return torch.ones_like(shown)
        if self.bug == "mask_off_by_one":
            return torch.ones(Q, K).tril(1).bool()
        if self.bug == "mask_turned_around":
            return torch.ones(Q, K).triu(0).bool()
        if self.bug == "cache_mask":
            return torch.ones(Q, K).tril().bool()
        return shown

    def forward(self, x: Tensor, past: Any = None, keep: Tensor | None = None) -> tuple[Tensor, Any]:
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, dim=-1))
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        scale = 1.0 if self.bug == "unscaled" else 1 / math.sqrt(q.shape[-1])
        scores = q @ k.transpose(-2, -1) * scale
        shown = self.mask(q.shape[2], k.shape[2])
        if keep is not None and self.bug != "no_padding_mask":
            if self.bug == "padding_mask_inverted":
                keep = ~keep.bool()
            shown = shown & keep[:, None, None, :].bool()
        if self.bug == "mask_with_zero":
            weights = (scores * shown).softmax(-1)
        elif self.bug == "mask_after_softmax":
            weights = scores.softmax(-1) * shown
        else:
            hidden = float("-inf") if self.bug == "minus_infinity" else -1e9
            weights = scores.masked_fill(~shown, hidden).softmax(2 if self.bug == "softmax_over_queries" else -1)
        if self.bug == "dropout_functional":
            weights = F.dropout(weights, 0.2)
        y = weights @ v
        y = y.transpose(1, 2).reshape(x.shape)
        return self.proj(y), (k, v)


class GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int, bug: str | None):
        super().__init__()
        self.bug = bug
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, bug)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        if bug == "norm_over_rows":
            self.rows = True
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, past: Any = None, keep: Tensor | None = None) -> tuple[Tensor, Any]:
        read = x if self.bug == "no_norm" else self.ln1(x)
        y, past = self.attn(read, past, keep)
        x = x + self.drop(y)
        if self.bug == "norm_over_time":
            x = (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True, unbiased=False) + 1e-5)
        if self.bug == "norm_over_rows":
            x = (x - x.mean(dim=0, keepdim=True)) / (x.std(dim=0, keepdim=True, unbiased=False) + 1e-5)
        if self.bug == "no_norm_before_mlp":
            return x + self.drop(self.mlp(x)), past
        return x + self.drop(self.mlp(x if self.bug == "no_norm" else self.ln2(x))), past


class TinyGPT(nn.Module):
    """A GPT from scratch, as tutorials write it; ``keep`` is 1 on tokens, ``past`` a list of keys and values."""

    def __init__(self, bug: str | None = None, layers: int = LAYERS, vocab: int = VOCAB):
        super().__init__()
        self.bug = bug
        self.max_len = LONGEST
        self.wte, self.wpe = nn.Embedding(vocab, WIDTH), nn.Embedding(LONGEST, WIDTH)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.3)
        if bug == "positions_too_loud":
            nn.init.normal_(self.wpe.weight, std=3.0)
            nn.init.normal_(self.wte.weight, std=0.02)
        if bug == "short_position_table":
            self.wpe = nn.Embedding(LONGEST // 2, WIDTH)
        self.blocks = nn.ModuleList([GPTBlock(WIDTH, HEADS, bug) for _ in range(layers)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, vocab, bias=False)
        if bug == "output_too_small":
            self.head = nn.Linear(WIDTH, vocab - 6, bias=False)
        elif bug == "copied_embedding":
            self.head.weight = nn.Parameter(self.wte.weight.detach().clone())
        else:
            self.head.weight = self.wte.weight
        if bug == "numpy_weights":
            self.scale = nn.Parameter(torch.ones(WIDTH, dtype=torch.float64))
        if bug == "unused_layer":
            self.extra = nn.Linear(WIDTH, WIDTH)
        if bug == "says_tied":
            self.tie_weights, self.head.weight = True, nn.Parameter(torch.randn(vocab, WIDTH) * 0.1)

    def positions(self, idx: Tensor, start: int) -> Tensor:
        B, T = idx.shape
        if self.bug == "positions_along_rows":
            return self.wpe(torch.arange(B))[:, None]
        if self.bug == "cache_positions":
            start = 0
        return self.wpe(torch.arange(start, start + T))[None]

    def forward(self, idx: Tensor, keep: Tensor | None = None, past: Any = None) -> tuple[Tensor, Any]:
        start = 0 if past is None else past[0][0].shape[2]
        x = self.wte(idx)
        added = self.positions(idx, start)
        if self.bug not in ("no_positions", "positions_after_norm", "positions_inside"):
            x = x + added
        if self.bug == "detached":
            x = x.detach()
        states = []
        for number, block in enumerate(self.blocks):
            if self.bug == "positions_inside" and number == 2:
                x = x + added
            x, state = block(x, None if past is None else past[number], keep)
            states.append(state)
            if self.bug == "detached_layer" and number == 1:
                x = x.detach()
        x = x if self.bug == "no_final_norm" else self.norm(x)
        if self.bug == "positions_after_norm":
            x = x + added
        if self.bug == "numpy_weights":
            x = (x * self.scale).float()
        return self.head(x), states


class HalfRotary(nn.Module):
    """Rotary positions computed in the type of the model."""

    def __init__(self, bug: str | None = None):
        super().__init__()
        self.bug = bug
        self.embed, self.out = nn.Embedding(VOCAB, WIDTH), nn.Linear(WIDTH, VOCAB)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.embed(idx)
        kind = x.dtype if self.bug == "half_positions" else torch.float32
        t = torch.arange(idx.shape[1], dtype=kind)
        angle = t[:, None] / 10 ** torch.arange(0, 1, 2 / WIDTH, dtype=kind)
        turned = torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :WIDTH].to(x.dtype)
        return self.out(torch.cumsum(x * turned, dim=1))


# ---- nn.Transformer --------------------------------------------------------------------------------


class Translator17(nn.Module):
    """A translator on nn.Transformer; padding is id 0."""

    def __init__(self, bug: str | None = None):
        super().__init__()
        self.bug = bug
        self.source, self.target = (nn.Embedding(VOCAB, WIDTH, padding_idx=0) for _ in range(2))
        self.position = nn.Embedding(LONGEST, WIDTH)
        first = bug != "rows_and_time_confused"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nested tensors are for rows first
            self.transformer = nn.Transformer(WIDTH, HEADS, 2, 2, 4 * WIDTH, dropout=0.1, batch_first=first)
        self.generator = nn.Linear(WIDTH, VOCAB)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        def embed(table: nn.Embedding, ids: Tensor) -> Tensor:
            return table(ids) * math.sqrt(WIDTH) + self.position(torch.arange(ids.shape[1]))

        masks = {
            "tgt_mask": nn.Transformer.generate_square_subsequent_mask(tgt.shape[1]).isinf(),
            "src_key_padding_mask": src == 0,
            "tgt_key_padding_mask": tgt == 0,
            "memory_key_padding_mask": src == 0,
        }
        if self.bug == "rows_and_time_confused":
            masks = {}
        if self.bug == "no_target_mask":
            del masks["tgt_mask"]
        if self.bug == "no_padding_masks":
            del masks["src_key_padding_mask"], masks["memory_key_padding_mask"], masks["tgt_key_padding_mask"]
        if self.bug == "no_memory_mask":
            del masks["memory_key_padding_mask"]
        if self.bug == "float_padding_mask":
            masks["src_key_padding_mask"] = masks["memory_key_padding_mask"] = (src == 0).float()
            masks["tgt_key_padding_mask"] = (tgt == 0).float()
        if self.bug == "inverted_target_mask":
            masks["tgt_mask"] = torch.ones(tgt.shape[1], tgt.shape[1]).tril(-1).bool()
        source, target = embed(self.source, src), embed(self.target, tgt)
        if self.bug == "rows_and_time_confused" and source.shape[1] != target.shape[1]:
            source = source[:, : target.shape[1]]
        return self.generator(self.transformer(source, target, **masks))


class DeepEncoder(nn.Module):
    """A classifier on nn.TransformerEncoder with norms after the sum, as deep as wanted."""

    def __init__(self, bug: str | None = None, layers: int = 4):
        super().__init__()
        layers = 48 if bug == "deep_post_norm" else layers
        self.embed = nn.Embedding(VOCAB, WIDTH, padding_idx=0)
        self.position = nn.Parameter(torch.randn(LONGEST, WIDTH) * 0.3)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 3)
        self.bug = bug

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        if self.bug != "encoder_without_positions":
            x = x + self.position[: ids.shape[1]]
        x = self.encoder(x, src_key_padding_mask=ids == 0)
        if self.bug == "mean_over_padding":
            return self.head(x.mean(dim=1))
        keep = (ids != 0)[..., None]
        return self.head((x * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1))


# ---- LSTM ------------------------------------------------------------------------------------------


class LSTMWithAttention(nn.Module):
    """A language model: an LSTM whose outputs look back at earlier ones; takes and returns its state."""

    def __init__(self, bug: str | None = None):
        super().__init__()
        self.bug = bug
        self.embed = nn.Embedding(VOCAB, WIDTH, padding_idx=0)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=bug != "time_first", bidirectional=bug == "bidirectional_writer")
        if bug == "bidirectional_writer":
            self.lstm = nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)
        self.look = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(2 * WIDTH, VOCAB)

    def forward(self, idx: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x = self.embed(idx)
        if self.bug == "frozen_embedding":
            x = x.data
        if self.bug == "word_dropout":
            x = F.dropout(x, 0.3)
        hidden, memory = (None, None) if state is None else state
        given = None if self.bug == "state_dropped" else hidden
        y, hidden = self.lstm(x, given)
        memory = y if memory is None else torch.cat([memory, y], dim=1)
        scores = self.look(y) @ memory.transpose(1, 2) / math.sqrt(WIDTH)
        later = torch.ones(scores.shape[-2:]).triu(1 + memory.shape[1] - y.shape[1]).bool()
        if self.bug != "looks_ahead":
            scores = scores.masked_fill(later, -1e9)
        read = scores.softmax(-1) @ memory
        return self.out(torch.cat([y, read], dim=-1)), (hidden, memory)


class LSTMClassifier(nn.Module):
    """A classifier that attends over the states of a bidirectional LSTM; ``keep`` is 1 on tokens."""

    def __init__(self, bug: str | None = None):
        super().__init__()
        self.bug = bug
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.score, self.head = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        y, _ = self.lstm(self.embed(ids))
        scores = self.score(y).squeeze(-1)
        if self.bug == "attention_over_padding":
            weights = scores.softmax(-1)
        elif self.bug == "padding_minus_infinity":
            weights = scores.masked_fill(attention_mask == 0, float("-inf")).softmax(-1)
        else:
            weights = scores.masked_fill(attention_mask == 0, -1e9).softmax(-1)
        if self.bug == "attention_over_rows":
            weights = scores.softmax(0)
        return self.head((weights[..., None] * y).sum(dim=1))
