"""What `helm test` asks of an installation: register, log in, analyze, run a batch, read history.

Plain Python: `thread.py AUTH_URL INFERENCE_URL`; prints each step, ends with 1 at the first wrong.
"""

import json
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

BATCH_SECONDS = 60


def call(url: str, body: Any = None, *, token: str = "", form: bool = False) -> tuple[int, Any]:
    """Send one request (a POST if it has a body); returns status and parsed answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None
    if form:
        data = urllib.parse.urlencode(body).encode()
    elif body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def expect(step: str, status: int, answer: tuple[int, Any]) -> Any:
    """The answer's body if its status is the expected one; else the test ends here."""
    if answer[0] != status:
        sys.exit(f"FAIL  {step}: {answer[0]} instead of {status}: {str(answer[1])[:300]}")
    print(f"ok    {step}: {status}", flush=True)
    return answer[1]


def main(auth: str, inference: str) -> None:
    """Walk the thread once, as a new account."""
    api = f"{inference}/api/v1/sentiment"
    name, password = f"helm-test-{secrets.token_hex(6)}", secrets.token_urlsafe(16)
    account = {"username": name, "email": f"{name}@example.com", "password": password}
    expect("register", 201, call(f"{auth}/api/v1/auth/register", account))
    login = {"username": name, "password": password}
    tokens = expect("log in", 200, call(f"{auth}/api/v1/auth/login", login, form=True))
    token = tokens["access_token"]
    expect("who am I", 200, call(f"{auth}/api/v1/users/me", token=token))

    good = expect("analyze", 200, call(f"{api}/analyze", {"text": "I love this"}, token=token))
    if good["sentiment"] != "positive":
        sys.exit(f"FAIL  analyze: {good['sentiment']} instead of positive")
    texts = ["What a wonderful day", "This is terrible", "Great service", "I hate waiting"]
    task = expect("batch", 202, call(f"{api}/analyze/batch", {"texts": texts}, token=token))
    deadline = time.monotonic() + BATCH_SECONDS
    while True:
        state = call(f"{api}/task/{task['task_id']}", token=token)
        if state[0] != 200 or state[1]["status"] not in {"pending", "processing"}:
            break
        if time.monotonic() > deadline:
            sys.exit(f"FAIL  batch: still {state[1]['status']} after {BATCH_SECONDS} s")
        time.sleep(0.5)
    done = expect("batch has ended", 200, state)
    if done["status"] != "completed" or len(done["results"]) != len(texts):
        sys.exit(f"FAIL  batch: {done['status']} with {len(done['results'])} results")
    history = expect("history", 200, call(f"{api}/history", token=token))
    if len(history["items"]) != len(texts) + 1:
        sys.exit(f"FAIL  history: {len(history['items'])} items instead of {len(texts) + 1}")
    print("PASS  an account, its texts and a batch went through all three services")


main(*sys.argv[1:])
