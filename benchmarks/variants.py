"""Measures variants of a training step on the same windows, in turns, so that changes in the machine's speed affect them alike."""

import copy
import dataclasses
import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from transformers import BertConfig

from benchmarks.corpora import Shape
from benchmarks.implementations import Ours
from benchmarks.machine import gpu_work, host_waits, seconds
from benchmarks.tables import GIB, ratio
from benchmarks.throughput import WindowSampler
from config.config_regression import DATASETS, make_config
from data.store import open_store
from models.self_mm import DTYPES, SelfMM
from utils.errors import first_line

WINDOWS, TURNS = 6, 3  # windows of a turn, the same in all turns and for all variants
PROFILED = 3  # windows in a profile
Publish = Callable[[list["Row"]], None]
Row = dict[str, object]  # column -> value; "seconds" of a window: one a turn


def failure(error: object) -> str:
    return f"failed: {first_line(error) or type(error).__name__}"


@dataclass
class Variant:
    """A way to train, the program's own unless it says otherwise."""

    name: str
    precision: str = "bf16"
    switch: Callable[[], AbstractContextManager] = nullcontext  # holds while it is made, and while it runs
    change: Callable[[Ours], object] = lambda ours: None  # once it is made; the result's text is the row's note
    num_workers: int = 0


class Bench:
    """A corpus, and a model of which each variant gets a copy."""

    def __init__(
        self, device: torch.device, shape: Shape, bert: BertConfig, folder: Path, publish: Publish, **settings
    ):
        """folder: from `corpora.write`. publish: gets the rows so far, now and then. settings: hyper-parameters to change."""
        self.device, self.shape, self.bert, self.folder, self.settings = device, shape, bert, folder, settings
        self.features = folder / f"{shape.dataset}.pkl"
        self.store = open_store(self.features, DATASETS[shape.dataset], False, None, None)
        self.config = make_config(shape.dataset, **settings)
        self._sampler = WindowSampler(shape.clips["train"])
        self.windows = self.draw(WINDOWS)
        self.rows: list[Row] = []
        self._publish = publish

    def add(self, *rows: Row) -> None:
        self.rows += rows
        self._publish(self.rows)

    def draw(self, count: int) -> list[list[Tensor]]:
        """Random windows of micro-batches."""
        return [self._sampler([self.config.batch_size] * self.config.update_epochs) for _ in range(count)]

    @cached_property
    def model(self) -> SelfMM:
        torch.manual_seed(0)
        return SelfMM(self.config, self.bert.to_dict(), self.store.audio_width, self.store.vision_width)

    def make(self, variant: Variant, device: torch.device | None = None) -> Ours:
        model = copy.deepcopy(self.model)
        model.hyper_parameters = dataclasses.replace(self.config, precision=variant.precision)
        device = device or self.device
        return Ours(model.to(device, DTYPES[variant.precision]), self.store, device, variant.num_workers)

    def measure(self, *variants: Variant) -> None:
        """Adds a row for each variant; the first is the program's way, with which the others are compared."""
        trials = [Trial(self, variant) for variant in variants]
        self.add(*(trial.row for trial in trials))
        for phase in (Trial.begin, *[Trial.take_turn] * TURNS, Trial.examine):
            for trial in trials:
                trial.attempt(phase)
                self._publish(self.rows)
            for trial in trials:
                trial.compare(trials[0])
        for trial in trials:
            trial.ours = None  # ends its data workers, for which this process's end would wait


class Trial:
    """A variant while it is measured."""

    def __init__(self, bench: Bench, variant: Variant):
        self.bench, self.variant = bench, variant
        self.ours: Ours | None = None
        self.row: Row = {"variant": variant.name, "precision": variant.precision, "seconds": []}

    def attempt(self, phase: Callable[["Trial"], None]) -> None:
        """Leaves out the rest if a part fails."""
        if not str(self.row.get("note", "")).startswith("failed: "):
            try:
                with self.variant.switch():
                    phase(self)
            except Exception as error:
                self.row["note"] = failure(error)

    def begin(self) -> None:
        """Makes it and runs the windows once: it compiles, captures, plans and allocates what they need."""
        on_gpu = self.bench.device.type == "cuda"
        if on_gpu:
            gc.collect()  # models of variants before
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.bench.device)
            before = torch.cuda.memory_reserved(self.bench.device)
        self.ours = self.bench.make(self.variant)
        self._note = self.variant.change(self.ours)
        torch.manual_seed(1)
        self.row["first run, s"] = seconds(self._run, self.bench.device)
        self.row["loss"] = self._loss
        if on_gpu:  # all that it takes: weights, optimizer, activations, graphs
            self.row["GiB"] = (torch.cuda.max_memory_reserved(self.bench.device) - before) / GIB

    def take_turn(self) -> None:
        self.row["seconds"].append(seconds(self._run, self.bench.device) / WINDOWS)

    def examine(self) -> None:
        device, windows = self.bench.device, self.bench.windows[:PROFILED]
        for name, value in gpu_work(partial(self.ours.run, windows), device).items():
            self.row[name] = value / PROFILED
        if "busy" in self.row:  # by the time without the profiler, which slows the host down
            self.row["busy"] /= median(self.row["seconds"])
        counts = [host_waits(partial(self.ours.run, part), device) for part in (windows[:1], windows)]
        if None not in counts:
            self.row["host waits"] = (counts[1] - counts[0]) / (len(windows) - 1)  # without the epoch's end
        self.row["note"] = str(self._note or "")

    def compare(self, today: "Trial") -> None:
        theirs, own = today.row["seconds"], self.row["seconds"]
        if own and len(own) == len(theirs):
            self.row["times as fast"] = ratio(theirs, own)

    def _run(self) -> None:
        self._loss = self.ours.run(self.bench.windows)
