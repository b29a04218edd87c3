"""What administrators ask of the admin routes, under the oracle's eyes."""

from typing import Any

import httpx

from support.invariants import Oracle
from support.stack import Account

ADMIN = "/api/v1/admin"
USERS = f"{ADMIN}/users"
AUDIT = f"{ADMIN}/audit"
USAGE = f"{ADMIN}/usage"
PLAIN = {"plan": "default", "per_minute": None, "burst": None, "texts_per_day": None}


def ask(oracle: Oracle, who: Account, method: str, path: str, body: Any = None) -> httpx.Response:
    options = {} if body is None else {"json": body}
    return oracle.request(method, path, headers=who.headers, **options)


def change(oracle: Oracle, admin: Account, user: Account, **state: bool) -> dict[str, Any]:
    answer = ask(oracle, admin, "PATCH", f"{USERS}/{user.id}", state)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def delete(oracle: Oracle, admin: Account, path: str) -> None:
    assert 204 == ask(oracle, admin, "DELETE", path).status_code
