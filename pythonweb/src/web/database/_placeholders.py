"""From ``?`` to the placeholder of an adapter that writes ``%s``."""

from __future__ import annotations

import re
from functools import lru_cache

# Each pattern names first what is passed over: quoted text and comments. One that lacks its end goes to the end of the
# statement, which leaves the complaint to the server.
_POSTGRESQL = re.compile(
    r"""
      (?P<skip>
          (?<![\w$]) [eE] ' (?: [^'\\] | \\. | '' )* (?: ' | \Z )    # escape string
        | ' (?: [^'] | '' )* (?: ' | \Z )
        | " (?: [^"] | "" )* (?: " | \Z )
        | (?<![\w$]) \$ (?P<tag> (?: [^\W\d]\w* )? ) \$ .*? (?: \$ (?P=tag) \$ | \Z )
        | -- [^\n]*
      )
    | (?P<comment> /\* )
    | (?P<mark> \?\? | \? )
    """,
    re.VERBOSE | re.DOTALL,
)
_MYSQL = re.compile(
    r"""
      (?P<skip>
          ' (?: [^'\\] | \\. | '' )* (?: ' | \Z )
        | " (?: [^"\\] | \\. | "" )* (?: " | \Z )
        | ` (?: [^`] | `` )* (?: ` | \Z )
        | \# [^\n]*
        | -- (?= [\s\x00-\x1f] | \Z ) [^\n]*
        | /\* .*? (?: \*/ | \Z )
      )
    | (?P<comment> (?!) )
    | (?P<mark> \?\? | \? )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@lru_cache(maxsize=512)
def translate(sql: str, *, mysql: bool = False, values: bool = True) -> str:
    """Write a statement with ``%s`` for ``?``.

    Quoted text and comments keep their ``?``. ``??`` stands for a question mark of the statement's own, such as
    PostgreSQL's operators have.

    Args:
        sql: The statement.
        mysql: Whether quotes and comments are those of MySQL, else those of PostgreSQL.
        values: Whether values go with the statement. The client library then reads ``%`` as the beginning of a
            placeholder, in quotes and comments too, so each one is doubled.

    Returns:
        The statement for the client library.
    """
    pattern = _MYSQL if mysql else _POSTGRESQL
    pieces: list[str] = []
    position = 0

    def keep(end: int) -> None:
        text = sql[position:end]
        pieces.append(text.replace("%", "%%") if values else text)

    while found := pattern.search(sql, position):
        if found["mark"]:
            keep(found.start())
            pieces.append("?" if found["mark"] == "??" or not values else "%s")
            position = found.end()
        else:
            end = found.end() if found["skip"] is not None else _comment_end(sql, found.end())
            keep(end)
            position = end
    keep(len(sql))
    return "".join(pieces)


def _comment_end(sql: str, position: int) -> int:
    """Find the end of a comment whose opening ends at *position*; PostgreSQL's comments nest."""
    depth = 1
    while edge := _COMMENT_EDGE.search(sql, position):
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
        if depth == 0:
            return position
    return len(sql)
