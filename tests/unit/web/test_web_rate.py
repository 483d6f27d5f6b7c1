"""Who is asking, and how often they may."""

from __future__ import annotations

import pytest

from visor.errors import QuotaReached
from visor.web.access import client_of
from visor.web.rate_limit import CROWD, FIRST_SHARE, RateLimiter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def allowed(limiter: RateLimiter, client: str, tries: int) -> int:
    done = 0
    for _ in range(tries):
        try:
            limiter.take(client)
        except QuotaReached:
            return done
        done += 1
    return done


@pytest.mark.parametrize(
    ("header", "peer", "client"),
    [
        ("203.0.113.7", "169.254.1.1", "203.0.113.7"),
        ("1.2.3.4, 203.0.113.7", "169.254.1.1", "203.0.113.7"),
        ("evil, 1.2.3.4 , 203.0.113.7 ", "169.254.1.1", "203.0.113.7"),
        ("2001:db8:1:2:3::9", "169.254.1.1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "169.254.1.1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "169.254.1.1", "203.0.113.7"),
        ("", "169.254.1.1", "169.254.1.1"),
        (None, "169.254.1.1", "169.254.1.1"),
        (None, None, "unknown"),
        ("x" * 10_000, None, "x" * 64),
    ],
)
def test_client_behind_cloud_run(header: str | None, peer: str | None, client: str) -> None:
    assert client_of(header, peer, behind_cloud_run=True) == client


def test_header_is_ignored_elsewhere() -> None:
    assert client_of("203.0.113.7", "127.0.0.1", behind_cloud_run=False) == "127.0.0.1"


def test_burst_then_rate(clock: Clock) -> None:
    limiter = RateLimiter(per_minute=60, burst=10, clock=clock)
    clock.now += 3600
    assert allowed(limiter, "a", 100) == 10
    clock.now += 3
    assert allowed(limiter, "a", 100) == 3
    assert allowed(limiter, "b", 100) == 10, "another client is not concerned"


def test_says_when_to_come_back(clock: Clock) -> None:
    limiter = RateLimiter(per_minute=30, burst=1, clock=clock)
    limiter.take("a")
    with pytest.raises(QuotaReached) as caught:
        limiter.take("a")
    assert caught.value.retry_after_s == pytest.approx(2)
    clock.now += 2
    limiter.take("a")


def test_a_restart_is_no_way_round(clock: Clock) -> None:
    """Ten restarts in a row, each followed by all that it lets through, give no more than five for each."""
    total = sum(allowed(RateLimiter(per_minute=30, burst=20, clock=clock), "a", 100) for _ in range(10))
    assert total == 10 * 20 * FIRST_SHARE
    assert total < 10 * 20


def test_memory_is_bounded_whoever_asks(clock: Clock) -> None:
    limiter = RateLimiter(per_minute=30, burst=20, clients_max=100, clock=clock)
    clock.now += 3600
    for number in range(10_000):
        try:
            limiter.take(f"client {number}")
        except QuotaReached:
            continue
    assert len(limiter) <= 101


def test_many_addresses_share_one_bucket_once_the_table_is_full(clock: Clock) -> None:
    limiter = RateLimiter(per_minute=30, burst=20, clients_max=100, clock=clock)
    clock.now += 3600
    let_through = sum(allowed(limiter, f"client {number}", 1) for number in range(10_000))
    assert let_through == 100 + 20
    assert allowed(limiter, "client 5", 1) == 1, "who was there before still has a bucket of their own"
    assert CROWD in limiter._buckets


def test_silent_clients_make_room(clock: Clock) -> None:
    limiter = RateLimiter(per_minute=60, burst=2, clients_max=10, clock=clock)
    clock.now += 3600
    for number in range(10):
        limiter.take(f"old {number}")
    clock.now += 60
    assert sum(allowed(limiter, f"new {number}", 1) for number in range(10)) == 10


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_limit_that_lets_nobody_in_is_refused(per_minute: float, burst: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        RateLimiter(per_minute=per_minute, burst=burst)
