"""What is done with one clip: its text, sound and faces become features, and are kept, so that nothing is done twice.

A clip's features lie in three files, whose names are hashes of all that they follow from: what was read and how. So changed
files, texts and settings are read anew, and the rest stays.
"""

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from data.assemble import ClipFeatures
from data.extractors import Clip, ClipError, Extractor, facts
from data.extractors.text import BertText
from data.label_table import LabelledClip
from utils.files import unfinished
from utils.functions import UserError

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


@dataclass(frozen=True)
class ClipWork:
    """Called, in a process of its own, it loads what is needed and returns the work on a Task: to a Done, or a ClipError."""

    extractors: dict[str, Extractor]  # audio and vision
    bert: str  # a folder or hub name
    cache: Path
    allow_missing: bool
    threads: int

    def __call__(self) -> Callable[[Task], Done | ClipError]:
        torch.set_num_threads(self.threads)
        text = BertText.load(self.bert)
        text_facts = facts(text)
        described = {key: facts(extractor) for key, extractor in self.extractors.items()}

        def work(task: Task) -> Done | ClipError:
            done = Done({}, {}, {}, [])
            try:
                if not task.source.file.is_file():
                    raise ClipError(f"no file {task.source.file}")
                for key, extractor in self.extractors.items():
                    origin = [described[key], task.clip.id, *map(_state, asdict(task.source).values())]
                    extracted = self._remembered(key, origin, lambda run=extractor: asdict(run(task.source)), done)
                    if missing := str(extracted["missing"]):
                        if not self.allow_missing:
                            raise ClipError(f"{missing}; {ALLOW_MISSING}")
                        done.missing.append(missing)
                    done.lengths[key] = len(extracted["frames"])
                read = self._remembered("text", [text_facts, task.clip.text], lambda: _read(text, task.clip.text), done)
                done.lengths["text"] = len(read["tokens"])
                return done
            except ClipError as error:
                return error

        return work

    def _remembered(self, key: str, origin: list, make: Callable[[], dict], done: Done) -> dict[str, np.ndarray]:
        """What the cache has, else what is made now. Raises UserError where it can't be kept."""
        name = hashlib.sha1(json.dumps(origin).encode()).hexdigest()
        file = done.files[key] = self.cache / f"{name}.npz"
        known = load_arrays(file)
        if known is None:
            began = time.perf_counter()
            known = make()
            done.seconds[key] = time.perf_counter() - began
            try:
                with open(work := unfinished(file), "wb") as stream:
                    np.savez(stream, **known)
                os.replace(work, file)
            except OSError as error:
                raise UserError(
                    f"{file}: can't be written ({error.strerror}); make room, and the same command goes on"
                ) from None
        return known


def load_features(done: Done) -> ClipFeatures:
    """A clip's features from the cache. Raises UserError where they are gone."""
    parts = {key: load_arrays(file) for key, file in done.files.items()}
    for key, arrays in parts.items():
        if arrays is None:
            raise UserError(f"{done.files[key]}: is gone or damaged; the same command makes it anew")
    text = parts["text"]
    return ClipFeatures(parts["audio"]["frames"], parts["vision"]["frames"], text["tokens"], text["vectors"])


def load_arrays(file: Path) -> dict[str, np.ndarray] | None:
    """Arrays of the cache; None where they aren't there, or damaged: they are made anew then."""
    try:
        with np.load(file) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _read(text: BertText, words: str) -> dict[str, np.ndarray]:
    tokens, vectors = text(words)
    return {"tokens": tokens, "vectors": vectors}


def _state(file: Path | None) -> list | None:
    """What changes when a file does."""
    if file is None or not file.is_file():
        return None
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
