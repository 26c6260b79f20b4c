"""Runs on a small disk, mounted at results/, that fills up. Called by test_faults.py.

Wherever writing fails, there is one line, status 2, and no partial file, and earlier files stay. Once there is space again,
--resume ends as if nothing had happened.
"""

import contextlib
import io
import os
import sys
from pathlib import Path

import tiny
import torch
from conftest import Workplace
from run_files import checkpoint, state

import trains.runs.keeper
from benchmarks.faults import outcome
from models.self_mm import SelfMM
from trains.runs.checkpoint import load_checkpoint
from trains.runs.training_state import load_state
from utils.files import remove

BALLAST = Path("results/ballast")
NEXT = ("--max_clips_per_pass", "3")  # the same experiment, with other random numbers


def fill(leaving: int) -> None:
    """Fills the disk, except for a number of bytes."""
    disk = os.statvfs("results")
    size = disk.f_bavail * disk.f_frsize - leaving
    with open(BALLAST, "wb", buffering=0) as file:
        file.write(bytes(max(0, size)))


def run_quietly(place: Workplace, *flags: str) -> tuple[int, str]:
    """Returns the exit status and stderr."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        return place.run(*flags), stderr.getvalue()


def check_failure(status: int, error: str, before: dict[str, bytes]) -> None:
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, (status, error)
    assert "No space left on device" in error and "--resume" in error, error
    BALLAST.unlink()
    after = outcome(Path.cwd())
    changed = {name.split("/")[2] for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    record = checkpoint().name.replace("regression-1", "regression")
    assert changed <= {checkpoint().name, state().name, record}, changed
    # Whatever changed is whole.
    load_checkpoint(checkpoint(), SelfMM)
    if state().exists():
        load_state(state())


def main() -> None:
    torch.set_num_threads(1)
    place = Workplace(Path.cwd())
    assert run_quietly(place, *NEXT)[0] == 0
    expected = outcome(place.folder)
    os.system("rm -r results/*")
    assert run_quietly(place)[0] == 0
    before = outcome(place.folder)
    for leaving in (0, 40_000, 400_000, 700_000, 900_000):
        remove(state())
        fill(leaving)
        status, error = run_quietly(place, *NEXT)
        check_failure(status, error, before)
        print(f"{leaving} bytes left: {error}", end="")

    fill(0)
    tiny.write_features(place.features, tiny.make_features(seed=5))
    status, error = run_quietly(place, "--cache_dir", "results/cache")
    assert status == 2 and "No space left on device" in error, (status, error)
    BALLAST.unlink()
    assert not [path for path in Path("results/cache").rglob("*") if path.is_file()]
    tiny.write_features(place.features)
    print(f"at the cache: {error}", end="")

    add_row = trains.runs.keeper.add_seed_row

    def add_row_to_a_full_disk(*arguments, **settings):
        fill(0)
        add_row(*arguments, **settings)

    remove(state())
    trains.runs.keeper.add_seed_row = add_row_to_a_full_disk
    status, error = run_quietly(place, *NEXT)
    check_failure(status, error, before)
    print(f"at the row: {error}", end="")
    trains.runs.keeper.add_seed_row = add_row
    assert run_quietly(place, *NEXT, "--resume")[0] == 0
    resumed = outcome(place.folder)
    assert all(resumed[name] == content for name, content in expected.items() if not name.endswith(".csv")), (
        resumed.keys()
    )


if __name__ == "__main__":
    sys.exit(main())
