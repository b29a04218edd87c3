"""The OpenAPI document: one service's summaries, and the merged document of all services."""

from typing import Any

import pytest
from fastapi import FastAPI

from valence_common.web.openapi import install, merge


def document(path: str, **schemas: Any) -> dict[str, Any]:
    return {"info": {}, "paths": {path: {}}, "components": {"schemas": schemas}}


def merged(*documents: dict[str, Any]) -> dict[str, Any]:
    return merge(list(documents), title="Both", description="One.")


def test_summary_is_the_first_paragraph_of_the_docstring() -> None:
    """A route's docstring gives the summary, without its dot, and the description."""
    app = FastAPI()

    @app.get("/short")
    def short() -> None:
        """Do one thing."""

    @app.get("/long")
    def long() -> None:
        """Do one thing
        well.

        With `this` it fails.

        Second paragraph.
        """

    install(app, api_keys=False)
    operations = {path: item["get"] for path, item in app.openapi()["paths"].items()}
    assert ("Do one thing", None) == _texts(operations["/short"])
    assert ("Do one thing well", "With `this` it fails.\n\nSecond paragraph.") == _texts(
        operations["/long"]
    )


def _texts(operation: dict[str, Any]) -> tuple[str, str | None]:
    return operation["summary"], operation.get("description")


def test_shared_components_are_merged_once() -> None:
    """The merged document has the paths and components of all services."""
    both = merged(document("/a", Problem=1, A=2), document("/b", Problem=1, B=3))
    assert ({"/a": {}, "/b": {}}, {"Both"}) == (both["paths"], {both["info"]["title"]})
    assert {"Problem": 1, "A": 2, "B": 3} == both["components"]["schemas"]


def test_a_path_that_two_services_serve_is_an_error() -> None:
    """The ingress could route it to only one of them."""
    with pytest.raises(ValueError, match="two services serve /a"):
        merged(document("/a"), document("/a"))


def test_a_component_that_two_services_define_differently_is_an_error() -> None:
    """Otherwise a route of one service would be described by the other's schema."""
    with pytest.raises(ValueError, match="two services define Result differently"):
        merged(document("/a", Result=1), document("/b", Result=2))
