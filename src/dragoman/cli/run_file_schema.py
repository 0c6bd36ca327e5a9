"""The JSON schema of run files: the configuration of a run, of which a preset or an earlier run may give any part.

Mappings of a run file are laid over those of its preset, so any of their settings may be left out, their ``kind``
included. Entries of lists replace the preset's whole, so these are complete.
"""

from typing import Any

from dragoman.config import json_schema
from dragoman.presets import PRESETS
from dragoman.train.recipe import RunConfig

Schema = dict[str, Any]

_DEFINITIONS = "#/$defs/"
_PARTIAL = "Partial"


def run_file_schema() -> Schema:
    """Return the JSON schema of a run file."""
    whole = json_schema(RunConfig)
    definitions = whole.pop("$defs")
    partial = {f"{_PARTIAL}{name}": _partial(definition) for name, definition in definitions.items()}
    schema = _partial(whole)
    schema["properties"] = {"preset": _preset()} | schema["properties"]
    return schema | {"$defs": _reachable(schema, definitions | partial)}


def _preset() -> Schema:
    names = [
        {"const": name, "description": " ".join((preset.__doc__ or "").split())} for name, preset in PRESETS.items()
    ]
    return {"oneOf": names, "description": "Model, tokenizer and recipe that this file is laid over."}


def _partial(node: Any) -> Any:
    """Return a schema that also accepts a mapping of which some settings are missing."""
    if not isinstance(node, dict):
        return node
    if "discriminator" in node:
        return _partial_choice(node)
    if "$ref" in node:
        return node | {"$ref": _partial_reference(node["$ref"])}
    changed = {key: value for key, value in node.items() if key != "required"}
    if "properties" in node:
        changed["properties"] = {name: _partial(value) for name, value in node["properties"].items()}
    if "anyOf" in node:
        changed["anyOf"] = [_partial(value) for value in node["anyOf"]]
    return changed


def _partial_choice(node: Schema) -> Schema:
    """Return the schema of a choice: by its kind, or without one, as settings of whichever kind the preset has."""
    kinds = [_partial(kind) for kind in node["oneOf"]]
    mapping = {kind: _partial_reference(path) for kind, path in node["discriminator"]["mapping"].items()}
    told = node | {"oneOf": kinds, "discriminator": node["discriminator"] | {"mapping": mapping}}
    untold = {"type": "object", "not": {"required": ["kind"]}, "anyOf": kinds}
    return {"anyOf": [told, untold]}


def _partial_reference(path: str) -> str:
    return path.replace(_DEFINITIONS, _DEFINITIONS + _PARTIAL)


def _reachable(node: Any, definitions: Schema) -> Schema:
    """Return the definitions that ``node`` refers to, directly or through others."""
    found: Schema = {}
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            pending.extend(node.values())
            name = str(node.get("$ref", "")).removeprefix(_DEFINITIONS)
            if name in definitions and name not in found:
                found[name] = definitions[name]
                pending.append(definitions[name])
    return dict(sorted(found.items()))
