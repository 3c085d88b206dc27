"""What is known of a server that is down, in a process that forks."""

from __future__ import annotations

import os
import threading

import pytest

from coatcheck.drivers._breaker import Breaker
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
