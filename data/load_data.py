"""Clips -> windows: which clips form a micro-batch, and their tensors."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from config.config_regression import Config
from data.store import Ragged, Split
from utils.batch import Batch, Frames, PackedText, Window

EVALUATION_BATCH = 128  # clips that go through the network together when nothing is learned


class ClipDataset(Dataset):
    """One split. Indexed with the micro-batches of a window, each a tensor of clip numbers, it returns the Window."""

    def __init__(self, split: Split, max_clips_per_pass: int = 0):
        """max_clips_per_pass: a larger window comes in several passes; 0: always in one."""
        self.split = split
        self.text_vectors: Tensor | None = None  # (N, width) where a frozen encoder has read the texts already
        self._max_clips_per_pass = max_clips_per_pass

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, microbatches: list[Tensor]) -> Window:
        clips = torch.cat(microbatches)
        sizes = [len(microbatch) for microbatch in microbatches]
        weights = torch.cat([torch.full((size,), 1 / size) for size in sizes])
        step = self._max_clips_per_pass or len(clips)
        passes = [self._batch(*part) for part in zip(clips.split(step), weights.split(step), strict=True)]
        return Window(clips, sizes, passes)

    def _batch(self, clips: Tensor, weights: Tensor) -> Batch:
        numbers = clips.numpy()
        split = self.split
        text = self._packed_text(numbers) if self.text_vectors is None else self.text_vectors[clips]
        return Batch(clips, weights, text, _frames(split.audio, numbers), _frames(split.vision, numbers))

    def _packed_text(self, clips: np.ndarray) -> PackedText:
        tokens = torch.from_numpy(np.concatenate([self.split.text[clip] for clip in clips]).astype(np.int64))  # (T, 2)
        return PackedText.from_lengths(tokens[:, 0], tokens[:, 1], torch.from_numpy(self.split.text.lengths[clips]))


def _frames(sequences: Ragged, clips: np.ndarray) -> Frames:
    """The clips' sequences, padded with zeros to the longest of them."""
    lengths = sequences.lengths[clips]
    values = np.zeros((len(clips), lengths.max(), sequences.width), dtype=np.float32)
    for row, clip in enumerate(clips):
        values[row, : lengths[row]] = sequences[clip]
    return Frames(torch.from_numpy(values), torch.from_numpy(lengths))


class ShuffledWindows(Sampler):
    """A new random order each epoch: micro-batches of batch_size clips, update_epochs of them in a window."""

    def __init__(self, clips: int, batch_size: int, update_epochs: int, generator: torch.Generator):
        self._clips, self._batch_size, self._update_epochs = clips, batch_size, update_epochs
        self._generator = generator

    def __len__(self) -> int:
        return -(-self._clips // (self._batch_size * self._update_epochs))

    def __iter__(self) -> Iterator[list[Tensor]]:
        microbatches = torch.randperm(self._clips, generator=self._generator).split(self._batch_size)
        for start in range(0, len(microbatches), self._update_epochs):
            yield list(microbatches[start : start + self._update_epochs])


class SortedWindows(Sampler):
    """For evaluation: every clip once, those of like length together, so that little is padded."""

    def __init__(self, lengths: np.ndarray):
        self._batches = torch.from_numpy(np.argsort(lengths, kind="stable")).split(EVALUATION_BATCH)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Tensor]]:
        return ([batch] for batch in self._batches)


class Windows:
    """The windows of a split, on the device that trains; iterating again gives the next epoch's."""

    def __init__(self, clips: ClipDataset, sampler: Sampler, device: torch.device, num_workers: int = 0):
        """num_workers: processes that prepare windows ahead; 0: the training process does."""
        self.clips = clips
        self.device = device
        self._loader = DataLoader(
            clips,
            sampler=sampler,
            batch_size=None,  # the sampler already says what a batch is
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),  # else the loader draws from the stream that dropout draws from
        )

    @property
    def ids(self) -> list[str]:
        """The clips' ids, in the file's order."""
        return self.clips.split.ids

    @property
    def labels(self) -> np.ndarray:
        """(N,) float32, the human labels in the file's order."""
        return self.clips.split.labels["fusion"]

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Window]:
        return (window.to(self.device) for window in self._loader)


def training_windows(
    clips: ClipDataset, config: Config, seed: int, device: torch.device, num_workers: int = 0
) -> Windows:
    """Shuffled by a random stream of the seed's own, so that nothing else that draws numbers changes the order."""
    generator = torch.Generator().manual_seed(seed)
    sampler = ShuffledWindows(len(clips), config.batch_size, config.update_epochs, generator)
    return Windows(clips, sampler, device, num_workers)


def evaluation_windows(clips: ClipDataset, device: torch.device, num_workers: int = 0) -> Windows:
    return Windows(clips, SortedWindows(clips.split.audio.lengths), device, num_workers)
