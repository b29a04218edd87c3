"""`make docs` fills the last column of docs/reliability.md: the tests that prove each case.

A test of a case has the case's number in its name; `ELSEWHERE` names the others.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = ROOT / "tests"
PAGE: Final = ROOT / "docs/reliability.md"

ELSEWHERE: Final = {
    26: [
        "batch_worker/test_doorbell.py::test_doorbell_is_silent_while_redis_is_down_and_rings_after",
        "batch_worker/test_doorbell.py::test_doorbell_is_silent_while_redis_is_frozen_and_rings_after",
    ],
    28: ["chart/test_availability.py::test_nothing_is_evicted_from_the_queue"],
    32: ["batch_worker/test_worker_faults.py::test_batch_survives_ended_database_sessions"],
    36: ["e2e/test_lifecycle.py::test_five_of_each_at_once_on_an_empty_database"],
    37: ["ml/test_release.py", "e2e/test_model.py::test_own_model"],
    38: ["chart/test_pods.py::test_shutdown_fits_into_the_grace_period"],
    40: ["e2e/test_rollout.py"],
    43: ["chart/test_pods.py::test_commands_are_plain_processes"],
    44: ["chart/test_pods.py::test_every_pod_is_restricted"],
    46: ["e2e/test_lifecycle.py::test_five_of_each_at_once_on_an_empty_database"],
    51: ["chart/test_pods.py::test_probes_ask_different_questions"],
    54: ["faults/test_login_storm.py::test_login_storm"],
    55: ["faults/test_login_storm.py::test_login_storm"],
    56: [
        "acceptance/test_heads.py::test_heads_that_do_not_end",
        "acceptance/test_sizes.py::test_case_010_a_body_that_stalls",
        "faults/test_connections.py::test_clients_beyond_all_measure_are_sent_away",
    ],
    59: ["chart/test_availability.py::test_connections_fit_into_postgres"],
    77: ["e2e/test_keyring.py"],
    79: [
        "chart/test_pods.py::test_secrets_go_where_they_are_needed",
        "chart/test_pods.py::test_no_secret_is_in_an_environment_or_a_command",
        "migrations/test_roles.py::test_roles_get_their_rows_and_no_more",
        "migrations/test_roles.py::test_an_extra_right_is_revoked",
    ],
    99: ["chart/test_pods.py", "chart/test_scanners.py"],
    100: ["chart/test_network.py", "e2e/test_isolation.py"],
    101: [
        "chart/test_rendering.py::test_render_is_not_random_where_secrets_exist",
        "chart/test_rendering.py::test_trial_secrets_are_hooks_outside_of_every_revision",
    ],
    106: ["e2e/test_faults.py::test_deleted_redis"],
}
"""The tests of a case whose names lack its number."""

_REMARKS: Final = {"faults": "faults", "slow_faults": "long", "e2e": "cluster"}
"""The remark on the page for each marker; the folder of `e2e_full` tests implies theirs."""

_ROW = re.compile(r"^\| (\d+) \| (.*) \|[^|]*\|$")


def numbered() -> dict[int, list[str]]:
    """Return the tests of each case, by the numbers in their names."""
    tests: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in re.findall(r"^def (test_case_\w+)", path.read_text("utf-8"), re.MULTILINE):
            # One test may prove several cases: test_case_002_and_003_…
            numbers = re.match(r"test_case_(\d{3}(?:_and_\d{3})*)_", name)
            if numbers is None:
                raise ValueError(f"{path}: {name} lacks its three digits")
            for number in numbers[1].split("_and_"):
                tests[int(number)].append(f"{path.relative_to(TESTS)}::{name}")
    return tests


def remarks(test: str) -> set[str]:
    """Return the remarks of a test, or of every test of a file; the page explains them."""
    name, _, function = test.partition("::")
    module = ast.parse((TESTS / name).read_text("utf-8"))
    found = {"chart": {"helm"}, "e2e": {"cluster"}}.get(name.partition("/")[0], set())
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                found |= _marked(value)
            case ast.FunctionDef(name=name_, decorator_list=decorators) if name_ == function:
                found = found.union(*map(_marked, decorators))
            case ast.ImportFrom(module="support", names=names) if "sandbox" in _imported(names):
                found |= {"root"}
            case ast.ImportFrom(module="support.sandbox"):
                found |= {"root"}
            case _:
                pass
    return found - {"faults"} if "long" in found else found


def page(text: str) -> str:
    """Return the page with its last column made from the tests."""
    tests = numbered()
    lines = []
    for line in text.splitlines():
        row = _ROW.match(line)
        if row:
            number = int(row[1])
            cell = _cell(tests.get(number, []) + ELSEWHERE.get(number, []))
            line = f"| {number} | {row[2]} | {cell} |"  # noqa: PLW2901 - the row, completed
        lines.append(f"{line}\n")
    return "".join(lines)


def rows(text: str) -> Iterator[int]:
    """Yield the numbers that the page has a row for."""
    for line in text.splitlines():
        if row := _ROW.match(line):
            yield int(row[1])


def _cell(tests: list[str]) -> str:
    needs = [(test, sorted(remarks(test))) for test in tests]
    links = [_link(test) + (f" ({', '.join(words)})" if words else "") for test, words in needs]
    if needs and all(words for _, words in needs):
        kinds = dict.fromkeys(" and ".join(words) for _, words in needs)
        links.insert(0, f"**only {' or '.join(kinds)}**")
    return "; ".join(links)


def _link(test: str) -> str:
    """Return a link to the file, with the test's name in words, or the file's own name."""
    file, _, function = test.partition("::")
    name = re.sub(r"^test_(?:case_\d{3}_(?:and_\d{3}_)*)?", "", function).replace("_", " ")
    return f"[{name or file.removesuffix('.py')}](../tests/{file})"


def _marked(expression: ast.expr) -> set[str]:
    """Return the remarks of `pytest.mark.…`, without those of single parameters."""
    words = {
        node.attr
        for node in ast.walk(expression)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    }
    return set() if "parametrize" in words else {_REMARKS[word] for word in words & _REMARKS.keys()}


def _imported(names: list[ast.alias]) -> set[str]:
    return {alias.name for alias in names}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
