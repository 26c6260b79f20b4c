"""Scores clips and feature files with a trained model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.extractors import Clip, ClipError, Extracted, Extractor
from data.extractors.known import rebuild
from data.extractors.vision import NoFaces
from data.load_data import ClipDataset, evaluation_windows
from data.ragged import Ragged, Split
from data.sentiment import sentiment_class
from data.tokens import make_tokenizer
from trains.runs.trained import Trained
from trains.self_mm import predict
from utils.errors import UserError

ALLOW_MISSING = "--allow_missing scores the clip without"


@dataclass
class Reading:
    """One clip as the network takes it."""

    name: str
    tokens: np.ndarray  # (n, 2) token and segment ids
    audio: np.ndarray  # (L, width)
    vision: np.ndarray
    seen: dict[str, object]  # what is told of the pictures
    substituted: list[str]  # what was missing, and what stands for it


class ClipReader:
    """Makes of clips what a model was trained on, with the extractors that made its training features."""

    def __init__(self, trained: Trained, allow_missing: bool, openface: Path | None):
        """openface: its program, where tables aren't given. Raises UserError where the model's extractors can't be had."""
        whose = str(trained.folder)
        if not trained.extractors:
            raise UserError(
                f"{whose}: the feature file that it was trained on doesn't say how its features were made, so a clip can't be "
                "brought into their form; train on a file of data/DataPre.py, or score feature files with --features"
            )
        if trained.encoder.tokenizer is None:
            raise UserError(f"{whose}: has no tokenizer, as its text encoder had no vocabulary: it can't read texts")
        described = {key: trained.extractors.get(key) or {} for key in ("text", "audio", "vision")}
        local = {"program": openface} if described["vision"].get("name") == "openface" else {}
        self.extractors: dict[str, Extractor] = {
            "audio": rebuild("audio", described["audio"], whose),
            "vision": rebuild("vision", described["vision"], whose, **local),
        }
        self._lengths = {key: facts.get("length") for key, facts in described.items()}
        self._text_length = self._lengths["text"] or trained.dataset.text_length
        self._tokenizer = make_tokenizer(trained.encoder.tokenizer)
        self._allow_missing = allow_missing

    def read(self, clip: Clip, text: str | None) -> Reading:
        """text: what is said in it; None or "" where nobody knows. Raises ClipError."""
        substituted = []
        if not text:
            if not self._allow_missing:
                raise ClipError(
                    f"no text: give --text or --text_file, or a .txt or .srt file beside the clip; {ALLOW_MISSING}"
                )
            substituted.append("no text: read as an empty one")
        found: dict[str, Extracted] = {}
        for key, extractor in self.extractors.items():
            found[key] = extractor(clip)
            if missing := found[key].missing:
                if not self._allow_missing:
                    raise ClipError(f"{missing}; {ALLOW_MISSING}")
                substituted.append(f"{missing}: one frame of zeros")
        # As the training features were, whose longer clips were cut.
        audio, vision = (found[key].frames[: self._lengths[key]] for key in ("audio", "vision"))
        ids = np.array(self._tokenizer.encode([text or ""], self._text_length)[0])
        faces = found["vision"]
        seen = {}
        if self.extractors["vision"].name != NoFaces.name:
            seen = {
                "video_frames": faces.video_frames,
                "face_share": round(faces.frames_with_face / max(1, faces.video_frames), 4),
            }
        return Reading(str(clip.file), np.stack([ids, np.zeros_like(ids)], axis=1), audio, vision, seen, substituted)


def as_split(readings: list[Reading], folder: Path) -> Split:
    """Clips in the form of a feature file's split. folder: where its arrays may lie, as long as it is used."""
    for key, kind in (("tokens", np.int32), ("audio", np.float32), ("vision", np.float32)):
        sequences = [getattr(reading, key) for reading in readings]
        lengths = np.array([len(sequence) for sequence in sequences])
        Ragged.write(folder, key, sequences, lengths, sequences[0].shape[1], kind)
    names = [reading.name for reading in readings]
    return Split(names, None, {}, *(Ragged(folder, key) for key in ("tokens", "audio", "vision")))


def score_clips(trained: Trained, readings: list[Reading], device: torch.device) -> list[dict[str, object]]:
    """A row for each clip: its scores, and what was seen of it."""
    if not readings:
        return []
    with tempfile.TemporaryDirectory() as folder:
        rows = score_split(trained, as_split(readings, Path(folder)), device)
    extras = [reading.seen | {"substituted": "; ".join(reading.substituted)} for reading in readings]
    return [{"clip": row.pop("id"), **row, **extra} for row, extra in zip(rows, extras, strict=True)]


def score_split(trained: Trained, split: Split, device: torch.device) -> list[dict[str, object]]:
    """A row for each clip: id, score, class, the scores of each modality alone, and the human label if there is one."""
    model = trained.model.to(device)
    scores = predict(model, evaluation_windows(ClipDataset(split, device, model.hyper_parameters.max_clips_per_pass)))
    fusion = scores.pop("fusion")
    rows = []
    for number, name in enumerate(split.ids):
        row = {"id": name, "score": float(fusion[number])}
        row["class"] = sentiment_class(fusion[number], trained.dataset.metrics)
        row |= {f"{task}_score": float(score[number]) for task, score in scores.items()}
        if "fusion" in split.labels:
            row["label"] = float(split.labels["fusion"][number])
        rows.append(row)
    return rows
