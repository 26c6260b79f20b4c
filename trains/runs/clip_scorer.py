"""Scores clips and feature files with a trained model."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from data.builders.isolated import run_isolated
from data.extractors import Clip, ClipError, Extracted, Extractor, describe, difference, extract, is_too_long_for
from data.extractors.audio import LibrosaAudio, compile_librosa
from data.extractors.openface import find_openface
from data.extractors.vision import MediapipeFaces, NoFaces, OpenFace
from data.load_data import ClipDataset, evaluation_windows
from data.ragged import Ragged, Split
from data.store import cut_text
from data.tokens import encode
from trains.runs.checkpoint import read_metadata
from trains.runs.open import Trained
from trains.runs.record import score_table
from trains.self_mm import predict
from utils.errors import UserError, warn

DTYPES = {"text": np.int32, "audio": np.float32, "vision": np.float32}
FPS_TOLERANCE = 0.1  # relative difference from the training clips
OTHERWISE = "retrain on a file made here by data/DataPre.py, or score feature files with --features"
EXTRACTORS = {"audio": [LibrosaAudio], "vision": [OpenFace, MediapipeFaces, NoFaces]}


class ClipReader:
    """Extracts a clip's features as the model's training features were extracted."""

    def __init__(
        self, trained: Trained, allow_missing: bool, openface: Path | None, tables: Path | None, face: int | None
    ):
        """openface: its program. tables: those it wrote. face: its id; None: the most confident. Raises UserError."""
        needed, given = trained.extractors.get("vision", {}).get("name", "an unknown extractor"), openface or tables
        if (needed == "openface") != bool(given) or (face is not None and not given):
            fix = "add --openface2Path or --openface_csv" if needed == "openface" else "leave out OpenFace's flags"
            raise UserError(f"{trained.folder} was trained on vision features from {needed}: {fix}")
        if not trained.extractors or trained.encoder.tokenizer is None:
            missing = "does not record the extractors of its training features, or has no tokenizer"
            raise UserError(f"{trained.folder} cannot score clips: it {missing}; {OTHERWISE}")
        self.audio, self.vision = (_rebuild(trained, modality) for modality in EXTRACTORS)
        if isinstance(self.vision, OpenFace):
            self.vision = replace(self.vision, program=openface and find_openface(openface), face=face)
        # Longer training clips were cut to these lengths.
        self.lengths = {modality: trained.extractors[modality].get("length") for modality in EXTRACTORS}
        self.trained, self.allow_missing = trained, allow_missing
        self.extract = partial(extract, {"audio": self.audio, "vision": self.vision}, self.lengths)

    def extract_all(self, clips: list[Clip], jobs: int) -> dict[Clip, dict[str, Extracted] | ClipError]:
        """Extracts audio and vision in worker processes: one that crashes or hangs costs one clip."""
        compile_librosa()
        return dict(run_isolated(self.extract, clips, jobs, "reading"))

    def __call__(self, clip: Clip, text: str, extracted=None) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """The features by modality, (L, width), text's as read_text returns it, and what to report about the clip.

        text: its transcript, or "". extracted: its part of what extract_all returns. Raises ClipError.
        """
        if not (text or self.allow_missing):
            mend = "add --text, --text_file or a .txt or .srt file next to it, or --allow_missing"
            raise ClipError(f"no text, or none with words: {mend}")
        extracted = extracted or self.extract(clip)
        if isinstance(extracted, ClipError):
            raise extracted
        audio, vision = extracted["audio"], extracted["vision"]
        substituted = [] if text else ["no text: read as an empty one"]
        for missing in filter(None, (audio.missing, vision.missing)):
            if not self.allow_missing:
                raise ClipError(f"{missing}; --allow_missing scores the clip without it")
            substituted.append(f"{missing}: one frame of zeros")
        tokens, counts = read_text(self.trained, text)
        facts: dict[str, object] = {"clip": str(clip.file)}
        if clip.end is not None:
            facts |= {"start": round(clip.start, 3), "end": round(clip.end, 3)}
        seconds = max(audio.seconds, vision.seconds)
        facts |= {"seconds": round(seconds, 3), "seconds_used": round(self._seconds_used(audio, vision), 3), **counts}
        if not isinstance(self.vision, NoFaces):
            facts |= {"fps": round(vision.fps, 2), "video_frames": vision.video_frames, "faces": vision.faces}
            facts["face_share"] = round(vision.frames_with_face / max(1, vision.video_frames), 4)
        features = {name: part.frames[: self.lengths[name]] for name, part in extracted.items()} | {"text": tokens}
        return features, facts | {"substituted": "; ".join(substituted)}

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


def _rebuild(trained: Trained, modality: str) -> Extractor:
    """Returns the extractor of the training features. Raises UserError if it is not available here."""
    description = trained.extractors.get(modality, {})
    try:
        kind = next(kind for kind in EXTRACTORS[modality] if kind.name == description.get("name"))
        extractor = kind(**description.get("settings", {}))
        mismatch = difference(description, describe(extractor))
    except (StopIteration, TypeError):
        mismatch = f"{description.get('name') or 'unknown origin'}, which cannot be extracted here"
    if mismatch:
        problem = f"was trained on {modality} features of {mismatch}"
        raise UserError(f"{trained.folder} {problem}; install that version, {OTHERWISE}")
    return extractor


def read_text(trained: Trained, text: str) -> tuple[np.ndarray, dict[str, int]]:
    """Token and segment ids, (L, 2), cut as in training, and the numbers of tokens."""
    tokens = np.array(encode(trained.encoder.tokenizer, [text])[0])
    if (unknown := int((tokens == trained.encoder.tokenizer.unk_token_id).sum())) > len(tokens) / 5:
        warn(f"{unknown} of {len(tokens)} tokens are unknown to the model's vocabulary: {text[:60]}")
    ids = cut_text(tokens, trained.extractors.get("text", {}).get("length") or trained.dataset.text_length)
    return np.stack([ids, np.zeros_like(ids)], axis=1), {"tokens": len(tokens), "tokens_used": len(ids)}


def score_text(trained: Trained, text: str, device: torch.device) -> dict[str, object]:
    """The score of a text alone, by its own head. Raises UserError if the head learned nothing, or can't read the text."""
    epoch = read_metadata(trained.folder).get("epoch")
    if "text" not in trained.model.hyper_parameters.task_names or epoch in (1, 2):
        problem = "cannot score a text alone: its text head learns with T among --tasks, from epoch 3 on"
        raise UserError(f"{trained.folder} (epoch {epoch}) {problem}")
    if trained.encoder.tokenizer is None or not text:
        raise UserError(f"{trained.folder} has no tokenizer to read a text with" if text else "the text has no words")
    tokens, counts = read_text(trained, text)
    # The other heads' scores, of these zeros, mean nothing.
    zeros = {name: np.zeros((1, width), np.float32) for name, width in trained.model.frame_widths.items()}
    facts = {"clip": "the text", "seconds": 0, "seconds_used": 0, **counts}
    (row,) = score_clips(trained, [({"text": tokens, **zeros}, facts)], device)
    return {"text": text, "text_score": row["text_score"], **counts}


def score_clips(trained: Trained, readings: list[tuple[dict, dict]], device: torch.device) -> list[dict[str, object]]:
    """One row per clip: its name, what score_split returns, and the other facts. readings: from a ClipReader."""
    if not readings:
        return []
    facts = pd.DataFrame([facts for _, facts in readings])
    _warn_of_losses(facts, trained.extractors.get("vision", {}).get("fps"))
    names = facts.pop("clip").tolist()
    with tempfile.TemporaryDirectory() as folder:
        for modality, dtype in DTYPES.items():
            sequences = [sequences[modality] for sequences, _ in readings]
            lengths = np.array([len(sequence) for sequence in sequences])
            Ragged.write(Path(folder), modality, sequences, lengths, sequences[0].shape[1], dtype)
        parts = (Ragged(Path(folder), modality) for modality in DTYPES)
        table = score_split(trained, Split(names, None, {}, *parts), device)
    return table.rename(columns={"id": "clip"}).join(facts).to_dict("records")


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
    return score_table(split, predict(model, windows), trained.dataset.metrics, np.arange(len(split)))
