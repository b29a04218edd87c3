"""Routes outside the versioned API: the root, the health check and the documentation."""

import functools
import importlib.resources

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, JSONResponse

from valence_common import __version__
from valence_common.problems import NotFound
from valence_common.web.access import Public
from valence_common.web.app import HealthDep
from valence_inference.schemas import service as schemas

router = APIRouter(dependencies=[Public])
docs_router = APIRouter(dependencies=[Public], include_in_schema=False)

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Valence API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

_START = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, displayRequestDuration: true,
});
"""

_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)


@router.get("/", tags=["service"])
async def root() -> schemas.Root:
    """Get the name and version of the service."""
    return schemas.Root(
        message="Valence: text sentiment as a service", version=__version__, docs="/docs"
    )


@router.get(
    "/health",
    tags=["service"],
    response_model=schemas.Health,
    responses={503: {"model": schemas.Health, "description": "The database is down"}},
)
async def health(health: HealthDep) -> Response:
    """Check the health of the service.

    Without Redis the service is degraded but works; without Postgres it is unhealthy (503).
    """
    up = await health.check()
    body = schemas.Health(
        status="unhealthy" if not up["postgres"] else "healthy" if up["redis"] else "degraded",
        database="ok" if up["postgres"] else "down",
        redis="ok" if up["redis"] else "down",
    )
    if up["postgres"]:
        return JSONResponse(body.model_dump())
    return JSONResponse(body.model_dump(), 503, headers={"Retry-After": "2"})


@functools.cache
def _asset(package: str, *path: str) -> bytes:
    """Return a file of a package; it is read once and shared by all responses."""
    return importlib.resources.files(package).joinpath(*path).read_bytes()


@docs_router.get("/openapi.json")
async def openapi_json() -> Response:
    """Get the OpenAPI document of all services, which `make docs` writes."""
    return Response(_asset("valence_inference", "openapi.json"), media_type="application/json")


@docs_router.get("/docs")
async def docs() -> Response:
    """Get the interactive documentation."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _DOCS_POLICY})


@docs_router.get("/docs/{name}")
async def docs_asset(name: str) -> Response:
    """Get a file of the documentation page; the page loads nothing from other hosts."""
    if name == "start.js":
        return Response(_START, media_type="text/javascript")
    if name not in _ASSETS:
        raise NotFound
    content = _asset("fastapi_swagger", "resources", name)
    headers = {"Cache-Control": "public, max-age=86400"}
    return Response(content, media_type=_ASSETS[name], headers=headers)
