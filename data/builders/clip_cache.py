"""What is done with one clip: its sound, faces and text become features, and are kept, so that nothing is done twice.

A clip's features lie in three files, whose names are hashes of all that they follow from: what was read and how. So changed
files, texts and settings are read anew, and the rest stays.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.builders.assemble import ClipFeatures
from data.builders.label_table import SOUNDS, VIDEOS, LabelledClip
from data.extractors import Clip, ClipError, Extracted, Extractor, describe
from utils.errors import UserError
from utils.files import temp_path

if TYPE_CHECKING:  # the processes that work on clips needn't load PyTorch
    from data.extractors.text import BertText

EXTRACTED = tuple(field.name for field in fields(Extracted))  # the frames first
# What the cache holds of each modality; the length of the first is the clip's.
ARRAYS = {"text": ("tokens", "vectors"), "audio": EXTRACTED, "vision": EXTRACTED}
ALLOW_MISSING = "--allow_missing takes one frame of zeros instead"


@dataclass(frozen=True)
class Task:
    """A clip to be done."""

    clip: LabelledClip
    source: Clip


@dataclass
class Done:
    """What was made of a clip."""

    files: dict[str, Path]  # modality -> its features in the cache
    lengths: dict[str, int]  # modality -> frames or tokens
    seconds: dict[str, float]  # modality -> what it took; nothing for what the cache had
    missing: list[str]  # what zeros stand for

    def add(self, key: str, cache: Path, origin: list, make: Callable[[], dict]) -> dict[str, np.ndarray]:
        """What the cache has of a modality, else what is made now: arrays by name. Raises UserError where it can't be kept.

        origin: all that it follows from.
        """
        name = hashlib.sha1(json.dumps(origin).encode()).hexdigest()
        file = self.files[key] = cache / f"{name}.npz"
        known = load_arrays(file, key)
        if known is None:
            began = time.perf_counter()
            known = make()
            self.seconds[key] = time.perf_counter() - began
            try:
                with open(work := temp_path(file), "wb") as stream:
                    np.savez(stream, **known)
                os.replace(work, file)
            except OSError as error:
                raise UserError(
                    f"{file}: can't be written ({error.strerror}); make room, and the same command goes on"
                ) from None
        self.lengths[key] = len(known[ARRAYS[key][0]])
        return known


@dataclass(frozen=True)
class ClipWork:
    """Sound and faces. Called, in a process of its own, it returns the work on a Task: to a Done, or a ClipError."""

    extractors: dict[str, Extractor]
    cache: Path
    allow_missing: bool

    def __call__(self) -> Callable[[Task], Done | ClipError]:
        described = {key: describe(extractor) for key, extractor in self.extractors.items()}
        tempfile.tempdir = str(self.cache)  # where what a killed process leaves is removed by the next run

        def work(task: Task) -> Done | ClipError:
            done = Done({}, {}, {}, [])
            try:
                if not os.path.isfile(task.source.file):
                    raise ClipError(f"no file {task.source.file} (nor of the kinds {', '.join(VIDEOS[1:] + SOUNDS)})")
                for key, extractor in self.extractors.items():
                    read = [task.source.file]
                    if key == "vision":
                        read += [task.source.openface_csv, getattr(extractor, "program", None)]
                    origin = [described[key], task.clip.id, *map(_state, read)]
                    found = done.add(key, self.cache, origin, lambda run=extractor: asdict(run(task.source)))
                    if missing := str(found["missing"]):
                        if not self.allow_missing:
                            raise ClipError(f"{missing}; {ALLOW_MISSING}")
                        done.missing.append(missing)
                return done
            except ClipError as error:
                return error

        return work


def read_text(text: "BertText", task: Task, cache: Path, done: Done) -> None:
    """Adds a clip's text: in the main process, as the encoder needs more memory than all the rest."""

    def read() -> dict[str, np.ndarray]:
        tokens, vectors = text(task.clip.text)
        return {"tokens": tokens, "vectors": vectors}

    done.add("text", cache, [describe(text), task.clip.text], read)


def load_features(done: Done) -> ClipFeatures:
    """A clip's features from the cache. Raises UserError where they are gone."""
    parts = {key: load_arrays(file, key) for key, file in done.files.items()}
    for key, arrays in parts.items():
        if arrays is None:
            raise UserError(f"{done.files[key]}: is gone or damaged; the same command makes it anew")
    text = parts["text"]
    return ClipFeatures(parts["audio"]["frames"], parts["vision"]["frames"], text["tokens"], text["vectors"])


def load_arrays(file: Path, key: str) -> dict[str, np.ndarray] | None:
    """A modality's arrays in the cache; None where they aren't there, or damaged: they are made anew then."""
    try:
        with np.load(file) as arrays:
            return {name: arrays[name] for name in ARRAYS[key]}
    except Exception:  # a damaged archive fails in more ways than its reader's documentation names
        return None


def _state(file: Path | None) -> list | None:
    """What changes when a file does."""
    if file is None or not os.path.isfile(file):
        return None
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
