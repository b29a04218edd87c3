"""What the user reads once Valence answers: where it is, and three lines to try it with."""

from pathlib import Path
from string import Template

from rich.console import Console

# For any POSIX shell, to be pasted one after the other; JSON's braces and the shell's own $TOKEN
# are why these are templates.
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
    """Register, log in, analyze."""
    return [line.substitute(url=url) for line in _CURL_LINES]


def show(url: str, home: Path, console: Console) -> None:
    """Print the banner; long lines are left whole, so that they can be copied."""

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
    line("  Ctrl-C stops everything; the data stays.", "dim")
    line()
