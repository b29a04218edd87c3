"""The chart, rendered by the real helm in each way to install it."""

import pytest

from support.chart import INSTALLATIONS, Object, objects
from support.required import tool


@pytest.fixture(scope="session", autouse=True)
def helm() -> str:
    """Nothing here means anything without helm."""
    return tool("helm")


@pytest.fixture(params=INSTALLATIONS)
def installation(request: pytest.FixtureRequest) -> list[Object]:
    """Each way to install, as dictionaries."""
    return objects(INSTALLATIONS[request.param])
