"""Fixtures of the chart's tests. What needs helm asks for it when it renders."""

import pytest

from support.chart import INSTALLATIONS, Object, objects


@pytest.fixture(params=INSTALLATIONS)
def installation(request: pytest.FixtureRequest) -> list[Object]:
    """The manifests of each way to install."""
    return objects(INSTALLATIONS[request.param])
