"""The work of TextPre.py: joins a pickle of CMU-MultimodalSDK with transcripts to a feature file in the official layout."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from config.inputs import find_bert
from data.builders.assemble import SEQUENCES, ClipFeatures, assemble, writing
from data.builders.label_table import LabelledClip, parse_label, words_of
from data.builders.transcripts import ClipName, Transcripts
from data.extractors import describe
from data.extractors.text import BertText
from data.schema import SPLITS, SplitChecker, load_splits
from utils.errors import UserError, first_line

Frames = tuple[np.ndarray, np.ndarray]  # audio, vision: (L, width) of the file's type, padded with zeros at either end


def join_cmu(
    features: Path, transcripts: Path | None, output: Path, dataset: Dataset, *,
    bert: str | None, aligned: bool, text_length: int,
) -> None:  # fmt: skip
    """Writes the feature file, then raises UserError if clips were left out. Raises UserError first for unusable input.

    transcripts: None: the raw_text. aligned: a frame for each word, in the output each token. text_length: in tokens.
    """
    corpus = None if transcripts is None else Transcripts(transcripts)
    text = BertText.load(find_bert(bert, dataset))
    longest = text.pretrained.bert.config.max_position_embeddings
    if not 3 <= text_length <= longest:  # [CLS], one token, [SEP]
        raise UserError(f"--text_length {text_length}: expected 3 to {longest}, the text encoder's limit")
    with writing(output, *filter(None, [features, transcripts])):
        chosen, refused, shapes = read_cmu_file(features, corpus, dataset, aligned)
        extractors = {"text": describe(text) | {"length": text_length}}
        cmu = {"name": "CMU-MultimodalSDK", "version": "", "settings": {"file": features.name, "aligned": aligned}}
        for key, (frames, width) in shapes.items():
            extractors[key] = cmu | {"width": width, "length": text_length if aligned else frames}
        if corpus is not None and corpus.first_index:
            print("  video[0] is clip 1: the pickle counts clips from 0, the transcripts from 1")

        def load(clip: LabelledClip) -> ClipFeatures:
            # Frees a split's arrays with its last clip: memory may not hold them all beside the output.
            return join_clip(*chosen.pop(clip.id), text, text_length, aligned)

        clips = [clip for clip, _ in chosen.values()]
        assemble(output, dataset, clips, refused, extractors, load, bert=bert, aligned=aligned)


def read_cmu_file(
    path: Path, corpus: Transcripts | None, dataset: Dataset, aligned: bool
) -> tuple[dict[str, tuple[LabelledClip, Frames]], dict[str, str], dict[str, tuple[int, int]]]:
    """Reads and checks a CMU pickle. Raises UserError, which names the split and key.

    Returns the usable clips, by id; the reason for each other one, by its id as written; the largest shapes (L, width).
    """
    content, _ = load_splits(path)
    checkers = {split: SplitChecker(path, split, content[split], dataset, aligned) for split in SPLITS}
    sources = [(split, *row) for split, checker in checkers.items() for row in _read_split(checker, corpus is None)]
    shapes = {}
    for key in SEQUENCES:
        _, lengths, widths = zip(*(np.shape(content[split][key]) for split in SPLITS), strict=True)
        if len(set(widths)) > 1:
            raise UserError(f"{path}: {key}: the splits have different widths: {sorted(set(widths))}")
        shapes[key] = max(lengths), widths[0]
    if corpus is not None:
        corpus.align_indices(name for _, name, *_ in sources)
    chosen, refused = {}, {}
    for number, (split, name, label, raw_text, frames) in enumerate(sources):
        try:
            video, clip_id, text = corpus.find(name) if corpus is not None else (*name.video_and_clip(), raw_text)
            # With single spaces, a sentence has the tokens of its words.
            clip = LabelledClip(video, clip_id, words_of(text), parse_label("label", label, dataset), split)
            if chosen.setdefault(clip.id, (clip, frames))[0] is not clip:
                raise ValueError(f"duplicate of {clip.id}; the first is used")
        except ValueError as error:
            written = first_line(name.written)
            refused[f"{written} (clip {number} of the file)" if written in refused else written] = first_line(error)
    return chosen, refused, shapes


def _read_split(checker: SplitChecker, with_texts: bool) -> Iterable[tuple[ClipName, float, str, Frames]]:
    """The clips' names, unchecked labels, raw_text (if wanted) and frames."""
    ids = checker.content.get("id")
    if not isinstance(ids, list | tuple | np.ndarray) or getattr(ids, "ndim", 1) == 0 or not len(ids):
        raise checker.error("id", "expected an array or list of N ids, N at least 1")
    checker.clips = len(ids)
    audio, vision = map(checker.sequences, SEQUENCES)
    if checker.aligned and audio.shape[1] != vision.shape[1]:
        raise checker.error("audio", f"{audio.shape[1]} frames, but {vision.shape[1]} of vision; leave out --aligned")
    labels = checker.array("labels", 1, "(N,), (N, 1) or (N, 1, 1)").tolist()
    if with_texts and "raw_text" not in checker.content:
        raise checker.error("raw_text", "missing; pass the transcripts with --transcripts")
    texts = checker.texts("raw_text") if with_texts else [""] * len(ids)
    return zip(map(ClipName.read, ids), labels, texts, zip(audio, vision, strict=True), strict=True)


@np.errstate(over="ignore")  # values that are too large for float32 become infinite
def join_clip(clip: LabelledClip, frames: Frames, text: BertText, text_length: int, aligned: bool) -> ClipFeatures:
    """text_length: tokens that a text is cut to, [CLS] and [SEP] included."""
    words = clip.text.split()
    encoded = text.pretrained.tokenizer(words, is_split_into_words=True, truncation=True, max_length=text_length)
    changes = Counter({"longer texts cut": len(encoded.encodings[0].overflowing) > 0})
    audio, vision = (values.astype(np.float32) for values in frames)
    for key, values in (("audio", audio), ("vision", vision)):
        changes[f"{key} values in {clip.split} set to 0, as not finite"] = np.count_nonzero(~np.isfinite(values))
        np.nan_to_num(values, copy=False, nan=0, posinf=0, neginf=0)
    if aligned:
        # Side by side, since zeros in one alone can be words without a face.
        joint = np.concatenate([audio, vision], axis=1)
        uneven = len(without_padding(joint)) != min(len(words), len(joint))
        changes["clips with more or fewer words than frames (if most: wrong transcripts)"] = uneven
        joint = frames_of_tokens(joint, len(words), encoded.word_ids())
        audio, vision = np.split(joint, [audio.shape[1]], axis=1)
    else:
        audio, vision = without_padding(audio), without_padding(vision)
    tokens = np.array(encoded["input_ids"])
    return ClipFeatures(audio, vision, tokens, text.vectors(tokens), changes)


def without_padding(frames: np.ndarray) -> np.ndarray:
    """(L, width) -> (length, width), at least one frame: drops the zeros at the end that has more of them."""
    front, back = _padding(frames)
    return frames[front:] if front > back else frames[: max(1, len(frames) - back)]


def frames_of_tokens(frames: np.ndarray, words: int, word_ids: list[int | None]) -> np.ndarray:
    """(L, width), a frame for each word -> (n, width), for each token the frame of its word, as in the released files.

    words: in the clip. word_ids: the word of each token. None ([CLS], [SEP]) and words beyond the frames get zeros.
    """
    words = min(words, len(frames))
    front, back = _padding(frames)
    first = len(frames) - words if front >= back else 0
    rows = [first + word if word is not None and word < words else -1 for word in word_ids]
    return np.pad(frames, ((0, 1), (0, 0)))[rows]  # row -1 is a frame of zeros


def _padding(frames: np.ndarray) -> tuple[int, int]:
    """The number of zero frames at the front and at the back; all of them, twice, if there are no others."""
    real = np.flatnonzero(frames.any(axis=1))
    return (int(real[0]), len(frames) - 1 - int(real[-1])) if len(real) else (len(frames), len(frames))
