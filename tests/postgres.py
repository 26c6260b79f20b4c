"""A temporary PostgreSQL server on loopback, from Debian's packages, for the tests of sweeps."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from filelock import FileLock

from config.config_regression import REPOSITORY

SERVERS = Path("/usr/lib/postgresql")  # Debian's folder, with one subfolder per version
PASSWORD = "S3cret @:/?"
USER = "postgres"  # created by Debian's package; the server refuses to run as root


def programs() -> Path:
    """The folder with initdb and pg_ctl. If they are missing, root installs them; other users skip the test."""
    # Not in the shared temporary folder, where another user could have made this file, or a link of its name.
    lock = REPOSITORY / ".pytest_cache" / "postgresql.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        if not list(SERVERS.glob("*/bin/initdb")):
            if os.getuid() != 0 or not shutil.which("apt-get"):
                pytest.skip("no PostgreSQL: apt-get install postgresql")
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            for argv in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
                if subprocess.run(["apt-get", *argv], env=environment, **quiet).returncode != 0:
                    pytest.skip("no PostgreSQL, and its Debian package cannot be installed")
    return max(SERVERS.glob("*/bin"), key=lambda folder: float(folder.parent.name))


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Runs a server with an empty database. Yields its URL."""
    folder = programs()
    as_root = os.getuid() == 0
    user = USER if as_root else getpass.getuser()
    with tempfile.TemporaryDirectory() as home:
        if as_root:
            shutil.chown(home, USER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = f"{home}/data"

        def call(program: str, *argv: str) -> None:
            account = {"user": USER} if as_root else {}
            subprocess.run([folder / program, *argv], check=True, cwd=home, stdout=subprocess.DEVNULL, **account)

        Path(home, "password").write_text(PASSWORD, encoding="utf-8")
        call("initdb", "-D", data, "-U", user, "--auth=scram-sha-256", f"--pwfile={home}/password", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        call("pg_ctl", "-D", data, "-l", f"{home}/log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
