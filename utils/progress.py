"""Progress bars: they disappear when done, and are shown only on a terminal, unless a caller says otherwise."""

import functools
import os

from tqdm import tqdm

progress = functools.partial(tqdm, leave=False, disable=None)
# For hours of work: without a terminal, as under nohup or Slurm, a line each minute after the first.
slow_progress = functools.partial(progress, disable=False, **({} if os.isatty(2) else {"mininterval": 60, "delay": 60}))
