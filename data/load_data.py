"""Clips -> windows: which clips form a micro-batch, and their tensors."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from config.config_regression import Config
from data.ragged import Ragged, Split
from models.batch import Batch, Frames, PackedText, Window, send
from utils.progress import progress
from utils.ranks import ALONE, Ranks
from utils.signals import ignore_signals, raise_if_stop_requested

Order = Callable[[int], list[list[Tensor]]]  # see Windows
CPU = torch.device("cpu")
CPU_STRETCHES = 8  # a CPU runs the LSTMs over a window in so many stretches of time: more were no faster
EVALUATION_BATCH = 128  # clips that go through the network together when nothing is learned


class ClipDataset(Dataset):
    """One split. Indexed with the micro-batches of a window, each a tensor of clip numbers, it returns the Window."""

    def __init__(self, split: Split, device: torch.device = CPU, max_clips_per_pass: int = 0, ranks: Ranks = ALONE):
        """device: where the windows will be used. On a GPU the features lie in its memory, if they fit.

        max_clips_per_pass: a larger window comes in several passes; 0: always in one. ranks: who shares each window.
        """
        self.split = split
        self.device = device
        sequences = (split.text, split.audio, split.vision)
        self.home = device if _has_room(sequences, device) else CPU
        self._text, self._audio, self._vision = (part if self.home == CPU else part.to(device) for part in sequences)
        self._max_clips_per_pass = max_clips_per_pass
        self.ranks = ranks
        self._text_vectors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, microbatches: list[Tensor]) -> Window:
        clips = torch.cat(microbatches)
        sizes = [len(microbatch) for microbatch in microbatches]
        shares = torch.cat([torch.full((size,), 1 / size) for size in sizes])
        start, end = self.ranks.share(len(clips))
        mine, my_shares = clips[start:end], shares[start:end]
        if start == end:  # more ranks than clips: run one clip with share 0, so that this rank joins the others' sums
            mine, my_shares = clips[:1], torch.zeros(1)
        step = self._max_clips_per_pass or len(mine)
        passes = [self._batch(*part) for part in zip(mine.split(step), my_shares.split(step), strict=True)]
        return Window(clips, sizes, passes)

    def _batch(self, clips: Tensor, shares: Tensor) -> Batch:
        # On a CPU nothing is padded; a GPU is faster with padding than with many small kernels.
        on_cpu = self.device.type == "cpu"
        if self._text_vectors is None:
            text = PackedText.pack(*_longest_first(self._text, clips), by_length=on_cpu)
        else:
            text = self._text_vectors[send(clips, self.home)]
        stretches = CPU_STRETCHES if on_cpu else 1
        audio, vision = (Frames.pack(*_longest_first(part, clips), stretches) for part in (self._audio, self._vision))
        return Batch(clips, shares, text, audio, vision)

    @property
    def has_text_vectors(self) -> bool:
        return self._text_vectors is not None

    def replace_texts(self, vectors: Tensor) -> None:
        """vectors: (N, width), what an encoder that isn't trained makes of the texts; the windows then hold these."""
        self._text_vectors = vectors.to(self.home)


def _has_room(sequences: Iterable[Ragged], device: torch.device) -> bool:
    """Whether a device is a GPU whose free memory is twice what the sequences need."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * sum(part.nbytes for part in sequences) < free


def _longest_first(sequences: Ragged, clips: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The clips' sequences end to end (F, width), their lengths (B,) in descending order, and the position of each clip among them (B,)."""
    numbers = clips.numpy()
    order = np.argsort(-sequences.lengths[numbers], kind="stable")
    inverse_order = np.argsort(order)
    return sequences.gather(numbers[order]), sequences.lengths[numbers[order]], inverse_order


class Windows:
    """The windows of a split, on the model's device."""

    def __init__(self, clips: ClipDataset, order: Order, num_workers: int = 0, seed: int | None = None):
        """order: an epoch's number -> its windows, each a list of micro-batches, each a tensor of clip numbers.

        num_workers: processes that prepare windows ahead, where the features lie in the CPU's memory; 0: none.
        seed: for training only: each rank draws its own dropout by it, and a progress bar is shown.
        """
        self.clips = clips
        self._order = order
        self._seed = seed
        self._plan: list[list[Tensor]] = []  # what the loader goes through next
        workers = num_workers if clips.home == CPU else 0
        self._loader = DataLoader(
            clips,
            sampler=self._plan,
            batch_size=None,  # the plan already says what a batch is
            num_workers=workers,
            pin_memory=workers > 0 and clips.device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # else the loader draws from the stream that dropout draws from
        )

    @property
    def device(self) -> torch.device:
        return self.clips.device

    @property
    def ranks(self) -> Ranks:
        """Who goes through these windows together."""
        return self.clips.ranks

    @property
    def ids(self) -> list[str]:
        """The clips' ids, in the file's order."""
        return self.clips.split.ids

    @property
    def labels(self) -> np.ndarray:
        """(N,) float32, the human labels in the file's order."""
        return self.clips.split.labels["fusion"]

    def __len__(self) -> int:
        return len(self._order(1))

    def of_epoch(self, epoch: int, done: int = 0) -> Iterator[Window]:
        """The windows of an epoch, from 1, but for those that are done.

        A signal to stop takes effect between two windows, where all ranks stop together. Raises Stopped then.
        """
        self._plan[:] = self._order(epoch)[done:]
        shown = self._seed is not None and self.ranks.is_rank_zero
        bar = progress(self._loader, f"epoch {epoch:3d}", "window", done + len(self._plan), done, shown)
        for number, window in enumerate(bar, start=done):
            if self._seed is not None:
                self.ranks.seed_dropout(self._seed, epoch, number)
            yield window.to(self.device)
            raise_if_stop_requested(self.ranks.all_reduce_max)

    def __iter__(self) -> Iterator[Window]:
        return self.of_epoch(1)


def training_windows(clips: ClipDataset, config: Config, seed: int, num_workers: int = 0) -> Windows:
    """Each epoch in a random order of its own, which depends on nothing but the seed and the epoch's number.

    So a run can go on in any epoch, and nothing else that draws numbers changes the order. An epoch's last window may be short.
    """

    def order(epoch: int) -> list[list[Tensor]]:
        shuffled = np.random.default_rng([seed, epoch]).permutation(len(clips))
        microbatches = torch.from_numpy(shuffled).split(config.batch_size)
        starts = range(0, len(microbatches), config.update_epochs)
        return [list(microbatches[start : start + config.update_epochs]) for start in starts]

    return Windows(clips, order, num_workers, seed)


def evaluation_windows(clips: ClipDataset, num_workers: int = 0) -> Windows:
    """Every clip once, sorted by the number of audio frames, so that little is padded."""
    by_length = torch.from_numpy(np.argsort(clips.split.audio.lengths, kind="stable"))
    windows = [[batch] for batch in by_length.split(EVALUATION_BATCH)]
    return Windows(clips, lambda epoch: windows, num_workers)
