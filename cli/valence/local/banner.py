"""The banner after start-up: the addresses, and three commands to try."""

from pathlib import Path
from string import Template

from rich.console import Console

# For any POSIX shell, to be pasted one after the other. They are templates rather than format
# strings because they contain JSON's braces.
_CURL_LINES = (
    Template(
        "curl -s $url/api/v1/auth/register -H 'Content-Type: application/json'"
        """ -d '{"username":"ada","email":"ada@example.com","password":"correct horse battery"}'"""
    ),
    Template(
        "TOKEN=$$(curl -s $url/api/v1/auth/login"
        " -d username=ada --data-urlencode 'password=correct horse battery'"
        """ | python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])')"""
    ),
    Template(
        'curl -s $url/api/v1/sentiment/analyze -H "Authorization: Bearer $$TOKEN"'
        """ -H 'Content-Type: application/json' -d '{"text":"I love this product!"}'"""
    ),
)


def curl_lines(url: str) -> list[str]:
    """Return shell commands that register, log in and analyze a text."""
    return [line.substitute(url=url) for line in _CURL_LINES]


def show(url: str, home: Path, console: Console) -> None:
    """Print the banner without wrapping long lines, so that they can be copied."""

    def line(text: str = "", style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line()
    line("  Valence is ready.", "bold green")
    line()
    line(f"  Address         {url}")
    line(f"  Documentation   {url}/docs")
    line(f"  Data and logs   {home}")
    line()
    line("  Try it from another terminal:")
    line()
    for command in curl_lines(url):
        line(command, "cyan")
    line()
    line("  Ctrl-C stops everything and keeps the data.", "dim")
    line()
