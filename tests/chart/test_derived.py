"""What is written from other files is what they say now."""

import importlib.util
import sys

import pytest

from support.chart import ROOT

_spec = importlib.util.spec_from_file_location("chart_generate", ROOT / "charts" / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
sys.modules["chart_generate"] = generate
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("path", generate.FILES, ids=lambda path: path.name)
def test_written_file_is_fresh(path) -> None:
    """`python charts/generate.py` would change nothing."""
    assert path.read_text(encoding="utf-8") == generate.FILES[path]()
