"""Scores clips and feature files with a trained model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
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

DTYPES = {"text": np.int32, "audio": np.float32, "vision": np.float32}


@dataclass
class Reading:
    """One clip's features."""

    name: str
    sequences: dict[str, np.ndarray]  # text: (n, 2), token and segment ids; audio, vision: (L, width)
    columns: dict[str, object]  # further columns of its row: see ClipReader.read


class ClipReader:
    """Extracts a clip's features as those the model was trained on were extracted."""

    def __init__(self, trained: Trained, allow_missing: bool, openface: Path | None):
        """openface: its program; None: clips come with tables. Raises UserError if an extractor is unavailable."""
        folder, known = str(trained.folder), trained.extractors
        if not known:
            raise UserError(
                f"{folder}: its feature file does not say how features were extracted, so it cannot score clips; "
                "train on a file made by data/DataPre.py, or score feature files with --features"
            )
        if trained.encoder.tokenizer is None:
            raise UserError(f"{folder}: has no tokenizer, so text cannot be read; train with a --bert that has one")
        described = {modality: known.get(modality) or {} for modality in DTYPES}
        local = {"program": openface} if described["vision"].get("name") == "openface" else {}
        self._extractors: dict[str, Extractor] = {
            "audio": rebuild("audio", described["audio"], folder),
            "vision": rebuild("vision", described["vision"], folder, **local),
        }
        # Longer training clips were cut to these lengths.
        self._lengths = {modality: facts.get("length") for modality, facts in described.items()}
        self._text_length = self._lengths["text"] or trained.dataset.text_length
        self._tokenizer = make_tokenizer(trained.encoder.tokenizer)
        self._allow_missing = allow_missing

    def read(self, clip: Clip, text: str | None) -> Reading:
        """text: the clip's transcript, if any. Raises ClipError if the clip is unreadable or a modality is missing."""
        substituted = []
        if not text:
            self._check_allowed("no text: give --text or --text_file, or a .txt or .srt file next to the clip")
            substituted.append("no text: read as an empty one")
        extracted: dict[str, Extracted] = {}
        for modality, extractor in self._extractors.items():
            extracted[modality] = extractor(clip)
            if missing := extracted[modality].missing:
                self._check_allowed(missing)
                substituted.append(f"{missing}: one frame of zeros")
        ids = np.array(self._tokenizer.encode([text or ""], self._text_length)[0])
        sequences = {"text": np.stack([ids, np.zeros_like(ids)], axis=1)}
        sequences |= {key: value.frames[: self._lengths[key]] for key, value in extracted.items()}
        columns = {}
        if self._extractors["vision"].name != NoFaces.name:
            vision = extracted["vision"]
            columns["video_frames"] = vision.video_frames
            columns["face_share"] = round(vision.frames_with_face / max(1, vision.video_frames), 4)
        return Reading(str(clip.file), sequences, columns | {"substituted": "; ".join(substituted)})

    def _check_allowed(self, missing: str) -> None:
        if not self._allow_missing:
            raise ClipError(f"{missing}; --allow_missing scores the clip without it")


def score_clips(trained: Trained, readings: list[Reading], device: torch.device) -> pd.DataFrame:
    """One row per clip: its name, what score_split returns, and the reading's columns."""
    if not readings:
        return pd.DataFrame()
    with tempfile.TemporaryDirectory() as folder:
        ragged = []
        for modality, dtype in DTYPES.items():
            sequences = [reading.sequences[modality] for reading in readings]
            lengths = np.array([len(sequence) for sequence in sequences])
            Ragged.write(Path(folder), modality, sequences, lengths, sequences[0].shape[1], dtype)
            ragged.append(Ragged(Path(folder), modality))
        table = score_split(trained, Split([reading.name for reading in readings], None, {}, *ragged), device)
    return table.rename(columns={"id": "clip"}).join(pd.DataFrame([reading.columns for reading in readings]))


def score_split(trained: Trained, split: Split, device: torch.device) -> pd.DataFrame:
    """One row per clip: id, score, class, unimodal scores, and the human label if the split has labels."""
    model = trained.model.to(device)
    windows = evaluation_windows(ClipDataset(split, device, model.hyper_parameters.max_clips_per_pass))
    scores = {task: np.asarray(values, np.float64) for task, values in predict(model, windows).items()}
    fusion = scores.pop("fusion")
    classes = [sentiment_class(score, trained.dataset.metrics) for score in fusion]
    columns = {"id": split.ids, "score": fusion, "class": classes}
    columns |= {f"{task}_score": values for task, values in scores.items()}
    if "fusion" in split.labels:
        columns["label"] = split.labels["fusion"].astype(np.float64)
    return pd.DataFrame(columns)
