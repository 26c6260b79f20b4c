"""The work of TextPre.py: joins features of CMU-MultimodalSDK with transcripts, to a file in the official layout."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from data.builders.assemble import ClipFeatures, assemble, raise_if_refused, train_command, writing
from data.builders.label_table import ANNOTATIONS, LabelledClip
from data.builders.transcripts import ClipName, Transcripts
from data.extractors import describe
from data.extractors.text import BertText
from data.schema import SPLITS, SplitChecker
from models.pretrained_bert import find_bert
from utils.errors import UserError, first_line
from utils.safe_pickle import load_pickle

SEQUENCES = ("audio", "vision")


@dataclass
class CmuSplit:
    """One split of a CMU pickle, checked. Arrays are of the file's types."""

    names: list[ClipName]
    raw_text: list[str] | None
    sequences: dict[str, np.ndarray]  # "audio", "vision": (N, L, width), padded with zeros at either end
    labels: np.ndarray  # (N,) float32; any may be out of range, or no number


def join_cmu(
    features: Path,
    transcripts_path: Path | None,
    output: Path,
    dataset: Dataset,
    *,
    bert: str | None,
    aligned: bool,
    text_length: int,
) -> None:
    """Makes a feature file of a CMU pickle and transcripts (None: the pickle's own raw_text).

    aligned: the pickle has one frame for each word. text_length: tokens that each text is cut or padded to. Raises UserError, at
    last also where clips were left out.
    """
    sources = [path for path in (features, transcripts_path) if path is not None]
    transcripts = None if transcripts_path is None else Transcripts(transcripts_path)
    text = BertText.load(find_bert(bert, dataset))
    longest = text.pretrained.bert.config.max_position_embeddings
    if text_length > longest:
        raise UserError(f"--text_length {text_length}: the text encoder takes no more than {longest}")
    if not text.pretrained.tokenizer.is_fast:
        raise UserError(
            f"--bert {text.pretrained.source}: its tokenizer doesn't tell which word a token is of; name another"
        )
    with writing(output, *sources):
        splits = read_cmu_file(features, dataset, aligned, with_texts=transcripts is None)
        clips, refused = choose_clips(splits, transcripts, dataset)
        joiner = Joiner(splits, text, text_length, aligned)
        padded, described = {"text": text_length}, {"text": describe(text)}
        for key in SEQUENCES:
            shapes = [split.sequences[key].shape for split in splits.values()]
            padded[key] = text_length if aligned else max(length for _, length, _ in shapes)
            settings = {"file": features.name, "aligned": aligned}
            described[key] = {"name": "CMU-MultimodalSDK", "version": "", "width": shapes[0][2], "settings": settings}
        assemble(
            output,
            [clip for clip, _ in clips.values()],
            refused,
            dict.fromkeys(clips, {}),  # nothing is measured, as all lengths are given
            lambda clip: joiner(*clips[clip]),
            padded,
            described,
            aligned,
        )
    moved = transcripts is not None and transcripts.places_moved
    print(_report(output, [clip for clip, _ in clips.values()], padded, described, joiner.counts, moved, aligned))
    print(train_command(output, dataset.name, bert, aligned))
    raise_if_refused(output, refused, len(clips) + len(refused))


def read_cmu_file(path: Path, dataset: Dataset, aligned: bool, with_texts: bool) -> dict[str, CmuSplit]:
    """Reads and checks a CMU pickle. Raises UserError: which split and key, what was expected and found.

    with_texts: it must have raw_text, too.
    """
    content, _ = load_pickle(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a dict with the keys {', '.join(SPLITS)}")
    splits = {}
    for name in SPLITS:
        if not isinstance(content.get(name), dict):
            listed = first_line(", ".join(map(str, content))) or "nothing"
            raise UserError(f"{path}: has no split {name!r} (a dict of arrays); it has {listed}")
        content[name].pop("text", None)  # word vectors, half of the file: not to be held in memory
        splits[name] = _read_split(SplitChecker(path, name, content[name], dataset, aligned), with_texts)
    for key in SEQUENCES:
        widths = {name: split.sequences[key].shape[2] for name, split in splits.items()}
        if len(set(widths.values())) > 1:
            raise UserError(f"{path}: {key} has not the same width in all splits: {widths}")
    return splits


def _read_split(checker: SplitChecker, with_texts: bool) -> CmuSplit:
    ids = checker.content.get("id")
    if not isinstance(ids, list | tuple | np.ndarray) or getattr(ids, "ndim", 1) == 0 or not len(ids):
        raise checker.error("id", "expected an array or list of the N clips' names, N from 1; found none")
    checker.clips = len(ids)
    sequences = {key: checker.sequences(key) for key in SEQUENCES}
    lengths = {key: values.shape[1] for key, values in sequences.items()}
    if checker.aligned and len(set(lengths.values())) > 1:
        raise checker.error("audio", f"the frames of a clip are {lengths}: not one for each word; leave out --aligned")
    labels = checker.content.get("labels")
    layout = "(N,), (N, 1) or (N, 1, 1)"
    labels = checker.array("labels", max(1, labels.ndim) if isinstance(labels, np.ndarray) else 1, layout)
    if labels.size != checker.clips:
        raise checker.error("labels", f"expected one number for each clip, {layout}; found {labels.shape}")
    if with_texts and "raw_text" not in checker.content:
        raise checker.error("raw_text", "missing; say with --transcripts where the words are")
    raw_text = checker.texts("raw_text") if with_texts else None
    with np.errstate(over="ignore"):  # too large for float32 is infinite
        return CmuSplit(list(map(ClipName.read, ids)), raw_text, sequences, labels.ravel().astype(np.float32))


Chosen = dict[str, tuple[LabelledClip, int]]  # clip's id -> the clip, and its number in its split


def choose_clips(
    splits: dict[str, CmuSplit], transcripts: Transcripts | None, dataset: Dataset
) -> tuple[Chosen, dict[str, str]]:
    """The clips with a transcript and a label, in the file's order, and for each other, by its id, why it is left out.

    transcripts: None: the pickle's own texts.
    """
    if transcripts is not None:
        transcripts.count_places(name for split in splits.values() for name in split.names)
    chosen: Chosen = {}
    refused: dict[str, str] = {}
    for mode, split in splits.items():
        for number, (name, label) in enumerate(zip(split.names, split.labels.tolist(), strict=True)):
            try:
                if transcripts is None:
                    (video, clip), words = name.read_alone(), split.raw_text[number]
                else:
                    video, clip, words = transcripts.find(name)
                if not words.split():
                    raise ValueError("its transcript is empty")
                if not abs(label) <= dataset.label_bound + 1e-5:  # nor is NaN
                    bound = dataset.label_bound
                    raise ValueError(f"label {label:g}: expected a number from {-bound:g} to {bound:g}")
                words = " ".join(words.split())  # with single spaces a sentence has the tokens of its words
                found = LabelledClip(video, clip, words, label, mode, ANNOTATIONS[int(np.sign(label)) + 1])
                if found.id in chosen:
                    raise ValueError(f"another clip before it is {found.id}, too; the first is used")
                chosen[found.id] = found, number
            except ValueError as error:
                key = first_line(name.written)
                refused[key if key not in refused else f"{key} ({mode}, number {number})"] = str(error)
    return chosen, refused


class Joiner:
    """Makes the clips' features, split by split, and counts what it had to change and what doesn't go together."""

    def __init__(self, splits: dict[str, CmuSplit], text: BertText, text_length: int, aligned: bool):
        """text_length: tokens that a text is cut to, [CLS] and [SEP] included."""
        self._splits, self._text, self._text_length, self._aligned = splits, text, text_length, aligned
        self.counts: Counter[str] = Counter()

    def __call__(self, clip: LabelledClip, number: int) -> ClipFeatures:
        """number: the clip's in its split."""
        for done in SPLITS[: SPLITS.index(clip.split)]:
            self._splits[done].sequences.clear()  # there may be no room for all of them beside what is made of them
        words = clip.text.split()
        tokens, owners, vectors = self._read(words)
        sound, face = (self._clean(clip.split, key, number) for key in SEQUENCES)
        if not self._aligned:
            return ClipFeatures(without_padding(sound), without_padding(face), tokens, vectors)
        both = np.concatenate([sound, face], axis=1)
        self.counts["uneven"] += len(without_padding(both)) != min(len(words), len(both))
        audio, vision = (frames_of_tokens(frames, both, len(words), owners) for frames in (sound, face))
        return ClipFeatures(audio, vision, tokens, vectors)

    def _read(self, words: list[str]) -> tuple[np.ndarray, list[int | None], np.ndarray]:
        """Token ids (n,) of `[CLS] words [SEP]`, the word that each is of, and BERT's vectors of them (n, width)."""
        tokenizer = self._text.pretrained.tokenizer
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=self._text_length)
        self.counts["cut"] += bool(encoded.encodings[0].overflowing)
        tokens = np.array(encoded["input_ids"])
        return tokens, encoded.word_ids(), self._text.vectors(tokens)

    def _clean(self, split: str, key: str, number: int) -> np.ndarray:
        """A clip's frames (L, width), with 0 for what isn't finite."""
        with np.errstate(over="ignore"):
            frames = self._splits[split].sequences[key][number].astype(np.float32)
        wrong = ~np.isfinite(frames)
        frames[wrong] = 0
        self.counts[f"{split} {key}"] += int(wrong.sum())
        return frames


def without_padding(frames: np.ndarray) -> np.ndarray:
    """(L, width) -> (length, width), at least one frame: without the zeros at that end which has more of them."""
    front, end = _zeros_at_ends(frames)
    if front == len(frames):
        return frames[:1]
    return frames[front:] if front > end else frames[: len(frames) - end]


def frames_of_tokens(frames: np.ndarray, both: np.ndarray, words: int, owners: list[int | None]) -> np.ndarray:
    """(L, width), a frame for each word -> (n, width), for each token the frame of its word, as released.

    both: (L, both widths), sound and face side by side: zeros of one alone may be words without a face. words: how many
    were said; those without a frame get zeros. owners: each token's word; None for [CLS] and [SEP], which get zeros.
    """
    words = min(words, len(frames))
    front, end = _zeros_at_ends(both)
    if front == end:  # no padding, or one has it in front and the other at the end
        front, end = _zeros_at_ends(frames)
    first = len(frames) - words if front >= end else 0
    found = np.zeros((len(owners), frames.shape[1]), np.float32)
    for token, word in enumerate(owners):
        if word is not None and word < words:
            found[token] = frames[first + word]
    return found


def _zeros_at_ends(frames: np.ndarray) -> tuple[int, int]:
    """How many frames of zeros stand in front and at the end; all of them at either, where there is nothing else."""
    real = np.flatnonzero(frames.any(axis=1))
    return (int(real[0]), len(frames) - 1 - int(real[-1])) if len(real) else (len(frames), len(frames))


def _report(
    output: Path,
    clips: list[LabelledClip],
    padded: dict,
    described: dict,
    counts: Counter,
    places_moved: bool,
    aligned: bool,
) -> str:
    sizes = Counter(clip.split for clip in clips)
    lines = [f"{output}: " + ", ".join(f"{sizes[split]} {split}" for split in SPLITS) + " clips"]
    lines.append(f"  text: length {padded['text']}, {counts['cut']} longer texts cut")
    for key in SEQUENCES:
        wrong = ", ".join(f"{counts[f'{split} {key}']} in {split}" for split in SPLITS)
        lines.append(f"  {key}: length {padded[key]}, width {described[key]['width']}; made 0, as not finite: {wrong}")
    if aligned:
        uneven = f"  {counts['uneven']} clips have more or fewer words than frames"
        lines.append(f"{uneven}; if most have, the transcripts are of other clips")
    if places_moved:
        lines.append("  video[0] was taken for clip 1, as the places count from 0 and the transcripts from 1")
    return "\n".join(lines)
