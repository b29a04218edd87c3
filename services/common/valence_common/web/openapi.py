"""The OpenAPI document of a service: FastAPI's, where every error is a problem document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from valence_common.problems import MEDIA_TYPE, ProblemDocument

_KEY_SCHEME = "APIKeyHeader"  # FastAPI's name for it, from its class
_PROBLEM = {
    "description": "Problem document (RFC 9457)",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}


def install(app: FastAPI, *, api_keys: bool) -> None:
    """Make `app.openapi()` describe errors as problem documents, and API keys where accepted."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            if not api_keys:
                _forget_keys(schema)
            app.openapi_schema = _with_problems(schema)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way


def _with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    components["ProblemDocument"] = ProblemDocument.model_json_schema()
    for operations in schema["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            for content in [c for r in responses.values() for c in r.get("content", {}).values()]:
                # FastAPI says "string" of what is streamed, beside the model that the route names.
                if "$ref" in content.get("schema", {}):
                    content["schema"].pop("type", None)
            responses["default"] = _PROBLEM
    return schema


def _forget_keys(schema: dict[str, Any]) -> None:
    """The gate is one for all services; this one takes no API keys."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "security" in operation:
                operation["security"] = [
                    way for way in operation["security"] if _KEY_SCHEME not in way
                ]


def merge(documents: list[dict[str, Any]], *, title: str, description: str) -> dict[str, Any]:
    """One document for the whole surface out of the services' own; no path may stand in two.

    What both call the same must be the same.
    """
    merged: dict[str, Any] = {
        **documents[0],
        "info": {**documents[0]["info"], "title": title, "description": description},
        "paths": {},
        "components": {},
    }
    for document in documents:
        if both := merged["paths"].keys() & document["paths"].keys():
            raise ValueError(f"two services serve {', '.join(sorted(both))}")
        merged["paths"].update(document["paths"])
        for kind, components in document.get("components", {}).items():
            known = merged["components"].setdefault(kind, {})
            for name, component in components.items():
                if known.setdefault(name, component) != component:
                    raise ValueError(f"two services mean different things by {name}")
    return merged
