"""Reliability cases 85, 93 and 95: throttles hold, and clients cannot choose their address."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from support.invariants import CheckedClient
from support.stack import PASSWORD, Account, Service, Stack
from support.waiting import until

LOGIN = "/api/v1/auth/login"
REGISTER = "/api/v1/auth/register"
WINDOW = 15
SPOOFED = ("127.0.0.1", "::1", "10.0.0.1, 1.2.3.4", "x", "1.2.3.4:80", "", "[::1]", "198.51.100.9")


@pytest.fixture(scope="module")
def outside(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str
) -> Iterator[Stack]:
    """Auth, as others configure it."""
    stack = Stack(tmp_path_factory.mktemp("outside"), database_url, redis_url)
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def proxied(outside: Stack) -> Service:
    """A process behind a proxy: this machine's word on addresses is believed."""
    return outside.start(
        "auth",
        trusted_proxies="127.0.0.1/32",
        login_address_attempts=30,
        register_attempts=20,
    )


@pytest.fixture(scope="module")
def replicas(outside: Stack) -> list[Service]:
    """Two processes with a short window, which believe other proxies."""
    settings = {"trusted_proxies": "192.0.2.0/24", "login_window_seconds": WINDOW}
    services = [outside.start("auth", ready=False, **settings) for _ in range(2)]
    return [service.wait_ready() for service in services]


@pytest.fixture(scope="module", autouse=True)
def started(proxied: Service, replicas: list[Service]) -> None:
    """They are there before `watch` counts the connections to their database."""


def _client_address() -> str:
    """An address that no other test has."""
    return f"198.18.{uuid.uuid4().int % 256}.{uuid.uuid4().int % 256}"


def _login(service: Service, name: str, password: str, **headers: str) -> httpx.Response:
    form = {"username": name, "password": password}
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx.post(service.url + LOGIN, data=form, headers=named, timeout=30)


def _shape(answer: httpx.Response) -> tuple[object, ...]:
    passing = {"date", "x-request-id", "retry-after", "ratelimit"}
    headers = {k: v for k, v in answer.headers.items() if k not in passing}
    return answer.status_code, headers, answer.json() | {"request_id": ""}


def test_case_085_enumeration_by_register(
    proxied: Service, checked: CheckedClient, account: Account
) -> None:
    """A taken name or address is one documented refusal, and few can be asked about."""
    taken = []
    for username, email in (
        (account.username, "free@example.com"),
        ("free-name", account.email),
        (account.username.upper(), account.email.upper()),
    ):
        body = {"username": username, "email": email, "password": PASSWORD}
        taken.append(checked.request("POST", REGISTER, json=body))
    assert (400, "Username or email already registered") == (
        taken[0].status_code,
        taken[0].json()["detail"],
    )
    assert [_shape(taken[0])] * 3 == [_shape(answer) for answer in taken]
    statuses = []
    headers = {"X-Forwarded-For": _client_address()}
    for number in range(23):
        name = f"user-{uuid.uuid4().hex[:12]}"
        email = account.email if number % 2 else f"{name}@example.com"
        body = {"username": name, "email": email, "password": PASSWORD}
        answer = httpx.post(proxied.url + REGISTER, json=body, headers=headers, timeout=30)
        statuses.append(answer.status_code)
    assert [201, 400] * 10 + [429] * 3 == statuses


def test_case_093_throttle_cannot_be_outrun(stack: Stack, replicas: list[Service]) -> None:
    """Fifty at once over two replicas: five are checked; then the right one waits for the window.

    How often the hasher ran is counted in tests/auth/test_login.py.
    """
    known, unknown = stack.register().json()["username"], f"nobody-{uuid.uuid4().hex[:12]}"
    refused = []
    for name in (known, unknown):
        with ThreadPoolExecutor(50) as pool:
            guesses = [
                pool.submit(_login, replicas[n % 2], name, f"wrong password {n}") for n in range(50)
            ]
        answers = sorted((guess.result() for guess in guesses), key=lambda a: a.status_code)
        assert [401] * 5 + [429] * 45 == [answer.status_code for answer in answers]
        assert all(1 <= int(answer.headers["retry-after"]) <= WINDOW for answer in answers[5:])
        right = [_login(replica, name, PASSWORD) for replica in replicas]
        refused += [_shape(answer) for answer in (*answers[5:], *right)]
    assert [refused[0]] * 94 == refused
    for name, expected in ((known, 200), (unknown, 401)):

        def heard(name: str = name) -> int | None:
            status = _login(replicas[1], name, PASSWORD).status_code
            return None if status == 429 else status

        assert expected == until(heard, timeout=WINDOW + 5)


def test_case_095_a_pod_believes_nobody(stack: Stack, account: Account) -> None:
    """Without trusted proxies every address is the peer's, whatever headers say."""
    statuses = [
        _login(
            stack.running("auth")[0],
            account.username,
            "not the password",
            X_Forwarded_For=address,
            X_Real_IP=address,
            Forwarded=f'for="{address}"',
            True_Client_IP=address,
            X_Client_IP=address,
        ).status_code
        for address in SPOOFED
    ]
    assert [401] * 5 + [429] * 3 == statuses


def test_case_095_two_clients_behind_a_proxy(stack: Stack, proxied: Service) -> None:
    """The trusted proxy's word makes two buckets; what clients put before it helps neither."""
    name = stack.register().json()["username"]

    def guess(number: int, real: str) -> int:
        spoofed = SPOOFED[number % len(SPOOFED)]
        return _login(
            proxied,
            name,
            "not the password",
            X_Forwarded_For=f"{spoofed}, {real}" if spoofed else real,
            X_Real_IP=spoofed,
            Forwarded=f'for="{spoofed}"',
        ).status_code

    for real in ("203.0.113.7", "203.0.113.8"):
        assert [401] * 5 + [429] * 5 == [guess(number, real) for number in range(10)]
    # Who comes past the proxy is a third, whatever they say.
    peer = f"127.{uuid.uuid4().int % 250 + 1}.0.2"
    form = {"username": name, "password": "not the password"}
    with httpx.Client(transport=httpx.HTTPTransport(local_address=peer)) as client:
        answers = [
            client.post(proxied.url + LOGIN, data=form, headers={"X-Forwarded-For": real})
            for real in ("203.0.113.7", "203.0.113.8")
        ]
    assert [401, 401] == [answer.status_code for answer in answers]


def test_case_095_an_untrusted_proxy(stack: Stack, replicas: list[Service]) -> None:
    """A peer outside of the trusted networks is not believed either."""
    name = stack.register().json()["username"]
    answers = [
        _login(replicas[0], name, "not the password", X_Forwarded_For=f"198.51.100.{n}")
        for n in range(7)
    ]
    assert [401] * 5 + [429] * 2 == [answer.status_code for answer in answers]


def test_many_accounts_from_one_address(stack: Stack, proxied: Service) -> None:
    """Thirty logins a minute for one address, whoever they are for; others are not held up."""
    address = _client_address()
    statuses = []
    for _ in range(32):
        name = f"nobody-{uuid.uuid4().hex[:12]}"
        statuses.append(_login(proxied, name, PASSWORD, X_Forwarded_For=address).status_code)
    assert [401] * 30 + [429] * 2 == statuses
    name = stack.register().json()["username"]
    answer = _login(proxied, name, PASSWORD, X_Forwarded_For=_client_address())
    assert 200 == answer.status_code
    policy = '"login";q=5;w=60, "login-address";q=30;w=60, "login-account";q=60;w=60'
    assert policy == answer.headers["ratelimit-policy"]
    assert answer.headers["ratelimit"].startswith('"login";r=4;t=60, "login-address";r=29;t=60')
