"""Reliability cases 91 and 92 for every documented operation: which credentials, which ids.

What to expect is read from the OpenAPI document, so a new route is covered by existing.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import pytest

from support import credentials
from support.operations import OBJECTS, SHARED, Object, Operation, example, operations
from support.stack import Account, Stack
from valence_common.problems import InsufficientScope, InvalidCredential, NotAuthenticated
from valence_common.security import ADMIN, SCOPES

OPERATIONS = operations()
WITH_IDS = [o for o in OPERATIONS if o.parameters and not set(o.parameters) <= SHARED]
KEY_SCOPES = [scope for scope in SCOPES if scope != ADMIN]
REFUSED = {401, 403}
GATE = (NotAuthenticated, InvalidCredential, InsufficientScope)


@dataclass
class Cast:
    """Who appears: made when first needed, and shared by calls that change nothing."""

    stack: Stack
    known: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def user(self) -> Account:
        return self.stack.account()

    @cached_property
    def admin(self) -> Account:
        return credentials.admin(self.stack)

    @cached_property
    def revoked(self) -> dict[str, str]:
        return credentials.revoked(self.stack)

    @cached_property
    def key(self) -> dict[str, str]:
        return credentials.key(self.stack, self.user, KEY_SCOPES)

    def headers(self, who: str, *, harmless: bool) -> dict[str, str]:
        """A credential of this kind; a call that could end it, or its account, gets its own."""
        if not harmless:
            return _KINDS[who](self.stack)
        if who not in self.known:
            self.known[who] = _KINDS[who](self.stack)
        return self.known[who]


@pytest.fixture(scope="module")
def cast(stack: Stack) -> Cast:
    return Cast(stack)


def _narrow(scope: str) -> Callable[[Stack], dict[str, str]]:
    return lambda stack: credentials.key(stack, stack.account(), [scope])


_KINDS: dict[str, Callable[[Stack], dict[str, str]]] = {
    "nobody": lambda _: {},
    "garbage": lambda _: credentials.GARBAGE,
    "user": lambda stack: stack.account().headers,
    "admin": lambda stack: credentials.admin(stack).headers,
    **{f"key for {scope}": _narrow(scope) for scope in KEY_SCOPES},
}
_SCOPES = {
    "user": set(KEY_SCOPES),
    "admin": set(SCOPES),
    **{f"key for {scope}": {scope} for scope in KEY_SCOPES},
}


def _expected(operation: Operation, who: str) -> int | None:
    """The refusal that the document promises; None when the call must get past the gate."""
    if operation.scopes is None:
        return None
    if who not in _SCOPES or (who.startswith("key") and not operation.takes_keys):
        return 401
    return None if operation.scopes <= _SCOPES[who] else 403


@pytest.mark.parametrize("who", _KINDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_case_092_function_level(stack: Stack, cast: Cast, operation: Operation, who: str) -> None:
    """Each kind of credential gets past the gate exactly where the document says so."""
    expected = _expected(operation, who)
    headers = cast.headers(who, harmless=expected is not None or not operation.changes)
    answer = operation.call(stack, headers)
    if expected is None:
        assert not _turned_away(answer), answer.text
        assert answer.status_code < 500, answer.text
    else:
        assert expected == answer.status_code
        assert _turned_away(answer)
        assert "www-authenticate" in answer.headers


def _turned_away(answer: httpx.Response) -> bool:
    """By the gate; a handler can say 401 or 403 as well, of a wrong password for one."""
    if answer.status_code not in REFUSED:
        return False
    return answer.json()["detail"] in {e.detail for e in GATE}


def _shape(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """All that an answer tells, but for what differs from one request to the next."""
    headers = {
        name: "" if name.startswith("ratelimit") else value
        for name, value in answer.headers.items()
        if name not in {"date", "x-request-id"}
    }
    text = answer.text.replace(answer.headers["x-request-id"], "")
    return answer.status_code, headers, text


def _object(operation: Operation) -> Object:
    unknown = set(operation.parameters) - SHARED - OBJECTS.keys()
    assert not unknown, (
        f"{operation} has path parameters that the matrix cannot make: add {', '.join(unknown)} to"
        " OBJECTS in tests/support/operations.py (how one's own is made, and in which table it is),"
        " or to SHARED if it belongs to nobody"
    )
    return [OBJECTS[name] for name in operation.parameters if name in OBJECTS][-1]


@pytest.mark.parametrize("operation", WITH_IDS, ids=str)
def test_case_091_ids_of_others(stack: Stack, cast: Cast, operation: Operation) -> None:
    """Another's id, a deleted one and one that never was: one answer, and never a good one."""
    kind, body = _object(operation), example(operation)
    administers = operation.scopes is not None and ADMIN in operation.scopes
    owner = stack.account()
    foreign, deleted = kind.make(stack, owner), kind.make(stack, stack.account())
    kind.delete(stack, deleted)
    for headers in (
        cast.user.headers,
        cast.key,
        cast.revoked,
        credentials.GARBAGE,
        {},
    ):
        shapes = [
            _shape(operation.call(stack, headers, value, body))
            for value in (foreign, deleted, str(uuid.uuid4()))
        ]
        assert [shapes[0]] * 3 == shapes
        assert shapes[0][0] in {401, 403, 404}
        if headers == cast.user.headers:
            assert (403 if administers else 404) == shapes[0][0], "it must be the id that decides"
    # Else all this would hold for a route that refuses everybody.
    who = cast.admin if administers else owner
    answer = operation.call(stack, who.headers, foreign, body)
    assert answer.is_success or answer.status_code == 409, (
        f"{operation} refused its owner ({answer.status_code} {answer.text}): if it wants a body,"
        " add one to BODIES in tests/support/operations.py"
    )
    unknown = operation.call(stack, who.headers, str(uuid.uuid4()), body)
    assert 404 == unknown.status_code


@pytest.mark.parametrize("operation", WITH_IDS, ids=str)
@pytest.mark.parametrize(
    "value", ["x", "0", "%00", "a" * 300, "../../me", "%2e%2e", "-1", "é", "null"]
)
def test_case_091_ids_that_are_none(
    stack: Stack, cast: Cast, operation: Operation, value: str
) -> None:
    """What is no id at all is refused before it is looked for, and quoted nowhere."""
    who = cast.admin if operation.scopes and ADMIN in operation.scopes else cast.user
    answer = operation.call(stack, who.headers, value, example(operation))
    assert answer.status_code in {404, 405, 422}
    assert value not in json.dumps(answer.json().get("errors", ""))
