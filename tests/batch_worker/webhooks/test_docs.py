"""docs/webhooks.md is what receivers are written from."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from valence_batch_worker.webhooks.sender import REASONS
from valence_batch_worker.webhooks.signature import signature

PAGE = (Path(__file__).parents[3] / "docs/webhooks.md").read_text("utf-8")
BODY = b'{"id": 1}'


@pytest.fixture(scope="module")
def verify() -> Any:
    """The page's own code."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # our own page
    return names["verify"]


def test_the_pages_code_takes_what_we_sign(verify: Any) -> None:
    """With either secret of a rotation."""
    header = signature(["whsec_new", "whsec_old"], BODY, at=int(time.time()))
    assert verify("whsec_new", header, BODY)
    assert verify("whsec_old", header, BODY)


def test_the_pages_code_refuses_the_rest(verify: Any) -> None:
    """Another secret, another body, another time, or one that is long ago."""
    now = int(time.time())
    header = signature(["whsec_new"], BODY, at=now)
    assert not verify("whsec_other", header, BODY)
    assert not verify("whsec_new", header, BODY + b" ")
    assert not verify("whsec_new", header.replace(str(now), str(now - 1)), BODY)
    assert not verify("whsec_new", signature(["whsec_new"], BODY, at=now - 301), BODY)
    assert not verify("whsec_new", signature(["whsec_new"], BODY, at=now + 330), BODY)


@pytest.mark.parametrize("reason", REASONS)
def test_every_error_of_the_log_is_explained(reason: str) -> None:
    """One who reads `no_secret` finds out what to do."""
    assert re.search(rf"^\|[^|]*`{reason}`[^|]*\|", PAGE, re.MULTILINE)
