"""A TCP proxy between a driver and a server that counts what passes, and breaks it on request."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from enum import Enum
from typing import Any, Final, Self, TypeVar

from testservers.base import HOST, PATIENCE, free_port

__all__ = ["Counts", "Fault", "FaultProxies", "FaultProxy"]

T = TypeVar("T")

_CHUNK: Final = 1 << 18
_NO_GOODBYE: Final = struct.pack("ii", 1, 0)  # a closed socket resets its connection


class Fault(Enum):
    """What the proxy can do to a connection. The first four happen to one request; the others go on until `heal`."""

    CUT_BEFORE = "the connection is reset before the request reaches the server"
    CUT_AFTER = "the connection ends when the server has answered, and the answer is lost"
    HALF_REPLY = "the connection ends in the middle of the answer"
    NO_REPLY = "the server has answered, and the answer is lost; the connection stays"
    DELAY = "each answer comes late"
    DRIP = "each answer comes in small pieces, and late are all of them"
    BLACK_HOLE = "connections are accepted or stay, and nothing passes"
    REFUSE = "connections are cut, and no others accepted"

    @property
    def stands(self) -> bool:
        """Whether it goes on until `heal`."""
        return self in {Fault.DELAY, Fault.DRIP, Fault.BLACK_HOLE, Fault.REFUSE}


@dataclass
class Counts:
    """What has passed.

    Attributes:
        sent: Bytes from the clients to the server.
        received: Bytes from the server to the clients.
        round_trips: How often a client spoke and waited for the server.
        connections: How many connections were made.
    """

    sent: int = 0
    received: int = 0
    round_trips: int = 0
    connections: int = 0


class FaultProxy:
    """Passes on what clients and a server say to each other, in a thread of its own.

    Args:
        port: Where the server listens on loopback.
        listen: Where the proxy listens; a free port by itself.

    Attributes:
        port: Where clients have to connect to.
        fired: How many requests met a fault since the last `inject` or `heal`.
    """

    def __init__(self, port: int, *, listen: int | None = None) -> None:
        self.port: Final = listen or free_port()
        self.fired = 0
        self._server_port = port
        self._counts = Counts()
        self._fault: Fault | None = None
        self._turns = 0  # how many requests pass before the fault
        self._seconds = 0.0
        self._drop = 1
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Server | None = None
        self._passing = asyncio.Event()  # cleared while nothing passes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        """Cut all connections and end."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def inject(self, fault: Fault, *, turn: int = 1, seconds: float = 0.0, drop: int = 50) -> None:
        """Let a fault happen.

        Args:
            fault: What is to happen.
            turn: To which request from now on, for those that happen to one.
            seconds: How late each answer comes, for `Fault.DELAY`, or each piece of it, for `Fault.DRIP`.
            drop: The bytes of such a piece.
        """
        self._run(self._set(fault, turn, seconds, drop))

    def heal(self) -> None:
        """End the fault. Connections that it cut stay cut; what a black hole held back is let through."""
        self._run(self._set(None, 1, 0.0, 1))

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        self._run(self._cut())

    def lead_to(self, port: int) -> None:
        """Lead new connections to another server, as a DNS name does that moves; those that are there stay."""
        self._server_port = port

    def vanish(self) -> None:
        """Let nothing pass on the connections that are there, for ever and without their end; new ones work."""
        self._run(self._silence())

    @property
    def counts(self) -> Counts:
        """What has passed up to now."""
        return replace(self._counts)

    def counted(self) -> Counts:
        """Give what has passed since the last call, and begin anew."""
        counts, self._counts = self._counts, Counts()
        return counts

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _listen(self) -> None:
        self._passing.set()
        self._listener = await asyncio.start_server(self._accept, HOST, self.port, limit=_CHUNK)

    async def _set(self, fault: Fault | None, turn: int, seconds: float, drop: int) -> None:
        self._fault, self._turns, self._seconds, self._drop, self.fired = fault, turn - 1, seconds, drop, 0
        if fault is Fault.REFUSE:
            self._shut()
            await self._cut()
        elif self._listener is None:
            await self._listen()
        if fault is Fault.BLACK_HOLE:
            self._passing.clear()
        else:
            self._passing.set()

    def _shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _silence(self) -> None:
        for link in self._links:
            link.is_silent = True

    async def _cut(self) -> None:
        for link in list(self._links):
            link.reset()
        await asyncio.sleep(0)

    async def _end(self) -> None:
        self._shut()
        await self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._counts.connections += 1
        try:
            await self._passing.wait()
            upstream = await asyncio.open_connection(HOST, self._server_port, limit=_CHUNK)
            link = _Link(self, reader, writer, *upstream)
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    def _met(self) -> Fault | None:
        """Tell what is to happen to a request that comes now, and note it."""
        fault = self._fault
        if fault is None or fault.stands:
            return fault
        if self._turns:
            self._turns -= 1
            return None
        self._fault = None
        self.fired += 1
        return fault


class FaultProxies:
    """Several proxies as if they were one, before servers that work together."""

    def __init__(self, proxies: Sequence[FaultProxy]) -> None:
        self._proxies: Final = tuple(proxies)
        self._busiest = self._proxies[0]

    @property
    def fired(self) -> int:
        """How many requests met a fault since the last `inject` or `heal`."""
        return sum(proxy.fired for proxy in self._proxies)

    def inject(self, fault: Fault, *, turn: int = 1, seconds: float = 0.0, drop: int = 50) -> None:
        """Let a fault happen: see `FaultProxy.inject`.

        One that goes on is at each of them. One that happens to a request is where most requests were before the last
        call of `counted`.
        """
        for proxy in self._proxies if fault.stands else (self._busiest,):
            proxy.inject(fault, turn=turn, seconds=seconds, drop=drop)

    def heal(self) -> None:
        """End the fault."""
        for proxy in self._proxies:
            proxy.heal()

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        for proxy in self._proxies:
            proxy.cut()

    def counted(self) -> Counts:
        """Give what has passed since the last call, and begin anew."""
        self._busiest = max(self._proxies, key=lambda proxy: proxy.counts.round_trips)
        counts = [proxy.counted() for proxy in self._proxies]
        return Counts(*(sum(parts) for parts in zip(*map(astuple, counts), strict=True)))


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: FaultProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy: Final = proxy
        self._client: Final = (reader, writer)
        self._server: Final = (server_reader, server_writer)
        self._server_spoke = True
        self._fault: Fault | None = None
        self.is_silent = False

    async def run(self) -> None:
        """Pass on what is said until one side has ended."""
        tasks = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            with suppress(OSError):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.close()

    def reset(self) -> None:
        """Cut both connections at once."""
        for _, writer in (self._client, self._server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_GOODBYE)
            writer.transport.abort()

    async def _requests(self) -> None:
        proxy = self._proxy
        while data := await self._client[0].read(_CHUNK):
            await proxy._passing.wait()
            if self.is_silent:
                continue
            if self._server_spoke:
                self._server_spoke = False
                proxy._counts.round_trips += 1
                self._fault = proxy._met()
            if self._fault is Fault.CUT_BEFORE:
                self.reset()
                return
            proxy._counts.sent += len(data)
            self._server[1].write(data)
            await self._server[1].drain()

    async def _replies(self) -> None:
        proxy = self._proxy
        while data := await self._server[0].read(_CHUNK):
            await proxy._passing.wait()
            if self.is_silent:
                continue
            self._server_spoke = True
            if proxy._fault is Fault.DRIP:
                for start in range(0, len(data), proxy._drop):
                    await asyncio.sleep(proxy._seconds)
                    self._client[1].write(data[start : start + proxy._drop])
                continue
            if proxy._fault is Fault.DELAY:
                await asyncio.sleep(proxy._seconds)
            elif self._fault is Fault.NO_REPLY:
                continue
            elif self._fault is Fault.CUT_AFTER:
                return
            elif self._fault is Fault.HALF_REPLY:
                self._client[1].write(data[: len(data) // 2])
                return
            proxy._counts.received += len(data)
            self._client[1].write(data)
            await self._client[1].drain()
