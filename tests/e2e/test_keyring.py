"""Keys rotate by editing a Secret: no restart, and nobody is refused on the way."""

import base64
import json
import secrets
import time
from datetime import UTC, datetime, timedelta

import pytest

from support.cluster import Load, User, analyzing, get, kubectl, pods, until

SECRET = "valence-keyring"


def keyring() -> dict:
    """The Secret's keyring."""
    return json.loads(base64.b64decode(get("secret", SECRET)["data"]["keyring.json"]))


def put(ring: dict) -> None:
    """Edit the Secret, and wait until every pod has it in its file (the kubelet takes a minute)."""
    kubectl(
        *("patch", "secret", SECRET, "--type=merge", "--patch"),
        json.dumps({"stringData": {"keyring.json": json.dumps(ring)}}),
    )
    reader = "print(open('/etc/valence/keyring/keyring.json').read())"

    def everywhere() -> bool:
        return all(
            json.loads(kubectl("exec", pod["metadata"]["name"], "--", "python", "-c", reader))
            == ring
            for component in ("auth", "inference")
            for pod in pods(component)
        )

    seconds = until(everywhere, within=180, what="all pods have the new keyring", every=2)
    print(f"\nkeyring in every pod after {seconds:.0f} s")
    time.sleep(2)  # they look once a second


def kid(user: User) -> str:
    """The key that signed the user's token."""
    header = user.token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


@pytest.mark.e2e_full
def test_rotation(user: User) -> None:
    """Add, activate, drop; tokens of either key are taken for as long as they should be."""
    before = {p["metadata"]["name"] for c in ("auth", "inference") for p in pods(c)}
    ring = keyring()
    old, new = ring["active"], secrets.token_hex(8)
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    with Load.running(analyzing(user), clients=2, pause=0.1) as load:
        put({**ring, "keys": [*ring["keys"], {"kid": new, "key": key, "verify_until": None}]})
        added = keyring()
        put({**added, "active": new})
        other = User(user.client)
        assert (kid(user), kid(other)) == (old, new)
        assert other.analyze().status_code == 200
        # What the old key signed is good until then.
        until_then = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        keys = [{**k, "verify_until": until_then} if k["kid"] == old else k for k in added["keys"]]
        put({"active": new, "keys": keys})
    print(f"rotation under load: {load}")
    assert not load.failed
    # Dropped: what it signed is refused.
    put({"active": new, "keys": [k for k in keyring()["keys"] if k["kid"] == new]})
    assert user.analyze().status_code == 401
    assert other.analyze().status_code == 200
    assert {p["metadata"]["name"] for c in ("auth", "inference") for p in pods(c)} == before
