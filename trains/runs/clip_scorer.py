"""Scores clips and feature files with a trained model."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from data.extractors import Clip, ClipError, Extracted, Extractor, describe, difference, is_too_long_for
from data.extractors.audio import LibrosaAudio
from data.extractors.vision import MediapipeFaces, NoFaces, OpenFace
from data.load_data import ClipDataset, evaluation_windows
from data.ragged import Ragged, Split
from data.store import cut_text
from data.tokens import encode
from trains.runs.open import Trained
from trains.self_mm import predict
from utils.errors import UserError, warn
from utils.metrics import sentiment_class, short_floats

DTYPES = {"text": np.int32, "audio": np.float32, "vision": np.float32}
FPS_TOLERANCE = 0.1  # relative difference from the training clips
EXTRACTORS = {"audio": [LibrosaAudio], "vision": [OpenFace, MediapipeFaces, NoFaces]}


class ClipReader:
    """Extracts a clip's features as the model's training features were extracted."""

    def __init__(self, trained: Trained, allow_missing: bool, openface: Path | None, face: int | None = None):
        """openface: its program; None: clips have tables. face: its id; None: the most confident. Raises UserError."""
        fix = "retrain on a file made here by data/DataPre.py, or score feature files with --features"
        if not trained.extractors or trained.encoder.tokenizer is None:
            missing = "does not record the extractors of its training features, or has no tokenizer"
            raise UserError(f"{trained.folder} cannot score clips: it {missing}; {fix}")
        described = {modality: trained.extractors.get(modality) or {} for modality in DTYPES}
        try:
            self.audio, self.vision = (_rebuild(modality, described[modality]) for modality in EXTRACTORS)
        except ValueError as error:
            raise UserError(f"{trained.folder} was trained on {error}; install that version, {fix}") from None
        if isinstance(self.vision, OpenFace):
            self.vision = replace(self.vision, program=openface, face=face)
        # Longer training clips were cut to these lengths.
        self.lengths = {modality: facts.get("length") for modality, facts in described.items()}
        self.text_length = self.lengths["text"] or trained.dataset.text_length
        self.tokenizer = trained.encoder.tokenizer
        self.allow_missing = allow_missing

    def __call__(self, clip: Clip, text: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Returns the features by modality, (L, width), and what to report about the clip. text: its transcript, or "".

        text's width is 2: token and segment ids. Raises ClipError if the clip is unreadable or a modality is missing.
        """
        if not (text or self.allow_missing):
            mend = "add --text, --text_file or a .txt or .srt file next to it, or --allow_missing"
            raise ClipError(f"no text, or none with words: {mend}")
        substituted = [] if text else ["no text: read as an empty one"]
        audio, vision = self.audio(clip, self.lengths["audio"]), self.vision(clip, self.lengths["vision"])
        for missing in filter(None, (audio.missing, vision.missing)):
            if not self.allow_missing:
                raise ClipError(f"{missing}; --allow_missing scores the clip without it")
            substituted.append(f"{missing}: one frame of zeros")
        tokens = np.array(encode(self.tokenizer, [text])[0])
        ids = cut_text(tokens, self.text_length)
        sequences = {
            "text": np.stack([ids, np.zeros_like(ids)], axis=1),
            "audio": audio.frames[: self.lengths["audio"]],
            "vision": vision.frames[: self.lengths["vision"]],
        }
        facts: dict[str, object] = {"clip": str(clip.file)}
        if clip.end is not None:
            facts |= {"start": round(clip.start, 3), "end": round(clip.end, 3)}
        seconds = max(audio.seconds, vision.seconds)
        facts |= {"seconds": round(seconds, 3), "seconds_used": round(self._seconds_used(audio, vision), 3)}
        facts |= {"tokens": len(tokens), "tokens_used": len(ids)}
        if not isinstance(self.vision, NoFaces):
            facts |= {"fps": round(vision.fps, 2), "video_frames": vision.video_frames, "faces": vision.faces}
            facts["face_share"] = round(vision.frames_with_face / max(1, vision.video_frames), 4)
        return sequences, facts | {"substituted": "; ".join(substituted)}

    def _seconds_used(self, audio: Extracted, vision: Extracted) -> float:
        """The least part of the clip that audio and vision use."""
        used = max(audio.seconds, vision.seconds)
        parts = [(audio, self.lengths["audio"], self.audio.hop_length / self.audio.sample_rate)]
        if vision.fps:
            frame_seconds = self.vision.pool / min(vision.fps, self.vision.fps or vision.fps)
            parts.append((vision, self.lengths["vision"], frame_seconds))
        for part, longest, frame_seconds in parts:
            # A file's length is not exact: its tracks can differ by some frames.
            if longest is not None and len(part.frames) >= longest and longest * frame_seconds < 0.95 * part.seconds:
                used = min(used, longest * frame_seconds)
        return used


def _rebuild(modality: str, description: dict) -> Extractor:
    """Returns the extractor with this description. Raises ValueError, with the difference, if it is not available here."""
    try:
        kind = next(kind for kind in EXTRACTORS[modality] if kind.name == description.get("name"))
        extractor = kind(**description.get("settings", {}))
        mismatch = difference(description, describe(extractor))
    except (StopIteration, TypeError):
        mismatch = f"{description.get('name') or 'unknown origin'}, which cannot be extracted here"
    if mismatch:
        raise ValueError(f"{modality} features of {mismatch}")
    return extractor


def score_clips(trained: Trained, readings: list[tuple[dict, dict]], device: torch.device) -> pd.DataFrame:
    """One row per clip: its name, what score_split returns, and the other facts. readings: from a ClipReader."""
    if not readings:
        return pd.DataFrame()
    facts = pd.DataFrame([facts for _, facts in readings])
    _warn_of_losses(facts, trained.extractors["vision"].get("fps"))
    names = facts.pop("clip").tolist()
    with tempfile.TemporaryDirectory() as folder:
        ragged = []
        for modality, dtype in DTYPES.items():
            sequences = [sequences[modality] for sequences, _ in readings]
            lengths = np.array([len(sequence) for sequence in sequences])
            Ragged.write(Path(folder), modality, sequences, lengths, sequences[0].shape[1], dtype)
            ragged.append(Ragged(Path(folder), modality))
        table = score_split(trained, Split(names, None, {}, *ragged), device)
    return table.rename(columns={"id": "clip"}).join(facts)


def _warn_of_losses(facts: pd.DataFrame, usual_fps: object) -> None:
    """Warns once for each kind of clip whose score says little, with the first one. usual_fps: in training, if known."""
    is_cut = facts.seconds_used < facts.seconds
    is_too_long = pd.Series(map(is_too_long_for, facts.tokens, facts.seconds))
    kinds = {
        "{seconds_used:g} s of {seconds:g} s used; --segments {seconds_used:g} scores all": is_cut,
        "{tokens_used} of {tokens} tokens of the text used": facts.tokens_used < facts.tokens,
        "{tokens} tokens cannot be spoken in {seconds:g} s; is it the clip's text?": is_too_long,
    }
    if "fps" in facts and isinstance(usual_fps, int | float):
        differs = (facts.fps > 0) & ((facts.fps - usual_fps).abs() > FPS_TOLERANCE * usual_fps)
        kinds[f"{{fps:g}} video frames per second, in training {usual_fps:g}"] = differs
    for text, rows in kinds.items():
        if rows.any():
            first = facts[rows].iloc[0]
            others = f" (and {rows.sum() - 1} other clips)" if rows.sum() > 1 else ""
            warn(f"{first['clip']}: {text.format(**first)}{others}")


def score_split(trained: Trained, split: Split, device: torch.device) -> pd.DataFrame:
    """One row per clip: id, score, class, unimodal scores, and the human label if the split has labels."""
    model = trained.model.to(device)
    windows = evaluation_windows(ClipDataset(split, device, model.hyper_parameters.max_clips_per_pass))
    scores = {task: short_floats(values) for task, values in predict(model, windows).items()}
    fusion = scores.pop("fusion")
    classes = [sentiment_class(score, trained.dataset.metrics) for score in fusion]
    columns = {"id": split.ids, "score": fusion, "class": classes}
    columns |= {f"{task}_score": values for task, values in scores.items()}
    if "fusion" in split.labels:
        columns["label"] = short_floats(split.labels["fusion"])
    return pd.DataFrame(columns)
