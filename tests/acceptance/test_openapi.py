"""Schemathesis: whatever the document allows or forbids, the services answer as it says.

The document is both services' own, merged; tests/architecture keeps it equal to the code.
"""

import functools
import json
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test

from support.operations import Operation, operations
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


@functools.cache
def schema() -> schemathesis.schemas.BaseSchema:
    load_all_checks()
    return schemathesis.openapi.from_path(DOCUMENT)


@pytest.mark.parametrize("operation", operations(), ids=str)
def test_the_services_are_as_documented(
    operation: Operation, stack: Stack, account: Account
) -> None:
    """No 5xx; statuses, types, headers and bodies as documented; authentication enforced.

    `schema.parametrize` would make the cases of all operations in each test process, before any
    test; here they are made, in the same way, by the process that runs them.
    """

    @settings(
        max_examples=10,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            base_url=stack.url(operation.path).removesuffix(operation.path),
            headers={} if operation.scopes is None else account.headers,
            timeout=20,
            # Rules that no schema can say: unique names, cursors of ours, no NUL.
            excluded_checks=[schemathesis.checks.positive_data_acceptance],
        )

    build_operation_test(
        config=schema().config,
        operation=schema()[operation.path][operation.method],
        test_func=check,
        given_kwargs={},
        feedback=FeedbackSources(),
    )()
