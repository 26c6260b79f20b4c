"""Progress bars: they disappear when done, and are not shown unless stderr is a terminal."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(
    items: Iterable | None = None, what="", unit="it", total: int | None = None, done: int = 0, shown: bool = True
) -> tqdm:
    """A bar over items, or, without items, one to be advanced with `update`. unit: "B" shows kB, MB, ...

    total: needed if the items have no length. done: how much of the total precedes the items.
    """
    hidden = None if shown else True  # None: hidden unless stderr is a terminal
    return tqdm(items, what, total, leave=False, disable=hidden, unit=unit, unit_scale=unit == "B", initial=done)
