"""HTTP client and assertions of the `helm test` scripts; standard library only."""

import json
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

ANSWER_SECONDS = 15
SOON_SECONDS = 8  # every replica applies a revocation within 5 s

Answer = tuple[int, Any]


def call(
    url: str,
    body: Any = None,
    *,
    token: str = "",
    key: str = "",
    form: bool = False,
    method: str | None = None,
) -> Answer:
    """Send one request (a POST if it has a body); return its status and parsed body."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"X-API-Key": key} if key else {}
    data = None
    if form:
        data = urllib.parse.urlencode(body).encode()
    elif body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, _parsed(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _parsed(error.read())


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def expect(step: str, status: int, answer: Answer) -> Any:
    """Return the body of an answer with the expected status; exit with 1 for any other status."""
    if answer[0] != status:
        sys.exit(f"FAIL  {step}: {answer[0]} instead of {status}: {str(answer[1])[:300]}")
    print(f"ok    {step}: {status}", flush=True)
    return answer[1]


def expect_soon(step: str, status: int, send: Callable[[], Answer]) -> None:
    """Repeat a request until it has the expected status; exit with 1 after SOON_SECONDS."""
    deadline = time.monotonic() + SOON_SECONDS
    answer = send()
    while answer[0] != status and time.monotonic() < deadline:
        time.sleep(0.25)
        answer = send()
    expect(step, status, answer)


def log_in(auth: str, username: str, password: str) -> Answer:
    """Log in with a username and password."""
    form = {"username": username, "password": password}
    return call(f"{auth}/api/v1/auth/login", form, form=True)


class Account:
    """A new account, registered and logged in."""

    def __init__(self, auth: str):
        self.auth = auth
        self.username = f"helm-test-{secrets.token_hex(6)}"
        self.password = secrets.token_urlsafe(16)
        email = f"{self.username}@example.com"
        body = {"username": self.username, "email": email, "password": self.password}
        user = expect("register", 201, call(f"{auth}/api/v1/auth/register", body))
        self.id: str = user["id"]
        self.log_in()

    def log_in(self) -> None:
        """Start a session and keep its tokens."""
        tokens = expect("log in", 200, log_in(self.auth, self.username, self.password))
        self.token: str = tokens["access_token"]
        self.refresh_token: str = tokens["refresh_token"]

    def erase(self) -> None:
        """Erase the account, so that the test leaves nothing behind."""
        me, body = f"{self.auth}/api/v1/users/me", {"password": self.password}
        expect("erase the account", 204, call(me, body, token=self.token, method="DELETE"))
