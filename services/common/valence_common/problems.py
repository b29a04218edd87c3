"""Errors inside, problem documents (RFC 9457) outside: the one mapping between them.

    DomainError
    ├── Invalid               400  understood, but refused
    ├── NotAuthenticated      401  no credential
    ├── InvalidCredential     401  a credential, and it is not good
    ├── Forbidden             403  known, and not allowed
    │   └── InsufficientScope      a credential for other things
    ├── NotFound              404  unknown, or somebody else's
    ├── Conflict              409  against the state that things are in
    ├── PreconditionFailed    412  against what the client knows of it
    ├── TooLarge              413
    ├── UnsupportedMedia      415
    ├── Unprocessable         422  names the fields and the rules, never the input
    ├── TooManyRequests       429  with Retry-After
    └── Unavailable           503  with Retry-After

Noun files raise these or their own children of these; nothing else leaves a service.
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
    """Something the caller should hear of: `detail` is one sentence without their input."""

    status: ClassVar[int]
    detail: ClassVar[str]

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None):
        self.message = detail or self.detail
        self.headers = dict(headers or {})
        super().__init__(self.message)


class Invalid(DomainError):
    """The request was understood and is refused as it stands."""

    status = 400
    detail = "The request is not valid"


class NotAuthenticated(DomainError):
    """No credential was sent."""

    status = 401
    detail = "Not authenticated"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class InvalidCredential(DomainError):
    """A credential was sent and it is not good; why is nobody's business."""

    status = 401
    detail = "Could not validate credentials"

    def __init__(self, detail: str | None = None):
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class Forbidden(DomainError):
    """Who asks is known, and may not."""

    status = 403
    detail = "Not allowed"


class InsufficientScope(Forbidden):
    """The credential is good, but for other things."""

    detail = "The credential lacks the scope for this"

    def __init__(self, scope: str):
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        super().__init__(headers={"WWW-Authenticate": challenge})


class NotFound(DomainError):
    """Unknown, deleted or another user's: all three answer alike."""

    status = 404
    detail = "Not found"


class Conflict(DomainError):
    """The request cannot be done in the state that things are in."""

    status = 409
    detail = "The request conflicts with the current state"


class PreconditionFailed(DomainError):
    """It is not any more what the client said that it must be."""

    status = 412
    detail = "What the request is about has changed"


class TooLarge(DomainError):
    """The body is over the route's limit; the connection ends, its rest is never read."""

    status = 413
    detail = "The request body is too large"

    def __init__(self, detail: str | None = None):
        super().__init__(detail, headers={"Connection": "close"})


class UnsupportedMedia(DomainError):
    """The body comes in a form that the route does not take."""

    status = 415
    detail = "The request body has an unsupported media type"


class FieldError(NamedTuple):
    """Which field broke which rule; neither part holds what was sent."""

    field: str
    rule: str
    message: str


class Unprocessable(DomainError):
    """The body's fields break rules."""

    status = 422
    detail = "The request has invalid fields"

    def __init__(self, errors: Iterable[FieldError]):
        super().__init__()
        self.errors = list(errors)


class TooManyRequests(DomainError):
    """A limit was reached; `retry_after` is in whole seconds."""

    status = 429
    detail = "Too many requests"

    def __init__(self, retry_after: int, headers: Mapping[str, str] | None = None):
        super().__init__(headers={"Retry-After": str(retry_after), **(headers or {})})


class Unavailable(DomainError):
    """A part we depend on is down or slow; trying again is safe."""

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
    """One problem document; `instance` is the route's template, never the raw path."""
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
    """Answer with a problem document; to a WebSocket that was not accepted yet, as well."""
    body = document(connection, status, detail, errors)
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


async def on_domain_error(connection: HTTPConnection, error: Exception) -> Response:
    """Answer a `DomainError`."""
    assert isinstance(error, DomainError)  # noqa: S101 - registered for this class only
    body = to_problem(connection, error)
    return JSONResponse(body, error.status, headers=error.headers, media_type=MEDIA_TYPE)


def to_problem(connection: HTTPConnection, error: DomainError) -> dict[str, Any]:
    """A `DomainError` as a problem document; only a failing dependency is worth a log line."""
    if isinstance(error, Unavailable):
        structlog.get_logger().warning("unavailable", dependency=error.dependency)
    return document(connection, error.status, error.message, getattr(error, "errors", ()))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework raises: unknown path, wrong method, unreadable form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    # The framework's own details can quote the request; the standard phrase cannot.
    phrase = http.HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names the methods of the first route of a path only.
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(request, error.status_code, phrase, headers=headers)


def _methods(request: Request) -> set[str]:
    def serves(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return {method for method in METHODS if serves(method)}


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer a request whose fields break rules, without its input."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    return await on_domain_error(request, from_pydantic(error.errors()))


def from_pydantic(errors: Sequence[Mapping[str, Any]], *, within: str = "") -> Unprocessable:
    """What pydantic says of fields, and of those `within` that one, without their input."""
    place = (within,) if within else ()
    # The framework says it again for each dependency that asked for the same field.
    return Unprocessable(
        dict.fromkeys(
            _field_error({**error, "loc": (*place, *error["loc"])}) for error in errors[:MAX_ERRORS]
        )
    )


def _field_error(error: Mapping[str, Any]) -> FieldError:
    loc, rule = error["loc"], error["type"]
    if rule == "extra_forbidden":
        # The unknown name is the sender's text: it stays out of the answer.
        return FieldError(_path(loc[:-1]), rule, "Unknown field")
    message = error["msg"].removeprefix("Value error, ")
    # What a parser gives as its reason can quote what it read: "…, found `x` at 0".
    reason = error.get("ctx", {}).get("error")
    return FieldError(_path(loc), rule, message.removesuffix(f", {reason}")[:200])


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)
