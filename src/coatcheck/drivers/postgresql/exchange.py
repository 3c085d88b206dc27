"""Statements over libpq: sent together, answered together, prepared where that lasts.

psycopg's cursors add to the time of each statement, and its pipeline writes to a log. So the driver's own connections
speak to libpq through `psycopg.pq`; parameters are few types, and rows are decoded by psycopg.

Each statement of a message sees what is committed when it begins, as if it had been sent alone. The server stops at the
first that fails, and leaves the others undone, a COMMIT among them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple, cast

import psycopg
from psycopg import Pipeline
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from coatcheck.drivers.sql.statement import Reply, Row, Statement, Wants

__all__ = ["ADAPTERS", "Exchange", "Waiting"]

ADAPTERS: Final = AdaptersMap(psycopg.adapters)
"""Those of the moment of the import: what an application registers later is not for us."""

Waiting = Generator[Wait, Ready, list[Reply]]
"""Waits for the socket, as `psycopg.waiting` does it, and returns the replies."""

_OFTEN: Final = 5
"""How often a statement is sent before it is prepared."""

_MOST: Final = 100
"""How many statements are prepared on a connection, at most. The texts of long lists of values are many."""

_MOST_COUNTED: Final = 1000
_BINARY: Final = 1


@lru_cache(maxsize=2048)
def _numbered(text: str) -> bytes:
    """Return the text of a statement with parameters as PostgreSQL names them."""
    first, *others = text.replace("%%", "%").split("%s")
    return "".join([first, *(f"${number}{part}" for number, part in enumerate(others, 1))]).encode()


def _written(parameters: Sequence[object]) -> tuple[list[bytes | None], list[int]]:
    """Return parameters as they are sent, and which of them are in binary form.

    The server finds their types out from where they stand: so a statement has the same types each time.
    """
    values: list[bytes | None] = []
    formats: list[int] = []
    for value in parameters:
        if isinstance(value, bytes):
            values.append(value)
            formats.append(_BINARY)
        elif isinstance(value, str):
            values.append(value.encode())  # of binary form, too: as text it would end at a zero byte
            formats.append(_BINARY)
        elif value is None:
            values.append(None)
            formats.append(0)
        elif isinstance(value, (int, float)):
            values.append(repr(value).encode())
            formats.append(0)
        else:
            raise TypeError(f"no parameter of a statement is a {type(value).__name__}")
    return values, formats


def _has_failed(result: PGresult) -> bool:
    return result.status == ExecStatus.FATAL_ERROR


class _Adapted(NamedTuple):
    """What psycopg decodes rows with. Without the connection, which would otherwise lead to itself."""

    adapters: AdaptersMap
    connection: None = None


class Exchange:
    """What goes to and fro on one connection.

    Args:
        pgconn: libpq's connection.

    Attributes:
        prepares: True if statements that come often are prepared.
    """

    prepares = False

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn: Final = pgconn
        self._rows: Final = Transformer(_Adapted(ADAPTERS))
        self._counts: Final[dict[str, int]] = {}
        self._names: Final[dict[str, bytes]] = {}
        self._named = 0
        self._pipelines: Final = Pipeline.is_supported()

    def run(self, statements: Sequence[Statement]) -> Waiting:
        """Have statements done in one round trip, or in as many as there are with a libpq older than 14.

        Raises:
            psycopg.Error: One failed, and those after it are not done; or the connection failed.
        """
        new = dict.fromkeys(statement.text for statement in statements if self._is_worth_it(statement))
        if self._pipelines and (new or len(statements) > 1):
            return (yield from self._piped(statements, new))
        for text in new:
            yield from self._alone(partial(self._prepare, text))
        replies = []
        for statement in statements:
            result = yield from self._alone(partial(self._send, statement, *_written(statement.parameters)))
            replies.append(self._reply(statement, result))
        return replies

    def _is_worth_it(self, statement: Statement) -> bool:
        """Count how often a statement comes, and return whether it is to be prepared now."""
        text = statement.text
        if not self.prepares or text in self._names or statement.is_ranged or len(self._names) >= _MOST:
            return False
        if len(self._counts) >= _MOST_COUNTED:
            self._counts.clear()
        count = self._counts[text] = self._counts.get(text, 0) + 1
        return count > _OFTEN

    def _prepare(self, text: str) -> None:
        self._names[text] = name = f"coatcheck_{self._named}".encode()
        self._named += 1
        self._pgconn.send_prepare(name, _numbered(text))

    def _send(self, statement: Statement, values: list[bytes | None], formats: list[int]) -> None:
        name = self._names.get(statement.text)
        if name is None:
            self._pgconn.send_query_params(_numbered(statement.text), values, None, formats, _BINARY)
        else:
            self._pgconn.send_query_prepared(name, values, formats, _BINARY)

    def _alone(self, send: Callable[[], None]) -> Generator[Wait, Ready, PGresult]:
        send()
        return (yield from self._results(1))[0]

    def _piped(self, statements: Sequence[Statement], new: Iterable[str]) -> Waiting:
        pgconn, texts = self._pgconn, tuple(new)
        written = [_written(statement.parameters) for statement in statements]
        pgconn.enter_pipeline_mode()
        for text in texts:
            self._prepare(text)
        for statement, (values, formats) in zip(statements, written, strict=True):
            self._send(statement, values, formats)
        pgconn.pipeline_sync()
        try:
            results = yield from self._results(len(texts) + len(statements))
        except psycopg.Error:
            for text in texts:  # nobody knows which of them are there
                del self._names[text]
            raise
        finally:
            if pgconn.status == ConnStatus.OK and pgconn.transaction_status != TransactionStatus.ACTIVE:
                pgconn.exit_pipeline_mode()
        return [self._reply(*each) for each in zip(statements, results[len(texts) :], strict=True)]

    def _results(self, count: int) -> Generator[Wait, Ready, list[PGresult]]:
        """Send what is left to send, and read the answers to *count* messages.

        Raises:
            psycopg.Error: The first that is an error, when all are read; or the connection failed.
        """
        pgconn = self._pgconn
        while pgconn.flush():
            if (yield Wait.RW) & Ready.R:
                pgconn.consume_input()
        results: list[PGresult] = []
        try:
            while (result := (yield from self._next())) is not None or self._expects_more():
                if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
                    break
                results += () if result is None else (result,)
        except psycopg.Error:
            if not any(map(_has_failed, results)):
                raise  # otherwise the server has said why before it closed the connection
        for result in filter(_has_failed, results):
            raise error_from_result(result)
        if len(results) != count:
            raise psycopg.OperationalError("the connection ended before all answers came")
        return results

    def _next(self) -> Generator[Wait, Ready, PGresult | None]:
        """Return what has arrived, or None after all answers to one message."""
        pgconn = self._pgconn
        while pgconn.is_busy():
            if (yield Wait.R):
                pgconn.consume_input()
        return pgconn.get_result()

    def _expects_more(self) -> bool:
        return bool(self._pgconn.pipeline_status) and self._pgconn.status == ConnStatus.OK

    def _reply(self, statement: Statement, result: PGresult) -> Reply:
        if statement.wants is Wants.COUNT:
            return result.command_tuples or 0
        rows = self._rows
        rows.set_pgresult(result)
        found: list[Row] = rows.load_rows(0, result.ntuples, tuple)
        rows.set_pgresult(None)  # which would keep the values of a session
        if statement.wants is Wants.ROWS:
            return found
        return cast("int", found[0][0]) if found else None
