"""Batches for models whose signature is known: PyTorch's own modules, `transformers`, and this package's models.

Lengths are odd and unlike each other, so that no dimension is taken for another one.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.batch import BatchError, InputBatch, Mask
from dragoman.inspect.doctor.declared import padding_id, writes_by_configuration
from dragoman.model.contrastive import TwoTowers
from dragoman.model.encoder import Encoder
from dragoman.model.inputs import FrameInput, PatchInput, TokenInput
from dragoman.model.interface import SequenceModel
from dragoman.model.positions.tokens import Frames, Tokens
from dragoman.model.transformer import Transformer

ROWS, LENGTH, SOURCE_LENGTH = 3, 11, 13
KEEP, SOURCE_KEEP = Mask("keep", "tokens"), Mask("source_keep", "source")


def guess_batch(model: nn.Module) -> InputBatch:
    """Return a batch of random inputs that a model takes.

    Raises:
        BatchError: nothing tells what the model takes; the message says what to pass.
    """
    if isinstance(model, SequenceModel):
        return _of_writer(model)
    if isinstance(model, Encoder):
        return _of_reader(model)
    if isinstance(model, TwoTowers):
        raise BatchError("this model has two towers: examine `model.first` and `model.second`, each by itself")
    for kind, guess in TORCH.items():
        if isinstance(model, kind):
            return guess(model)
    if hasattr(model, "config") and hasattr(model, "save_pretrained"):
        return _of_transformers(model)
    takes = ", ".join(inspect.signature(model.forward).parameters)
    raise BatchError(
        f"cannot guess a batch for {type(model).__name__}.forward({takes}): pass --inputs MODULE:FUNCTION, which "
        "returns a tensor, a tuple of its arguments, or a dictionary of its arguments by name"
    )


def _ids(rows: int, length: int, vocab: int, avoid: set[int], device: Any) -> Tensor:
    """Return random ids without special ones, all different within a row where the vocabulary allows."""
    plain = torch.tensor([i for i in range(min(vocab, 5000)) if i not in avoid])
    if len(plain) < 2:
        raise BatchError(f"a vocabulary of {vocab} with {len(avoid)} special ids leaves nothing to read")
    order = [torch.randperm(len(plain)).repeat(length // len(plain) + 1)[:length] for _ in range(rows)]
    return plain[torch.stack(order)].to(device)


def _place(model: nn.Module) -> tuple[Any, torch.dtype]:
    """Return the device and the data type of a model's weights."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return first.device, first.dtype


def _all(ids: Tensor) -> Tensor:
    return torch.ones(ids.shape[:2], dtype=torch.bool, device=ids.device)


def _usable(wanted: int, most: int | None) -> int:
    return wanted if most is None else min(wanted, most)


# ---- this package ----------------------------------------------------------------------------------


def _call_writer(model: nn.Module, arguments: dict[str, Any]) -> Any:
    source = arguments.get("source")
    if source is not None and not source.is_floating_point():
        source = Tokens(source, arguments["source_keep"])
    elif source is not None and source.ndim == 3:
        source = Frames(source, arguments["source_keep"])
    return model(Tokens(arguments["tokens"], arguments["keep"]), source)


def _of_writer(model: SequenceModel) -> InputBatch:
    cfg: Any = model.cfg
    device, dtype = _place(model)
    special = {0, 1, 2, 3} if cfg.vocab > 8 else {0}
    arguments: dict[str, Any] = {
        "tokens": _ids(ROWS, _usable(LENGTH, model.max_length), cfg.vocab, special, device),
    }
    arguments["keep"] = _all(arguments["tokens"])
    masks = [KEEP]
    if cfg.translates:
        length = _usable(SOURCE_LENGTH, model.max_length)
        inputs = getattr(cfg, "source", None)
        if isinstance(inputs, PatchInput | FrameInput):
            arguments["source"] = _values(inputs, device, dtype)
        else:
            arguments["source"] = _ids(ROWS, length, cfg.source_vocab or cfg.vocab, special, device)
        if arguments["source"].ndim < 4:
            arguments["source_keep"] = _all(arguments["source"])
            masks.append(SOURCE_KEEP)
    causal = model.sees_only_past if isinstance(model, Transformer) else True
    return InputBatch(
        arguments=arguments,
        tokens="tokens",
        source="source" if cfg.translates else None,
        masks=tuple(masks),
        causal=causal or None,
        why_causal="a model that writes",
        labels=arguments["tokens"].roll(-1, 1) if causal else None,
        call=_call_writer,
    )


def _values(inputs: Any, device: Any, dtype: torch.dtype) -> Tensor:
    """Return random images or frames."""
    if isinstance(inputs, PatchInput):
        return torch.randn(ROWS, inputs.channels, *inputs.size, device=device, dtype=dtype)
    return torch.randn(ROWS, SOURCE_LENGTH, inputs.channels, device=device, dtype=dtype)


def _of_reader(model: Encoder) -> InputBatch:
    inputs: Any = model.cfg.inputs
    device, dtype = _place(model)
    if isinstance(inputs, PatchInput):
        return InputBatch(
            arguments={"tokens": _values(inputs, device, dtype)},
            tokens="tokens",
            causal=False,
            why_causal="a model that reads",
            call=lambda model, arguments: model(arguments["tokens"]),
        )
    if isinstance(inputs, TokenInput):
        assert inputs.vocab is not None
        tokens = _ids(ROWS, _usable(LENGTH, model.max_length), inputs.vocab, {0, 1, 2, 3}, device)
        wrap: Callable[..., Any] = Tokens
    else:
        tokens, wrap = _values(inputs, device, dtype), Frames
    return InputBatch(
        arguments={"tokens": tokens, "keep": _all(tokens)},
        tokens="tokens",
        masks=(KEEP,),
        causal=False,
        why_causal="a model that reads",
        call=lambda model, arguments: model(wrap(arguments["tokens"], arguments["keep"])),
    )


# ---- PyTorch's own ---------------------------------------------------------------------------------


def _vectors(model: nn.Module, width: int, length: int) -> Tensor:
    device, dtype = _place(model)
    x = torch.randn(ROWS, length, width, device=device, dtype=dtype)
    return x if getattr(model, "batch_first", True) else x.transpose(0, 1).contiguous()


def _width(model: nn.Module) -> int:
    """Return the width of the first norm of a PyTorch Transformer's layer."""
    return next(m for m in model.modules() if isinstance(m, nn.MultiheadAttention)).embed_dim


def _rows_dim(model: nn.Module) -> int:
    attention = next((m for m in model.modules() if isinstance(m, nn.MultiheadAttention)), model)
    return int(getattr(attention, "batch_first", True) is False)


def _by_row(x: Tensor, rows_dim: int) -> Tensor:
    return x if rows_dim == 0 else x.transpose(0, 1)


def _of_torch_encoder(model: nn.Module) -> InputBatch:
    dim = _rows_dim(model)
    device, dtype = _place(model)
    x = torch.randn(ROWS, LENGTH, _width(model), device=device, dtype=dtype)
    return InputBatch(
        arguments={"tokens": _by_row(x, dim).contiguous(), "keep": _all(x)},
        tokens="tokens",
        masks=(KEEP,),
        batch_dim=dim,
        causal=False,
        why_causal="an encoder",
        call=lambda model, arguments: model(arguments["tokens"], src_key_padding_mask=~arguments["keep"]),
    )


def _of_torch_pair(call: Callable[[nn.Module, Tensor, Tensor, dict[str, Any]], Any]) -> Callable[..., InputBatch]:
    """Return what guesses a batch for a module that reads a target and a source."""

    def called(model: nn.Module, arguments: dict[str, Any]) -> Any:
        tokens, source = arguments["tokens"], arguments["source"]
        length = tokens.shape[1 - _rows_dim(model)]
        hidden = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        masks = {
            "tgt_mask": hidden,
            "tgt_is_causal": True,
            "tgt_key_padding_mask": ~arguments["keep"],
            "memory_key_padding_mask": ~arguments["source_keep"],
        }
        return call(model, tokens, source, masks)

    def guess(model: nn.Module) -> InputBatch:
        dim, width = _rows_dim(model), _width(model)
        device, dtype = _place(model)
        tokens = torch.randn(ROWS, LENGTH, width, device=device, dtype=dtype)
        source = torch.randn(ROWS, SOURCE_LENGTH, width, device=device, dtype=dtype)
        return InputBatch(
            arguments={
                "tokens": _by_row(tokens, dim).contiguous(),
                "keep": _all(tokens),
                "source": _by_row(source, dim).contiguous(),
                "source_keep": _all(source),
            },
            tokens="tokens",
            source="source",
            masks=(KEEP, SOURCE_KEEP),
            batch_dim=dim,
            causal=True,
            why_causal="called with a causal mask",
            call=called,
        )

    return guess


def _call_transformer(model: nn.Module, tokens: Tensor, source: Tensor, masks: dict[str, Any]) -> Any:
    return model(source, tokens, src_key_padding_mask=masks["memory_key_padding_mask"], **masks)


def _of_torch_recurrent(model: Any) -> InputBatch:
    return InputBatch(
        arguments={"tokens": _vectors(model, model.input_size, LENGTH)},
        tokens="tokens",
        batch_dim=int(not model.batch_first),
        causal=not model.bidirectional,
        why_causal="a recurrence in one direction",
        call=lambda model, arguments: model(arguments["tokens"]),
    )


def _of_torch_attention(model: Any) -> InputBatch:
    dim = _rows_dim(model)
    tokens = _vectors(model, model.embed_dim, LENGTH)
    if model.kdim != model.embed_dim or model.vdim != model.embed_dim:
        raise BatchError(
            f"cannot guess a batch for nn.MultiheadAttention with keys of width {model.kdim}: pass --inputs "
            "MODULE:FUNCTION, which returns the tuple (query, key, value)"
        )
    return InputBatch(
        arguments={"tokens": tokens, "keep": _all(_by_row(tokens, dim))},
        tokens="tokens",
        masks=(KEEP,),
        batch_dim=dim,
        causal=False,
        why_causal="called without a mask",
        call=lambda model, arguments: model(*[arguments["tokens"]] * 3, key_padding_mask=~arguments["keep"]),
    )


def _of_embedding(model: Any) -> InputBatch:
    device, _ = _place(model)
    return InputBatch(
        arguments={"tokens": _ids(ROWS, LENGTH, model.num_embeddings, {model.padding_idx}, device)},
        tokens="tokens",
        causal=None,
        call=lambda model, arguments: model(arguments["tokens"]),
    )


TORCH: dict[type[nn.Module], Callable[..., InputBatch]] = {
    nn.Transformer: _of_torch_pair(_call_transformer),
    nn.TransformerEncoder: _of_torch_encoder,
    nn.TransformerEncoderLayer: _of_torch_encoder,
    nn.TransformerDecoder: _of_torch_pair(lambda model, x, source, masks: model(x, source, **masks)),
    nn.TransformerDecoderLayer: _of_torch_pair(lambda model, x, source, masks: model(x, source, **masks)),
    nn.RNNBase: _of_torch_recurrent,
    nn.MultiheadAttention: _of_torch_attention,
    nn.Embedding: _of_embedding,
}

# ---- transformers ----------------------------------------------------------------------------------

SPECIAL = ("pad", "bos", "eos", "sep", "cls", "unk", "mask", "decoder_start", "forced_bos", "forced_eos", "image")


def _of_transformers(model: Any) -> InputBatch:
    """Return a batch for a model of `transformers`, by its main input and its configuration."""
    main = getattr(model, "main_input_name", "input_ids")
    cfg = model.config
    device, dtype = _place(model)
    if main == "pixel_values":
        size = getattr(cfg, "image_size", 224)
        height, width = size if isinstance(size, tuple | list) else (size, size)
        images = torch.randn(ROWS, getattr(cfg, "num_channels", 3), height, width, device=device, dtype=dtype)
        return InputBatch(arguments={main: images}, tokens=main, causal=False, why_causal="it reads images")
    if main != "input_ids" or "input_ids" not in inspect.signature(model.forward).parameters:
        raise BatchError(
            f"cannot guess a batch for {type(model).__name__}, whose main input is {main}: pass --inputs "
            "MODULE:FUNCTION, which returns a dictionary of its arguments by name"
        )
    text = cfg.get_text_config() if hasattr(cfg, "get_text_config") else cfg
    special = {getattr(text, f"{name}_token_id", None) for name in SPECIAL}
    flat = {i for value in special for i in (value if isinstance(value, list) else [value]) if i is not None}
    most = getattr(text, "max_position_embeddings", None)
    tokens = _ids(ROWS, _usable(LENGTH, most), text.vocab_size, flat, device)
    source = _ids(ROWS, _usable(SOURCE_LENGTH, most), text.vocab_size, flat, device)
    return _frame(model, tokens, source, padding_id(model))


def _frame(model: Any, tokens: Tensor, source: Tensor, pad: int | None) -> InputBatch:
    parameters = inspect.signature(model.forward).parameters
    pairs = bool(getattr(model.config, "is_encoder_decoder", False)) and "decoder_input_ids" in parameters
    name = "decoder_input_ids" if pairs else "input_ids"
    arguments: dict[str, Any] = {name: tokens} | ({"use_cache": False} if "use_cache" in parameters else {})
    masks = []
    for mask, of, value in (
        ("attention_mask", "input_ids", source if pairs else tokens),
        ("decoder_attention_mask", "decoder_input_ids", tokens),
    ):
        if mask in parameters and (pairs or of == "input_ids"):
            arguments |= {of: value, mask: torch.ones_like(value)}
            masks.append(Mask(mask, of))
    causal, why = writes_by_configuration(model)
    return InputBatch(
        arguments=arguments,
        tokens=name,
        source="input_ids" if pairs else None,
        masks=tuple(masks),
        labels=tokens.roll(-1, 1) if causal and hasattr(model, "get_output_embeddings") else None,
        causal=causal,
        why_causal=why,
        pad=pad if not masks else None,
    )
