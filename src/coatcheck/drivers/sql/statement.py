"""What an operation asks of the database, and how its requests become a transaction or part of one."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeVar, cast

from coatcheck.drivers._steps import Steps
from coatcheck.record import Conflict, Gone

__all__ = [
    "BEGIN",
    "Again",
    "Begin",
    "Messages",
    "Reply",
    "Row",
    "Statement",
    "Together",
    "Wants",
    "count_of",
    "in_savepoint",
    "in_transaction",
    "one_by_one",
    "rows_of",
    "together",
]

T = TypeVar("T")

Row = tuple[object, ...]
Reply = list[Row] | int | None
"""What is sent back for a statement: rows, the number of rows that it changed, or the id of the row that it made."""


class Wants(Enum):
    """What a statement is asked to give back."""

    ROWS = "all its rows, as a list of tuples"
    COUNT = "the number of rows that it found, also of those that it changed to what they were"
    ID = "the id of the row that it inserted, None where it inserted none"


class Statement(NamedTuple):
    """One statement.

    Attributes:
        text: The SQL, with `%s` for each parameter and `%%` for a percent sign.
        parameters: The parameters: None, str, bytes, int or float.
        wants: What comes back.
        alone: True for a write outside a transaction, which is committed by itself.
        commits: True for the end of a transaction. Where no answer comes to one that commits or stands alone, nobody
            knows whether the write was done.
        begins: True for the beginning of a transaction.
        waits: True if it may wait for a lock after another statement in its message did. The server has to know how
            much time is left then.
        is_ranged: True where the best plan depends on the parameters: a plan that is kept for any of them would read
            the whole table.
    """

    text: str
    parameters: tuple[object, ...] = ()
    wants: Wants = Wants.COUNT
    alone: bool = False
    commits: bool = False
    is_ranged: bool = False
    begins: bool = False
    waits: bool = False

    @property
    def is_final(self) -> bool:
        """True if nothing is open after it."""
        return self.commits or self.alone


class Begin(Enum):
    """The type of `BEGIN`."""

    BEGIN = "what follows is done as a whole, and undone where the answer is Conflict or Gone"


BEGIN: Final = Begin.BEGIN
"""What an operation yields before the first statement of its transaction. Each has one at most."""


class Again(Exception):
    """The operation has to be undone and begun anew: what it found first has changed since."""


class Together(NamedTuple):
    """Statements that are sent in one message and done one after the other, and whose replies come together.

    What is decided on a reply is decided after all of them. So a statement must do no harm where one before it found
    nothing to do. If a statement that `Wants.ID` inserts no row, what follows it may be left undone: the replies then
    end with its own.

    Attributes:
        statements: The statements.
        ends: True for the last ones of a transaction, which is committed with them. A refusal that is answered after
            that must leave nothing behind.
    """

    statements: tuple[Statement, ...]
    ends: bool = False


def together(*statements: Statement, ends: bool = False) -> Steps[list[Reply]]:
    """Have statements done in one round trip; see `Together`."""
    if not (statements or ends):
        return []
    replies = yield Together(statements, ends)
    return cast("list[Reply]", replies)


Messages = Generator[tuple[Statement, ...], list[Reply], T]
"""An operation as what is sent: yields messages of one statement or more, is sent the replies, returns its answer."""


def in_transaction(steps: Steps[T], begin: Statement) -> Messages[T]:
    """Carry out an operation on a connection of our own, in messages of one statement or more, and end its transaction.

    A transaction begins with the first message in it. An exception leaves it open: the caller rolls it back.

    Args:
        steps: The operation.
        begin: The statement that begins a transaction.
    """
    first: tuple[Statement, ...] = ()
    is_open = False
    request: Statement | Together | Literal[Begin.BEGIN]
    reply: Reply | list[Reply] = None
    try:
        while True:
            request = steps.send(reply)
            if request is BEGIN:
                first, reply = (begin,), None
            elif isinstance(request, Statement):
                replies = yield (*first, request)
                reply = replies[-1]
                is_open, first = is_open or bool(first), ()
            else:
                last = (COMMIT,) if request.ends else ()
                replies = yield (*first, *request.statements, *last)
                ended = request.ends and len(replies) == len(first) + len(request.statements) + 1
                reply = replies[len(first) : -1 if ended else None]
                is_open, first = (is_open or bool(first)) and not ended, ()
    except StopIteration as done:
        answer: T = done.value
    if is_open:
        yield (ROLLBACK if isinstance(answer, (Conflict, Gone)) else COMMIT,)
    return answer


def in_savepoint(steps: Steps[T]) -> Generator[Statement, Reply, T]:
    """Carry out an operation inside a transaction of the application's; a refused one undoes only itself.

    An exception leaves the savepoint: the caller rolls back to it.
    """
    is_open = False
    request: Statement | Together | Literal[Begin.BEGIN]
    reply: Reply | list[Reply] = None
    try:
        while True:
            request = steps.send(reply)
            if not is_open and (request is BEGIN or (isinstance(request, Statement) and request.alone)):
                yield SAVEPOINT
                is_open = True
            if request is BEGIN:
                reply = None
            elif isinstance(request, Statement):
                reply = yield request
            else:
                reply = yield from one_by_one(request.statements)
    except StopIteration as done:
        answer: T = done.value
    if is_open:
        if isinstance(answer, (Conflict, Gone)):
            yield TO_SAVEPOINT
        yield RELEASE
    return answer


def one_by_one(statements: Iterable[Statement]) -> Generator[Statement, Reply, list[Reply]]:
    """Have statements done in as many messages, where they cannot be sent together."""
    replies: list[Reply] = []
    for statement in statements:
        replies.append((yield statement))
        if statement.wants is Wants.ID and replies[-1] is None:
            break
    return replies


COMMIT: Final = Statement("COMMIT", commits=True)
ROLLBACK: Final = Statement("ROLLBACK")
SAVEPOINT: Final = Statement("SAVEPOINT coatcheck")
TO_SAVEPOINT: Final = Statement("ROLLBACK TO SAVEPOINT coatcheck")
RELEASE: Final = Statement("RELEASE SAVEPOINT coatcheck")


def rows_of(text: str, parameters: tuple[object, ...] = (), *, is_ranged: bool = False) -> Steps[list[Row]]:
    """Ask for the rows of a query."""
    rows = yield Statement(text, parameters, Wants.ROWS, is_ranged=is_ranged)
    return cast("list[Row]", rows)


def count_of(text: str, parameters: tuple[object, ...] = ()) -> Steps[int]:
    """Have a statement done; return the number of rows that it found."""
    count = yield Statement(text, parameters, Wants.COUNT)
    return cast("int", count)
