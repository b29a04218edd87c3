"""The OpenAPI document of a service: FastAPI's, with our summaries and problem documents."""

from collections.abc import Iterator
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
    """Replace `app.openapi`: summaries come from docstrings, errors are problem documents.

    Without `api_keys` the document does not offer them as a credential.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            _add_summaries(schema)
            _add_problems(schema)
            if not api_keys:
                _remove_api_keys(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way


def _operations(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in schema["paths"].values():
        yield from operations.values()


def _add_summaries(schema: dict[str, Any]) -> None:
    """Split each route's docstring: the first paragraph is the summary, the rest the description.

    FastAPI would use the name of the function as the summary.
    """
    for operation in _operations(schema):
        summary, _, description = operation.pop("description", "").partition("\n\n")
        operation["summary"] = " ".join(summary.split()).removesuffix(".")
        if description:
            operation["description"] = description


def _add_problems(schema: dict[str, Any]) -> None:
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    components["ProblemDocument"] = ProblemDocument.model_json_schema()
    for operation in _operations(schema):
        responses = operation["responses"]
        responses.pop("422", None)
        for content in [c for r in responses.values() for c in r.get("content", {}).values()]:
            # For a streamed response FastAPI adds the type "string" to the route's own model.
            if "$ref" in content.get("schema", {}):
                content["schema"].pop("type", None)
        responses["default"] = _PROBLEM


def _remove_api_keys(schema: dict[str, Any]) -> None:
    """Remove the API key scheme: the dependency documents it, and this service accepts none."""
    for operation in _operations(schema):
        if "security" in operation:
            operation["security"] = [
                scheme for scheme in operation["security"] if _KEY_SCHEME not in scheme
            ]


def merge(documents: list[dict[str, Any]], *, title: str, description: str) -> dict[str, Any]:
    """Merge the services' documents into one.

    Raise `ValueError` when two services share a path, or define one component differently.
    """
    merged: dict[str, Any] = {
        **documents[0],
        "info": {**documents[0]["info"], "title": title, "description": description},
        "paths": {},
        "components": {},
    }
    for document in documents:
        if shared := merged["paths"].keys() & document["paths"].keys():
            raise ValueError(f"two services serve {', '.join(sorted(shared))}")
        merged["paths"].update(document["paths"])
        for kind, components in document.get("components", {}).items():
            target = merged["components"].setdefault(kind, {})
            for name, component in components.items():
                if target.setdefault(name, component) != component:
                    raise ValueError(f"two services define {name} differently")
    return merged
