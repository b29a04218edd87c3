"""What `helm test` must not get: answers without a credential, and ports that are nobody's.

Plain Python: `refusals.py AUTH_URL INFERENCE_URL [HOST:PORT …]`; the addresses are those that the
network policies close to this pod. Prints each step, ends with 1 at the first that is open.
"""

import socket
import sys
import urllib.error
import urllib.request

CONNECT_SECONDS = 3


def status(url: str, token: str = "") -> int:
    """The status of a GET."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, None, headers), timeout=15) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        return error.code


def answers(address: str) -> bool:
    """Whether something accepts a connection there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def main(auth: str, inference: str, *closed: str) -> None:
    """Try what must be refused."""
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30."
    for name, url, token, expected in (
        ("no token", f"{inference}/api/v1/sentiment/history", "", 401),
        ("an unsigned token", f"{inference}/api/v1/sentiment/history", unsigned, 401),
        ("an unsigned token, auth", f"{auth}/api/v1/users/me", unsigned, 401),
        ("metrics on the public port", f"{inference}/metrics", "", 404),
    ):
        got = status(url, token)
        if got != expected:
            sys.exit(f"FAIL  {name}: {got} instead of {expected}")
        print(f"ok    {name}: {got}", flush=True)
    for address in closed:
        if answers(address):
            sys.exit(f"FAIL  {address} answers: does this cluster enforce network policies?")
        print(f"ok    {address} does not answer", flush=True)
    print("PASS  what must be refused is refused")


main(*sys.argv[1:])
