"""docs/webhooks.md: receivers are written from its examples."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from support.webhooks import make_secret
from valence_batch_worker.webhooks.sender import REASONS
from valence_batch_worker.webhooks.signature import signed_headers

PAGE = (Path(__file__).parents[3] / "docs/webhooks.md").read_text("utf-8")
BODY = b'{"id": 1}'
NEW, OLD, OTHER = make_secret("new"), make_secret("old"), make_secret("other")


def sign(*secrets: str, age: int = 0) -> dict[str, str]:
    """The headers of a message that was sent `age` seconds ago."""
    return signed_headers(secrets, BODY, message_id="id", timestamp=int(time.time()) - age)


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    """The functions of the page's code, by name."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)  # our own page
    return names


def receive(examples: dict[str, Any], secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether the page's code for a library takes the message."""
    try:
        assert {"id": 1} == examples["receive"](secret, headers, body)
    except WebhookVerificationError:
        return False
    return True


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_examples_accept_a_signature_of_either_secret(
    examples: dict[str, Any], secret: str
) -> None:
    """During a rotation the message has two signatures."""
    headers = sign(NEW, OLD)
    assert examples["verify"](secret, headers, BODY)
    assert receive(examples, secret, headers, BODY)


@pytest.mark.parametrize(
    ("secret", "headers", "body"),
    [
        (OTHER, sign(NEW), BODY),
        (NEW, sign(NEW), b'{"id": 2}'),
        (NEW, sign(NEW) | {"webhook-id": "another"}, BODY),
        (NEW, sign(NEW) | {"webhook-timestamp": str(int(time.time()) - 100)}, BODY),
        (NEW, sign(NEW, age=900), BODY),
        (NEW, sign(NEW, age=-900), BODY),
    ],
    ids=["other secret", "other body", "other id", "other time", "too old", "in the future"],
)
def test_examples_reject_the_rest(
    examples: dict[str, Any], secret: str, headers: dict[str, str], body: bytes
) -> None:
    """Every part of the message is signed, and its age is limited."""
    assert not examples["verify"](secret, headers, body)
    assert not receive(examples, secret, headers, body)


@pytest.mark.parametrize("reason", REASONS)
def test_every_error_of_the_log_is_explained(reason: str) -> None:
    """A user who reads `no_secret` finds out what to do."""
    assert re.search(rf"^\|[^|]*`{reason}`[^|]*\|", PAGE, re.MULTILINE)
