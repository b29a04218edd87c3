"""A backup is made and verified in its own restricted pod."""

import time
from collections.abc import Iterator

import pytest

from support.cluster import User, kubectl, sql, upgrade

JOB = "valence-backup-by-hand"


@pytest.fixture
def enabled() -> Iterator[None]:
    """The backup component, with a small volume that is deleted after the test."""
    upgrade("backup.enabled=true", "backup.storage.size=1Gi", "backup.resources.requests.cpu=10m")
    yield
    kubectl("delete", "job", JOB, "--ignore-not-found", "--wait=true")
    upgrade("backup.enabled=false")
    kubectl("delete", "pvc", "--selector=app.kubernetes.io/component=backup", "--wait=true")


@pytest.mark.e2e_full
def test_case_119_backup_is_made_and_restored_in_a_pod(user: User, enabled: None) -> None:
    """The pod dumps as the owner, under the network policies, restores and compares."""
    assert user.finished(user.submit(["a", "b"]), timeout=60)["status"] == "completed"
    started = time.monotonic()
    kubectl("create", "job", JOB, "--from=cronjob/valence-backup")
    kubectl("wait", f"job/{JOB}", "--for=condition=complete", "--timeout=240s", seconds=300)
    log = kubectl("logs", f"job/{JOB}")
    rows = sql("SELECT count(*) FROM batch_results")
    print(f"\nbackup: made and verified in {time.monotonic() - started:.0f} s\n{log}")
    assert int(rows) >= 2
    assert ".dump" in log
