"""The OpenAPI document of a service: FastAPI's, where every error is a problem document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from valence_common.problems import MEDIA_TYPE, ProblemDocument

_PROBLEM = {
    "description": "Problem document (RFC 9457)",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` speak of problem documents."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                )
            )
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
            responses["default"] = _PROBLEM
    return schema


def merge(documents: list[dict[str, Any]], *, title: str, description: str) -> dict[str, Any]:
    """One document for the whole surface out of the services' own; no path may stand in two."""
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
            merged["components"].setdefault(kind, {}).update(components)
    return merged
