"""Rollouts, killed pods and scaling under constant load, without failed requests."""

import random

import pytest

from support.cluster import (
    Load,
    User,
    analyzing,
    edge,
    get,
    kubectl,
    names,
    reading_profile,
    ready,
    rolled_out,
    until,
)


def restarted_under(load: Load, deployment: str) -> None:
    """Replace every pod under load, and wait until the old pods are deleted."""
    before = set(names(deployment))
    kubectl("rollout", "restart", f"deployment/valence-{deployment}")
    rolled_out(f"deployment/valence-{deployment}")
    deleted = lambda: not before & {p["metadata"]["name"] for p in get("pods")["items"]}  # noqa: E731
    seconds = until(deleted, timeout=90, what="the old pods are deleted")
    print(f"\n{deployment}: {len(before)} pods replaced, {seconds:.0f} s to drain; {load}")


@pytest.mark.e2e
def test_restart_of_inference(user: User) -> None:
    with Load.running(analyzing(user)) as load:
        restarted_under(load, "inference")
    assert not load.failed


@pytest.mark.e2e_full
def test_restart_of_auth(user: User) -> None:
    with Load.running(reading_profile(user)) as load:
        restarted_under(load, "auth")
    assert not load.failed


@pytest.mark.e2e_full
def test_restart_of_the_worker(user: User) -> None:
    """Batches submitted during the rollout complete, too."""
    tasks = []
    with Load.running(analyzing(user)) as load:
        tasks += [user.submit([f"text {i}" for i in range(3000)]) for _ in range(3)]
        restarted_under(load, "batch-worker")
        tasks += [user.submit(["after"])]
    assert not load.failed
    for task in tasks:
        state = user.finished(task, timeout=120)
        assert (state["status"], state["done"]) == ("completed", state["total"])


@pytest.mark.e2e_full
def test_forced_deletion_of_an_inference_pod(user: User) -> None:
    """Only the requests in flight in the killed pod may fail."""
    until(lambda: ready("inference") >= 2, timeout=90, what="two inference pods")
    with Load.running(analyzing(user)) as load:
        victim = random.choice(names("inference"))
        kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        until(lambda: ready("inference") >= 2, timeout=90, what="two pods again")
    print(f"\na pod killed: {load}")
    # Four clients: each can have had one request in it.
    assert load.failed.total() <= 4


@pytest.mark.e2e
def test_scaling_up_and_down(user: User) -> None:
    """Load scales inference from its minimum to at least three replicas; no request fails."""
    until(lambda: ready("inference") == 2, timeout=240, what="the minimum of replicas")
    with Load.running(analyzing(user), clients=8, pause=0) as load:
        up = until(lambda: ready("inference") >= 3, timeout=240, what="three ready replicas")
        peak = ready("inference")
    print(f"\nup to {peak} ready after {up:.0f} s; {load}")
    assert not load.failed
    with edge() as client:
        quiet = User(client)
        with Load.running(analyzing(quiet), clients=1, pause=0.5) as load:
            down = until(lambda: len(names("inference")) == 2, timeout=300, what="back to two")
    print(f"down to 2 after {down:.0f} s; {load}")
    assert not load.failed
