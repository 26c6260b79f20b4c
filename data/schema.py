"""Reads a feature pickle and checks it against the official layout.

The layout: {"train" | "valid" | "test": {key: array}}, N clips in a split, with

    id                      (N,)        str, `video$_$clip`
    audio, vision           (N, L, D)   numbers, padded at the end
    audio_lengths, ...      (N,)        real frames, 1 to L; aligned files need none, theirs are the text's
    text_bert               (N, 3, L)   BERT's token ids, mask, segment ids; optional where there is raw_text
    raw_text                (N,)        str; optional where there is text_bert
    regression_labels       (N,)        numbers, the human labels; regression_labels_T, _A, _V where known
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from utils.errors import UserError, first_line
from utils.safe_pickle import load_pickle

SPLITS = ("train", "valid", "test")
EXTRACTORS = "extractors"  # beside the splits: modality -> what made its features, where the file says so
UNIMODAL_LABELS = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}

OFFICIAL_SHA1 = {
    "5da0b8440fc5a7c3a457859af27458beb993e088": "the official MOSI unaligned_50",
    "5c62b896619a334a7104c8bef05d82b05272c71c": "the official MOSI aligned_50",
    "db3e2cff4d706a88ee156981c2100975513d4610": "the official MOSEI unaligned_50",
    "ef49589349bc1c2bc252ccc0d4657a755c92a056": "the official MOSEI aligned_50",
    "a00c73e92f66896403c09dbad63e242d5af756f8": "the official SIMS unaligned_39",
}


@dataclass
class FeatureSplit:
    """One split of a feature file, checked. Arrays are as the file has them: padded, and of the file's types."""

    ids: list[str]
    raw_text: list[str] | None
    text_bert: np.ndarray | None  # (N, 3, L) numbers
    text_lengths: np.ndarray | None  # (N,) int64, real tokens; None without text_bert
    audio: np.ndarray  # (N, La, Da)
    audio_lengths: np.ndarray | None  # (N,) int64; None: the text's (aligned)
    vision: np.ndarray  # (N, Lv, Dv)
    vision_lengths: np.ndarray | None
    labels: dict[str, np.ndarray]  # "fusion", and the other tasks where the file has them: (N,) float32

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class FeatureFile:
    path: Path
    sha1: str
    splits: dict[str, FeatureSplit]
    extractors: dict[
        str, dict
    ]  # modality -> name, version, width, settings, padded length; {} where the file doesn't say


def read_feature_file(path: Path, dataset: Dataset, aligned: bool) -> FeatureFile:
    """Reads and checks a feature pickle. Raises UserError: which split, key and clip, what was expected and found."""
    content, sha1 = load_pickle(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a dict with the keys {', '.join(SPLITS)}")
    splits = {}
    for name in SPLITS:
        if not isinstance(content.get(name), dict):
            raise UserError(f"{path}: has no split {name!r} (a dict of arrays); it has {_listed(content)}")
        splits[name] = SplitChecker(path, name, content[name], dataset, aligned).check()
    without_ids, without_texts = (
        [name for name, split in splits.items() if getattr(split, key) is None] for key in ("text_bert", "raw_text")
    )
    if without_ids and without_texts:
        raise UserError(
            f"{path}: text_bert is missing in {', '.join(without_ids)}, and raw_text in {', '.join(without_texts)}; all "
            "splits must have the same one"
        )
    for key in ("audio", "vision"):
        widths = {name: getattr(split, key).shape[2] for name, split in splits.items()}
        if len(set(widths.values())) > 1:
            raise UserError(f"{path}: {key} has not the same width in all splits: {widths}; extract them the same way")
    fusion = splits["train"].labels["fusion"]
    if not (fusion < 0).any() or not (fusion >= 0).any():
        raise UserError(
            f"{path}: train: all {len(fusion)} labels are {'positive' if fusion.max() >= 0 else 'negative'}; Self-MM compares "
            "each clip with the centres of both classes, so it needs clips of either sign"
        )
    try:
        return FeatureFile(path, sha1, splits, plain_extractors(content.get(EXTRACTORS)))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def plain_extractors(content: object) -> dict[str, dict]:
    """What a file of any origin says of its extractors, in JSON's types. Raises ValueError where that isn't small tables."""
    try:
        written = json.dumps(content or {})
        extractors = json.loads(written)
        if len(written) < 10_000 and all(isinstance(facts.get("settings", {}), dict) for facts in extractors.values()):
            return extractors
    except (TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{EXTRACTORS}: expected a dict for each modality, with plain values")


class SplitChecker:
    """Checks one split, and says where it stands in every complaint."""

    def __init__(self, path: Path, name: str, content: dict, dataset: Dataset, aligned: bool):
        self.path, self.name, self.content, self.dataset, self.aligned = path, name, content, dataset, aligned
        self.clips = 0
        self.ids: list[str] = []

    def check(self) -> FeatureSplit:
        self.ids = self.texts("id", needed=False)
        self.clips = len(self.ids)
        if not self.clips:
            raise self.error("id", "the split has no clips")
        text_bert = text_lengths = None
        if "text_bert" in self.content:
            text_bert, text_lengths = self.text_bert()
        elif "raw_text" not in self.content:
            raise self.error("text_bert", "missing, and raw_text too; one of them is needed")
        raw_text = self.texts("raw_text", needed=text_bert is None) if "raw_text" in self.content else None
        audio, vision = self.sequences("audio"), self.sequences("vision")
        if self.aligned:
            lengths = {"audio": None, "vision": None}
            if text_lengths is not None:
                for key, sequences in (("audio", audio), ("vision", vision)):
                    what = f"tokens, more than the {sequences.shape[1]} frames that the array has: not an aligned file"
                    self.raise_for_clip(key, text_lengths > sequences.shape[1], text_lengths, what)
        else:
            lengths = {"audio": self.lengths("audio", audio), "vision": self.lengths("vision", vision)}
        labels = {"fusion": self.labels("regression_labels")}
        labels |= {task: self.labels(key) for task, key in UNIMODAL_LABELS.items() if key in self.content}
        return FeatureSplit(
            self.ids, raw_text, text_bert, text_lengths, audio, lengths["audio"], vision, lengths["vision"], labels
        )

    def error(self, key: str, what: str) -> UserError:
        return UserError(f"{self.path}: {self.name}: {key}: {what}")

    def array(self, key: str, dimensions: int, layout: str) -> np.ndarray:
        """A numeric array of N clips."""
        if key not in self.content:
            raise self.error(key, f"missing; the split has {_listed(self.content)}")
        value = self.content[key]
        if not _holds_numbers(value):
            kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise self.error(key, f"expected an array of numbers {layout}; found {kind} with other values")
        try:
            array = np.asarray(value)
        except ValueError:
            raise self.error(
                key, f"the clips' shapes differ; expected one array {layout}: pad them to one length"
            ) from None
        if array.ndim != dimensions or (self.clips and len(array) != self.clips) or 0 in array.shape:
            raise self.error(key, f"expected {layout} with N = {self.clips}; found {array.shape}")
        return array

    def texts(self, key: str, needed: bool = True) -> list[str]:
        """needed: they are read on; else what isn't a text is no error."""
        if key not in self.content:
            raise self.error(key, f"missing; the split has {_listed(self.content)}")
        values = self.content[key]
        if not isinstance(values, list | tuple | np.ndarray) or getattr(values, "ndim", 1) != 1:
            raise self.error(key, f"expected a list of N texts; found {type(values).__name__}")
        if self.clips and len(values) != self.clips:
            raise self.error(key, f"expected N = {self.clips} texts, one for each id; found {len(values)}")
        texts = []
        for number, value in enumerate(values):
            written = value if isinstance(value, bytes) else _written(value).encode(errors="surrogatepass")
            texts.append(written.decode(errors="replace"))
            if needed and (not isinstance(value, str | bytes) or "\ufffd" in texts[-1]):
                raise self.error(key, f"number {number} is no text: {_written(value)[:40]!r}")
        return texts

    def sequences(self, key: str) -> np.ndarray:
        return self.array(key, 3, "(N, frames, width)")

    def lengths(self, key: str, sequences: np.ndarray) -> np.ndarray:
        key = f"{key}_lengths"
        if key not in self.content:
            raise self.error(key, "missing; only word-aligned files need none: if this is one, add --aligned")
        lengths = self.array(key, 1, "(N,)")
        self.raise_for_clip(
            key, (lengths < 1) | (lengths != np.floor(lengths)), lengths, "expected a whole number from 1"
        )
        what = f"longer than the {sequences.shape[1]} frames that the array has"
        self.raise_for_clip(key, lengths > sequences.shape[1], lengths, what)
        return lengths.astype(np.int64)

    def text_bert(self) -> tuple[np.ndarray, np.ndarray]:
        tokens = self.array("text_bert", 3, "(N, 3, L)")
        if tokens.shape[1] != 3:
            hint = (
                "; the last two axes are swapped, as the released DataPre.py wrote them" if tokens.shape[2] == 3 else ""
            )
            raise self.error(
                "text_bert", f"expected (N, 3, L) with token ids, mask, segment ids; found {tokens.shape}{hint}"
            )
        wrong = (tokens < 0) | (tokens > np.iinfo(np.int32).max) | (tokens != np.floor(tokens))
        self.raise_for_clip(
            "text_bert", wrong.any(axis=(1, 2)), None, "token ids, mask and segments must be whole numbers from 0"
        )
        mask = tokens[:, 1]
        lengths = mask.sum(axis=1).astype(np.int64)
        prefix = np.arange(tokens.shape[2]) < lengths[:, None]
        self.raise_for_clip(
            "text_bert", (mask != prefix).any(axis=1) | (lengths < 1), None, "the mask must be ones, then zeros"
        )
        return tokens, lengths

    def labels(self, key: str) -> np.ndarray:
        with np.errstate(over="ignore"):  # too large for float32 is infinite
            labels = self.array(key, 1, "(N,)").astype(np.float32)
        self.raise_for_clip(key, ~np.isfinite(labels), labels, "labels must be numbers; leave the clip out or label it")
        bound = self.dataset.label_bound
        what = f"outside [-{bound:g}, {bound:g}], the range of {self.dataset.name}; --datasetName names the dataset"
        self.raise_for_clip(key, np.abs(labels) > bound + 1e-5, labels, what)
        return labels

    def raise_for_clip(self, key: str, wrong: np.ndarray, values: np.ndarray | None, what: str) -> None:
        """Raises for the first clip that is wrong, and counts the others."""
        if wrong.any():
            clip = int(wrong.argmax())
            found = f" has {values[clip]:g}" if values is not None else ""
            others = f" (and {wrong.sum() - 1} other clips)" if wrong.sum() > 1 else ""
            raise self.error(key, f"clip {first_line(self.ids[clip])}{found}: {what}{others}")


def _listed(content: dict) -> str:
    return first_line(", ".join(str(key) for key in content)) or "nothing"


def _written(value: object) -> str:
    """A text or number as it reads; a container, which may be of any size, by its kind."""
    return type(value).__name__ if isinstance(value, list | tuple | dict | set | frozenset | np.ndarray) else str(value)


def _holds_numbers(value: object) -> bool:
    """Whether an array can be made of it that is no larger than its parts: beside a long text, each number takes as much."""
    if isinstance(value, list | tuple):
        return all(map(_holds_numbers, value))
    return isinstance(value, int | float) or (isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "iufb")
