"""The settings of a provider."""

from pathlib import Path

import pytest

from valence_auth.oidc.provider import ClientConfig
from valence_auth.settings import Settings
from valence_common.settings import SettingsError, load

WHOLE = {
    "oidc_issuer": "https://id.example",
    "oidc_client_id": "valence",
    "oidc_client_secret": "a-long-enough-secret",
    "oidc_redirect_url": "https://valence.example/api/v1/auth/oidc/callback",
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"oidc_client_secret": None}, "login with OpenID also needs VALENCE_OIDC_CLIENT_SECRET"),
        ({"oidc_issuer": None}, "login with OpenID also needs VALENCE_OIDC_ISSUER"),
        (
            {"oidc_client_id": None, "oidc_redirect_url": None},
            "login with OpenID also needs VALENCE_OIDC_CLIENT_ID, VALENCE_OIDC_REDIRECT_URL",
        ),
        ({"oidc_issuer": "http://id.example"}, "VALENCE_OIDC_ISSUER: must begin with https://"),
        ({"oidc_issuer": "id.example"}, "VALENCE_OIDC_ISSUER: must be a whole URL"),
        ({"oidc_redirect_url": "http://v.example/"}, "VALENCE_OIDC_REDIRECT_URL: must begin"),
        (
            {"oidc_client_secret": "changeme"},
            "VALENCE_OIDC_CLIENT_SECRET: must be at least 12 characters long",
        ),
        ({"oidc_scopes": "email"}, "VALENCE_OIDC_SCOPES: must name the scope openid"),
    ],
)
def test_settings_are_complete_or_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str | None], sentence: str
) -> None:
    """Incomplete settings stop start-up with a sentence that contains no value."""
    common = {
        "database_url": "postgresql://u:p4ss@127.0.0.1/v",
        "redis_url": "redis://127.0.0.1",
        "jwt_keyring_file": str(tmp_path / "keyring.json"),
    }
    for name, value in (common | WHOLE).items():
        monkeypatch.setenv(f"VALENCE_{name.upper()}", value)
    assert ClientConfig.from_settings(load(Settings)) is not None
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(f"VALENCE_{name.upper()}")
        else:
            monkeypatch.setenv(f"VALENCE_{name.upper()}", value)
    with pytest.raises(SettingsError, match=sentence) as raised:
        load(Settings)
    assert "a-long-enough-secret" not in str(raised.value)
