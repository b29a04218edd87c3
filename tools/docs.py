"""`make docs` generates two files from the code: the OpenAPI document and the settings page."""

import json
import tempfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from valence.local.migrations import CHECKOUT
from valence_auth.app import create_app as create_auth
from valence_auth.settings import Settings as AuthSettings
from valence_batch_worker.settings import Settings as WorkerSettings
from valence_common import keyring
from valence_common.settings import PREFIX, BatchSettings, DatabaseSettings, Settings, WebSettings
from valence_common.web import openapi
from valence_inference.app import create_app as create_inference
from valence_inference.settings import Settings as InferenceSettings

OPENAPI = CHECKOUT / "services/inference/valence_inference/openapi.json"
CONFIGURATION = CHECKOUT / "docs/configuration.md"

_DESCRIPTION = (
    "Text sentiment as a service: register, log in, send one text or a hundred thousand."
    " Every error is a problem document (RFC 9457)."
)
_HEAD = """# Configuration

Every process reads its settings from the environment, then from files in `VALENCE_SECRETS_DIR`
(one file per secret, named like the variable in lower case). A process that finds an unknown name
with the prefix `VALENCE_` exits with one sentence. `make docs` generates this page.
"""


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI documents of both services as one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keyring.json"
        path.write_bytes(keyring.generate())
        postgres, redis = SecretStr("postgresql://nowhere/none"), SecretStr("redis://nowhere/0")
        inference = create_inference(
            InferenceSettings(
                database_url=postgres, redis_url=redis, jwt_keyring_file=path, docs_enabled=False
            )
        )
        auth = create_auth(
            AuthSettings(database_url=postgres, redis_url=redis, jwt_keyring_file=path)
        )
    apps = (auth, inference)
    return openapi.merge([app.openapi() for app in apps], title="Valence", description=_DESCRIPTION)


def configuration_page() -> str:
    """Return the page that lists every setting of every process."""
    sections = (
        ("Every process", Settings, ()),
        ("Services with a public port (auth, inference)", WebSettings, (Settings,)),
        ("inference and batch-worker (must agree)", BatchSettings, (Settings,)),
        ("auth", AuthSettings, (WebSettings,)),
        ("inference", InferenceSettings, (WebSettings, BatchSettings)),
        ("batch-worker", WorkerSettings, (BatchSettings,)),
    )
    return _HEAD + "".join(_section(*section) for section in sections)


def _section(
    title: str, own: type[DatabaseSettings], bases: tuple[type[DatabaseSettings], ...]
) -> str:
    inherited = {name for base in bases for name in base.model_fields}
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |\n"
        for name, field in own.model_fields.items()
        if name not in inherited
    ]
    return f"\n## {title}\n\n| setting | default | meaning |\n|---|---|---|\n{''.join(rows)}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Path):
        return "the release in `valence_ml`"
    if default in (None, "", (), {}):
        return "none"
    # As in the environment: lists separated by commas, the rest as JSON.
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{default if isinstance(default, str) else to_json(default).decode()}`"


def main() -> None:
    """Write both files."""
    OPENAPI.write_text(json.dumps(openapi_document(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    CONFIGURATION.write_text(configuration_page(), "utf-8")


if __name__ == "__main__":
    main()
