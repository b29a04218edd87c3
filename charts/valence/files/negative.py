"""What `helm test` must not get: answers without a credential, and ports that are nobody's.

`negative.py AUTH_URL INFERENCE_URL [HOST:PORT …]`; the addresses are those that the network
policies close to this pod. Prints each step, ends with 1 at the first that is open.
"""

import socket
import sys

from client import call, expect

CONNECT_SECONDS = 3


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
    history = f"{inference}/api/v1/sentiment/history"
    expect("no token", 401, call(history))
    expect("an unsigned token", 401, call(history, token=unsigned))
    expect("an unsigned token, auth", 401, call(f"{auth}/api/v1/users/me", token=unsigned))
    expect("an invented key", 401, call(history, key="vl_" + "0" * 32))
    expect("metrics on the public port", 404, call(f"{inference}/metrics"))
    for address in closed:
        if answers(address):
            sys.exit(f"FAIL  {address} answers: does this cluster enforce network policies?")
        print(f"ok    {address} does not answer", flush=True)
    print("PASS  what must be refused is refused")


main(*sys.argv[1:])
