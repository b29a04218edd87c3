"""API keys, made as their owners make them."""

from typing import Any

import httpx

from support.invariants import CheckedClient
from support.stack import Account

KEYS = "/api/v1/api-keys"


def make(checked: CheckedClient, account: Account, **options: Any) -> dict[str, Any]:
    """A new key, which from then on nobody may show."""
    body = {"name": "a key", **options}
    answer = checked.request("POST", KEYS, json=body, headers=account.headers)
    assert 201 == answer.status_code, answer.text
    return shown(checked, answer)


def shown(checked: CheckedClient, answer: httpx.Response) -> dict[str, Any]:
    """The key that an answer shows, this once."""
    made = dict(answer.json())
    assert "no-store" == answer.headers["cache-control"]
    checked.secret(made["key"])
    checked.secret(made["key"][36:-8])
    return made
