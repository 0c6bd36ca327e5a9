"""Families of checkpoints: the names of their weights, and their config.json as our configuration and back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.config import kind_of, to_dict
from dragoman.errors import ConfigError
from dragoman.interchange.names import NameTable
from dragoman.interchange.vocabulary import TABLES, Shape
from dragoman.model.attention import AttentionConfig, resolve_kv_heads
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.mamba import Mamba
from dragoman.model.mlp import Activation
from dragoman.model.positions.rotary import LinearScaling, Llama3Scaling, NoScaling, Rotary, Yarn
from dragoman.model.tower import Mixer
from dragoman.model.transformer import TransformerConfig


class HubConfig:
    """A config.json, whose errors name its path."""

    def __init__(self, content: dict[str, Any], where: Path | str = "config.json", read: set[str] | None = None):
        self.content, self.where = content, where
        self.read: set[str] = set() if read is None else read
        """Names of the fields that have been read."""

    def changed(self, **fields: Any) -> "HubConfig":
        """Return a copy with other values; fields read from it count as read here."""
        return HubConfig(self.content | fields, self.where, self.read)

    def __getitem__(self, name: str) -> Any:
        """Return a field; raises ConfigError where it is missing."""
        self.read.add(name)
        if self.content.get(name) is None:
            raise ConfigError(f"{self.where}: {name}: must be given")
        return self.content[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or ``default`` where it is missing or null."""
        self.read.add(name)
        value = self.content.get(name)
        return default if value is None else value

    def only(self, name: str, *known: Any, default: Any = None) -> Any:
        """Return a field that must be one of ``known``; the first where it is missing.

        Raises:
            ConfigError: another value.
        """
        value = self.get(name, known[0] if default is None else default)
        if value not in known:
            settings = " or ".join(map(repr, known))
            raise ConfigError(f"{self.where}: {name}: {value!r} is not supported here, only {settings}")
        return value

    def activation(self, name: str) -> Activation:
        """Return our name of an activation; raises ConfigError where there is none."""
        value = self[name]
        if value not in ACTIVATIONS:
            raise ConfigError(f"{self.where}: {name}: no {value!r} here; known: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def rotary(self, kind: str | None = None, theta: float = 10_000.0) -> Rotary:
        """Return the rotary positions of ``rope_parameters`` (all layers' or one ``kind``'s) or ``rope_scaling``."""
        settings, older, old_theta = (
            self.get("rope_parameters", {}),
            self.get("rope_scaling", {}),
            self.get("rope_theta"),
        )
        settings = settings.get(kind, settings) if kind else settings
        settings = settings or {"rope_theta": old_theta or theta} | older
        where = f"{self.where}: {'rope_parameters' if 'rope_parameters' in self.content else 'rope_scaling'}"
        if (part := settings.get("partial_rotary_factor", self.get("partial_rotary_factor", 1.0))) != 1.0:
            raise ConfigError(f"{self.where}: partial_rotary_factor: {part} is not supported here, only 1.0")
        scaling = _scaling(settings, where, self.get("max_position_embeddings"))
        return Rotary(theta=float(settings.get("rope_theta", self.get("rope_theta", theta))), scaling=scaling)


def class_names(content: Mapping[str, Any]) -> dict[str, str] | list[str]:
    """Return the names of the classes in a config.json; none where it has only usual ones, and of another number."""
    names, stated = content.get("id2label") or {}, content.get("num_labels")
    usual = isinstance(names, dict) and all(name == f"LABEL_{i}" for i, name in names.items())
    return {} if usual and stated not in (None, len(names)) else names


def class_count(given: HubConfig) -> int:
    """Return the number of classes: of their names, or ``num_labels``, or 2."""
    given.read |= {"id2label", "num_labels"}
    return len(class_names(given.content)) or given.get("num_labels", 2)


ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "silu": "silu",
    "swish": "silu",
}


def their_activation(ours: Activation) -> str:
    """Return the name that transformers has for an activation of ours.

    Raises:
        ConfigError: it has none.
    """
    for theirs, known in ACTIVATIONS.items():
        if known == ours:
            return theirs
    raise ConfigError(f"activation: {ours} has no name in transformers")


_ROPE_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "original_max_position_embeddings", "high_freq_factor", "low_freq_factor"),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
}
_ROPE_NEEDS = {
    "linear": ("factor",),
    "llama3": ("factor", "high_freq_factor", "low_freq_factor"),
    "yarn": ("factor",),
}


def _scaling(settings: Mapping[str, Any], where: str, longest: int | None) -> Any:
    kind = settings.get("rope_type", settings.get("type", "default"))
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_ROPE_FIELDS.get(kind, ())}
    if unread := sorted(
        name for name in settings if settings[name] is not None and name not in known and kind in _ROPE_FIELDS
    ):
        raise ConfigError(f"{where}: {unread[0]} of {kind} is not supported")
    trained = settings.get("original_max_position_embeddings", longest)
    for name in (name for name in known if name in settings or name in _ROPE_NEEDS.get(kind, ())):
        if name not in ("rope_type", "type") and type(settings.get(name)) not in (int, float):
            raise ConfigError(f"{where}: {name}: expected a number for {kind}, got {settings.get(name)!r}")
    match kind:
        case "default":
            return NoScaling()
        case "linear":
            return LinearScaling(factor=float(settings["factor"]))
        case "llama3":
            return Llama3Scaling(
                factor=float(settings["factor"]),
                trained=trained,
                fast=float(settings["high_freq_factor"]),
                slow=float(settings["low_freq_factor"]),
            )
        case "yarn":
            fast, slow = float(settings.get("beta_fast") or 32), float(settings.get("beta_slow") or 1)
            return Yarn(factor=float(settings["factor"]), trained=trained, fast=fast, slow=slow)
    raise ConfigError(f"{where}: rope_type {kind!r} is not supported; known: default, linear, llama3, yarn")


def their_rotary(rotary: Any) -> dict[str, Any]:
    """Return ``rope_parameters`` as transformers writes them, where it has these positions."""
    theta = {"rope_theta": getattr(rotary, "theta", 10_000.0)}
    match getattr(rotary, "scaling", None):
        case LinearScaling(factor=factor):
            return theta | {"rope_type": "linear", "factor": factor}
        case Llama3Scaling(factor=factor, trained=trained, fast=fast, slow=slow):
            return theta | {
                "rope_type": "llama3",
                "factor": factor,
                "original_max_position_embeddings": trained,
                "high_freq_factor": fast,
                "low_freq_factor": slow,
            }
        case Yarn(factor=factor, trained=trained, fast=fast, slow=slow):
            return theta | {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": trained,
                "beta_fast": fast,
                "beta_slow": slow,
            }
    return theta | {"rope_type": "default"}


def shape_of(cfg: ModelConfig) -> Shape | None:
    """Return the shape of a model; None where no family here has it."""
    match cfg:
        case TransformerConfig(encoder=None):
            return "decoder"
        case TransformerConfig():
            return "encoder-decoder"
        case EncoderConfig():
            return "encoder"
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
    config: Callable[[HubConfig], TransformerConfig | EncoderConfig]
    """Returns our configuration; raises ConfigError for what we cannot express."""
    describe: Callable[[Any], dict[str, Any]]
    """Returns config.json for a configuration of ours. Omissions are found when it is read back."""
    prefix: str = ""
    """Prefix of their names that some of their files omit."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names that their files may use for a tensor."""
    shape: Shape = "decoder"
    tables: Callable[[Any], frozenset[str]] = lambda cfg: TABLES
    """Returns our tensors with a row for each entry of the vocabulary; none where there is no vocabulary."""
    mixers: tuple[type, ...] = (AttentionConfig,)
    """Kinds of mixers that its layers may have."""


# ---- can a family express a configuration? ----------------------------------------------------------

_NO_MATTER = frozenset({"dropout", "init", "vocab", "source_vocab", "suppressed", "pad"})


def obstacle(family: Family, cfg: TransformerConfig | EncoderConfig) -> tuple[str, Any, Any] | None:
    """Return the first path where ``cfg`` and its description in this family differ, with both values.

    Return None if the family expresses all of ``cfg``.
    """
    for path, mixer in mixers(cfg):
        if not isinstance(mixer, family.mixers):
            return path, kind_of(type(mixer)), " or ".join(map(kind_of, family.mixers))
    try:
        again = family.config(HubConfig(family.describe(cfg)))
    except ConfigError as error:
        return "model", str(error), family.name
    ours, theirs = dict(_leaves(_plain(cfg, cfg.dim), "model")), dict(_leaves(_plain(again, again.dim), "model"))
    for path in sorted(ours.keys() | theirs.keys(), key=lambda p: (p.count("."), p)):
        if ours.get(path) != theirs.get(path):
            return path, ours.get(path), theirs.get(path)
    return None


def mixers(cfg: TransformerConfig | EncoderConfig) -> Iterator[tuple[str, Mixer]]:
    """List every mixer with its path."""
    both = isinstance(cfg, TransformerConfig)
    towers = {"encoder": cfg.encoder, "decoder": cfg.decoder} if both else {"tower": cfg.blocks}
    for name, tower in towers.items():
        for i, block in enumerate(tower.pattern if tower else ()):
            yield f"model.{name}.pattern.{i}.mixer", block.mixer


def has_mixers(family: Family, cfg: TransformerConfig | EncoderConfig) -> bool:
    """Return whether a family has layers for every mixer of a model."""
    return all(isinstance(mixer, family.mixers) for _, mixer in mixers(cfg))


def alike(a: TransformerConfig | EncoderConfig, b: TransformerConfig | EncoderConfig) -> bool:
    """Return whether models of these configurations compute the same, except for the size of the vocabulary."""
    return _plain(a, a.dim) == _plain(b, b.dim)


def _plain(value: Any, dim: int) -> Any:
    """Return plain data without what makes no difference, and with defaults filled in."""
    if not isinstance(value, dict):
        value = to_dict(value)
    plain = {k: v for k, v in value.items() if k not in _NO_MATTER}
    for k, v in plain.items():
        plain[k] = _plain(v, dim) if isinstance(v, dict) else v
    if "tying" in plain and plain["encoder"] is None:
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
        if scorer["kind"] == "dot":
            plain["scorer"] = {"kind": "scaled_dot", "scale": 1.0}
    if plain.get("kind") == "mamba":
        plain["rank"] = Mamba(rank=plain["rank"]).step_rank(dim)
    return plain


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}")
    else:
        yield path, value
