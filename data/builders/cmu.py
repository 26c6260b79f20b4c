"""The work of TextPre.py: joins a pickle of CMU-MultimodalSDK with transcripts to a feature file in the official layout."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from data.builders.assemble import SEQUENCES, ClipFeatures, assemble, raise_if_refused, train_command, writing
from data.builders.label_table import LabelledClip, parse_label
from data.builders.transcripts import ClipName, Transcripts
from data.extractors import describe
from data.extractors.text import BertText
from data.schema import SPLITS, SplitChecker, load_splits
from models.pretrained_bert import find_bert
from utils.errors import UserError, first_line

SHORTEST_TEXT = 3  # [CLS], one token, [SEP]


@dataclass
class CmuClip:
    """One clip of a CMU pickle."""

    name: ClipName
    split: str
    label: float  # unchecked
    frames: dict[str, np.ndarray]  # "audio", "vision": (L, width) of the file's type, padded with zeros at either end
    raw_text: str  # "" if transcripts replace it


def join_cmu(
    features: Path,
    transcripts: Path | None,
    output: Path,
    dataset: Dataset,
    *,
    bert: str | None,
    aligned: bool,
    text_length: int,
) -> None:
    """Writes the feature file, then raises UserError if clips were left out. Raises UserError first for unusable input.

    transcripts: None: the pickle's raw_text. aligned: the pickle has one frame for each word, the feature file one for each
    token. text_length: tokens that each text is cut or padded to.
    """
    corpus = None if transcripts is None else Transcripts(transcripts)
    text = BertText.load(find_bert(bert, dataset))
    longest = text.pretrained.bert.config.max_position_embeddings
    if not SHORTEST_TEXT <= text_length <= longest:
        raise UserError(f"--text_length {text_length}: expected {SHORTEST_TEXT} to {longest}, the text encoder's limit")
    with writing(output, *filter(None, [features, transcripts])):
        sources = read_cmu_file(features, dataset, aligned, with_texts=corpus is None)
        padded, extractors = {"text": text_length}, {"text": describe(text)}
        for key in SEQUENCES:
            padded[key] = text_length if aligned else max(len(source.frames[key]) for source in sources)
            width, settings = sources[0].frames[key].shape[1], {"file": features.name, "aligned": aligned}
            extractors[key] = {"name": "CMU-MultimodalSDK", "version": "", "width": width, "settings": settings}
        chosen, refused = choose_clips(sources, corpus, dataset)
        clips = [clip for clip, _ in chosen.values()]
        counts: Counter[str] = Counter()
        # A split's arrays are freed with its last clip: memory may not hold all of them beside the output.
        del sources

        def load(clip_id: str) -> ClipFeatures:
            return join_clip(*chosen.pop(clip_id), text, text_length, aligned, counts)

        # No sizes to measure: all lengths are set.
        assemble(output, clips, refused, dict.fromkeys(chosen, {}), load, padded, extractors, aligned)
    for event, count in (+counts).items():
        print(f"  {event}: {count}")
    if corpus is not None and corpus.first_index:
        print("  video[0] is clip 1: the pickle counts clips from 0, the transcripts from 1")
    print(train_command(output, dataset.name, bert, aligned))
    raise_if_refused(output, refused, len(clips) + len(refused))


def read_cmu_file(path: Path, dataset: Dataset, aligned: bool, with_texts: bool) -> list[CmuClip]:
    """Reads and checks a CMU pickle; with_texts: raw_text too. Raises UserError, which names the split and key."""
    content, _ = load_splits(path)
    checkers = {split: SplitChecker(path, split, content[split], dataset, aligned) for split in SPLITS}
    clips = [clip for split, checker in checkers.items() for clip in _read_split(checker, split, with_texts)]
    for key in SEQUENCES:
        widths = {clip.frames[key].shape[1] for clip in clips}
        if len(widths) > 1:
            raise UserError(f"{path}: {key}: the splits have different widths: {sorted(widths)}")
    return clips


def _read_split(checker: SplitChecker, split: str, with_texts: bool) -> Iterator[CmuClip]:
    ids, labels = checker.content.get("id"), checker.content.get("labels")
    if not isinstance(ids, list | tuple | np.ndarray) or getattr(ids, "ndim", 1) == 0 or not len(ids):
        raise checker.error("id", "expected an array or list of N ids, N at least 1")
    checker.clips = len(ids)
    audio, vision = map(checker.sequences, SEQUENCES)
    if checker.aligned and audio.shape[1] != vision.shape[1]:
        lengths = f"{audio.shape[1]} audio and {vision.shape[1]} vision frames"
        raise checker.error("audio", f"clips have {lengths}, so not one for each word; leave out --aligned")
    if isinstance(labels, np.ndarray):
        # CMU's are (N, 1, 1).
        checker.content["labels"] = labels.ravel()
    labels = checker.array("labels", 1, "(N,), (N, 1) or (N, 1, 1)").tolist()
    if with_texts and "raw_text" not in checker.content:
        raise checker.error("raw_text", "missing; pass the transcripts with --transcripts")
    texts = checker.texts("raw_text") if with_texts else [""] * len(ids)
    for number, frames in enumerate(zip(audio, vision, strict=True)):
        name = ClipName.read(ids[number])
        yield CmuClip(name, split, labels[number], dict(zip(SEQUENCES, frames, strict=True)), texts[number])


def choose_clips(
    sources: list[CmuClip], corpus: Transcripts | None, dataset: Dataset
) -> tuple[dict[str, tuple[LabelledClip, CmuClip]], dict[str, str]]:
    """Returns the clips with a transcript and a label, by id, and the reason for each other one, by its id as written."""
    if corpus is not None:
        corpus.align_indices(source.name for source in sources)
    chosen: dict[str, tuple[LabelledClip, CmuClip]] = {}
    refused: dict[str, str] = {}
    for number, source in enumerate(sources):
        written = first_line(source.name.written)
        try:
            if corpus is None:
                video, clip_id, text = *source.name.without_transcripts(), source.raw_text
            else:
                video, clip_id, text = corpus.find(source.name)
            # With single spaces, a sentence has the tokens of its words.
            text = " ".join(text.split())
            if not text:
                raise ValueError("the transcript is empty")
            clip = LabelledClip(video, clip_id, text, parse_label("label", source.label, dataset), source.split)
            if clip.id in chosen:
                raise ValueError(f"duplicate of {clip.id}; the first is used")
            chosen[clip.id] = clip, source
        except ValueError as error:
            refused[f"{written} (clip {number} of the file)" if written in refused else written] = first_line(error)
    return chosen, refused


# Values that are too large for float32 become infinite.
@np.errstate(over="ignore")
def join_clip(
    clip: LabelledClip, source: CmuClip, text: BertText, text_length: int, aligned: bool, counts: Counter[str]
) -> ClipFeatures:
    """text_length: tokens that a text is cut to, [CLS] and [SEP] included. counts: changes and mismatches, for the report."""
    words = clip.text.split()
    encoded = text.pretrained.tokenizer(words, is_split_into_words=True, truncation=True, max_length=text_length)
    counts["longer texts cut"] += bool(encoded.encodings[0].overflowing)
    frames = {}
    for key in SEQUENCES:
        values = source.frames[key].astype(np.float32)
        counts[f"{key} values in {clip.split} set to 0, as not finite"] += np.count_nonzero(~np.isfinite(values))
        frames[key] = np.nan_to_num(values, copy=False, nan=0, posinf=0, neginf=0)
    if aligned:
        joint = np.concatenate(list(frames.values()), axis=1)
        uneven = len(without_padding(joint)) != min(len(words), len(joint))
        counts["clips with more or fewer words than frames (if most: wrong transcripts)"] += uneven
        frames = {key: frames_of_tokens(x, joint, len(words), encoded.word_ids()) for key, x in frames.items()}
    else:
        frames = {key: without_padding(values) for key, values in frames.items()}
    tokens = np.array(encoded["input_ids"])
    return ClipFeatures(**frames, tokens=tokens, text=text.vectors(tokens))


def without_padding(frames: np.ndarray) -> np.ndarray:
    """(L, width) -> (length, width), at least one frame: drops the zeros at the end that has more of them."""
    front, back = _padding(frames)
    return frames[front:] if front > back else frames[: max(1, len(frames) - back)]


def frames_of_tokens(frames: np.ndarray, joint: np.ndarray, words: int, word_ids: list[int | None]) -> np.ndarray:
    """(L, width), a frame for each word -> (n, width), for each token the frame of its word, as in the released files.

    joint: (L, both widths), audio and vision side by side, since zeros in one alone can be words without a face. words: how many
    the clip has; those beyond the frames get zeros. word_ids: the word of each token; None for [CLS] and [SEP], which get zeros.
    """
    words = min(words, len(frames))
    front, back = _padding(joint)
    if front == back:
        # No padding, or audio is padded at one end and vision at the other.
        front, back = _padding(frames)
    first = len(frames) - words if front >= back else 0
    rows = [first + word if word is not None and word < words else -1 for word in word_ids]
    # Row -1 is a frame of zeros.
    return np.pad(frames, ((0, 1), (0, 0)))[rows]


def _padding(frames: np.ndarray) -> tuple[int, int]:
    """The number of zero frames at the front and at the back; all of them, twice, if there are no others."""
    real = np.flatnonzero(frames.any(axis=1))
    return (int(real[0]), len(frames) - 1 - int(real[-1])) if len(real) else (len(frames), len(frames))
