"""The database of a sweep: Optuna's tables in SQLite or PostgreSQL."""

import contextlib
import os
import random
import time
from collections.abc import Iterator

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from config.command_line import SECRET_URL
from utils.errors import UserError, first_line

EXPECTED = "expected sqlite:///file.db or postgresql://user@host/database (pip install 'psycopg[binary]')"
OPEN_ATTEMPTS = 5  # workers that create the tables at the same time get in each other's way
MAX_RETRIES = 3  # then new values take the trial's place


class Storage(RDBStorage):
    """Tolerates a heartbeat that does not reach the database."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def open_storage(url: str, heartbeat: int) -> Storage:
    """Opens a database, with tables. heartbeat: seconds; a trial silent for twice that is retried. Raises UserError."""
    try:  # hide_password has put the password aside
        address = sqlalchemy.make_url(os.environ.get(SECRET_URL, url) if "***" in url else url)
    except (ArgumentError, ValueError):
        raise UserError(f"--storage: not a database URL; {EXPECTED}") from None
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    is_sqlite = address.get_backend_name() == "sqlite"
    # isolation_level None: SQLite's driver begins no transactions itself.
    connect_args = {"timeout": 60, "isolation_level": None} if is_sqlite else {"connect_timeout": 10}
    settings = {"pool_pre_ping": True, "connect_args": connect_args}
    retry = RetryHeartbeatStaleTrialCallback(MAX_RETRIES)
    for _ in range(OPEN_ATTEMPTS):
        try:
            full = address.render_as_string(hide_password=False)
            storage = Storage(full, settings, heartbeat_interval=heartbeat, heartbeat_stale_trial_callback=retry)
            if is_sqlite:
                # Takes SQLite's write lock before the first read: otherwise two workers may both find, and take, a waiting
                # trial. Only now: while Optuna creates the tables, it nests transactions, which would deadlock.
                sqlalchemy.event.listen(storage.engine, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
            return storage
        except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError) as error:
            reason = first_line(getattr(error, "orig", None) or error)
            time.sleep(random.SystemRandom().uniform(0.1, 0.5))
    raise UserError(f"--storage {url}: cannot be opened ({reason}); {EXPECTED}")


@contextlib.contextmanager
def storage_errors(storage: Storage) -> Iterator[None]:
    """Turns database errors in this context into UserError."""
    try:
        yield
    except Exception as error:
        # Study.optimize may fail with an error of its own while it handles the database's.
        cause = error
        while not isinstance(cause, StorageInternalError):
            if cause is None:
                raise
            cause = cause.__context__
        reason = first_line(getattr(cause.__cause__, "orig", None) or cause.__cause__ or cause)
        problem = f"{storage.engine.url.render_as_string()}: the sweep's storage cannot be used ({reason})"
        raise UserError(f"{problem}; the same command resumes, or name another database with --storage") from None
