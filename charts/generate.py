"""Writes what follows from other files: the chart's schema, README and a query; k8s/install.

`python charts/generate.py` writes them, needs helm; a test holds that nothing would change.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from valence_auth.settings import Settings as Auth
from valence_batch_worker.batches.backlog import MOST_CHUNKS, WAITING
from valence_batch_worker.settings import Settings as Worker
from valence_common.settings import DatabaseSettings
from valence_common.settings import Settings as Common
from valence_inference.settings import Settings as Inference

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "valence"
SCHEMA = CHART / "values.schema.json"
INSTALL = ROOT / "k8s" / "install"

DECIDED = frozenset(
    {"database_url", "redis_url", "jwt_keyring_file", "model_dir"}  # secrets and volumes
    | {"host", "port", "internal_host", "internal_port"}  # what Services and probes call
    | {"database_pool_size", "concurrency", "drain_seconds"}  # values that other objects need, too
    | {
        "plans",
        "trusted_proxies",
        "oidc_issuer",
        "oidc_client_id",
        "oidc_client_secret",
    }  # values as well
    | {"oidc_redirect_url", "cors_origins", "allowed_hosts", "store_texts"}
    | {"webhooks_enabled", "webhooks_allow_http", "webhooks_allowed_networks"}
)
"""Settings that the chart sets itself; all others may be set under `config`."""

SERVICES: Mapping[str, type[DatabaseSettings]] = {
    "config": Common,
    "auth": Auth,
    "inference": Inference,
    "batchWorker": Worker,
}


def camel(name: str) -> str:
    """A setting's name as the chart writes it."""
    return re.sub(r"_(.)", lambda match: match[1].upper(), name)


def settings(cls: type[DatabaseSettings]) -> dict[str, Any]:
    """The schema of a service's settings, as the chart takes them."""
    document = cls.model_json_schema()
    definitions = document.get("$defs", {})
    return {
        camel(name): _plain(field, definitions)
        for name, field in document["properties"].items()
        if name not in DECIDED
    }


KEPT = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "description", "default")


def _plain(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A field's schema without references, and without what readers of a chart need not know."""
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    plain = {key: field[key] for key in KEPT if key in field}
    for key in ("items", "additionalProperties"):
        inner = field.get(key)
        if inner is not None:
            plain[key] = _plain(inner, definitions) if isinstance(inner, dict) else inner
    if "properties" in field:
        plain["properties"] = {
            name: _plain(inner, definitions) for name, inner in field["properties"].items()
        }
    return plain


def schema() -> str:
    """`values.schema.json` with the settings that the code has now."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for name, cls in SERVICES.items():
        place = document["properties"]
        whose = "all services" if name == "config" else "this service"
        place = place if name == "config" else place[name]["properties"]
        place["config"] = {
            "type": "object",
            "description": f"Settings of {whose}; what is not set keeps the service's default.",
            "additionalProperties": False,
            "properties": settings(cls),
        }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def readme() -> str:
    """The chart's README: the prose, then every value with its default and meaning."""
    document = json.loads(schema())
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, value, node in _walk(document, document, values, ()):
        default = "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"
        meaning = node.get("description", "").replace("|", "\\|")
        lines.append(f"| `{'.'.join(path)}` | {default} | {meaning} |")
    prose = (CHART / "README.in.md").read_text(encoding="utf-8")
    note = (
        "\n<!-- Written by charts/generate.py from README.in.md, the schema and values.yaml. -->\n"
    )
    return prose + "\n".join(lines) + "\n" + note


def _walk(
    document: dict[str, Any], node: dict[str, Any], value: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        resolved = child
        if "$ref" in child:
            resolved = document["$defs"][child["$ref"].rpartition("/")[2]]
        here = (*path, name)
        own = value.get(name) if isinstance(value, dict) else None
        if "properties" in resolved and name != "behavior":
            yield from _walk(document, resolved, own, here)
        else:
            # A setting's default is its service's; the chart only repeats it for readers.
            yield here, own if own is not None else resolved.get("default"), {**resolved, **child}


def install() -> str:
    """The objects of `kubectl apply -k k8s/install/…`: the chart, rendered once for all."""
    command = ["helm", "template", "valence", str(CHART), "--no-hooks", "--skip-tests"]
    command += ["--kube-version", "1.34.0", "--values", str(INSTALL / "values.yaml")]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    head = "# Written by charts/generate.py from charts/valence and values.yaml; do not edit.\n"
    return head + rendered.replace("managed-by: Helm", "managed-by: kubectl")


def waiting() -> str:
    """The query that KEDA scales by: the worker's own, with the values of this installation."""
    attempts = Worker.model_fields["max_attempts"].default
    attempts_value = f".Values.batchWorker.config.maxAttempts | default {attempts}"
    values = {
        ":max_attempts": f"{{{{ {attempts_value} }}}}",
        ":most": str(MOST_CHUNKS),
    }
    query = WAITING
    for name, value in values.items():
        query = query.replace(name, value)
    return " ".join(query.split()) + "\n"


FILES = {
    CHART / "files" / "backlog.sql": waiting,
    SCHEMA: schema,
    CHART / "README.md": readme,
    INSTALL / "base" / "valence.yaml": install,
}


def main() -> None:
    """Write every file anew, in the order in which one follows from another."""
    for path, content in FILES.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content(), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
