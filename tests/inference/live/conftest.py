"""A user and a replica of inference; streams of the tests that break servers have their own."""

import pytest

from support.stack import Account, Service, Stack


@pytest.fixture
def service(web: Stack) -> Service:
    """The replica that the user speaks to."""
    return web.running("inference")[0]


@pytest.fixture
def user(web: Stack) -> Account:
    """A new user, logged in."""
    return web.account()
