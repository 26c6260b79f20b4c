"""Kills and stops demo runs at random moments, resumes each, and compares the outcome with that of an undisturbed run.

    python -m benchmarks.faults --kills 50 --terms 50

Then 16 processes write 50 rows each to one CSV. Every run is a process of its own, forked from this one, which has loaded all
libraries already. Linux and macOS.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

FLAGS = "--datasetName demo --seeds 1 2 --max_epochs 6 --threads 1 --gpu_ids -1 --save_every 0.01".split()
TIMES = ["seconds", "seconds_per_epoch"]


def outcome(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves, by its path: but the log, empty lock files, and the CSV's columns of seconds."""
    files = {}
    for path in sorted(path for path in (folder / "results").rglob("*") if path.is_file() and path.suffix != ".lock"):
        content = path.read_bytes()
        if path.name.endswith("-seeds.csv"):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            content = table.drop(columns=TIMES).to_csv(index=False).encode()
        files[str(path.relative_to(folder))] = content
    return files
