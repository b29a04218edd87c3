"""`valence keyring` rotates keys in a Secret without a restart or a rejected request."""

import base64
import json
import sys
import time

import pytest

from support.cluster import NAMESPACE, Load, User, analyzing, get, kubectl, names, pods, run, until

SECRET = "valence-keyring"
HOLDERS = ("auth", "inference")


def keyring() -> dict:
    """Return the keyring in the Secret."""
    return json.loads(base64.b64decode(get("secret", SECRET)["data"]["keyring.json"]))


def run_step(step: str, *options: str) -> dict:
    """Run a step, and wait until every pod's file has it (the kubelet takes a minute)."""
    where = ("--secret", SECRET, "--namespace", NAMESPACE)
    output = run(sys.executable, "-m", "valence", "keyring", *where, step, *options)
    ring = keyring()
    assert not any(entry["key"] in output for entry in ring["keys"])
    seconds = until(
        lambda: all(_has(pod, ring) for component in HOLDERS for pod in names(component)),
        timeout=180,
        what="all pods have the new keyring",
        interval=2,
    )
    print(f"\n{step}: keyring in every pod after {seconds:.0f} s")
    time.sleep(2)  # the services poll once a second
    return ring


def _has(pod: str, ring: dict) -> bool:
    reader = "import json; print(json.dumps(json.load(open('/etc/valence/keyring/keyring.json'))))"
    # The output is an error if an autoscaler has just deleted the pod.
    output = kubectl("exec", pod, "--", "python", "-c", reader, check=False)
    return output.startswith(json.dumps(ring))


def restarts() -> set[tuple[str, int]]:
    """Return the template and the restart count of each pod with the keyring."""
    return {
        (pod["metadata"]["labels"]["pod-template-hash"], status["restartCount"])
        for component in HOLDERS
        for pod in pods(component)
        for status in pod["status"]["containerStatuses"]
    }


def kid(user: User) -> str:
    """Return the id of the key that signed the user's token."""
    header = user.token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


@pytest.mark.e2e_full
def test_rotation(user: User) -> None:
    """Add, activate, drop; tokens of both keys are valid until the old key is dropped."""
    before = restarts()
    old = keyring()["active"]
    with Load.running(analyzing(user), clients=2, pause=0.1) as load:
        assert run_step("add")["active"] == old
        new = run_step("activate")["active"]
        other = User(user.client)
        assert (kid(user), kid(other)) == (old, new)
        assert other.analyze().status_code == 200
    print(f"rotation under load: {load}")
    assert not load.failed
    # The old key has an hour left; dropping it now invalidates its tokens.
    run_step("drop", "--kid", old)
    assert user.analyze().status_code == 401
    assert other.analyze().status_code == 200
    assert restarts() == before
