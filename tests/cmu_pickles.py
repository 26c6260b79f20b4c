"""A tiny corpus as a CMU pickle, with a frame for each word, and the table of its transcripts."""

import numpy as np
import tiny

VOCABULARY = [*tiny.VOCABULARY, "good", "long", "##er", "##est", "don", "'", "t", "!"]
GOOD, LONG, ER, EST, DON, QUOTE, T, MARK = range(len(tiny.VOCABULARY), len(VOCABULARY))
SENTENCE = "good longerest don't word1"  # 4 words, 8 tokens
FRAMES, WIDTHS = 6, {"audio": 3, "vision": 2}
TEXTS = {
    "train": [SENTENCE, "word1", "good", "word2 good word3 !", "long word4"],
    "valid": ["word5 word6", "good !"],
    "test": ["longer good", "word7"],
}
LABELS = {"train": [-1.0, 2.5, 0.0, -3.0, 1.0], "valid": [1.0, -2.0], "test": [0.4, -0.4]}
IDS = {"train": [f"vid_{number}" for number in range(5)], "valid": ["va_0", "va_1"], "test": ["te_0", "te_1"]}


def frame(word: int, key: str) -> np.ndarray:
    return np.arange(1, WIDTHS[key] + 1) + 10 * (word + 1)


def make_cmu(in_front: bool = True) -> dict:
    """A frame for each word of TEXTS, padded at one end, and raw_text."""
    content = {}
    for split, texts in TEXTS.items():
        content[split] = {
            "text": np.zeros((len(texts), FRAMES, 7), np.float32),
            "labels": np.array(LABELS[split]).reshape(-1, 1, 1),
            "id": np.array(IDS[split]),
            "raw_text": list(texts),
        }
        for key, width in WIDTHS.items():
            values = content[split][key] = np.zeros((len(texts), FRAMES, width))
            for clip, text in enumerate(texts):
                count = len(text.split())
                first = FRAMES - count if in_front else 0
                values[clip, first : first + count] = [frame(word, key) for word in range(count)]
    return content


def write_table(path, numbered_from: int = 0):
    """A table of the transcripts: clip n lasts from 10 n to 10 n + 5 s."""
    rows = ["video_id,clip_id,text,start,end"]
    for split, texts in TEXTS.items():
        video = IDS[split][0].rsplit("_", 1)[0]
        rows += [f'{video},{n + numbered_from},"{text}",{10 * n},{10 * n + 5}' for n, text in enumerate(texts)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path
