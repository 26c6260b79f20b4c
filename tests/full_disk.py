"""Runs on a small disk, mounted at results/ below this folder, that fills up. Called by test_faults.py.

Wherever the disk is full, there is one line, status 2, no half file, and what was there; with room again, --resume ends as if
nothing had happened.
"""

import contextlib
import io
import os
import sys
from pathlib import Path

import tiny
import torch
from conftest import Workplace

import trains.runs.keeper
from benchmarks.faults import outcome
from models.self_mm import SelfMM
from trains.runs.checkpoint import load_checkpoint
from trains.runs.training_state import has_state, load_state
from utils.files import remove_folder

CHECKPOINT, STATE = (Path("results/models/self_mm-mosi-regression-1" + end) for end in ("", "-training"))
BALLAST = Path("results/ballast")
NEXT = ("--max_epochs", "4", "--set", "H=2")


def fill(leaving: int) -> None:
    """Leaves so many bytes of the disk free."""
    disk = os.statvfs("results")
    size = disk.f_bavail * disk.f_frsize - leaving
    with open(BALLAST, "wb", buffering=0) as file:
        file.write(bytes(max(0, size)))


def run_quietly(place: Workplace, *words: str) -> tuple[int, str]:
    """Status, and what was said on stderr."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        return place.run(*words), said.getvalue()


def check_failure(status: int, said: str, before: dict[str, bytes]) -> None:
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1, (status, said)
    assert "No space left on device" in said and "--resume" in said, said
    BALLAST.unlink()
    after = outcome(Path.cwd())
    changed = {name.split("/")[2] for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    assert changed <= {CHECKPOINT.name, STATE.name}, changed  # and what changed is whole:
    load_checkpoint(CHECKPOINT, SelfMM)
    if has_state(STATE):
        load_state(STATE)


def main() -> None:
    torch.set_num_threads(1)
    place = Workplace(Path.cwd())
    assert run_quietly(place, *NEXT)[0] == 0
    expected = outcome(place.folder)
    os.system("rm -r results/*")
    assert run_quietly(place)[0] == 0
    before = outcome(place.folder)
    for leaving in (0, 40_000, 400_000, 700_000, 900_000):
        remove_folder(STATE)
        fill(leaving)
        status, said = run_quietly(place, *NEXT)
        check_failure(status, said, before)
        print(f"{leaving} bytes left: {said}", end="")

    fill(0)
    tiny.write_features(place.features, tiny.make_features(seed=5))
    status, said = run_quietly(place, "--cache_dir", "results/cache")
    assert status == 2 and "(No space left on device)" in said and "--cache_dir" in said, (status, said)
    BALLAST.unlink()
    assert not [path for path in Path("results/cache").rglob("*") if path.is_file()]
    tiny.write_features(place.features)
    print(f"at the cache: {said}", end="")

    add_row = trains.runs.keeper.add_seed_row

    def add_row_to_a_full_disk(*arguments, **settings):
        fill(0)
        add_row(*arguments, **settings)

    remove_folder(STATE)
    trains.runs.keeper.add_seed_row = add_row_to_a_full_disk
    status, said = run_quietly(place, *NEXT)
    check_failure(status, said, before)
    print(f"at the row: {said}", end="")
    trains.runs.keeper.add_seed_row = add_row
    assert run_quietly(place, *NEXT, "--resume")[0] == 0
    resumed = outcome(place.folder)
    assert all(resumed[name] == content for name, content in expected.items() if not name.endswith(".csv")), (
        resumed.keys()
    )


if __name__ == "__main__":
    sys.exit(main())
