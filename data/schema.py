"""Reads a feature pickle and checks it against the official layout.

The layout is {"train" | "valid" | "test": {key: array}}, with N clips in a split and the keys

    id                      (N,)        str, `video$_$clip`
    audio, vision           (N, L, D)   numbers, padded at the end
    audio_lengths, ...      (N,)        real frames, 1 to L; not in aligned files, which use the lengths of the texts
    text_bert               (N, 3, L)   BERT's token ids, mask, segment ids; optional if there is raw_text
    raw_text                (N,)        str; optional if there is text_bert
    regression_labels       (N,)        numbers, the human labels; optionally regression_labels_T, _A, _V
"""

import contextlib
import csv
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from utils.errors import UserError, first_line
from utils.safe_pickle import load_pickle

SPLITS = ("train", "valid", "test")
OTHER_NAMES = {"dev": "valid", "val": "valid"}  # of splits
# Marks of a text in another encoding than UTF-8, GBK for example: control characters, or little but accented letters.
NO_UTF8 = re.compile("[\ufffd\x80-\x84\x86-\x9f]|(?!(.)\\1{3})[\xa0-\xff]{4}")
# How pandas, R, Excel and databases write a missing text.
MISSING_TEXTS = {"nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None"}
EXTRACTORS = "extractors"  # optional key next to the splits: modality -> the extractor of its features
UNIMODAL_LABELS = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}

# Sum -> feature file. Self-MM publishes SHA-1s, MMSA SHA-256s; whether of the same files is not known.
OFFICIAL = dict(csv.reader(Path(__file__).with_name("official.csv").read_text(encoding="utf-8").splitlines()))


@dataclass
class FeatureSplit:
    """One split of a feature file, checked. Arrays are as in the file: padded, and of the file's types."""

    ids: list[str]
    raw_text: list[str] | None
    text_bert: np.ndarray | None  # (N, 3, L)
    text_lengths: np.ndarray | None  # (N,) int64, real tokens; None without text_bert
    audio: np.ndarray  # (N, La, Da)
    audio_lengths: np.ndarray | None  # (N,) int64, real frames; None in most aligned files
    vision: np.ndarray  # (N, Lv, Dv)
    vision_lengths: np.ndarray | None
    labels: dict[str, np.ndarray]  # task -> (N,) float32; "fusion" always in training, other tasks if the file has them

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class FeatureFile:
    path: Path
    sha1: str
    splits: dict[str, FeatureSplit]
    extractors: dict[str, dict]  # modality -> name, version, width, settings, padded length; {} if unknown

    def sha256(self) -> str:
        """Reads the whole file again, so a run asks for it only if the content is in doubt."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_feature_file(path: Path, dataset: Dataset, aligned: bool, to_score: str | None = None) -> FeatureFile:
    """Reads and checks a feature pickle. Raises UserError naming split, key, clip, what was expected and what was found.

    to_score: reads only this split, which needs no labels; None: all splits, for training.
    """
    names = SPLITS if to_score is None else (to_score,)
    content, sha1 = load_splits(path, names)
    checkers = {name: SplitChecker(path, name, content[name], dataset, aligned, to_score is None) for name in names}
    splits = {name: checker.check() for name, checker in checkers.items()}
    missing = {key: [name for name in names if getattr(splits[name], key) is None] for key in ("text_bert", "raw_text")}
    if all(missing.values()):
        raise UserError(f"{path}: all splits need text_bert, or all raw_text; missing: {missing}")
    for key in ("audio", "vision"):
        widths = {name: getattr(split, key).shape[2] for name, split in splits.items()}
        if len(set(widths.values())) > 1:
            raise UserError(f"{path}: {key} has different widths: {widths}; extract all splits in the same way")
    if to_score is None:
        fusion = splits["train"].labels["fusion"]
        if (fusion < 0).all() or (fusion >= 0).all():
            raise UserError(f"{path}: train: all {len(fusion)} labels have the same sign; Self-MM needs both classes")
    return FeatureFile(path, sha1, splits, plain_extractors(content.get(EXTRACTORS), path))


def load_splits(path: Path, names: Iterable[str] = SPLITS) -> tuple[dict, str]:
    """The content of a pickle that has these splits, unchecked otherwise, and its SHA-1. Raises UserError."""
    content, sha1 = load_pickle(path)
    if isinstance(content, dict):
        content = {OTHER_NAMES.get(name, name): value for name, value in content.items()} | content
    for name in names:
        split = content.get(name) if isinstance(content, dict) else None
        if not isinstance(split, dict):
            found = "a list, as in MAG-BERT's files" if isinstance(split, list | tuple) else _keys(content)
            raise UserError(f"{path}: no split {name!r}; expected dicts of arrays {', '.join(names)}; found {found}")
    return content, sha1


def plain_extractors(content: object, file: Path) -> dict[str, dict]:
    """The extractors entry of any file, in JSON's types. Raises UserError unless it is a few small dicts."""
    with contextlib.suppress(TypeError, AttributeError, RecursionError):
        written = json.dumps(content or {})
        extractors = json.loads(written)
        if len(written) < 10_000 and all(isinstance(facts.get("settings", {}), dict) for facts in extractors.values()):
            return extractors
    raise UserError(f"{file}: {EXTRACTORS}: expected a dict for each modality, with plain values")


def check_aligned(where: str, split: FeatureSplit, text_lengths: np.ndarray) -> None:
    """Raises UserError unless a clip has a frame for each token, and no others. where: file and split, for the message."""
    clip = text_lengths.argmax()
    tokens, frames = text_lengths[clip], min(split.audio.shape[1], split.vision.shape[1])
    if tokens > frames:
        clip_id = first_line(split.ids[clip])
        raise UserError(f"{where}: clip {clip_id} has {tokens} tokens, but only {frames} frames: not an aligned file")
    for key in ("audio_lengths", "vision_lengths"):
        if (lengths := getattr(split, key)) is not None and (lengths != text_lengths).any():
            clip = (lengths != text_lengths).argmax()
            differ = f"clip {first_line(split.ids[clip])} has {lengths[clip]}, but {text_lengths[clip]} tokens"
            raise UserError(f"{where}: {key}: {differ}: not an aligned file; leave out --aligned")


class SplitChecker:
    def __init__(self, path: Path, name: str, content: dict, dataset: Dataset, aligned: bool, labelled: bool = True):
        self.where = f"{path}: {name}"
        self.content, self.dataset, self.aligned, self.labelled = content, dataset, aligned, labelled
        self.ids: list[str] = []
        self.clips = 0  # 0: not known yet

    def check(self) -> FeatureSplit:
        if "labels" in self.content and not self.content.keys() & {"regression_labels", "text_bert", "raw_text"}:
            raise self.error("labels", "a file of CMU-MultimodalSDK; data/TextPre.py joins it with transcripts")
        self.ids = self.texts("id", strict=False)
        self.clips = len(self.ids)
        has_ids = "text_bert" in self.content
        raw_text = self.texts("raw_text", strict=not has_ids) if "raw_text" in self.content else None
        text_bert, text_lengths = self.text_bert() if has_ids else (None, None)
        audio, vision = self.frames("audio"), self.frames("vision")
        labels = {}
        with contextlib.nullcontext() if self.labelled else contextlib.suppress(UserError):
            labels = {"fusion": self.labels("regression_labels")}
            labels |= {task: self.labels(key) for task, key in UNIMODAL_LABELS.items() if key in self.content}
        split = FeatureSplit(self.ids, raw_text, text_bert, text_lengths, *audio, *vision, labels)
        if self.aligned and text_lengths is not None:
            check_aligned(self.where, split, text_lengths)
        return split

    def error(self, key: str, what: str) -> UserError:
        return UserError(f"{self.where}: {key}: {what}")

    def array(self, key: str, dimensions: int, layout: str) -> np.ndarray:
        """An array of numbers, with one entry per clip."""
        value = self._value(key)
        try:
            array = np.asarray(value.tolist() if isinstance(value, np.ndarray) and value.dtype.hasobject else value)
            if dimensions == 1 and array.ndim and array.size == len(array):  # (N, 1) or (N, 1, 1)
                array = array.reshape(-1)
            found = f"{array.dtype} {array.shape}"
        except (ValueError, TypeError, MemoryError):  # clips of different shapes, a number, or long texts among numbers
            array, found = np.empty(0), f"{type(value).__name__} of different shapes"
        is_layout = array.dtype.kind in "iufb" and array.ndim == dimensions and 0 not in array.shape
        if not is_layout or self.clips not in (0, len(array)):
            raise self.error(key, f"expected numbers {layout} with N = {self.clips}; found {found}")
        return array

    def texts(self, key: str, strict: bool = True) -> list[str]:
        """The texts of all clips. strict: raises for one that is not a string or UTF-8; otherwise it is converted."""
        values = self._value(key)
        is_list = isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim == 1)
        if not is_list or not len(values) or self.clips not in (0, len(values)):
            found = len(values) if is_list else type(values).__name__
            raise self.error(key, f"expected N {f'= {self.clips}' if self.clips else '> 0'} texts; found {found}")
        texts = []
        for number, value in enumerate(values):
            written = str(value) if np.isscalar(value) else type(value).__name__
            encoded = value if isinstance(value, bytes) else written.encode(errors="surrogatepass")
            texts.append(encoded.decode(errors="replace"))
            with contextlib.suppress(UnicodeError):  # the pickle reader takes a str of Python 2 for latin-1
                texts[-1] = texts[-1].encode("latin1").decode()
            if strict and (not isinstance(value, str | bytes) or NO_UTF8.search(texts[-1])):
                raise self.error(key, f"number {number} is not a text: {first_line(texts[-1])[:40]!r}")
        return texts

    def sequences(self, key: str) -> np.ndarray:
        return self.array(key, 3, "(N, frames, width), all clips padded to one length,")

    def frames(self, modality: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The sequences and the real frames of each clip, (N,) int64; None in aligned files."""
        sequences, key = self.sequences(modality), f"{modality}_lengths"
        if self.aligned and key not in self.content:
            return sequences, None
        frames = sequences.shape[1]
        lengths = self.array(key, 1, "(N,)")
        wrong = (lengths < 1) | (lengths > frames) | (lengths != np.floor(lengths))
        self.refuse(key, wrong, f"expected a whole number from 1 to {frames}, the frames of the array", lengths)
        return sequences, lengths.astype(np.int64)

    def text_bert(self) -> tuple[np.ndarray, np.ndarray]:
        """The token array and the real tokens of each clip, (N,) int64."""
        key = "text_bert"
        tokens = self.array(key, 3, "(N, 3, L)")
        if tokens.shape[1] != 3:
            hint = "; the last two axes are swapped, as by the released DataPre.py" if tokens.shape[2] == 3 else ""
            raise self.error(key, f"expected (N, 3, L) with token ids, mask, segment ids; found {tokens.shape}{hint}")
        wrong = (tokens < 0) | (tokens > np.iinfo(np.int32).max) | (tokens != np.floor(tokens))
        self.refuse(key, wrong.any(axis=(1, 2)), "token ids, mask and segment ids must be whole numbers from 0")
        mask = tokens[:, 1]
        lengths = mask.sum(axis=1).astype(np.int64)
        prefix = np.arange(tokens.shape[2]) < lengths[:, None]
        self.refuse(key, (mask != prefix).any(axis=1) | (lengths < 1), "the mask must be ones, then zeros")
        return tokens, lengths

    def labels(self, key: str) -> np.ndarray:
        labels, bound = self.array(key, 1, "(N,)").astype(np.float64), self.dataset.label_bound
        wrong = ~(np.abs(labels) <= bound + 1e-5)  # also for NaN
        what = f"outside [-{bound:g}, {bound:g}], the range of {self.dataset.name}; --datasetName sets the dataset"
        self.refuse(key, wrong, what, labels)
        return labels.astype(np.float32)

    def refuse(self, key: str, wrong: np.ndarray, what: str, values: np.ndarray | None = None) -> None:
        """Raises for the first clip that is wrong, if any, and counts the others. wrong: (N,) bool."""
        if wrong.any():
            clip = int(wrong.argmax())
            value = f" has {values[clip]:g}" if values is not None else ""
            others = f" (and {wrong.sum() - 1} other clips)" if wrong.sum() > 1 else ""
            raise self.error(key, f"clip {first_line(self.ids[clip])}{value}: {what}{others}")

    def _value(self, key: str) -> object:
        if key not in self.content:
            hint = "; if the file is word-aligned, add --aligned" if key.endswith("_lengths") else ""
            raise self.error(key, f"missing{hint}; the split has {_keys(self.content)}")
        return self.content[key]


def _keys(content: object) -> str:
    keys = map(str, content) if isinstance(content, dict) else [type(content).__name__]
    return first_line(", ".join(keys)) or "nothing"
