"""The OpenAPI description of all endpoints, and a page that shows it without anything from elsewhere."""

import html
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dragoman import __version__
from dragoman.serve.http.bodies import JSON, MULTIPART
from dragoman.serve.http.endpoint import Endpoint
from dragoman.serve.http.problems import STATUSES

REFERENCE = "#/components/schemas/{model}"
TAGS = {
    "native": "Our own API",
    "libretranslate": "LibreTranslate's API",
    "openai": "OpenAI's API",
}
REASONS = {
    400: "A request that cannot be read",
    401: "An API key is missing or unknown",
    403: "Not allowed",
    404: "There is no such thing",
    408: "The request arrived too slowly, or was not done within the deadline that it gave",
    409: "Not done yet",
    413: "Too large, or too many texts",
    415: "A body of another type",
    422: "A request that is not valid",
    429: "Too many requests: wait as long as Retry-After says",
    501: "Not available on this server",
    503: "The server ends: wait as long as Retry-After says",
}
_OF_BODIES = (400, 408, 413, 415, 422)
_OF_KEYS = (401, 429)
_ERRORS: dict[str, dict[str, Any]] = {
    "native": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "status"],
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "status": {"type": "integer"},
                    "field": {"type": "string"},
                    "retry_after": {"type": "number"},
                    "limit": {"type": "integer"},
                    "count": {"type": "integer"},
                },
            }
        },
    },
    "libretranslate": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "openai": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
}


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _entry(endpoint)
    components = {
        "schemas": _schemas(endpoints) | {_error_name(style): schema for style, schema in _ERRORS.items()},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dragoman serve",
            "version": __version__,
            "description": "Translation and language models. Keys are needed only where the server was started with "
            "--keys; then each endpoint but those marked open needs one.",
        },
        "tags": [{"name": name} for name in TAGS.values()],
        "paths": paths,
        "components": components,
    }


def _error_name(style: str) -> str:
    return f"{style}_error"


def _schemas(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    models: dict[type[BaseModel], Any] = {}
    for endpoint in endpoints:
        if endpoint.reads_body:
            models[endpoint.body] = "validation"
        if endpoint.answer is not None:
            models[endpoint.answer] = "serialization"
    _, found = models_json_schema([*models.items()], ref_template=REFERENCE)  # pyright: ignore[reportArgumentType]
    return found.get("$defs", {})


def _entry(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": f"{endpoint.style}_{endpoint.handler.__name__}",
        "tags": [TAGS[endpoint.style]],
        "summary": endpoint.summary,
        "responses": _responses(endpoint),
        "security": [{}] if endpoint.open else [{"key": []}, {}],
    }
    if endpoint.description:
        found["description"] = endpoint.description
    if names := re.findall(r"\{(\w+)\}", endpoint.path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if endpoint.reads_body:
        found["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": _body(endpoint, kind)} for kind in endpoint.reads},
        }
    return found


def _body(endpoint: Endpoint, kind: str) -> dict[str, Any]:
    reference = {"$ref": REFERENCE.format(model=endpoint.body.__name__)}
    if kind != MULTIPART:
        return reference
    schema = endpoint.body.model_json_schema(ref_template=REFERENCE)
    schema["properties"] = {"file": {"type": "string", "format": "binary"}} | schema["properties"]
    schema["required"] = ["file", *schema.get("required", [])]
    return schema


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.answer is None:
        schema: dict[str, Any] = {}
    else:
        schema = {"$ref": REFERENCE.format(model=endpoint.answer.__name__)}
    content = {kind: {"schema": schema if kind == JSON else {"type": "string"}} for kind in endpoint.answers_with}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {str(endpoint.status): {"description": "The answer", "content": content}}
    error = {"content": {JSON: {"schema": {"$ref": REFERENCE.format(model=_error_name(endpoint.style))}}}}
    for status in _error_statuses(endpoint):
        responses[str(status)] = {"description": REASONS[status]} | error
    return responses


def _error_statuses(endpoint: Endpoint) -> list[int]:
    """Return the statuses of errors that an endpoint may answer with, as its API has them."""
    found = {*endpoint.statuses}
    if endpoint.reads_body:
        found |= {*_OF_BODIES}
    if not endpoint.open:
        found |= {*_OF_KEYS}
    if not endpoint.while_draining:
        found.add(503)
    return sorted({STATUSES[endpoint.style].get(status, status) for status in found})


# ---- the page -------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
summary { cursor: pointer; padding: .4rem 0; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid #8886; border-radius: .4rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
.method { display: inline-block; min-width: 3.2rem; font-weight: 600; }
"""


def documentation(endpoints: Sequence[Endpoint]) -> str:
    """Return the page that shows all endpoints."""
    parts = []
    for style, title in TAGS.items():
        own = [endpoint for endpoint in endpoints if endpoint.style == style]
        if own:
            parts.append(f"<h2>{html.escape(title)}</h2>" + "".join(map(_shown, own)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>dragoman serve: APIs</title><style>{_STYLE}</style></head><body><h1>APIs of this server</h1>"
        '<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1). A key goes into the header '
        "<code>Authorization: Bearer KEY</code>. <code>/api/live</code> is a WebSocket that takes the fields of "
        "<code>/api/translate</code> and an <code>id</code>, and answers the newest text.</p>"
        + "".join(parts)
        + "</body></html>"
    )


def _shown(endpoint: Endpoint) -> str:
    body = ""
    if endpoint.reads_body:
        rows = "".join(_row(name, field) for name, field in _fields(endpoint.body))
        types = ", ".join(endpoint.reads)
        body = f"<p>Body: {types}</p><table><tr><th>Field</th><th>Type</th><th>Meaning</th></tr>{rows}</table>"
    text = f"<p>{html.escape(endpoint.description)}</p>" if endpoint.description else ""
    head = f'<span class="method">{endpoint.method}</span> <code>{html.escape(endpoint.path)}</code>'
    return f"<details><summary>{head} {html.escape(endpoint.summary)}</summary>{text}{body}</details>"


@cache
def _fields(body: type[BaseModel]) -> list[tuple[str, dict[str, Any]]]:
    schema = body.model_json_schema()
    required = set(schema.get("required", ()))
    return [(name, field | {"required": name in required}) for name, field in schema["properties"].items()]


def _row(name: str, field: dict[str, Any]) -> str:
    default = "" if field["required"] else " (optional)"
    return (
        f"<tr><td><code>{html.escape(name)}</code>{default}</td><td>{html.escape(_type(field))}</td>"
        f"<td>{html.escape(field.get('description', ''))}</td></tr>"
    )


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one) for one in field["anyOf"] if one.get("type") != "null"))
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "any"))
