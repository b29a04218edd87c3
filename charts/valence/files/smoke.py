"""What `helm test` asks of an installation: register, log in, analyze, run a batch, read history.

`smoke.py AUTH_URL INFERENCE_URL`; prints each step, ends with 1 at the first that is wrong.
"""

import sys
import time
from typing import Any

from client import Account, call, expect

BATCH_SECONDS = 60
TEXTS = ["What a wonderful day", "This is terrible", "Great service", "I hate waiting"]


def batch(api: str, token: str) -> Any:
    """Submit a batch and follow it to its end."""
    task = expect("batch", 202, call(f"{api}/analyze/batch", {"texts": TEXTS}, token=token))
    deadline = time.monotonic() + BATCH_SECONDS
    while True:
        state = call(f"{api}/task/{task['task_id']}", token=token)
        if state[0] != 200 or state[1]["status"] not in {"pending", "processing"}:
            return expect("batch has ended", 200, state)
        if time.monotonic() > deadline:
            sys.exit(f"FAIL  batch: still {state[1]['status']} after {BATCH_SECONDS} s")
        time.sleep(0.5)


def main(auth: str, inference: str) -> None:
    """Walk the thread once, as a new account."""
    api = f"{inference}/api/v1/sentiment"
    account = Account(auth)
    token = account.token
    expect("who am I", 200, call(f"{auth}/api/v1/users/me", token=token))
    good = expect("analyze", 200, call(f"{api}/analyze", {"text": "I love this"}, token=token))
    if good["sentiment"] != "positive":
        sys.exit(f"FAIL  analyze: {good['sentiment']} instead of positive")
    done = batch(api, token)
    if done["status"] != "completed" or len(done["results"]) != len(TEXTS):
        sys.exit(f"FAIL  batch: {done['status']} with {len(done['results'])} results")
    history = expect("history", 200, call(f"{api}/history", token=token))
    if len(history["items"]) != len(TEXTS) + 1:
        sys.exit(f"FAIL  history: {len(history['items'])} items instead of {len(TEXTS) + 1}")
    account.erase()
    print("PASS  an account, its texts and a batch went through all three services")


main(*sys.argv[1:])
