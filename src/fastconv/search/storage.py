"""Where trials are kept: in memory, in a journal file, or in a database, as Optuna does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, get_storage

from fastconv.search.journal import Journal
from fastconv.search.shapes import check_journal


@contextmanager
def quiet() -> Iterator[None]:
    """Have Optuna tell only what is wrong."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise OSError, with what the database says, when it fails under a search."""
    import sqlalchemy

    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise OSError(f"the storage failed: {getattr(cause, 'orig', None) or cause}") from error


def open_storage(where: str | None) -> BaseStorage:
    """Open (or make) a storage.

    Parameters
    ----------
    where : str, optional
        ``journal:PATH`` is a file, which several machines may share; ``sqlite:///PATH`` and other URLs of
        SQLAlchemy are databases; None is the memory of this process.

    Raises
    ------
    ValueError
        If it is none of these, or what is there is something else.
    OSError
        If a file cannot be read or written.
    ImportError
        If a database's driver is missing.
    """
    if where is None:
        return InMemoryStorage()
    kind, _, path = where.partition(":")
    if kind == "journal":
        return _journal(os.path.expanduser(path))
    if "://" in where:
        return _database(where)
    raise ValueError(f"storage {where!r} is unknown: write journal:PATH or a database URL such as sqlite:///PATH")


def _journal(path: str) -> BaseStorage:
    if not path:
        raise ValueError("storage journal: lacks the path of a file: write journal:PATH")
    try:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise OSError("not a regular file")  # to open a pipe would wait for its other end
        with open(path, "ab"):
            pass
        check_journal(path)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise OSError(f"storage journal:{path} cannot be used: {error.strerror or error}") from error
    except Exception as error:  # lines of the right form that contradict each other: whatever Optuna makes of them
        raise ValueError(f"storage journal:{path} is damaged or no journal: {error}") from error


def _database(url: str) -> BaseStorage:
    import sqlalchemy

    try:
        shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise ValueError(f"storage {url.partition('://')[0]}://... is no URL of a database") from None
    sqlite = url.startswith("sqlite")
    try:
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else None)
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        raise ValueError(f"storage {shown} cannot be used: {getattr(error, 'orig', None) or error}") from error
    if sqlite:
        _one_writer(storage.engine)
    return get_storage(storage)  # with the cache that a study would put around it


def _one_writer(engine: Any) -> None:
    """Make SQLite's transactions exclusive from their first statement.

    SQLite has no row locks: without this two workers can both read that a trial is waiting, and both take it.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before the listeners
