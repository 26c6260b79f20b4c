"""Where a sweep's trials are kept: Optuna's tables in a database, and a worker's patience with it."""

import contextlib
import importlib.util
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from utils.errors import UserError, first_line
from utils.signals import raise_if_stop_requested

PATIENCE = 300  # seconds for a database that was there before
NOT_AWAY = ("disk is full", "readonly", "no such", "does not exist", "malformed")  # what no waiting mends
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
    except (sqlalchemy.exc.ArgumentError, ValueError):
        shown = "..." if "@" in url else url  # there may be a password in it
        raise UserError(
            f"--storage {shown}: no database URL; expected, for example, postgresql://user:password@host/database or "
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
                _begin_immediate(storage.engine)
            return storage
        except sqlalchemy.exc.NoSuchModuleError:
            raise UserError(
                f"--storage {address}: no such kind of database; expected postgresql:// or sqlite:///"
            ) from None
        except ImportError:
            raise UserError(
                f"--storage {address}: its driver isn't installed; for PostgreSQL: pip install 'psycopg[binary]'"
            ) from None
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            reason = first_line(getattr(error, "orig", None) or error)
            if not any(words in str(error) for words in ("already exists", "locked", "UNIQUE", "unique")):
                break
        time.sleep(random.SystemRandom().uniform(0.1, 1))
    raise UserError(f"--storage {address}: can't be opened ({reason})")


def _begin_immediate(engine: sqlalchemy.Engine) -> None:
    """Lets SQLite's transactions begin with the lock that they write under.

    Python's driver begins them at the first write only. Two workers then both read that a trial waits, and both take it.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def disable_driver_transactions(connection, _record) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that began otherwise


@contextlib.contextmanager
def heartbeat(storage: Storage, trial_id: int) -> Iterator[None]:
    """In this context others see that the trial's worker is alive; from the first moment on."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(storage.heartbeat_interval):
            storage.record_heartbeat(trial_id)

    retrying(RDBStorage.record_heartbeat, storage, trial_id)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def retrying(call: Callable, *arguments: object, **settings: object) -> object:
    """What a call returns that needs the database. Waits where that is away for a while.

    Raises UserError where it doesn't come back or can't be used, and Stopped where a signal came while waiting.
    """
    away_since = None
    while True:
        try:
            return call(*arguments, **settings)
        except StorageInternalError as error:
            reason = first_line(getattr(error.__cause__, "orig", None) or error.__cause__ or error)
            now = time.monotonic()
            if away_since is None:
                away_since = now
                print(f"the sweep's storage can't be reached ({reason}); waiting for it", file=sys.stderr)
            if now - away_since > PATIENCE or any(words in reason for words in NOT_AWAY):
                raise UserError(
                    f"the sweep's storage can't be used ({reason}); mended, the same command goes on"
                ) from None
        time.sleep(1)
        raise_if_stop_requested()
