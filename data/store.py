"""The feature store: a feature file without its padding, memory-mapped, so that later runs start at once and share one copy.

    FILE.pkl.store/<key>/meta.json                            ids, texts and labels by split; facts about the pickle
                         train/audio.npy audio_offsets.npy    (total frames, width) float32; (N + 1,) int64
                         train/vision.npy text.npy ...        text: (total tokens, 2) int32, token id and segment id

A store that exists is complete, and never modified: a changed pickle has another key.
"""

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import BertTokenizer

from config.config_regression import Dataset
from data.doubts import find_doubts
from data.ragged import Ragged, Split
from data.schema import SPLITS, FeatureFile, check_aligned, plain_extractors, read_feature_file
from data.tokens import encode, rules_hash
from utils.errors import UserError, first_line, printable
from utils.files import make_at_once, remove

FORMAT = 6  # of the files above; stores of other formats are removed
SAMPLES, SAMPLE_BYTES = 16, 1 << 16  # of a pickle's content, hashed to notice a change
DAY = 24 * 3600  # seconds


@dataclass
class FeatureStore:
    splits: dict[str, Split]
    sha1: str  # of the pickle
    aligned: bool
    has_ids: bool  # the pickle has token ids; otherwise raw_text was tokenized, and cut
    notes: list[str]  # what of the pickle is left out or read otherwise, and (warning:) what is probably not meant
    extractors: dict[str, dict]  # modality -> the extractor of its features; {} if the pickle does not name them

    def __post_init__(self):
        split = next(iter(self.splits.values()))
        self.audio_width, self.vision_width = split.audio.width, split.vision.width


def open_store(
    path: Path, dataset: Dataset, aligned: bool, tokenizer: BertTokenizer | None, cache_dir: Path | None,
    to_score: str | None = None,
) -> FeatureStore:  # fmt: skip
    """Opens the store of a feature pickle; the first use creates it, next to the pickle or in cache_dir.

    tokenizer: for files without token ids. to_score: the only split to open, without labels; None: all. Raises UserError or OSError.
    """
    home = path.with_name(f"{path.name}.store")
    if cache_dir is not None:
        home = cache_dir / f"{path.name}-{hashlib.sha1(str(path.resolve()).encode()).hexdigest()[:8]}.store"
    state = _fingerprint(path)
    # The label range belongs to the key, because the labels in the store were checked against it.
    key = f"{state}-{to_score or 'all'}-{'aligned' if aligned else 'unaligned'}-{dataset.label_bound:g}"
    # Whether the pickle has token ids is known only once it has been read.
    with_ids = home / f"{key}-text_bert"
    tokenized = home / f"{key}-{tokenizer and rules_hash(tokenizer)}-{dataset.text_length}"
    _clear(home, state)
    for folder in filter(Path.exists, (with_ids, tokenized)):
        try:
            return _load(folder, aligned, to_score)
        except Exception as error:
            print(printable(f"{folder}: unreadable ({error}); rebuilding it"))
        remove(folder)  # here the error no longer holds its files, which Windows could not remove

    file = read_feature_file(path, dataset, aligned, to_score)
    folder = with_ids
    if any(split.text_bert is None for split in file.splits.values()):
        if tokenizer is None:
            raise UserError(f"{path}: has no text_bert, and the text encoder no vocabulary to tokenize raw_text with")
        folder = tokenized
    make_at_once(folder, folder, lambda made: _write(file, dataset, made, aligned, tokenizer))
    try:
        return _load(folder, aligned, to_score)
    except Exception as error:
        raise UserError(f"{folder}: unreadable ({first_line(error)}); choose a folder with --cache_dir") from None


def _clear(home: Path, state: str) -> None:
    """Removes the stores of the pickle's former content, and what killed processes left."""
    with contextlib.suppress(OSError):  # another process is removing them too, or another user owns the folder
        for other in home.iterdir():
            unfinished = other.name.startswith("unfinished-")  # by a process that is running, or was killed
            if time.time() - other.stat().st_mtime > DAY if unfinished else not other.name.startswith(state):
                remove(other)


def _fingerprint(path: Path) -> str:
    """Of a pickle's size, times and samples of its content."""
    status = path.stat()
    # The system sets ctime, so a file that replaces another has a new one.
    sha1 = hashlib.sha1(f"{FORMAT} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
    with open(path, "rb") as file:
        for start in np.linspace(0, max(0, status.st_size - SAMPLE_BYTES), SAMPLES, dtype=np.int64):
            file.seek(start)
            sha1.update(file.read(SAMPLE_BYTES))
    return sha1.hexdigest()[:12]


def _load(folder: Path, aligned: bool, to_score: str | None) -> FeatureStore:
    """Raises an exception of some type unless the files are as `_write` leaves them."""
    if not (folder / "meta.json").is_file():
        raise FileNotFoundError("no meta.json")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    contents, splits, meta["notes"] = meta.pop("splits"), {}, list(map(printable, meta["notes"]))
    for name in [to_score] if to_score else SPLITS:
        clips = contents[name]
        labels = {task: np.array(values, np.float32) for task, values in clips["labels"].items()}
        sequences = (Ragged(folder / name, key) for key in ("text", "audio", "vision"))
        splits[name] = Split(clips["ids"], clips["raw_text"], labels, *sequences)
    store = FeatureStore(splits, **meta)
    if store.aligned is not aligned or not all(_fits(split, store, to_score) for split in splits.values()):
        raise ValueError("its files do not fit together")
    texts = [text for split in splits.values() for text in (*split.ids, *(split.raw_text or []))]
    "".join([store.sha1, *texts]).encode()  # raises if one is no text
    plain_extractors(store.extractors, folder)
    return store


def _fits(split: Split, store: FeatureStore, to_score: str | None) -> bool:
    """Whether the arrays of a split have the types and shapes that `_write` gives them, and possible values."""
    parts = [(part.values.dtype, part.width, len(part.lengths)) for part in (split.text, split.audio, split.vision)]
    written = [(torch.int32, 2), (torch.float32, store.audio_width), (torch.float32, store.vision_width)]
    return (
        parts == [(*kind, len(split)) for kind in written]
        and isinstance(split.ids, list)
        and (split.raw_text is None or (isinstance(split.raw_text, list) and len(split.raw_text) == len(split)))
        and all(values.shape == (len(split),) and np.isfinite(values).all() for values in split.labels.values())
        and ("fusion" in split.labels or to_score is not None)
        and int(split.text.values.min()) >= 0
    )


def cut_text(rows: np.ndarray, length: int) -> np.ndarray:
    """Cuts (n, ...), one row for each token, to at most `length` rows. The last, [SEP], stays."""
    return rows if len(rows) <= length else np.concatenate([rows[: length - 1], rows[-1:]])


def _write(file: FeatureFile, dataset: Dataset, folder: Path, aligned: bool, tokenizer: BertTokenizer | None) -> None:
    has_ids = all(split.text_bert is not None for split in file.splits.values())
    meta = {"sha1": file.sha1, "aligned": aligned, "has_ids": has_ids, "extractors": file.extractors, "splits": {}}
    meta["notes"] = notes = [f"warning: {doubt}" for doubt in find_doubts(file, dataset)]
    for name, split in file.splits.items():
        (folder / name).mkdir(parents=True)
        if has_ids:
            tokens = [clip[::2, :length].T for clip, length in zip(split.text_bert, split.text_lengths, strict=True)]
        else:
            texts = [np.array([ids, [0] * len(ids)]).T for ids in encode(tokenizer, split.raw_text)]
            tokens = [cut_text(text, dataset.text_length) for text in texts]
            if cut := sum(len(text) > dataset.text_length for text in texts):
                what = f"{name}: {cut} of {len(split)} texts have more than {dataset.text_length} tokens and are cut"
                notes.append(f"{'warning: ' * (cut > len(split) / 20)}{what}; --set text_length=N keeps more")
        text_lengths = np.array([len(clip) for clip in tokens])
        if aligned:
            check_aligned(f"{file.path}: {name}", split, text_lengths)
        Ragged.write(folder / name, "text", tokens, text_lengths, 2, np.int32)
        for key in ("audio", "vision"):
            values, lengths = getattr(split, key), text_lengths if aligned else getattr(split, f"{key}_lengths")
            clips = [clip[:length] for clip, length in zip(values, lengths, strict=True)]
            if non_finite := sum(int((~np.isfinite(clip.astype(np.float32))).sum()) for clip in clips):
                notes.append(f"{name} {key}: {non_finite} values are not finite and are read as 0")
            # As in the released code, non-finite values become 0.
            finite = (np.nan_to_num(clip.astype(np.float32), nan=0, posinf=0, neginf=0) for clip in clips)
            Ragged.write(folder / name, key, finite, lengths, values.shape[2], np.float32)
        labels = {task: values.tolist() for task, values in split.labels.items()}
        meta["splits"][name] = {"ids": split.ids, "raw_text": split.raw_text, "labels": labels}
    (folder / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
