"""Settings: sources, validation, and errors without values."""

from pathlib import Path

import pytest

from valence_auth.settings import Settings as AuthSettings
from valence_common.settings import SettingsError, load

GOOD = {
    "VALENCE_DATABASE_URL": "postgresql://valence:quite-fine@db:5432/valence",
    "VALENCE_REDIS_URL": "redis://:also-fine@redis:6379/0",
    "VALENCE_JWT_KEYRING_FILE": "/keys/keyring.json",
}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with valid settings."""
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def _problems() -> str:
    with pytest.raises(SettingsError) as refused:
        load(AuthSettings)
    return str(refused.value)


def test_environment_is_read(env: pytest.MonkeyPatch) -> None:
    """Values come from VALENCE_ variables; the database URL gets the driver."""
    env.setenv("VALENCE_PORT", "8123")
    settings = load(AuthSettings)
    url = settings.database_url.get_secret_value()
    assert "postgresql+psycopg2://valence:quite-fine@db:5432/valence" == url
    assert (8123, 1800) == (settings.port, settings.access_token_seconds)


def test_all_missing_settings_are_named(env: pytest.MonkeyPatch) -> None:
    """One start names every setting that is required."""
    for name in GOOD:
        env.delenv(name)
    assert "; ".join(f"{name} is not set" for name in GOOD) == _problems()


def test_unknown_names_are_errors(env: pytest.MonkeyPatch) -> None:
    """A misspelt name would otherwise leave the default in force."""
    env.setenv("VALENCE_ACCES_TOKEN_SECONDS", "60")
    env.setenv("VALENCE_MODEL_DIR", "/models")
    assert (
        "VALENCE_ACCES_TOKEN_SECONDS is not a setting of this process;"
        " VALENCE_MODEL_DIR is not a setting of this process"
    ) == _problems()
    assert load(AuthSettings, alone=False)


def test_secrets_come_from_files(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file with the name of the variable in lower case; the environment takes precedence."""
    (tmp_path / "valence_database_url").write_text("postgresql://u:from-file@h/d\n")
    (tmp_path / "valence_redis_url").write_text("redis://:from-file@h\n")
    env.setenv("VALENCE_SECRETS_DIR", str(tmp_path))
    env.delenv("VALENCE_DATABASE_URL")
    settings = load(AuthSettings)
    assert "postgresql+psycopg2://u:from-file@h/d" == settings.database_url.get_secret_value()
    assert GOOD["VALENCE_REDIS_URL"] == settings.redis_url.get_secret_value()


def test_unreadable_secrets_are_one_sentence(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a secrets folder that is a file, and a secret that is not text."""
    file = tmp_path / "valence_database_url"
    file.write_bytes(b"\xff\xfe")
    env.delenv("VALENCE_DATABASE_URL")
    for folder in (tmp_path, file):
        env.setenv("VALENCE_SECRETS_DIR", str(folder))
        assert _problems().startswith("VALENCE_SECRETS_DIR: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "S3ntinel"),
        ("database_url", "mysql://u:S3ntinel@h/d"),
        ("database_url", "postgresql://u:@h/d"),
        ("database_url", "postgresql://u:changeme@h/d"),
        ("database_url", "postgresql://u:PassWord@h/d"),
        ("database_url", "postgresql://u:p@h:S3ntinel/d"),
        ("redis_url", "S3ntinel"),
        ("redis_url", "http://S3ntinel"),
        ("redis_url", "redis://:secret@h"),
        ("redis_url", "redis://:S3ntinel/x@h"),
        ("redis_url", "redis://:p@h:S3ntinel"),
        ("port", "S3ntinel"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "80.5"),
        ("log_level", "S3ntinel"),
        ("log_format", ""),
        ("database_pool_size", "0"),
        ("database_timeout_seconds", "nan"),
        ("access_token_seconds", "3601"),
        ("access_token_seconds", "59"),
        ("login_attempts", "-1"),
    ],
)
def test_invalid_values_are_named_and_not_shown(
    env: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The message contains the name and the rule, never the value."""
    env.setenv(f"VALENCE_{name.upper()}", value)
    message = _problems()
    assert f"VALENCE_{name.upper()}: " in message
    assert 1 == len(message.splitlines())
    assert "S3ntinel" not in message
    assert len(value) < 6 or value not in message


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_schemes_of_a_postgres_url(env: pytest.MonkeyPatch, scheme: str) -> None:
    """Every usual scheme of Postgres selects the driver that is installed."""
    env.setenv("VALENCE_DATABASE_URL", f"{scheme}://u:p@h/d?sslmode=require")
    url = load(AuthSettings).database_url.get_secret_value()
    assert "postgresql+psycopg2://u:p@h/d?sslmode=require" == url


def test_settings_do_not_show_their_secrets(env: pytest.MonkeyPatch) -> None:
    """Printing the settings prints no password."""
    shown = repr(load(AuthSettings))
    assert "quite-fine" not in shown
    assert "also-fine" not in shown
