"""Progress bars: they disappear when done, and are shown only on a terminal, unless a caller says otherwise."""

import functools

from tqdm import tqdm

progress = functools.partial(tqdm, leave=False, disable=None)
