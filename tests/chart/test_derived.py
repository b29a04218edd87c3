"""The generated files of the chart are up to date."""

import pytest
from charts import generate

from support.required import tool


@pytest.mark.parametrize("path", generate.FILES, ids=lambda path: path.name)
def test_generated_file_is_up_to_date(path) -> None:
    """`make chart` would change nothing."""
    if generate.FILES[path] is generate.manifests:
        tool("helm")
    assert path.read_text(encoding="utf-8") == generate.FILES[path]()
