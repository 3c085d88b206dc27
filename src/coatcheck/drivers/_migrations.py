"""The tables of the SQL engines: which version is there, and the numbered steps that bring them up to date.

The table `meta` holds two numbers. `migration` is the number of the last step that was taken. A step only adds (a
column that may be NULL, a table, an index), so programs with an older coatcheck go on beside it. `schema` is the oldest
version that still works on the tables: it changes only with a step that older programs cannot live with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from coatcheck.errors import ConfigurationError

__all__ = ["SCHEMA_VERSION", "AddColumn", "Migration", "last_migration", "meta_rows", "renamed"]

SCHEMA_VERSION: Final = "1"


class AddColumn(NamedTuple):
    """A column that a migration adds, if it is not there yet."""

    table: str
    column: str
    type: str
    text: str = "ALTER TABLE {table} ADD COLUMN {column} {type}"


Migration = tuple[str | AddColumn, ...]
"""Statements that take nothing away, and that do no harm when they are repeated."""


def renamed(migrations: Sequence[Migration], named: Callable[[str], str]) -> tuple[Migration, ...]:
    """Return *migrations* with the statements as *named* writes them."""
    return tuple(
        tuple(
            named(part) if isinstance(part, str) else part._replace(text=named(part.text.format(**part._asdict())))
            for part in migration
        )
        for migration in migrations
    )


def meta_rows(migrations: Sequence[Migration], prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rows of `meta` once all *migrations* are done: names and contents."""
    return (("schema", SCHEMA_VERSION), ("prefix", prefix), ("migration", str(len(migrations))))


def last_migration(meta: Mapping[str, object], prefix: str, place: str, remedy: str) -> int:
    """Return the number of the last migration of some tables, after checking that they are ours; 0 if there is none.

    Args:
        meta: What the table `meta` holds.
        prefix: The prefix that the tables have to belong to.
        place: Where they are, for errors.
        remedy: What may be used instead, for errors.

    Raises:
        ConfigurationError: They have another schema version, or belong to another prefix.
    """
    schema = meta.get("schema")
    if schema is None:  # a creator died before its last statement, or somebody emptied the table
        return 0
    if schema != SCHEMA_VERSION:
        raise ConfigurationError(
            f"the session tables in {place} have schema version {schema}, this coatcheck works with {SCHEMA_VERSION}:"
            f" use the matching coatcheck, or another {remedy}"
        )
    if meta.get("prefix") != prefix:
        # if the names of tables do not differ in case, two environments would share their sessions
        raise ConfigurationError(
            f"the session tables in {place} belong to the prefix {meta.get('prefix')!r}, which differs from"
            f" {prefix!r} in case only: choose a prefix that differs in more than case"
        )
    number = meta.get("migration", "1")  # which the first version did not write
    return int(number) if isinstance(number, str) and number.isascii() and number.isdigit() else 0
