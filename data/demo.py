"""Makes the demo corpus, film reviews by invented speakers, and a small BERT with random weights for their vocabulary.

With it, the program can be tried in a minute without any download. Audio and vision mostly agree with the text, but
sometimes contradict it, as irony does. All random numbers come from streams with a fixed seed: it is always the same.
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from data.schema import UNIMODAL_LABELS
from utils.files import make_at_once

SEED = 2021
CLIPS = {"train": 600, "valid": 100, "test": 150}
CLIPS_PER_SPEAKER = 10
TOKENS = 20  # including [CLS] and [SEP]
AUDIO_FRAMES, AUDIO_WIDTH = 60, 8
VISION_FRAMES, VISION_WIDTH = 40, 10

SUBJECTS = "film movie plot story acting ending music dialogue camera cast script humour".split()
VERBS = "was is felt seemed looked".split()
ADJECTIVES = {
    "wonderful": 2.4, "brilliant": 2.4, "moving": 1.8, "great": 1.8, "clever": 1.2, "funny": 1.2, "nice": 0.8, "solid": 0.8,
    "weak": -0.8, "slow": -0.8, "dull": -1.2, "silly": -1.2, "boring": -1.8, "bad": -1.8, "awful": -2.4, "terrible": -2.4,
}  # fmt: skip
DEGREES = {"": 1.0, "slightly": 0.5, "somewhat": 0.7, "really": 1.3, "extremely": 1.5}
FACTORS = DEGREES | {"not": -0.5}  # "not wonderful" is mildly bad
OPENERS = ["", "", "", "i think", "well", "to be honest", "for me", "you know", "i mean"]
SPECIAL_TOKENS = "[PAD] [UNK] [CLS] [SEP] [MASK]"  # [PAD] has id 0
PHRASES = [SPECIAL_TOKENS, *SUBJECTS, *VERBS, *ADJECTIVES, *DEGREES, *OPENERS, "the not and but ."]
VOCABULARY = {word: number for number, word in enumerate(dict.fromkeys(" ".join(PHRASES).split()))}  # word -> token id

SHARES = {"text": 0.4, "audio": 0.3, "vision": 0.3}  # of the clip's label
CONTRADICTS = 0.2  # probability that audio contradicts the text of a clip; the same for vision


def ensure_demo(folder: Path) -> None:
    """Makes corpus and BERT, in one step, unless they exist. Raises OSError if the folder cannot be replaced."""
    complete = folder / "bert" / "vocab.txt"  # the last file of make_demo
    if not complete.exists():
        make_at_once(folder, complete, make_demo)


def make_demo(folder: Path) -> None:
    """Writes a new folder: bert/, and Processed/unaligned.pkl, with labels for each modality to judge four heads by."""
    rng = np.random.default_rng(SEED)
    (folder / "Processed").mkdir(parents=True)
    with open(folder / "Processed" / "unaligned.pkl", "wb") as file:
        pickle.dump({split: _make_split(split, clips, rng) for split, clips in CLIPS.items()}, file, protocol=4)
    _write_bert(folder / "bert")


def _make_split(split: str, clips: int, rng: np.random.Generator) -> dict[str, object]:
    rows = []
    for clip in range(clips):
        speaker, number = divmod(clip, CLIPS_PER_SPEAKER)
        if number == 0:
            audio_baseline, vision_baseline = rng.normal(0, 0.3, AUDIO_WIDTH), rng.normal(0, 0.3, VISION_WIDTH)
        text, text_sentiment = _review(rng)
        audio_sentiment, vision_sentiment = _related(text_sentiment, rng), _related(text_sentiment, rng)
        duration = len(text.split()) * rng.lognormal(0, 0.3)
        audio = _audio(audio_sentiment, duration, audio_baseline, rng)
        vision = _vision(vision_sentiment, duration, vision_baseline, rng)
        sentiments = (text_sentiment, audio_sentiment, vision_sentiment)
        # Token id, mask and segment id; every word is one token.
        tokens = np.int64([[VOCABULARY[word], 1, 0] for word in ("[CLS]", *text.split(), "[SEP]")])
        rows.append((f"{split}{speaker:02d}$_${number + 1}", text, tokens, audio, vision, sentiments))
    ids, texts, tokens, audio, vision, sentiments = zip(*rows, strict=True)
    unimodal = dict(zip(SHARES, np.float32(sentiments).T, strict=True))
    mixed = sum(share * unimodal[task] for task, share in SHARES.items())
    label = (np.round(mixed * 5) / 5).astype(np.float32)  # in steps of 0.2: the mean of five annotators, as in MOSI
    sign = np.sign(label).astype(np.int64)
    return {
        "id": np.array(ids), "raw_text": np.array(texts), "text_bert": _pad(tokens, TOKENS).transpose(0, 2, 1),
        "audio": _pad(audio, AUDIO_FRAMES), "audio_lengths": [len(frames) for frames in audio],
        "vision": _pad(vision, VISION_FRAMES), "vision_lengths": [len(frames) for frames in vision],
        "annotations": np.array(["Negative", "Neutral", "Positive"])[sign + 1], "classification_labels": sign + 1,
        "regression_labels": label,
        **{UNIMODAL_LABELS[task]: sentiment for task, sentiment in unimodal.items()},
    }  # fmt: skip


def _review(rng: np.random.Generator) -> tuple[str, float]:
    """A sentence of one or two clauses, and its sentiment in [-3, 3]."""
    opener = rng.choice(OPENERS)
    text, sentiment = _clause(rng)
    if rng.random() < 0.7:
        clause, second = _clause(rng)
        word, weight = ("and", 1) if sentiment * second > 0 else ("but", 3)  # the clause after "but" counts for more
        text, sentiment = f"{text} {word} {clause}", (sentiment + weight * second) / (1 + weight)
    return f"{opener} {text} .".strip(), sentiment


def _clause(rng: np.random.Generator) -> tuple[str, float]:
    """For example "the plot felt really dull", and its sentiment in [-3, 3]."""
    subject, verb, adjective = rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(list(ADJECTIVES))
    modifier = "not" if rng.random() < 0.15 else rng.choice(list(DEGREES))
    words = ["the", subject, verb, modifier, adjective]
    return " ".join(filter(None, words)), float(np.clip(FACTORS[modifier] * ADJECTIVES[adjective], -3, 3))


def _related(text_sentiment: float, rng: np.random.Generator) -> float:
    """The sentiment of audio or vision that agrees with the text, or contradicts it."""
    mean = -text_sentiment if rng.random() < CONTRADICTS else text_sentiment
    return float(np.clip(mean + rng.normal(0, 0.7), -3, 3))


def _audio(sentiment: float, duration: float, baseline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(frames, AUDIO_WIDTH): pitch, loudness, brightness, roughness, and uninformative features; baseline: the speaker's own."""
    frames = int(np.clip(round(3 * duration), 8, AUDIO_FRAMES))
    time = np.linspace(0, 1, frames)
    syllables = np.sin(2 * np.pi * (frames / 4 * time + rng.random()))
    features = baseline + rng.normal(0, 0.3, (frames, AUDIO_WIDTH))
    # A happy voice rises and is lively; an unhappy one turns rough.
    features[:, 0] += 0.4 * sentiment * time + (0.3 + 0.09 * sentiment) * syllables
    features[:, 1] += 0.3 * abs(sentiment) + 0.3 * syllables
    features[:, 2] += 0.3 * sentiment
    features[:, 3] -= 0.4 * sentiment * time
    return features.astype(np.float32)


def _vision(sentiment: float, duration: float, baseline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(frames, VISION_WIDTH): smile, raised cheeks, frown, lowered lip corners, and uninformative features, like `_audio`."""
    frames = int(np.clip(round(2 * duration), 6, VISION_FRAMES))
    onset = rng.uniform(0.1, 0.6)
    time = np.linspace(0, 1, frames)
    intensity = 1 / (1 + np.exp(-12 * (time - onset)))  # the expression appears at some point, and stays
    happy, unhappy = max(sentiment, 0), max(-sentiment, 0)
    features = baseline + rng.normal(0, 0.2, (frames, VISION_WIDTH))
    features[:, :4] += intensity[:, None] * [0.6 * happy, 0.4 * happy, 0.6 * unhappy, 0.4 * unhappy]
    return features.astype(np.float32)


def _pad(sequences: list[np.ndarray], frames: int) -> np.ndarray:
    """(N, frames, width), with zeros after the end of each sequence."""
    return np.stack([np.pad(sequence, ((0, frames - len(sequence)), (0, 0))) for sequence in sequences])


def _write_bert(folder: Path) -> None:
    """A BERT with random weights, small enough to learn the few words from the corpus itself."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=len(VOCABULARY), **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed would seed the GPUs too
        bert = BertModel(config, add_pooling_layer=False)
    config.save_pretrained(folder)
    save_file(bert.state_dict(), folder / "model.safetensors", {"format": "pt"})  # save_pretrained shows a progress bar
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY), encoding="utf-8")
