"""The operations of the OpenAPI document, and what it takes to call each: for generated matrices.

A new route is in the matrices by existing. One with a path parameter, or with a body that must be
right before anything is looked up, needs a line in `OBJECTS` or `BODIES`.
"""

import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
from tools import docs

from support.rows import query
from support.stack import Account, Stack
from valence_common.db import new_id
from valence_common.security import SCOPES

API = "/api/v1"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
WITHIN = "|"
"""Between the ids of things that are parts of each other, from the whole to the part."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One method of one path, as documented."""

    method: str
    path: str
    parameters: tuple[str, ...]  # in the path
    scopes: frozenset[str] | None  # None: public
    takes_keys: bool
    media_type: str | None
    properties: dict[str, set[str]]  # of a JSON object that it takes, with their types
    queries: dict[str, set[str]]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def changes(self) -> bool:
        return self.method != "GET"

    def filled(self, value: str) -> str:
        """The path with `value` for each parameter, or with its parts for one each."""
        path = self.path
        for name, part in zip(self.parameters, itertools.cycle(value.split(WITHIN))):
            path = path.replace(f"{{{name}}}", part)
        return path

    def call(
        self,
        stack: Stack,
        headers: dict[str, str],
        value: str | None = None,
        body: dict[str, Any] | None = None,
    ) -> httpx.Response:
        """Send it, with `value` for each path parameter."""
        path = self.filled(value or str(uuid.uuid4()))
        options: dict[str, Any] = {}
        if self.media_type is not None:
            options = {"data" if self.media_type == FORM else "json": body or {}}
        return stack.request(self.method, path, headers=headers, **options)


def operations() -> list[Operation]:
    """All that is documented; tests/architecture keeps the file equal to the code."""
    document = json.loads(docs.OPENAPI.read_text("utf-8"))
    schemas = document["components"]["schemas"]
    return [
        _read(method, path, operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _read(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Operation:
    ways: list[dict[str, list[str]]] = operation.get("security", [])
    scopes = {scope for way in ways for needed in way.values() for scope in needed}
    unknown = scopes - set(SCOPES)
    assert not unknown, f"{method} {path} needs scopes that nobody has: {unknown}"
    parameters = operation.get("parameters", [])
    content = operation.get("requestBody", {}).get("content", {})
    media_type = JSON if JSON in content else next(iter(content), None)
    body = _resolve(content[JSON].get("schema", {}), schemas) if JSON in content else {}
    return Operation(
        method.upper(),
        path,
        tuple(p["name"] for p in parameters if p["in"] == "path"),
        frozenset(scopes) if ways else None,
        any("APIKeyHeader" in way for way in ways),
        media_type,
        {name: _types(s, schemas) for name, s in body.get("properties", {}).items()},
        {p["name"]: _types(p["schema"], schemas) for p in parameters if p["in"] == "query"},
    )


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _types(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    schema = _resolve(schema, schemas)
    choices = schema.get("anyOf", [schema])
    return {_resolve(choice, schemas).get("type", "") for choice in choices} - {""}


@dataclass(frozen=True)
class Object:
    """What an id in a path names: how one's own is made, and how it goes away."""

    make: Callable[[Stack, Account], str]
    table: str

    def delete(self, stack: Stack, identifier: str) -> None:
        part = identifier.rpartition(WITHIN)[2]
        query(stack.database_url, f"DELETE FROM {self.table} WHERE id = :id", id=part)


def _batch(stack: Stack, account: Account) -> str:
    task_id = stack.submit(account, ["good", "bad"])
    stack.finish(account, task_id)
    return task_id


def _session(stack: Stack, account: Account) -> str:
    """Another session than the account's current one, so that ending it does not end the test."""
    before = {row[0] for row in _sessions(stack, account)}
    assert 200 == stack.login(account.username).status_code
    [new] = {row[0] for row in _sessions(stack, account)} - before
    return str(new)


def _sessions(stack: Stack, account: Account) -> list[tuple[Any, ...]]:
    mine = "SELECT id FROM sessions WHERE user_id = :user"
    return query(stack.database_url, mine, user=account.id)


def _delivery(stack: Stack, account: Account) -> str:
    """A delivery that is over, within its batch."""
    task_id, delivery_id = _batch(stack, account), str(new_id())
    query(
        stack.database_url,
        "INSERT INTO webhook_deliveries (id, batch_id, user_id, event, status, finished_at)"
        " VALUES (:id, :batch, :user, 'batch.completed', 'delivered', now())",
        id=delivery_id,
        batch=task_id,
        user=account.id,
    )
    return f"{task_id}{WITHIN}{delivery_id}"


def _key(stack: Stack, account: Account) -> str:
    body = {"name": "made for a test", "scopes": ["analyze"]}
    answer = stack.post(f"{API}/api-keys", account, json=body)
    assert 201 == answer.status_code, answer.text
    return str(answer.json()["id"])


# By the name of the path parameter; of several it is the last that is asked for.
OBJECTS: Final = {
    "task_id": Object(_batch, "batches"),
    "session_id": Object(_session, "sessions"),
    "key_id": Object(_key, "api_keys"),
    "delivery_id": Object(_delivery, "webhook_deliveries"),
    "user_id": Object(lambda _, account: account.id, "users"),
}

# Path parameters that name nobody's own: anybody who may ask may ask for each.
SHARED: Final = {"version"}

# What an owner would send, where an empty object is not enough.
BODIES: Final[dict[str, dict[str, Any]]] = {
    f"PUT {API}/admin/users/{{user_id}}/limits": {
        "plan": "default",
        "per_minute": None,
        "burst": None,
        "texts_per_day": None,
    },
}


def example(operation: Operation) -> dict[str, Any]:
    """A body that the operation accepts from who may use it."""
    return BODIES.get(str(operation), {})
