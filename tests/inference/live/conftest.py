"""A user and a replica of inference."""

import pytest

from support.stack import Account, Service, Stack


@pytest.fixture
def service(web: Stack) -> Service:
    """The replica under test."""
    return web.running("inference")[0]


@pytest.fixture
def user(web: Stack) -> Account:
    """A new user, logged in."""
    return web.account()
