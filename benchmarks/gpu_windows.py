"""The choices of benchmarks.gpu that show in a training step."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig

from benchmarks.implementations import Ours
from benchmarks.padded_windows import Graphs, Padding, Size, choose_sizes
from benchmarks.plain_baseline import plain_adam
from benchmarks.throughput import without_dropout, without_tf32
from benchmarks.variants import PROFILED, Bench, Row, Variant, failure
from models.batch import Frames, Group, PackedText
from utils.device import make_deterministic

CPU = torch.device("cpu")
SIZES, SAMPLE = 4, 500  # sizes of padded windows, and the windows that choose them


@contextmanager
def packing(stretches: int = 1, groups: int | None = 1) -> Iterator[None]:
    """Packs frames in stretches of time, and sentences in groups of similar length, or of equal length if None."""
    pack_frames, pack_text = Frames.pack, PackedText.pack

    def frames_in_stretches(frames: Tensor, lengths: np.ndarray, inverse_order: np.ndarray, _: int) -> Frames:
        return pack_frames(frames, lengths, inverse_order, stretches)

    def text_in_groups(tokens: Tensor, lengths: np.ndarray, inverse_order: np.ndarray, by_length: bool) -> PackedText:
        text = pack_text(tokens, lengths, inverse_order, groups is None)
        if groups is None or groups == 1:
            return text
        return text._replace(groups=[Group.from_lengths(part) for part in np.array_split(lengths, groups)])

    with patch.object(Frames, "pack", frames_in_stretches), patch.object(PackedText, "pack", text_in_groups):
        yield


def run_lstms_beside_bert(ours: Ours) -> None:
    """Gives each LSTM a stream of its own: a chain of small steps leaves most of a GPU idle, where BERT can run meanwhile.

    The backward pass uses the streams of the forward pass by itself.
    """
    if (device := ours.train.device).type == "cpu":
        return
    main, model = torch.cuda.current_stream(device), ours.model
    sides = {encoder: torch.cuda.Stream(device) for encoder in (model.audio_encoder, model.vision_encoder)}

    def enter(encoder: torch.nn.Module, _: tuple) -> None:
        sides[encoder].wait_stream(main)  # which makes the frames
        torch.cuda.set_stream(sides[encoder])

    def leave(encoder: torch.nn.Module, arguments: tuple[Frames], output: Tensor) -> None:
        torch.cuda.set_stream(main)
        # Memory returns to the stream that it came from, unless other users of it are known.
        for tensor in (arguments[0].values, arguments[0].lengths, arguments[0].inverse_order):
            tensor.record_stream(sides[encoder])
        output.record_stream(main)

    for encoder in sides:
        encoder.register_forward_pre_hook(enter)
        encoder.register_forward_hook(leave)
    model.text_encoder.register_forward_hook(lambda *_: [main.wait_stream(side) for side in sides.values()] and None)


def lstm(bench: Bench) -> None:
    bench.measure(
        Variant("one stretch (today)", switch=packing),
        Variant("8 stretches", switch=partial(packing, stretches=8)),
        Variant("beside BERT, on side streams", switch=packing, change=run_lstms_beside_bert),
    )


def attention(bench: Bench) -> None:
    ways = {"one padded group (today)": 1, "4 padded groups": 4, "groups of equal length": None}
    for precision in ("bf16", "float32"):
        bench.measure(*(Variant(name, precision, partial(packing, groups=groups)) for name, groups in ways.items()))


def features(bench: Bench) -> None:
    on_cpu = partial(patch, "torch.cuda.mem_get_info", lambda device: (0, 0))  # as if the GPU had no room for them
    bench.measure(
        Variant("on the GPU (today)"),
        Variant("on the CPU, pinned", switch=on_cpu),
        Variant("on the CPU, 2 workers", switch=on_cpu, num_workers=2),
    )


def tf32(bench: Bench) -> None:
    bench.measure(Variant("TF32 (today)", "float32"), Variant("no TF32", "float32", switch=without_tf32))


def optimizer(bench: Bench) -> None:
    def use(ours: Ours, **settings: bool) -> None:
        ours.optimizer = ours.training.optimizer = plain_adam(ours.optimizer, **settings)

    bench.measure(
        Variant("fused (today)"),
        Variant("foreach", change=partial(use, foreach=True)),
        Variant("single", change=partial(use, foreach=False)),
    )


def compiled(bench: Bench) -> None:
    """The first run's seconds are mostly those of compiling."""

    def compile_model(ours: Ours) -> None:
        ours.model.compile(dynamic=True)

    def compile_bert(ours: Ours) -> None:
        ours.model.text_encoder.compile(dynamic=True)

    bench.measure(
        Variant("eager (today)", switch=packing),
        Variant("torch.compile of BERT", switch=packing, change=compile_bert),
        Variant("torch.compile of the model", switch=packing, change=compile_model),
    )


def use_padding(ours: Ours, sizes: list[Size]) -> Padding:
    padding = Padding(sizes)
    ours.run = padding.applied()(ours.run)
    return padding


def use_graphs(ours: Ours, sizes: list[Size], **parts: bool) -> Graphs:
    """parts: what the graphs contain beside forward and backward, as in Graphs."""
    use_padding(ours, sizes)
    graphs = Graphs(ours, sizes, **parts)
    ours.run = graphs.applied()(ours.run)
    return graphs


def graphs(bench: Bench) -> None:
    """The first run's seconds contain the captures. On a CPU, the padded windows run without graphs."""
    windows = [torch.cat(window) for window in [*bench.draw(SAMPLE), *bench.windows]]
    sizes = choose_sizes(bench.store.splits["train"], windows, SIZES)

    def variants(precision: str) -> list[Variant]:
        return [
            Variant("eager (today)", precision),
            Variant("padded, eager", precision, change=partial(use_padding, sizes=sizes)),
            Variant("graphs of forward and backward", precision, change=partial(use_graphs, sizes=sizes)),
            Variant("... and the optimizer's step", precision, change=partial(use_graphs, sizes=sizes, step=True)),
            Variant("... and the labels", precision, change=partial(use_graphs, sizes=sizes, step=True, labels=True)),
        ]

    bench.measure(*variants("bf16"))
    first, *_, last = variants("float32")
    bench.measure(first, last)


def deterministic(bench: Bench) -> None:
    """Also says whether two trainings from the same seed end with the same weights and labels, to the bit."""

    @contextmanager
    def switch() -> Iterator[None]:
        make_deterministic()
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    def train(variant: Variant) -> list[Tensor]:
        with variant.switch():
            ours = bench.make(variant)
            torch.manual_seed(1)
            ours.run(bench.windows)
            return [*ours.model.state_dict().values(), *ours.ulgm.state_dict().values()]

    with switch():  # its environment variable must precede the first use of the GPU, for both variants
        variants = [Variant("as usual (today)"), Variant("deterministic", switch=switch)]
    bench.measure(*variants)
    for variant, row in zip(variants, bench.rows[-len(variants) :], strict=True):
        try:
            row["equal bits twice"] = all(map(torch.equal, train(variant), train(variant)))
        except Exception as error:
            row["note"] = failure(error)


def precision(bench: Bench) -> None:
    """Compares the losses of a few windows, in epoch 1 and without dropout, with the CPU's. Two layers of BERT, for its sake."""
    small = copy.copy(bench)
    small.bert = BertConfig(**bench.bert.to_dict() | {"num_hidden_layers": 2})
    small.__dict__.pop("model", None)
    ways = [("CPU", CPU, "float32", nullcontext), ("CPU", CPU, "bf16", nullcontext)]
    ways += [
        ("GPU, no TF32", bench.device, "float32", without_tf32),
        ("GPU, TF32", bench.device, "float32", nullcontext),
    ]
    ways += [("GPU", bench.device, "bf16", nullcontext)]
    expected: np.ndarray | None = None
    for name, device, kind, switch in ways:
        row: Row = {"variant": name, "precision": kind}
        bench.add(row)
        try:
            ours = small.make(Variant(name, kind), device)
            with switch(), without_dropout(ours.model):
                losses = np.array([ours.run([window], epoch=1) for window in bench.windows[:PROFILED]])
            expected = losses if expected is None else expected
            row |= {"loss": losses.mean(), "largest difference of a window's loss": np.abs(losses - expected).max()}
        except Exception as error:
            row["note"] = failure(error)
