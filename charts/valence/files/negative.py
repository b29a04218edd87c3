"""`helm test`: requests without a valid credential, and ports that must be closed to this pod.

Usage: `negative.py AUTH_URL INFERENCE_URL [HOST:PORT …]`, where the addresses are those that the
network policies close. Prints each step; exits with 1 at the first failure.
"""

import socket
import sys

from client import call, expect

CONNECT_SECONDS = 3


def accepts(address: str) -> bool:
    """Return whether a TCP connection to HOST:PORT succeeds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def main(auth: str, inference: str, *closed: str) -> None:
    """Try what must be rejected."""
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30."
    history = f"{inference}/api/v1/sentiment/history"
    expect("no token", 401, call(history))
    expect("unsigned token, inference", 401, call(history, token=unsigned))
    expect("unsigned token, auth", 401, call(f"{auth}/api/v1/users/me", token=unsigned))
    expect("made-up API key", 401, call(history, key="vl_" + "0" * 32))
    expect("metrics on the public port", 404, call(f"{inference}/metrics"))
    for address in closed:
        if accepts(address):
            sys.exit(f"FAIL  {address} is open: does this cluster enforce network policies?")
        print(f"ok    {address} is closed", flush=True)
    print("PASS  bad credentials are rejected and internal ports are closed")


main(*sys.argv[1:])
