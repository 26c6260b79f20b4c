"""Progress bars: they disappear when done, and are not shown unless stderr is a terminal."""

import functools

from tqdm import tqdm

progress = functools.partial(tqdm, leave=False, disable=None)
