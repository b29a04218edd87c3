"""Reliability cases 77 and 78: the keyring, rotated under traffic and rejected when weak."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.rotation import Traffic, drill, log_in
from support.stack import Stack
from valence_auth.app import create_app as create_auth
from valence_auth.settings import Settings as AuthSettings
from valence_common import keyring
from valence_common.web import process
from valence_inference.app import create_app as create_inference
from valence_inference.settings import Settings as InferenceSettings

SESSIONS = 50


def test_case_077_rotation_without_logouts(
    tmp_path: Path, own_database_url: str, redis_url: str
) -> None:
    """Nobody is refused while keys are added, activated, taken back and dropped."""
    stack = Stack(tmp_path / "stack", own_database_url, redis_url)
    try:
        for name in ("auth", "inference"):
            stack.start(name, ready=False)
        for service in stack.services:
            service.wait_ready()
        with Traffic(stack, log_in(stack, SESSIONS), clients=4) as traffic:
            drill(stack, traffic, timeout=60)
        print(f"\n{SESSIONS} sessions, {traffic.requests} requests, refused: {traffic.refused()}")
        assert {} == traffic.refused()
        assert traffic.requests > 10 * SESSIONS
    finally:
        stack.close()


def _file(**entry: object) -> str:
    """A keyring whose one key is good but for this."""
    good = {"kid": "one", "key": json.loads(keyring.generate())["keys"][0]["key"]}
    return json.dumps({"active": "one", "keys": [good | entry]})


def _key(secret: bytes) -> str:
    """A keyring with this secret."""
    return _file(key=base64.urlsafe_b64encode(secret).rstrip(b"=").decode())


WEAK = {
    "an empty file": "",
    "one byte": "x",
    "white space": " \n\t " * 20,
    "true": "true",
    "null": "null",
    "a quoted string": '"S3ntinel-quoted-and-long-enough-to-be-a-key"',
    "a list of strings": '["S3ntinel-a-long-enough-one","S3ntinel-b-long-enough-one"]',
    "a bare secret": "S3ntinel-bare-secret-of-more-than-32-bytes",
    "a placeholder": "changeme",
    "no keys": '{"active":"one","keys":[]}',
    "an empty key": _file(key=""),
    "a key of one byte": _key(b"x"),
    "a key of 31 bytes": _key(bytes(range(31))),
    "a key of one letter": _key(b"a" * 40),
    "a key of white space": _key(b" \t\n" * 20),
    "a repeated placeholder": _key(b"changeme" * 8),
    "a placeholder as it is": _file(key="changeme"),
    "white space as it is": _file(key=" " * 44),
    "true as a key": _file(key=True),
    "null as a key": _file(key=None),
    "a list as a key": _file(key=["S3ntinel-a-long-enough-one", "b"]),
    "a number as a key": _file(key=1),
    '"true" as a key': _file(key="true"),
    '"null" as a key': _file(key="null"),
    "quotes in a key": _file(key='"S3ntinel-quoted-and-long-enough-to-be-a-key"'),
    "JSON in a key": _file(key='["S3ntinel-a","S3ntinel-b"]' * 4),
}


@pytest.mark.parametrize("content", WEAK.values(), ids=WEAK.keys())
@pytest.mark.parametrize("service", ["auth", "inference"])
def test_case_078_weak_keyrings_stop_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    service: str,
    content: str,
) -> None:
    """Both services end with one sentence that names the setting and the file, and no key."""
    file = tmp_path / "keyring.json"
    file.write_text(content)
    start = _start(monkeypatch, file)
    with pytest.raises(SystemExit) as end:
        start[service]()
    assert process.EX_CONFIG == end.value.code
    complaint = capsys.readouterr().err
    assert 1 == len(complaint.splitlines())
    sentence = f"valence {service}: VALENCE_JWT_KEYRING_FILE: keyring {file}: "
    assert complaint.startswith(sentence)
    assert "S3ntinel" not in complaint
    assert "changeme" not in complaint


def _start(patch: pytest.MonkeyPatch, file: Path) -> dict[str, Callable[[], None]]:
    """What `python -m` runs for each service, with this keyring and nothing else to complain of."""
    patch.setenv("VALENCE_DATABASE_URL", "postgresql://valence:quite-fine@127.0.0.1:1/valence")
    patch.setenv("VALENCE_REDIS_URL", "redis://127.0.0.1:1")
    patch.setenv("VALENCE_JWT_KEYRING_FILE", str(file))
    patch.setattr(process.log, "configure", lambda *_, **__: None)  # pytest's own stays
    return {
        "auth": lambda: process.run_web("auth", AuthSettings, create_auth),
        "inference": lambda: process.run_web("inference", InferenceSettings, create_inference),
    }
