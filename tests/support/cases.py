"""`make docs` writes tests/acceptance/README.md from this: which test proves which case.

A test of a case has the case's number in its name; others that prove one are named in `ELSEWHERE`.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
TABLE: Final = TESTS / "acceptance/README.md"

# Every visible case of parts A, B, D and E; of part C those that have a test of their number.
TITLES: Final = {
    1: "NaN and Infinity",
    2: "Lone surrogates",
    3: "NUL",
    4: "Integers past the column",
    6: "Depth bombs",
    7: "Encodings",
    9: "Content types",
    10: "Body size",
    11: "Compressed bodies",
    12: "Text length",
    13: "No echo of secrets",
    15: "Strict types and unknown fields",
    16: "Header abuse",
    17: "Request smuggling",
    18: "Methods and paths",
    20: "Batch shape",
    21: "Log injection",
    23: "Redis refused",
    24: "Redis frozen",
    25: "What each feature does without Redis",
    26: "Batches accepted without the broker",
    27: "Worker outlives broker restarts",
    28: "A full Redis keeps the queue",
    30: "Postgres refused",
    31: "Postgres frozen",
    32: "Sessions terminated under load",
    33: "Postgres out of connections",
    36: "Boot order",
    37: "Bad model releases",
    38: "SIGTERM with requests in flight",
    39: "A drain that takes too long",
    40: "Rollout without errors",
    41: "Web process killed while it writes",
    42: "Worker told to stop within a chunk",
    43: "PID 1",
    44: "Read-only root",
    46: "Migrations at once",
    48: "Release N-1 beside N",
    51: "Probes while all else waits",
    57: "A batch of 100,000 texts",
    61: "Limits are exact",
    63: "Cardinality of metrics",
    65: "alg=none",
    66: "Algorithm confusion",
    68: "Foreign headers",
    70: "Huge and encrypted tokens",
    72: "Missing claims",
    73: "Cross-use",
    74: "Time boundaries",
    76: "Transport of the credential",
    77: "Key rotation without logouts",
    78: "Weak secrets refused at start",
    79: "Blast radius of the shared secret",
    80: "Refresh reuse",
    82: "Logout",
    83: "Live token of a changed user",
    84: "Enumeration by login",
    85: "Enumeration by register and keys",
    86: "Password bytes",
    87: "Password policy and stored hashes",
    90: "Mass assignment",
    91: "IDOR matrix",
    92: "Function level",
    93: "Throttle cannot be outrun",
    95: "X-Forwarded-For",
    96: "API keys",
    98: "Leaks",
    99: "Pod Security and scanners",
    100: "NetworkPolicies",
    101: "Chart secrets are stable",
    102: "Supply chain",
    103: "202 means durable",
    105: "FLUSHALL within a batch",
    106: "Redis killed without persistence",
    108: "A message delivered twice",
    111: "Sweepers at once",
    113: "Cancel",
    115: "Idempotency-Key",
    116: "Progress is true",
    118: "Chaos",
    119: "Restore drill",
    120: "Backup under load",
}
# What proves a case under a name without its number.
ELSEWHERE: Final = {
    26: [
        "batch_worker/test_doorbell.py::test_doorbell_is_silent_while_redis_is_down_and_rings_after",
        "batch_worker/test_doorbell.py::test_doorbell_is_silent_while_redis_is_frozen_and_rings_after",
    ],
    28: ["chart/test_availability.py::test_nothing_is_evicted_from_the_queue"],
    32: ["batch_worker/test_jobs_survive.py::test_batch_survives_ended_database_sessions"],
    36: ["e2e/test_lifecycle.py::test_five_of_each_at_once_on_an_empty_database"],
    37: ["ml/test_release.py", "e2e/test_model.py::test_own_model"],
    38: ["chart/test_pods.py::test_pods_leave_in_their_time"],
    40: ["e2e/test_rollout.py"],
    43: ["chart/test_pods.py::test_commands_are_plain_processes"],
    44: ["chart/test_pods.py::test_every_pod_is_restricted"],
    46: ["e2e/test_lifecycle.py::test_five_of_each_at_once_on_an_empty_database"],
    51: ["chart/test_pods.py::test_probes_ask_different_questions"],
    77: ["e2e/test_keyring.py"],
    79: [
        "chart/test_pods.py::test_secrets_go_where_they_are_needed",
        "chart/test_pods.py::test_no_secret_is_in_an_environment_or_a_command",
        "migrations/test_roles.py::test_roles_get_their_rows_and_no_more",
        "migrations/test_roles.py::test_a_right_too_many_is_taken_back",
    ],
    99: ["chart/test_pods.py", "chart/test_scanners.py"],
    100: ["chart/test_network.py", "e2e/test_isolation.py"],
    101: [
        "chart/test_rendering.py::test_render_is_not_random_where_secrets_exist",
        "chart/test_rendering.py::test_trial_secrets_are_hooks_outside_of_every_revision",
    ],
    106: ["e2e/test_faults.py::test_deleted_redis"],
}
# What of a case is not tested, and why.
LEFT: Final = {
    17: "through nginx with a pipelined second request: the ingress is the e2e tests' own",
    25: "(d), a cache: no answer is kept in Redis, so none can be missed",
    37: "by signature: who can write the release can write its manifest; its hash is what counts",
    48: "code N on schema N-1: it waits for the migration; of N-1's own tests, these threads",
    101: "`lookup` is not used: a trial's Secrets are made once by a hook",
    102: "an SBOM for each image: that of the lock lists all that any image may hold; advisories"
    ' where none can be read: `make check` then says "not proven"',
}

_HEAD = """# Which test proves which case

The numbers are the catalogue's of reliability and security cases. Parts A (bad input, 1 to 22),
B (faults, 23 to 51), D (security, 65 to 102) and E (data loss, 103 to 120) are here whole; of
part C (load) what has a test of its own. `make docs` writes this page from
`tests/support/cases.py` and the tests' names.

| case | what | tests | left |
|---|---|---|---|
"""


def numbered() -> dict[int, list[str]]:
    """The tests of each case, by the numbers in their names."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in re.findall(r"^def (test_case_\w+)", path.read_text("utf-8"), re.MULTILINE):
            # One test may prove several: test_case_002_and_003_…
            numbers = re.match(r"test_case_(\d{3}(?:_and_\d{3})*)_", name)
            assert numbers is not None, f"{name} lacks its three digits"
            for number in numbers[1].split("_and_"):
                found[int(number)].append(f"{path.relative_to(TESTS)}::{name}")
    return found


def table() -> str:
    """The page."""
    tests = numbered()
    rows = []
    for number in sorted(tests.keys() | TITLES.keys()):
        names = [f"`{name}`" for name in tests.get(number, []) + ELSEWHERE.get(number, [])]
        cells = (str(number), TITLES.get(number, ""), "<br>".join(names), LEFT.get(number, ""))
        rows.append(f"| {' | '.join(cells)} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    TABLE.write_text(table(), "utf-8")
