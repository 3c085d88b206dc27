"""What an operation asks of the database, and how its requests become a transaction or part of one."""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeVar, cast

from coatcheck.drivers._steps import Steps
from coatcheck.record import Conflict, Gone

__all__ = [
    "BEGIN",
    "Again",
    "Begin",
    "Reply",
    "Row",
    "Statement",
    "Wants",
    "count_of",
    "in_savepoint",
    "in_transaction",
    "rows_of",
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
        is_ranged: True where the best plan depends on the parameters: a plan that is kept for any of them would read
            the whole table.
    """

    text: str
    parameters: tuple[object, ...] = ()
    wants: Wants = Wants.COUNT
    alone: bool = False
    commits: bool = False
    is_ranged: bool = False


class Begin(Enum):
    """The type of `BEGIN`."""

    BEGIN = "what follows is done as a whole, and undone where the answer is Conflict or Gone"


BEGIN: Final = Begin.BEGIN
"""What an operation yields before the first statement of its transaction. Each has one at most."""


class Again(Exception):
    """The operation has to be undone and begun anew: what it found first has changed since."""


def in_transaction(steps: Steps[T], begin: Statement) -> Generator[Statement, Reply, T]:
    """Carry out an operation on a connection of our own, and end its transaction.

    An exception leaves the transaction open: whoever runs this rolls it back.

    Args:
        steps: The operation.
        begin: The statement that begins a transaction.
    """
    is_open = False
    request: Statement | Literal[Begin.BEGIN]
    reply: Reply = None
    try:
        while True:
            request = steps.send(reply)
            if request is BEGIN:
                yield begin
                is_open, reply = True, None
            else:
                reply = yield request
    except StopIteration as done:
        answer: T = done.value
    if is_open:
        yield ROLLBACK if isinstance(answer, (Conflict, Gone)) else COMMIT
    return answer


def in_savepoint(steps: Steps[T]) -> Generator[Statement, Reply, T]:
    """Carry out an operation inside a transaction of the application's; a refused one undoes only itself.

    An exception leaves the savepoint: whoever runs this rolls back to it.
    """
    is_open = False
    request: Statement | Literal[Begin.BEGIN]
    reply: Reply = None
    try:
        while True:
            request = steps.send(reply)
            if not is_open and (request is BEGIN or request.alone):
                yield SAVEPOINT
                is_open = True
            reply = None if request is BEGIN else (yield request)
    except StopIteration as done:
        answer: T = done.value
    if is_open:
        if isinstance(answer, (Conflict, Gone)):
            yield TO_SAVEPOINT
        yield RELEASE
    return answer


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
