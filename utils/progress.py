"""Progress bars, all of one style: they vanish when done, and are silent where the output is no terminal."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(
    items: Iterable | None = None,
    what: str = "",
    unit: str = "it",
    total: int | None = None,
    done: int = 0,
    shown: bool = True,
) -> tqdm:
    """A bar over items; without items, one that is moved by `update`.

    total: where the items don't tell how many. done: those of the total that are not among the items.
    """
    scale = unit == "B"
    return tqdm(
        items, what, total, leave=False, disable=None if shown else True, unit=unit, unit_scale=scale, initial=done
    )
