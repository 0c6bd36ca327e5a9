"""Files of a Hugging Face folder for ``trust_remote_code``: its code, and the model's description and weights."""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragoman.errors import ConfigError
from dragoman.interchange.remote_code.bundle import bundle
from dragoman.interchange.tensors import write_stream
from dragoman.interchange.vocabulary import Shape
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import ClassificationHead, MaskedLanguageHead, SpansHead, TaggingHead
from dragoman.model.inputs import PatchInput

_HERE = __package__ or ""
MODEL_TYPE = "dragoman"
_FILES = ("configuration_dragoman", "modeling_dragoman")
_NETWORK = "network_dragoman"
_CALLED = ("build", "start", "decode", "encode", "expand", "reorder", "scale", "new_state", "store")
"""Methods of a network that modeling_dragoman.py calls, and those that a network calls of the cache it is given."""
_AUTO = {
    "DragomanForCausalLM": "AutoModelForCausalLM",
    "DragomanForSeq2SeqLM": "AutoModelForSeq2SeqLM",
    "DragomanForMaskedLM": "AutoModelForMaskedLM",
    "DragomanForSequenceClassification": "AutoModelForSequenceClassification",
    "DragomanForImageClassification": "AutoModelForImageClassification",
    "DragomanForTokenClassification": "AutoModelForTokenClassification",
    "DragomanForQuestionAnswering": "AutoModelForQuestionAnswering",
}


def architecture_of(cfg: ModelConfig) -> str:
    """Return the class of modeling_dragoman.py that a model is for."""
    if isinstance(cfg, TwoTowersConfig):
        return "DragomanTowersModel"
    if not isinstance(cfg, EncoderConfig):
        return "DragomanForSeq2SeqLM" if cfg.translates else "DragomanForCausalLM"
    match cfg.head:
        case MaskedLanguageHead():
            return "DragomanForMaskedLM"
        case ClassificationHead() if isinstance(cfg.inputs, PatchInput):
            return "DragomanForImageClassification"
        case ClassificationHead():
            return "DragomanForSequenceClassification"
        case TaggingHead():
            return "DragomanForTokenClassification"
        case SpansHead():
            return "DragomanForQuestionAnswering"
    return "DragomanModel"


def describe_network(cfg: ModelConfig) -> dict[str, Any]:
    """Return config.json of a model, without what its tokenizer adds."""
    name, tied = architecture_of(cfg), any(_tied(cfg))
    classes = {"AutoConfig": "configuration_dragoman.DragomanConfig", "AutoModel": f"modeling_dragoman.{name}"}
    if name in _AUTO:
        classes |= {_AUTO[name]: f"modeling_dragoman.{name}"}
    return {
        "architectures": [name],
        "model_type": MODEL_TYPE,
        "auto_map": classes,
        "is_encoder_decoder": name == "DragomanForSeq2SeqLM",
        "tie_word_embeddings": tied,
        "network": _with_types(cfg),
    }


def _tied(cfg: Any) -> Iterator[bool]:
    """Yield whether weights are tied, for each part that may tie some."""
    for part in _parts(cfg):
        yield getattr(part, "tying", "none") != "none" or bool(getattr(part, "tied", False))
    yield isinstance(cfg, TwoTowersConfig) and cfg.second is None


def _with_types(part: Any) -> Any:
    if dataclasses.is_dataclass(part):
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.name != "kind"}
        return {"type": type(part).__name__} | {name: _with_types(value) for name, value in fields.items()}
    return list(map(_with_types, part)) if isinstance(part, tuple | list) else part


def _parts(part: Any) -> Iterator[Any]:
    """Yield a configuration and all configurations in it."""
    if dataclasses.is_dataclass(part):
        yield part
        for field in dataclasses.fields(part):
            yield from _parts(getattr(part, field.name))
    elif isinstance(part, tuple):
        for entry in part:
            yield from _parts(entry)


def write_network(path: Path, cfg: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write the weights, tied ones once, and the buffers that are computed when a model is built."""
    with torch.device("cpu"):
        model = cfg.build()
    values = {name: weights.get(name, value) for name, value in (*model.named_parameters(), *model.named_buffers())}
    listed = [(f"network.{name}", tuple(value.shape), value.dtype) for name, value in values.items()]
    write_stream(path, listed, lambda name: values[name.removeprefix("network.")].detach(), {"format": "pt"})


def shape_with_code(cfg: ModelConfig) -> Shape:
    """Return the shape of a model, whatever its kind."""
    if isinstance(cfg, EncoderConfig | TwoTowersConfig):
        return "encoder"
    return "encoder-decoder" if cfg.translates else "decoder"


def write_code(folder: Path, cfg: ModelConfig) -> None:
    """Write the three files of code.

    The network's file is named after a digest of all three, and the two others name it. Elsewhere transformers would
    run the code of one folder for another of the same name: it keeps a module for each name, and a class of models for
    each class of configurations.

    Raises:
        ConfigError: the model needs a part that cannot leave this package; the message names it.
    """
    types = list(dict.fromkeys(type(part) for part in _parts(cfg)))
    facade = importlib.import_module(f"{_HERE}.{_NETWORK}")
    try:
        imports, code = bundle([*types, *(getattr(facade, name) for name in facade.__all__)], _CALLED)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    parts = "".join(f"    {part.__name__}.__name__: {part.__name__},\n" for part in types)
    opening = (
        '"""The network of this folder: the classes of Dragoman that it consists of. B batch, T length, D width."""'
    )
    text = "\n".join([opening, "", "from __future__ import annotations", "", *imports, "", "", code])
    text += f"\n\nPARTS.update({{\n{parts}}})\n"
    texts = {name: _with_relative_imports(_source(name)) for name in _FILES} | {_NETWORK: text}
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:8]
    for name, content in texts.items():
        renamed = [one.replace(_NETWORK, f"{_NETWORK}_{digest}") for one in (name, content)]
        (folder / f"{renamed[0]}.py").write_text(renamed[1], encoding="utf-8")


def _source(name: str) -> str:
    spec = importlib.util.find_spec(f"{_HERE}.{name}")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _with_relative_imports(text: str) -> str:
    return text.replace(f"from {_HERE}.", "from .")
