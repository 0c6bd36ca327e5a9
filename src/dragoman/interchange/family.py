"""Families of checkpoints: the names of their weights, and their config.json as our configuration and back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dragoman.config import kind_of, to_dict
from dragoman.errors import ConfigError
from dragoman.interchange.hub_config import ACTIVATIONS, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.interchange.vocabulary import TABLES, Shape
from dragoman.model.attention import AttentionConfig, resolve_kv_heads
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import SentenceHead
from dragoman.model.mamba import Mamba
from dragoman.model.mlp import Activation
from dragoman.model.tower import Mixer
from dragoman.model.transformer import TransformerConfig


def class_names(content: Mapping[str, Any]) -> dict[str, str] | list[str]:
    """Return the names of the classes in a config.json; none where it has only usual ones, and of another number."""
    names, stated = content.get("id2label") or {}, content.get("num_labels")
    usual = isinstance(names, dict) and all(name == f"LABEL_{i}" for i, name in names.items())
    return {} if usual and stated not in (None, len(names)) else names


def class_count(given: HubConfig) -> int:
    """Return the number of classes: of their names, or ``num_labels``, or 2."""
    given.read |= {"id2label", "num_labels"}
    return len(class_names(given.content)) or given.get("num_labels", 2)


def their_activation(ours: Activation) -> str:
    """Return the name that transformers has for an activation of ours.

    Raises:
        ConfigError: it has none.
    """
    for theirs, known in ACTIVATIONS.items():
        if known == ours:
            return theirs
    raise ConfigError(f"activation: {ours} has no name in transformers")


def shape_of(cfg: ModelConfig) -> Shape | None:
    """Return the shape of a model; None where no family here has it."""
    match cfg:
        case TransformerConfig(encoder=None):
            return "decoder"
        case TransformerConfig():
            return "encoder-decoder"
        case EncoderConfig():
            return "encoder"
        case TwoTowersConfig():
            return "towers"
    return None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of checkpoints."""

    name: str
    """Common name, and that of its file."""
    architectures: tuple[str, ...]
    """Values of ``architectures`` in config.json that name the family; the first is the one we write."""
    model_type: str
    table: Callable[[Any], NameTable]
    """Returns their names and ours, for a configuration of ours."""
    config: Callable[[HubConfig], "Expressible"]
    """Returns our configuration; raises ConfigError for what we cannot express."""
    describe: Callable[[Any], dict[str, Any]]
    """Returns config.json for a configuration of ours. Omissions are found when it is read back."""
    prefix: str = ""
    """Prefix of their names that some of their files omit."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names that their files may use for a tensor."""
    within: tuple[str, ...] = ()
    """Prefixes of their names in files of a larger model, of which this one is a part."""
    shape: Shape = "decoder"
    tables: Callable[[Any], frozenset[str]] = lambda cfg: TABLES
    """Returns our tensors with a row for each entry of the vocabulary; none where there is no vocabulary."""
    vector: SentenceHead | None = None
    """Head that gives the one vector of an input, for models without a head of their own."""
    resamples: bool = False
    """True where images of another size than config.json names are read, with resampled positions."""
    zeros: str | None = None
    """Pattern of the names of our tensors that their files have not, since they change nothing: zeros where they are
    imported. A bias of keys is one: it adds the same to all scores of a query."""
    obeyed: tuple[str, ...] = ()
    """Settings of generation that its models obey, besides those that models of its shape do."""
    mixers: tuple[type, ...] = (AttentionConfig,)
    """Kinds of mixers that its layers may have."""


# ---- can a family express a configuration? ----------------------------------------------------------

Expressible = TransformerConfig | EncoderConfig | TwoTowersConfig
"""Kinds of models that some family has."""
WHOLE = "model"
"""Path of the model."""


class Obstacle(NamedTuple):
    """A setting, or a part as a whole, that a family cannot express."""

    path: str
    ours: Any
    """Its value, or the kind of the part."""
    theirs: Any
    """The same of the family."""
    settings: int = 1
    """Number of settings of the part."""


_NO_MATTER = frozenset({"dropout", "init", "vocab", "source_vocab", "pad", "preprocessing", "temperature"})


def obstacles(family: Family, cfg: Expressible, stated: Mapping[str, Any] | None = None) -> Iterator[Obstacle]:
    """Yield where ``cfg`` and its description in this family differ: nothing if the family expresses all of ``cfg``.

    ``stated`` are fields of config.json that something else than the configuration decides, such as the tokenizer.
    Parts of different kinds differ as a whole. The path ``model`` comes with the reason why there is no description.
    """
    for path, mixer in mixers(cfg):
        if not isinstance(mixer, family.mixers):
            yield Obstacle(path, kind_of(type(mixer)), " or ".join(map(kind_of, family.mixers)))
            return
    try:
        again = family.config(HubConfig(family.describe(cfg) | dict(stated or {})))
    except ConfigError as error:
        yield Obstacle(WHOLE, str(error), family.name)
        return
    yield from sorted(
        _differences(_plain(cfg), _plain(again), WHOLE), key=lambda found: (found[0].count("."), found[0])
    )


def mixers(cfg: Expressible) -> Iterator[tuple[str, Mixer]]:
    """List every mixer with its path."""
    match cfg:
        case TransformerConfig():
            towers = {"encoder": cfg.encoder, "decoder": cfg.decoder}
        case EncoderConfig():
            towers = {"tower": cfg.blocks}
        case TwoTowersConfig():
            towers = {"first.tower": cfg.first.blocks, "second.tower": cfg.second and cfg.second.blocks}
    for name, tower in towers.items():
        for i, block in enumerate(tower.pattern if tower else ()):
            yield f"model.{name}.pattern.{i}.mixer", block.mixer


def has_mixers(family: Family, cfg: Expressible) -> bool:
    """Return whether a family has layers for every mixer of a model."""
    return all(isinstance(mixer, family.mixers) for _, mixer in mixers(cfg))


def alike(a: Expressible, b: Expressible) -> bool:
    """Return whether models of these configurations compute the same, except for the size of the vocabulary."""
    return _plain(a) == _plain(b)


def _plain(value: Any, dim: int = 0) -> Any:
    """Return plain data without what makes no difference, and with defaults filled in."""
    if not isinstance(value, dict):
        value = to_dict(value)
    plain = {k: v for k, v in value.items() if k not in _NO_MATTER}
    dim = plain.get("dim", dim)
    for k, v in plain.items():
        plain[k] = _plain(v, dim) if isinstance(v, dict) else v
    if "tying" in plain and (plain["encoder"] is None or plain["source"] is not None):
        plain["tying"] = {"all": "target", "inputs": "none"}.get(plain["tying"], plain["tying"])
    if "pattern" in plain:
        blocks = [_plain(block, dim) for block in plain["pattern"]]
        plain["pattern"] = {str(i): blocks[i % len(blocks)] for i in range(plain["depth"])}
    if plain.get("kind") == "attention":
        plain["kv_heads"] = resolve_kv_heads(plain["kv_heads"], plain["heads"])
        plain["head_dim"] = plain["head_dim"] or dim // plain["heads"]
        plain["out_bias"] = plain["bias"] if plain["out_bias"] is None else plain["out_bias"]
        scorer = plain["scorer"]
        if "scale" in scorer:
            scorer["scale"] = round(scorer["scale"] or plain["head_dim"] ** -0.5, 9)
            if scorer["kind"] == "scaled_dot" and scorer["scale"] == 1.0:
                plain["scorer"] = {"kind": "dot"}
    if plain.get("kind") == "mamba":
        plain["rank"] = Mamba(rank=plain["rank"]).step_rank(dim)
    return plain


def _differences(ours: Any, theirs: Any, path: str) -> Iterator[Obstacle]:
    if ours == theirs:
        return
    kinds = [value.get("kind") if isinstance(value, dict) else None for value in (ours, theirs)]
    if isinstance(ours, dict) and isinstance(theirs, dict) and kinds[0] == kinds[1]:
        for key in ours.keys() | theirs.keys():
            yield from _differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    else:
        yield Obstacle(path, kinds[0] or ours, kinds[1] or theirs, _settings(ours))


def _settings(value: Any) -> int:
    """Return the number of settings of a part, those of its parts included."""
    return sum(map(_settings, value.values())) if isinstance(value, dict) else 1
