"""The tables on a SQL server: created, brought up to date and removed."""

from __future__ import annotations

from typing import Final

from coatcheck.drivers._migrations import SCHEMA_VERSION, last_migration
from coatcheck.drivers._steps import Operations, Steps
from coatcheck.drivers.sql.dialect import Dialect
from coatcheck.drivers.sql.statement import BEGIN, Statement, count_of, rows_of

__all__ = ["Tables"]

_META: Final = "coatcheck_meta (name, content) VALUES (%s, %s)"
_TABLES: Final = ("meta", "session", "value", "ended", "fence")


class Tables(Operations):
    """The operations that are about the tables as a whole.

    Args:
        dialect: The server, and the prefix of the tables.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect: Final = dialect

    def setup(self) -> Steps[None]:
        """See `Driver.setup`. Others may do it at the same moment."""
        dialect = self.dialect
        if (yield from self.is_set_up()):
            return
        if dialect.ddl_is_transactional:
            yield BEGIN
        if dialect.setup_lock is not None:
            yield dialect.setup_lock
        done = (yield from self._migrated()) if (yield from self._are_there()) else 0
        for part in (part for migration in dialect.migrations[done:] for part in migration):
            if isinstance(part, str):
                yield from count_of(part)
            elif not (yield from self._finds(dialect.column_exists(part.table, part.column))):
                yield from count_of(part.text)
        for name, content in (("schema", SCHEMA_VERSION), ("prefix", dialect.prefix)):
            yield from count_of(dialect.sql.set_meta, (name, content))
        yield from self._migrated()  # another program may have created them, with another prefix
        if done < len(dialect.migrations):
            update = dialect.upsert(_META, "name", "content = new.content")
            yield from count_of(dialect.named(update), ("migration", str(len(dialect.migrations))))

    def is_set_up(self) -> Steps[bool]:
        """See `Driver.is_set_up`.

        Raises:
            ConfigurationError: The tables have another schema version, or belong to another prefix.
        """
        if not (yield from self._are_there()):
            return False
        return (yield from self._migrated()) >= len(self.dialect.migrations)

    def tear_down(self) -> Steps[None]:
        """See `Driver.tear_down`."""
        if self.dialect.ddl_is_transactional:
            yield BEGIN
        yield from count_of(self.dialect.sql.drop_tables)

    def _are_there(self) -> Steps[bool]:
        for table in _TABLES:
            if not (yield from self._finds(self.dialect.table_exists(f"coatcheck_{table}"))):
                return False
        return True

    def _migrated(self) -> Steps[int]:
        """Return the number of the last migration of the tables; see `last_migration`."""
        meta = {name: content for name, content in (yield from rows_of(self.dialect.sql.meta)) if type(name) is str}
        place = f"this {self.dialect.title} database"
        return last_migration(meta, self.dialect.prefix, place, "database or prefix")

    def _finds(self, request: Statement) -> Steps[bool]:
        return bool((yield from rows_of(request.text, request.parameters)))
