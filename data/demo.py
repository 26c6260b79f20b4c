"""Makes the demo corpus: film reviews by made-up speakers, and a small BERT that knows their words.

With it anyone can try the whole program in a minute, with nothing to download. Words, voice and face of a clip each follow
a sentiment of their own, which is known: so a training can be judged by what the four heads make of it. Voice and face
mostly go with the words, but at times contradict them, as in irony, and none of the three is enough to tell the label.

    FOLDER/Processed/unaligned.pkl    the official layout, with the three sentiments as regression_labels_T, _A, _V
    FOLDER/bert/                      config.json, model.safetensors (random weights), vocab.txt

All numbers are drawn from streams of their own with a fixed seed: the corpus is always the same.
"""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from data.schema import UNIMODAL_LABELS
from utils.errors import UserError
from utils.files import flush

SEED = 2021
CLIPS = {"train": 600, "valid": 100, "test": 150}
CLIPS_OF_A_SPEAKER = 10
TOKENS = 20  # [CLS] and [SEP] included
AUDIO_FRAMES, AUDIO_WIDTH = 60, 8
VISION_FRAMES, VISION_WIDTH = 40, 10

SUBJECTS = "film movie plot story acting ending music dialogue camera cast script humour".split()
VERBS = "was is felt seemed looked".split()
ADJECTIVES = {
    "wonderful": 2.4, "brilliant": 2.4, "moving": 1.8, "great": 1.8, "clever": 1.2, "funny": 1.2, "nice": 0.8, "solid": 0.8,
    "weak": -0.8, "slow": -0.8, "dull": -1.2, "silly": -1.2, "boring": -1.8, "bad": -1.8, "awful": -2.4, "terrible": -2.4,
}  # fmt: skip
DEGREES = {"": 1.0, "slightly": 0.5, "somewhat": 0.7, "really": 1.3, "extremely": 1.5}
NEGATION = -0.5  # what is not wonderful is mildly bad
OPENERS = ["", "", "", "i think", "well", "to be honest", "for me", "you know", "i mean"]
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # [PAD] has id 0

SHARES = {"text": 0.4, "audio": 0.3, "vision": 0.3}  # in the clip's label
CONTRADICTS = 0.2  # the probability that a voice says the opposite of the words; the same for a face


def ensure_demo(folder: Path) -> None:
    """Makes the corpus and the BERT, unless they are there. A killed run leaves nothing half made under its name.

    Raises UserError where the folder can't be written, or holds something else.
    """
    if _is_complete(folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder.parent) as work:
            make_demo(made := Path(work) / folder.name)
            flush(made)
            os.replace(made, folder)
    except OSError as error:
        if not _is_complete(folder):  # else another process was faster, and made the same
            raise UserError(
                f"{folder}: can't make the demo corpus there ({error.strerror}); remove the folder if it exists, or name "
                "another place with SELF_MM_DATA"
            ) from None


def _is_complete(folder: Path) -> bool:
    return (folder / "Processed" / "unaligned.pkl").exists() and (folder / "bert" / "vocab.txt").exists()


def make_demo(folder: Path) -> None:
    """Writes the corpus and the BERT below a folder that isn't there yet."""
    rng = np.random.default_rng(SEED)
    (folder / "Processed").mkdir(parents=True)
    content = {split: _make_split(split, clips, rng) for split, clips in CLIPS.items()}
    with open(folder / "Processed" / "unaligned.pkl", "wb") as file:
        pickle.dump(content, file, protocol=4)
    _write_bert(folder / "bert")


def vocabulary() -> list[str]:
    """The special tokens and all words of the grammar, in the order of their ids."""
    phrases = [*SUBJECTS, *VERBS, *ADJECTIVES, *DEGREES, *OPENERS, "the", "not", "and", "but", "."]
    return SPECIAL_TOKENS + list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def _make_split(split: str, clips: int, rng: np.random.Generator) -> dict[str, object]:
    ids, texts, voices, faces, sentiments = [], [], [], [], []
    for clip in range(clips):
        video, number = divmod(clip, CLIPS_OF_A_SPEAKER)
        if number == 0:
            own_voice, own_face = rng.normal(0, 0.3, AUDIO_WIDTH), rng.normal(0, 0.3, VISION_WIDTH)
        text, said = _review(rng)
        heard, seen = _alongside(said, rng), _alongside(said, rng)
        duration = len(text.split()) * rng.lognormal(0, 0.3)
        ids.append(f"{split}{video:02d}$_${number + 1}")
        texts.append(text)
        voices.append(_voice(heard, duration, own_voice, rng))
        faces.append(_face(seen, duration, own_face, rng))
        sentiments.append([said, heard, seen])
    unimodal = dict(zip(SHARES, np.float32(sentiments).T, strict=True))
    mixed = sum(share * unimodal[task] for task, share in SHARES.items())
    label = (np.round(mixed * 5) / 5).astype(np.float32)  # in steps of 0.2: the mean of five annotators, as in MOSI
    sign = np.sign(label).astype(np.int64)
    return {
        "id": np.array(ids),
        "raw_text": np.array(texts),
        "text_bert": _tokenize(texts),
        "audio": _pad(voices, AUDIO_FRAMES),
        "audio_lengths": [len(voice) for voice in voices],
        "vision": _pad(faces, VISION_FRAMES),
        "vision_lengths": [len(face) for face in faces],
        "annotations": np.array(["Negative", "Neutral", "Positive"])[sign + 1],
        "classification_labels": sign + 1,
        "regression_labels": label,
        **{UNIMODAL_LABELS[task]: sentiment for task, sentiment in unimodal.items()},
    }


def _review(rng: np.random.Generator) -> tuple[str, float]:
    """A sentence of one or two clauses, and its sentiment in [-3, 3]."""
    opener = rng.choice(OPENERS)
    first, sentiment = _clause(rng)
    parts = [opener, first]
    if rng.random() < 0.7:
        second, further = _clause(rng)
        if sentiment * further > 0:
            parts += ["and", second]
            sentiment = (sentiment + further) / 2
        else:
            parts += ["but", second]
            sentiment = (sentiment + 3 * further) / 4  # what comes after "but" counts for more
    return _join([*parts, "."]), sentiment


def _clause(rng: np.random.Generator) -> tuple[str, float]:
    """For example "the plot felt really dull", and its sentiment in [-3, 3]."""
    subject, verb, adjective = rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(list(ADJECTIVES))
    if rng.random() < 0.15:
        modifier, factor = "not", NEGATION
    else:
        modifier = rng.choice(list(DEGREES))
        factor = DEGREES[modifier]
    return _join(["the", subject, verb, modifier, adjective]), float(np.clip(factor * ADJECTIVES[adjective], -3, 3))


def _join(words: list[str]) -> str:
    return " ".join(word for word in words if word)


def _alongside(said: float, rng: np.random.Generator) -> float:
    """The sentiment of a voice or a face that goes with the words, or contradicts them."""
    meant = -said if rng.random() < CONTRADICTS else said
    return float(np.clip(meant + rng.normal(0, 0.7), -3, 3))


def _voice(sentiment: float, duration: float, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(frames, AUDIO_WIDTH): pitch, loudness, brightness, roughness, and tracks that tell nothing.

    own: (AUDIO_WIDTH,) where the speaker's tracks lie at rest.
    """
    frames = int(np.clip(round(3 * duration), 8, AUDIO_FRAMES))
    time = np.linspace(0, 1, frames)
    syllables = np.sin(2 * np.pi * (frames / 4 * time + rng.random()))
    tracks = own + rng.normal(0, 0.3, (frames, AUDIO_WIDTH))
    tracks[:, 0] += 0.4 * sentiment * time + (0.3 + 0.09 * sentiment) * syllables  # a glad voice rises, and sings
    tracks[:, 1] += 0.3 * abs(sentiment) + 0.3 * syllables
    tracks[:, 2] += 0.3 * sentiment
    tracks[:, 3] -= 0.4 * sentiment * time  # a sour voice creaks towards the end
    return tracks.astype(np.float32)


def _face(sentiment: float, duration: float, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(frames, VISION_WIDTH): smile, raised cheeks, frown, drawn mouth, and tracks that tell nothing.

    own: (VISION_WIDTH,) where the speaker's tracks lie at rest.
    """
    frames = int(np.clip(round(2 * duration), 6, VISION_FRAMES))
    onset = rng.uniform(0.1, 0.6)
    time = np.linspace(0, 1, frames)
    shown = 1 / (1 + np.exp(-12 * (time - onset)))  # the expression comes at some moment, and stays
    glad, sour = max(sentiment, 0), max(-sentiment, 0)
    tracks = own + rng.normal(0, 0.2, (frames, VISION_WIDTH))
    tracks[:, :4] += shown[:, None] * [0.6 * glad, 0.4 * glad, 0.6 * sour, 0.4 * sour]
    return tracks.astype(np.float32)


def _tokenize(texts: list[str]) -> np.ndarray:
    """(N, 3, TOKENS) int64: token ids, mask and segment ids. Every word is one token."""
    ids = {word: number for number, word in enumerate(vocabulary())}
    tokens = np.zeros((len(texts), 3, TOKENS), dtype=np.int64)
    for clip, text in enumerate(texts):
        words = ["[CLS]", *text.split(), "[SEP]"]
        tokens[clip, 0, : len(words)] = [ids[word] for word in words]
        tokens[clip, 1, : len(words)] = 1
    return tokens


def _pad(sequences: list[np.ndarray], frames: int) -> np.ndarray:
    """(N, frames, width) float32, zero after each sequence's end."""
    padded = np.zeros((len(sequences), frames, sequences[0].shape[1]), dtype=np.float32)
    for clip, sequence in enumerate(sequences):
        padded[clip, : len(sequence)] = sequence
    return padded


def _write_bert(folder: Path) -> None:
    """A BERT with random weights, small enough to learn its few words from the corpus itself."""
    words = vocabulary()
    config = BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed would seed the GPUs too
        bert = BertModel(config, add_pooling_layer=False)
    config.save_pretrained(folder)
    save_file(bert.state_dict(), folder / "model.safetensors", {"format": "pt"})  # save_pretrained would show a bar
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
