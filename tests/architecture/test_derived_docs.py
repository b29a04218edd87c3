"""Routes, settings, queues and metrics are documented, and the derived pages are current."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from tools import docs

from support.stack import Stack
from support.waiting import until
from valence_auth import api as auth_api
from valence_common import celery_app
from valence_common.metrics import HttpMetrics
from valence_common.web.access import Access, public
from valence_inference import api as inference_api
from valence_inference.api import service as inference_public

ROOT = Path(__file__).parents[2]

ROUTERS = (
    *auth_api.routers,
    *inference_api.routers,
    inference_public.router,
    inference_public.docs_router,
)
ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
SOCKETS = [r for each in ROUTERS for r in each.routes if isinstance(r, APIWebSocketRoute)]
DECIDING = [*ROUTES, *SOCKETS]
UNVERSIONED = {"/", "/health", "/docs", "/docs/{name}", "/openapi.json"}


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for child in dependant.dependencies:
        yield from _calls(child)


def _name(route: APIRoute | APIWebSocketRoute) -> str:
    return f"{min(getattr(route, 'methods', ['WS']))} {route.path}"


@pytest.mark.parametrize("route", DECIDING, ids=_name)
def test_route_has_decided_its_authentication(route: APIRoute | APIWebSocketRoute) -> None:
    """A route either requires a credential or declares itself public."""
    calls = list(_calls(route.dependant))
    assert 1 == sum(call is public or isinstance(call, Access) for call in calls)


@pytest.mark.parametrize("route", DECIDING, ids=_name)
def test_route_is_versioned_or_known_not_to_be(route: APIRoute | APIWebSocketRoute) -> None:
    """Every route that may change is under /api/v1."""
    assert route.path.startswith("/api/v1/") or route.path in UNVERSIONED


def test_every_route_is_found_by_these_tests() -> None:
    """The routers listed above are those of the applications."""
    documented = {
        (method.upper(), path)
        for path, operations in docs.openapi_document()["paths"].items()
        for method in operations
    }
    walked = {(m, r.path) for r in ROUTES for m in r.methods if r.include_in_schema}
    assert documented == walked
    # OpenAPI cannot describe WebSockets; a page does.
    assert {route.path for route in SOCKETS} == {"/api/v1/sentiment/stream"}
    page = (ROOT / "docs/live.md").read_text("utf-8")
    assert all(f"`{route.path}`" in page for route in SOCKETS)


def test_openapi_document_is_the_codes() -> None:
    """The committed document is the one that `make docs` writes."""
    assert docs.openapi_document() == json.loads(docs.OPENAPI.read_text("utf-8"))


def test_configuration_page_is_the_codes() -> None:
    """Every setting is documented with its default and meaning: run `make docs`."""
    assert docs.configuration_page() == docs.CONFIGURATION.read_text("utf-8")


def test_every_queue_is_consumed(stack: Stack, redis_url: str) -> None:
    """A worker consumes every queue that the code names."""
    named = {v for k, v in vars(celery_app).items() if k.isupper() and k.endswith("QUEUE")}
    celery = Celery(broker=redis_url)

    def consumed() -> set[str]:
        answers = celery.control.inspect(timeout=2).active_queues() or {}
        return {q["name"] for queues in answers.values() for q in queues}

    assert named == until(consumed, timeout=20)


def test_every_metric_is_listed_in_the_architecture() -> None:
    """ARCHITECTURE.md lists every metric of the product, and no other."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    listed = set(re.findall(r"^\| `(valence_\w+)`", page, re.MULTILINE))
    http = HttpMetrics()
    ours = {m.name for m in http.registry.collect() if m.name.startswith("valence_")}
    for name in ("batch-worker/valence_batch_worker", "inference/valence_inference/live"):
        source = (ROOT / f"services/{name}/metrics.py").read_text()
        ours |= set(re.findall(r'"(valence_\w+)"', source))
    assert ours == listed
