"""The document of the whole surface, made of the services' own."""

from typing import Any

import pytest

from valence_common.web.openapi import merge


def document(path: str, **schemas: Any) -> dict[str, Any]:
    return {"info": {}, "paths": {path: {}}, "components": {"schemas": schemas}}


def merged(*documents: dict[str, Any]) -> dict[str, Any]:
    return merge(list(documents), title="Both", description="One.")


def test_what_both_mean_stands_there_once() -> None:
    """Paths and components of all."""
    both = merged(document("/a", Problem=1, A=2), document("/b", Problem=1, B=3))
    assert ({"/a": {}, "/b": {}}, {"Both"}) == (both["paths"], {both["info"]["title"]})
    assert {"Problem": 1, "A": 2, "B": 3} == both["components"]["schemas"]


def test_one_path_of_two_services_is_refused() -> None:
    """The ingress could send it to one of them only."""
    with pytest.raises(ValueError, match="two services serve /a"):
        merged(document("/a"), document("/a"))


def test_one_name_for_two_things_is_refused() -> None:
    """Else a route of one service would be described by the other's schema."""
    with pytest.raises(ValueError, match="two services mean different things by Result"):
        merged(document("/a", Result=1), document("/b", Result=2))
