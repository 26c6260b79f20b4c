"""Where a sweep's trials are kept: Optuna's tables in a database, and a worker's patience with it."""

import contextlib
import importlib.util
import random
import time
import warnings
from collections.abc import Callable

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from utils.functions import UserError, brief

PATIENCE = 300  # seconds for a database that was there before
OPENINGS = 5  # workers that make the tables at once get into one another's way


class Storage(RDBStorage):
    """Optuna's, but that a beat of the heart that doesn't reach the database is no reason to die."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def open_storage(url: str, heartbeat: int) -> Storage:
    """Raises UserError where the URL isn't one, its driver isn't installed, or the database can't be reached.

    heartbeat: seconds between two signs of life of a trial; one that is silent for twice as long is taken for dead.
    """
    try:
        address = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise UserError(
            f"--storage {url}: no database URL; expected, for example, postgresql://user:password@host/database or "
            "sqlite:///file.db"
        ) from None
    if address.drivername == "postgresql" and importlib.util.find_spec("psycopg"):
        address = address.set(drivername="postgresql+psycopg")
    is_sqlite = address.get_backend_name() == "sqlite"
    settings: dict[str, object] = {"pool_pre_ping": True}
    if is_sqlite:
        settings["connect_args"] = {"timeout": 60}  # seconds to wait for another worker's writing
    for _ in range(OPENINGS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the heartbeat
                storage = Storage(
                    address.render_as_string(hide_password=False),
                    engine_kwargs=settings,
                    heartbeat_interval=heartbeat,
                    grace_period=2 * heartbeat,
                )
            if is_sqlite:
                _write_one_by_one(storage.engine)
            return storage
        except (ImportError, sqlalchemy.exc.NoSuchModuleError):
            raise UserError(
                f"--storage {address}: its driver isn't installed; for PostgreSQL: pip install 'psycopg[binary]'"
            ) from None
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            reason = brief(getattr(error, "orig", None) or error)
            if not any(words in str(error) for words in ("already exists", "locked", "UNIQUE", "unique")):
                break
        time.sleep(random.SystemRandom().uniform(0.1, 1))
    raise UserError(f"--storage {address}: can't be opened ({reason})")


def _write_one_by_one(engine: sqlalchemy.Engine) -> None:
    """Lets SQLite's transactions begin with the lock that they write under.

    Python's driver begins them at the first write only. Two workers then both read that a trial waits, and both take it.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_it_to_us(connection, _record) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that began otherwise


def patiently(call: Callable, *arguments: object) -> object:
    """What a call returns that needs the database. Waits where that is away for a while; then raises UserError."""
    end = time.monotonic() + PATIENCE
    pause = 0.5
    while True:
        try:
            return call(*arguments)
        except StorageInternalError as error:
            if time.monotonic() > end:
                reason = brief(error.__cause__ or error)
                raise UserError(
                    f"the sweep's storage can't be reached any more ({reason}); start again to go on"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 15)
