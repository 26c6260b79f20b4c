"""The ragged store: a feature file without its padding, memory-mapped.

A pickle pads every clip to the longest and must be read whole. The store keeps the real frames only, all clips of a split
end to end, as .npy files that are mapped into memory: a second start reads nothing, and several runs share one copy.

    FILE.pkl.store/<key>/meta.json                             the pickle's size, mtime and SHA-1; counts; its own files
                         train/audio.npy  audio_offsets.npy    (total_frames, width) float32; (N + 1,) int64
                         train/vision.npy  text.npy            text: (total_tokens, 2) int32, token id and segment id
                         train/labels.npz  clips.json          task -> (N,) float32; ids and texts

A store is written under a temporary name, flushed and renamed, so one that exists is whole; meta.json knows its files' sizes,
times and checksums, and one that was damaged since is made anew. Its key changes with the pickle, so it is never changed, only
replaced.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from data.ragged import Ragged, Split
from data.schema import SPLITS, FeatureFile, FeatureSplit, read_feature_file
from utils.errors import UserError
from utils.files import checksum, flush, read_json, remove, temp_path, write_json

FORMAT = 3  # a change of the layout above makes old stores unused
FROM_FILE = "text_bert"


@dataclass
class FeatureStore:
    splits: dict[str, Split]
    sha1: str  # of the pickle
    aligned: bool
    replaced: dict[str, int]  # "train audio" -> values that were not finite, and became 0
    extractors: dict[str, dict]  # modality -> what made its features; {} where the pickle doesn't say

    @property
    def audio_width(self) -> int:
        return self.splits["train"].audio.width

    @property
    def vision_width(self) -> int:
        return self.splits["train"].vision.width


@dataclass(frozen=True)
class Tokenizer:
    """Turns raw_text into token ids, for files without text_bert."""

    encode: Callable[[list[str], int], list[list[int]]]  # texts, length -> ids with [CLS] and [SEP], cut to the length
    fingerprint: str  # of the vocabulary


def open_store(
    path: Path, dataset: Dataset, aligned: bool, tokenizer: Tokenizer | None, cache_dir: Path | None
) -> FeatureStore:
    """The store of a feature pickle, made on first use beside it, or below cache_dir.

    Raises UserError for a file that breaks the schema, and where the store can't be written.
    """
    status = path.stat()
    home = path.parent / f"{path.name}.store"
    if cache_dir is not None:
        home = cache_dir / f"{path.name}-{hashlib.sha1(str(path.resolve()).encode()).hexdigest()[:8]}.store"
    # The dataset's label range is in the key, so that a store holds only what was checked against it.
    key = f"{FORMAT}-{status.st_size}-{status.st_mtime_ns}-{aligned}-{dataset.label_bound}"
    sources = [FROM_FILE]
    if tokenizer is not None:
        sources.append(f"{tokenizer.fingerprint}-{dataset.text_length}")
    for source in sources:
        folder = home / _short(key, source)
        if _is_whole(folder):
            return _load(folder)
        if folder.exists():
            print(f"{folder} is damaged, and is made anew")

    file = read_feature_file(path, dataset, aligned)
    has_tokens = all(split.text_bert is not None for split in file.splits.values())
    if not has_tokens and tokenizer is None:
        raise UserError(f"{path}: has no text_bert, and the text encoder no vocabulary to tokenize raw_text with")
    source = sources[0] if has_tokens else sources[1]
    origin = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha1": file.sha1}
    meta = {"format": FORMAT, "aligned": aligned, "extractors": file.extractors, **origin}
    folder = home / _short(key, source)
    _write(file, folder, meta, None if has_tokens else lambda texts: tokenizer.encode(texts, dataset.text_length))
    return _load(folder)


def _short(key: str, source: str) -> str:
    return hashlib.sha1(f"{key}-{source}".encode()).hexdigest()[:12]


def _is_whole(folder: Path) -> bool:
    """Whether a store is there, and as it was written. One that is damaged is no loss: it is made anew.

    Files that have kept their size and time are trusted, so that a start reads nothing; others, as in a copy, are read.
    """
    try:
        for name, (size, mtime_ns, crc) in read_json(folder / "meta.json")["files"].items():
            status = (folder / name).stat()
            if status.st_size != size or (status.st_mtime_ns != mtime_ns and checksum(folder / name) != crc):
                return False
        return True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _load(folder: Path) -> FeatureStore:
    meta = read_json(folder / "meta.json")
    splits = {}
    for name in SPLITS:
        part = folder / name
        clips = json.loads((part / "clips.json").read_text(encoding="utf-8"))
        with np.load(part / "labels.npz") as labels:
            splits[name] = Split(
                clips["ids"],
                clips["raw_text"],
                dict(labels),
                *(Ragged(part, key) for key in ("text", "audio", "vision")),
            )
    return FeatureStore(splits, meta["sha1"], meta["aligned"], meta["replaced"], meta["extractors"])


def _write(file: FeatureFile, folder: Path, meta: dict, tokenize: Callable | None) -> None:
    """Writes a store under a temporary name, then gives it its own; a second process doing the same does no harm."""
    try:
        work = temp_path(folder)
        work.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: can't write the cache ({error.strerror}); name a folder with --cache_dir"
        ) from None
    try:
        replaced = {}
        for name, split in file.splits.items():
            (work / name).mkdir()
            counts = _write_split(split, work / name, tokenize, f"{file.path}: {name}")
            replaced |= {f"{name} {key}": count for key, count in counts.items()}
        files = {}
        for file in [path for path in work.rglob("*") if path.is_file()]:
            status = file.stat()
            files[str(file.relative_to(work))] = [status.st_size, status.st_mtime_ns, checksum(file)]
        write_json(work / "meta.json", meta | {"replaced": replaced, "files": files})
        flush(work)
        outdated = [other for other in folder.parent.iterdir() if other != folder and _is_outdated(other, meta)]
        if not _is_whole(folder):
            if folder.exists():
                os.replace(folder, damaged := temp_path(folder))
                outdated.append(damaged)
            os.replace(work, folder)
        for other in outdated:
            remove(other)
    except OSError as error:
        if not _is_whole(folder):  # else another process was faster, and its store is as good
            raise UserError(
                f"{folder.parent}: can't write the cache ({error.strerror}); name a folder with --cache_dir"
            ) from None
    finally:
        remove(work)


def _is_outdated(folder: Path, meta: dict) -> bool:
    """Whether a store was made by an older program, from an earlier state of the pickle, or by a run that was killed."""
    try:
        if folder.name.startswith("unfinished-"):
            return time.time() - folder.stat().st_mtime > 24 * 3600
        other = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return any(other.get(key) != meta[key] for key in ("format", "size", "mtime_ns"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _write_split(split: FeatureSplit, folder: Path, tokenize: Callable | None, where: str) -> dict[str, int]:
    """Returns how many values of each modality were not finite. where: file and split, for complaints."""
    if tokenize is None:
        lengths = split.text_lengths
        tokens = (split.text_bert[clip, ::2, :length].T for clip, length in enumerate(lengths))
    else:
        ids = tokenize(split.raw_text)
        lengths = np.array([len(clip) for clip in ids], dtype=np.int64)
        tokens = (np.stack([clip, np.zeros(len(clip))], axis=1) for clip in map(np.array, ids))
    Ragged.write(folder, "text", tokens, lengths, 2, np.int32)

    replaced = {}
    for key in ("audio", "vision"):
        values, frames = getattr(split, key), getattr(split, f"{key}_lengths")
        if frames is None:  # aligned: as many frames as tokens
            frames = lengths
            if lengths.max() > values.shape[1]:
                clip = split.ids[lengths.argmax()]
                raise UserError(
                    f"{where}: {key}: clip {clip} has {lengths.max()} tokens, more than the {values.shape[1]} frames that the "
                    "array has: not an aligned file"
                )
        cleaner = _Cleaner(values, frames)
        Ragged.write(folder, key, cleaner, frames, values.shape[2], np.float32)
        replaced[key] = cleaner.replaced
    np.savez(folder / "labels.npz", **split.labels)
    clips = {"ids": split.ids, "raw_text": split.raw_text}
    (folder / "clips.json").write_text(json.dumps(clips, ensure_ascii=False), encoding="utf-8")
    return replaced


class _Cleaner:
    """Gives the real frames of each clip in float32, with 0 for what is not finite (the released code: -inf in audio)."""

    def __init__(self, values: np.ndarray, lengths: np.ndarray):
        self._values, self._lengths = values, lengths
        self.replaced = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for clip, length in zip(self._values, self._lengths, strict=True):
            frames = clip[:length].astype(np.float32)
            finite = np.isfinite(frames)
            if not finite.all():
                self.replaced += int((~finite).sum())
                frames[~finite] = 0
            yield frames
