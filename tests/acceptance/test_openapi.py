"""Schemathesis: whatever the document allows or forbids, the services answer as it says.

The document is both services' own, merged; tests/architecture keeps it equal to the code.
"""

import json
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, settings

from support.stack import Account, Stack

DOCUMENT = Path(__file__).parents[2] / "services/inference/valence_inference/openapi.json"


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_: object, value: object) -> bytes:
    """Lines are written by hand: what is generated for them is a string."""
    return (
        value.encode("utf-8", "surrogatepass")
        if isinstance(value, str)
        else json.dumps(value).encode()
    )


schema = schemathesis.openapi.from_path(DOCUMENT)


@schema.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_services_are_as_documented(
    case: schemathesis.Case, stack: Stack, account: Account
) -> None:
    """No 5xx; statuses, types, headers and bodies as documented; authentication enforced."""
    private = case.operation.definition.raw.get("security")
    case.call_and_validate(
        base_url=stack.url(case.operation.path).removesuffix(case.operation.path),
        headers=account.headers if private else {},
        timeout=20,
        # Rules that no schema can say: unique names, cursors of ours, no NUL.
        excluded_checks=[schemathesis.checks.positive_data_acceptance],
    )
