"""Domain errors, and their mapping to problem documents (RFC 9457).

    DomainError
    ├── Invalid               400  well-formed, but not acceptable
    ├── NotAuthenticated      401  no credential
    ├── InvalidCredential     401  an invalid credential
    ├── Forbidden             403  authenticated, but not allowed
    │   └── InsufficientScope      a credential without the scope
    ├── NotFound              404  unknown, deleted, or another user's
    ├── Conflict              409  not possible in the current state
    ├── PreconditionFailed    412  changed since the client read it
    ├── TooLarge              413
    ├── UnsupportedMedia      415
    ├── Unprocessable         422  names the fields and the rules, never the input
    ├── TooManyRequests       429  with Retry-After
    └── Unavailable           503  with Retry-After

Other modules raise these errors or their own subclasses. Clients see no other errors.
"""

import http
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from valence_common.metrics import METHODS

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 10


class DomainError(Exception):
    """An error for the client; `detail` is one sentence without the client's input."""

    status: ClassVar[int]
    detail: ClassVar[str]

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None):
        self.message = detail or self.detail
        self.headers = dict(headers or {})
        super().__init__(self.message)


class Invalid(DomainError):
    """The request is well-formed and not acceptable."""

    status = 400
    detail = "The request is not valid"


class NotAuthenticated(DomainError):
    """No credential was sent."""

    status = 401
    detail = "Not authenticated"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class InvalidCredential(DomainError):
    """Invalid credential; the reason is deliberately not disclosed."""

    status = 401
    detail = "Could not validate credentials"

    def __init__(self, detail: str | None = None):
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class Forbidden(DomainError):
    """The client is authenticated and not allowed to do this."""

    status = 403
    detail = "Not allowed"


class InsufficientScope(Forbidden):
    """The credential is valid and lacks the scope."""

    detail = "The credential lacks the required scope"

    def __init__(self, scope: str):
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        super().__init__(headers={"WWW-Authenticate": challenge})


class NotFound(DomainError):
    """Unknown, deleted, or another user's: the response is the same for all three."""

    status = 404
    detail = "Not found"


class Conflict(DomainError):
    """The request is not possible in the current state."""

    status = 409
    detail = "The request conflicts with the current state"


class PreconditionFailed(DomainError):
    """The resource is no longer in the version that the client named."""

    status = 412
    detail = "The resource has changed"


class TooLarge(DomainError):
    """The body exceeds the route's limit; the rest is not read and the connection closes."""

    status = 413
    detail = "The request body is too large"

    def __init__(self, detail: str | None = None):
        super().__init__(detail, headers={"Connection": "close"})


class UnsupportedMedia(DomainError):
    """The route does not accept the body's media type."""

    status = 415
    detail = "The request body has an unsupported media type"


class FieldError(NamedTuple):
    """A field and the rule that it violates, without the value that was sent."""

    field: str
    rule: str
    message: str


class Unprocessable(DomainError):
    """Fields of the request are invalid."""

    status = 422
    detail = "The request has invalid fields"

    def __init__(self, errors: Iterable[FieldError]):
        super().__init__()
        self.errors = list(errors)


class TooManyRequests(DomainError):
    """A limit is exhausted; `retry_after` is in whole seconds."""

    status = 429
    detail = "Too many requests"

    def __init__(self, retry_after: int, headers: Mapping[str, str] | None = None):
        super().__init__(headers={"Retry-After": str(retry_after), **(headers or {})})


class Unavailable(DomainError):
    """A dependency is down or slow; the client may safely retry."""

    status = 503
    detail = "The service is temporarily unavailable"

    def __init__(self, dependency: str):
        super().__init__(headers={"Retry-After": "2"})
        self.dependency = dependency


class ProblemDocument(BaseModel):
    """The body of every error (RFC 9457), at most 4 KiB."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[dict[str, str]] | None = None


def document(
    connection: HTTPConnection, status: int, detail: str, errors: Iterable[FieldError] = ()
) -> dict[str, Any]:
    """Return a problem document; `instance` is the route's template, never the raw path."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": getattr(connection.scope.get("route"), "path", "/"),
        "request_id": connection.scope.get("state", {}).get("request_id", ""),
    }
    if listed := [e._asdict() for e in list(errors)[:MAX_ERRORS]]:
        body["errors"] = listed
    return body


def problem(
    connection: HTTPConnection,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Iterable[FieldError] = (),
) -> Response:
    """Return a response with a problem document; it also rejects a WebSocket handshake."""
    body = document(connection, status, detail, errors)
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


async def on_domain_error(connection: HTTPConnection, error: Exception) -> Response:
    """Answer a `DomainError`."""
    assert isinstance(error, DomainError)  # noqa: S101 - registered for this class only
    body = to_problem(connection, error)
    return JSONResponse(body, error.status, headers=error.headers, media_type=MEDIA_TYPE)


def to_problem(connection: HTTPConnection, error: DomainError) -> dict[str, Any]:
    """Return a `DomainError` as a problem document; log it if a dependency failed."""
    if isinstance(error, Unavailable):
        structlog.get_logger().warning("unavailable", dependency=error.dependency)
    return document(connection, error.status, error.message, getattr(error, "errors", ()))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an error of the framework: unknown path, wrong method, malformed form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    # The framework's details may quote the request; the standard phrase does not.
    phrase = http.HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names only the methods of the path's first route.
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(request, error.status_code, phrase, headers=headers)


def _methods(request: Request) -> set[str]:
    def serves(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return {method for method in METHODS if serves(method)}


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer a request with invalid fields, without quoting its input."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    return await on_domain_error(request, from_pydantic(error.errors()))


def from_pydantic(errors: Sequence[Mapping[str, Any]], *, within: str = "") -> Unprocessable:
    """Return pydantic's errors without their input; `within` is prepended to each field's path."""
    prefix = (within,) if within else ()
    # The framework repeats an error for each dependency that reads the same field.
    return Unprocessable(
        dict.fromkeys(
            _field_error({**error, "loc": (*prefix, *error["loc"])})
            for error in errors[:MAX_ERRORS]
        )
    )


def _field_error(error: Mapping[str, Any]) -> FieldError:
    loc, rule = error["loc"], error["type"]
    if rule == "extra_forbidden":
        # The unknown field's name is the client's input.
        return FieldError(_path(loc[:-1]), rule, "Unknown field")
    message = error["msg"].removeprefix("Value error, ")
    # A parser's reason may quote the input: "…, found `x` at 0".
    reason = error.get("ctx", {}).get("error")
    return FieldError(_path(loc), rule, message.removesuffix(f", {reason}")[:200])


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)
