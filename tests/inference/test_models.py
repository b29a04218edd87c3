"""Information about the served models."""

import pytest

from support.stack import Account, Stack


def test_served_model_is_listed(stack: Stack, account: Account) -> None:
    """One model is served; responses contain its name and version."""
    (item,) = stack.get("/api/v1/models", account).json()["items"]
    answer = stack.post("/api/v1/sentiment/analyze", account, json={"text": "fine"}).json()
    assert f"{item['name']}@{item['version']}" == answer["model"]


@pytest.mark.parametrize("version", ["1.0.0", "valence-default@1.0.0"])
def test_model_is_described(stack: Stack, account: Account, version: str) -> None:
    """The response has the release's model card, metrics, and sources with licences."""
    model = stack.get(f"/api/v1/models/{version}", account).json()
    assert model["card"].startswith("# valence-default 1.0.0")
    assert {"sst2.dev", "cad_revised.dev"} <= {metric["file"] for metric in model["metrics"]}
    assert all(source["licence"] for source in model["sources"])


def test_unknown_model_is_not_found(stack: Stack, account: Account) -> None:
    """A version that is not served gets 404."""
    assert 404 == stack.get("/api/v1/models/9.9.9", account).status_code
