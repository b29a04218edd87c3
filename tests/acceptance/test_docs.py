"""The documentation page: its own files, a strict policy, nothing from elsewhere."""

import json
import re
from html.parser import HTMLParser

from tools import docs

from support.invariants import CheckedClient


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = ""
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]
        self._script = tag == "script"

    def handle_data(self, data: str) -> None:
        self.inline += data.strip() if self._script else ""


def test_docs_page_and_its_assets(checked: CheckedClient) -> None:
    """The page loads only from here, has no inline script, and all that it asks for is there."""
    page = checked.request("GET", "/docs")
    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["content-type"])
    links = _Links()
    links.feed(page.text)
    assert "" == links.inline
    assert len(links.found) >= 4
    for link in links.found:
        assert re.fullmatch(r"/docs/[\w.-]+", link), link
        asset = checked.request("GET", link)
        assert 200 == asset.status_code
        assert len(asset.content) > 50
        assert "nosniff" == asset.headers["x-content-type-options"]
    policy = dict(
        p.strip().split(" ", 1) for p in page.headers["content-security-policy"].split(";")
    )
    assert "'none'" == policy["default-src"]
    assert "'self'" == policy["script-src"]
    assert "'self'" == policy["connect-src"]
    assert "'none'" == policy["frame-ancestors"]
    assert not re.search(r"https?://|\*|unsafe-eval", page.headers["content-security-policy"])


def test_start_script_asks_for_our_document(checked: CheckedClient) -> None:
    """The page's script loads the document that this service serves."""
    script = checked.request("GET", "/docs/start.js")
    assert "text/javascript" in script.headers["content-type"]
    assert 'url: "/openapi.json"' in script.text
    assert not re.search(r"https?://", script.text)


def test_unknown_assets_do_not_exist(checked: CheckedClient) -> None:
    """Only the page's own files are served."""
    for name in ("swagger-ui-bundle.js.map", "../api.py", "__init__.py", "redoc.html", "x"):
        assert 404 == checked.request("GET", f"/docs/{name}").status_code


def test_openapi_document_is_the_committed_one(checked: CheckedClient) -> None:
    """The running service serves the merged document that is in the repository."""
    document = checked.request("GET", "/openapi.json").json()
    assert json.loads(docs.OPENAPI.read_text("utf-8")) == document
    for path in ("/api/v1/auth/login", "/api/v1/users/me", "/api/v1/sentiment/analyze", "/health"):
        assert path in document["paths"]
    assert len(json.dumps(document)) > 10_000
