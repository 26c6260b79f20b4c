"""The database of a sweep: Optuna's tables in SQLite or PostgreSQL."""

import contextlib
import importlib.util
import random
import time
from collections.abc import Callable, Iterator

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from utils.errors import UserError, first_line

try:
    from optuna.storages import RetryHeartbeatStaleTrialCallback as RetryCallback
except ImportError:  # Optuna before 4.9
    from optuna.storages import RetryFailedTrialCallback as RetryCallback

EXPECTED = "expected sqlite:///file.db or postgresql://user:password@host/database (pip install 'psycopg[binary]')"
OPEN_ATTEMPTS = 5
# Workers that create the tables at the same time get in each other's way with errors like these.
RACES = ("already exists", "locked", "unique")
MAX_RETRIES = 3  # then new values take the trial's place


class Storage(RDBStorage):
    """Retries trials whose heartbeat stops, and tolerates a heartbeat that does not reach the database."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)

    def get_heartbeat_stale_trial_callback(self) -> Callable:
        return RetryCallback(MAX_RETRIES)

    get_failed_trial_callback = get_heartbeat_stale_trial_callback  # Optuna before 4.9


def open_storage(url: str, heartbeat: int) -> Storage:
    """Opens a database, and creates its tables if needed. Raises UserError if that fails.

    heartbeat: seconds between two heartbeats of a trial; a trial without any for twice as long is retried.
    """
    try:
        address = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        shown = "..." if "@" in url else url  # it may contain a password
        raise UserError(f"--storage {shown}: not a database URL; {EXPECTED}") from None
    if address.drivername == "postgresql" and importlib.util.find_spec("psycopg"):
        address = address.set(drivername="postgresql+psycopg")
    is_sqlite = address.get_backend_name() == "sqlite"
    settings = {"pool_pre_ping": True, **({"connect_args": {"timeout": 60}} if is_sqlite else {})}
    for _ in range(OPEN_ATTEMPTS):
        try:
            full = address.render_as_string(hide_password=False)
            storage = Storage(full, settings, heartbeat_interval=heartbeat, grace_period=2 * heartbeat)
            if is_sqlite:
                _begin_immediate(storage.engine)
            return storage
        except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError) as error:
            reason = first_line(getattr(error, "orig", None) or error)
            if not any(phrase in str(error).lower() for phrase in RACES):
                break
        time.sleep(random.SystemRandom().uniform(0.1, 1))
    raise UserError(f"--storage {address.render_as_string()}: cannot be opened ({reason}); {EXPECTED}")


def _begin_immediate(engine: sqlalchemy.Engine) -> None:
    """Makes SQLite take the write lock at the start of each transaction.

    By default it does so at the first write: two workers may both read that a trial is waiting, and both take it.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def disable_driver_transactions(connection, _record) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections opened before the listeners were added


@contextlib.contextmanager
def storage_errors(storage: Storage) -> Iterator[None]:
    """Turns database errors in this context into UserError."""
    try:
        yield
    except Exception as error:
        # Study.optimize may fail with an error of its own while it handles the database's.
        cause = error
        while not isinstance(cause, StorageInternalError):
            cause = cause.__context__
            if cause is None:
                raise
        reason = first_line(getattr(cause.__cause__, "orig", None) or cause.__cause__ or cause)
        raise UserError(
            f"{storage.engine.url.render_as_string()}: the sweep's storage cannot be used ({reason}); the same command "
            "resumes, or name another database with --storage"
        ) from None
