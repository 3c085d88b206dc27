"""What is known of a server that is down, in a process that forks."""

from __future__ import annotations

import os
import threading

import pytest

from coatcheck.drivers._breaker import FIRST_PAUSE, Breaker
from coatcheck.errors import DriverUnavailable


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # that is the point
def test_a_fork_while_a_thread_looks_whether_the_server_is_back() -> None:
    """The child has no such thread, and does not wait for it."""
    looking, done = threading.Event(), threading.Event()

    def clock() -> float:
        if threading.current_thread() is not threading.main_thread():
            looking.set()
            done.wait(120)
        return 0.0

    breaker = Breaker("redis", "127.0.0.1:1", clock)
    breaker.failed()
    thread = threading.Thread(target=breaker.failed)
    thread.start()
    assert looking.wait(120)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            breaker.check("load")
        except DriverUnavailable:
            code = 0
        finally:
            os._exit(code)
    try:
        ended = threading.Timer(5, os.kill, (child, 9))
        ended.start()
        assert os.waitpid(child, 0)[1] == 0, "it waited for ever"
        ended.cancel()
    finally:
        done.set()
        thread.join()


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.check("load")
    except DriverUnavailable:
        return True
    return False


def test_calls_that_fail_together_are_one_failure() -> None:
    """Eight requests whose connections vanished at once keep the others away for the first pause, not the longest."""
    now = [100.0]
    breaker = Breaker("redis", "127.0.0.1:1", lambda: now[0])
    for _ in range(8):
        breaker.failed(99.0)
    assert is_open(breaker)
    now[0] += FIRST_PAUSE
    assert not is_open(breaker)  # this one looks
    assert is_open(breaker)
    breaker.worked()
    assert not is_open(breaker)


def test_a_call_that_began_before_the_server_answered_again_says_nothing_new() -> None:
    now = [100.0]
    breaker = Breaker("redis", "127.0.0.1:1", lambda: now[0])
    breaker.failed(99.0)
    now[0] += 1
    assert not is_open(breaker)
    breaker.worked()
    now[0] += 1
    breaker.failed(99.5)
    assert not is_open(breaker)
    breaker.failed(101.5)
    assert is_open(breaker)


def test_each_look_that_fails_doubles_the_pause() -> None:
    now = [100.0]
    breaker = Breaker("redis", "127.0.0.1:1", lambda: now[0])
    breaker.failed()
    for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        failed_at = now[0]
        now[0] = failed_at + pause - 0.001
        assert is_open(breaker), pause
        now[0] = failed_at + pause + 0.001
        assert not is_open(breaker), pause
        breaker.failed(now[0])
