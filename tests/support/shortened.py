"""A service whose constants are others than its own, so that a test need not wait for them.

`SHORTENED` is JSON: the service's module and, by their full names, its constants.
"""

import importlib
import json
import os
import runpy
from typing import Any

from support.stack import Service, Stack


def start(stack: Stack, name: str, constants: dict[str, float], **settings: Any) -> Service:
    """Start a service with these constants."""
    environment = {"SHORTENED": json.dumps([f"valence_{name}", constants])}
    before, stack.environment = stack.environment, stack.environment | environment
    try:
        return stack.start(name, module="support.shortened", **settings)
    finally:
        stack.environment = before


if __name__ == "__main__":
    service, values = json.loads(os.environ["SHORTENED"])
    for path, value in values.items():
        module, _, constant = path.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), path
        setattr(importlib.import_module(module), constant, value)
    runpy.run_module(service, run_name="__main__")
