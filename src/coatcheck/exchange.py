"""One request and its session, from the first use to the last byte of the response: what adapters work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coatcheck.errors import DriverUnavailable, SessionUnavailable
from coatcheck.exchange_base import ExchangeBase
from coatcheck.session import AsyncSession, Session, opened

if TYPE_CHECKING:
    from coatcheck.drivers.base import AsyncDriver, Driver
    from coatcheck.incoming import Incoming
    from coatcheck.manager import AsyncSessionManager, SessionManager
    from coatcheck.saved import Saved

__all__ = ["AsyncExchange", "Exchange"]


class Exchange(ExchangeBase[Session]):
    """One request and its session, in a synchronous program. Made by the thread that serves the request, and its alone.

        exchange = Exchange(manager, Incoming.from_wsgi(environ))
        environ["session"] = exchange.session
        ...  # the application runs
        exchange.save()
        headers = exchange.headers(headers)
        exchange.headers_sent()
        ...  # the body goes out
        exchange.save(final=True)
        exchange.close()

    Args:
        manager: The `SessionManager`.
        incoming: The facts of the request.
        driver: A driver on a connection that the application lends; default the manager's own.
        token: The token to go by in place of those in the request's cookies; "" for none, so as to `begin` a session.
            One of another form opens none.
        began: When the request came, in seconds since the epoch, if the exchange is made later. A session that ended
            since then ended while the request was under way.
    """

    __slots__ = ()

    def __init__(
        self,
        manager: SessionManager,
        incoming: Incoming,
        *,
        driver: Driver | None = None,
        token: str | None = None,
        began: float | None = None,
    ) -> None:
        super().__init__(manager, incoming, driver, token, began)

    def load(self) -> bool:
        """Look up the session now, instead of at its first use; return whether there is one.

        Loading alone is no use of the session: it does not count as activity, and the response does not vary with it.

        Raises:
            DriverUnavailable: Storage failed.
            SessionUnavailable: It failed before.
        """
        state = opened(self.session)
        used = state.used
        state.load()
        state.used = used
        return state.record is not None

    def save(self, *, final: bool = False, readable: bool = False) -> Saved:
        """Save the session; see `SessionManager.save`. Call it before the headers go out, and once more at the end.

        Args:
            final: True if nothing of the application runs any more: what changes afterwards is refused.
            readable: True if the application goes on reading what it read and wrote, also where the session ended
                meanwhile, so that nothing is stored; otherwise it finds the session empty then.

        Returns:
            What the saves so far came to, as in `saved`.
        """
        changes = self._changes() if readable else None
        try:
            saved = self._manager.save(self.session, final=final)
        except (DriverUnavailable, SessionUnavailable) as error:
            self._at_save = error
            raise
        self.saved = saved if self.saved.set_cookie is None else self._both(saved)
        if readable:
            self._keep_readable(changes)
        return self.saved

    def close(self) -> None:
        """End the exchange once the response is out, and sweep expired sessions if that is due.

        Storage that fails then is logged and raises nothing.
        """
        if self.sweep_due:
            self._sweep_due = False
            self._manager.sweep()


class AsyncExchange(ExchangeBase[AsyncSession]):
    """One request and its session, in an asynchronous program. Of one task, or of several that wait for each other.

    Args:
        manager: The `AsyncSessionManager`.
        incoming: The facts of the request.
        driver: A driver on a connection that the application lends; default the manager's own.
        token: The token to go by in place of those in the request's cookies; "" for none, so as to `begin` a session.
            One of another form opens none.
        began: When the request came, in seconds since the epoch, if the exchange is made later. A session that ended
            since then ended while the request was under way.
    """

    __slots__ = ()

    def __init__(
        self,
        manager: AsyncSessionManager,
        incoming: Incoming,
        *,
        driver: AsyncDriver | None = None,
        token: str | None = None,
        began: float | None = None,
    ) -> None:
        super().__init__(manager, incoming, driver, token, began)

    async def load(self) -> bool:
        """Look up the session, so that the application can read it without waiting; return whether there is one.

        An adapter that loads eagerly calls it if a cookie came, and leaves an error to the first use: `failure` is set.

        Raises:
            DriverUnavailable: Storage failed.
            SessionUnavailable: It failed before.
        """
        session = await self.session.load()
        return opened(session).record is not None

    async def save(self, *, final: bool = False, readable: bool = False) -> Saved:
        """Save the session; see `Exchange.save`."""
        changes = self._changes() if readable else None
        try:
            saved = await self._manager.save(self.session, final=final)
        except (DriverUnavailable, SessionUnavailable) as error:
            self._at_save = error
            raise
        self.saved = saved if self.saved.set_cookie is None else self._both(saved)
        if readable:
            self._keep_readable(changes)
        return self.saved

    async def close(self) -> None:
        """End the exchange once the response is out; see `Exchange.close`."""
        if self.sweep_due:
            self._sweep_due = False
            await self._manager.sweep()
