"""What administrators ask of the admin routes."""

from typing import Any

import httpx

from support.invariants import CheckedClient
from support.stack import Account

ADMIN = "/api/v1/admin"
USERS = f"{ADMIN}/users"
AUDIT = f"{ADMIN}/audit"
USAGE = f"{ADMIN}/usage"
PLAIN = {"plan": "default", "per_minute": None, "burst": None, "texts_per_day": None}


def ask(
    checked: CheckedClient, who: Account, method: str, path: str, body: Any = None
) -> httpx.Response:
    options = {} if body is None else {"json": body}
    return checked.request(method, path, headers=who.headers, **options)


def change(checked: CheckedClient, admin: Account, user: Account, **state: bool) -> dict[str, Any]:
    answer = ask(checked, admin, "PATCH", f"{USERS}/{user.id}", state)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def delete(checked: CheckedClient, admin: Account, path: str) -> None:
    assert 204 == ask(checked, admin, "DELETE", path).status_code
