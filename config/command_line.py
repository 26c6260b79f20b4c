"""The flags of run.py. Importing this is cheap: --help must not wait for torch."""

import argparse
from pathlib import Path

from config.config_regression import DATASETS, PRESETS, parse_setting
from utils.functions import Parser, UserError

DEFAULT_SEEDS = [1111, 1112, 1113, 1114, 1115]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        prog="run.py",
        description="Trains and tests Self-MM over several seeds: multimodal sentiment analysis with self-supervised "
        "unimodal labels. Try it without any data: python run.py --datasetName demo",
        epilog="Where the data lies and every hyper-parameter (for --set): config/config_regression.py.",
    )
    # fmt: off
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--modelName", type=str.lower, metavar="NAME", default="self_mm",
        help="a model of models/; default self_mm"
    )
    what.add_argument(
        "--datasetName", type=str.lower, choices=list(DATASETS),
        help="whose clips, label range, metrics and hyper-parameters; default mosi. demo makes its own small corpus"
    )
    what.add_argument(
        "--preset", type=str.lower, choices=list(PRESETS),
        help="table of hyper-parameters: released (the default; the numbers of the released code) or mmsa (the authors' "
        "later framework; the only table for simsv2)"
    )
    what.add_argument(
        "--set", dest="settings", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="change hyper-parameters on top of the table, for example --set batch_size=16 learning_rate_bert=2e-5"
    )
    what.add_argument(
        "--tasks", type=str.upper, metavar="LETTERS",
        help="which labels to learn from: M (the clip's) with any of T, A, V (its text's, sound's, face's, generated); "
        "default MTAV. For the ablation of the paper's table 4: M, MV, MA, MT, MAV, MTV, MTA"
    )
    what.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", default=DEFAULT_SEEDS,
        help="one training each; default 1111 to 1115, the published five. Seeds may be run apart: the summary takes all"
    )
    what.add_argument(
        "--max_epochs", type=int, metavar="N",
        help="epochs at most; default 0: until validation hasn't improved for early_stop epochs. Lower it for a quick look"
    )
    what.add_argument(
        "--train_mode", type=str.lower, choices=["regression", "classification"], default="regression",
        help="regression, the default and the only one: the generated labels are numbers"
    )
    what.add_argument(
        "--test_only", type=Path, metavar="DIR",
        help="train nothing; test a checkpoint folder of this program, or a .pth of the released code (which holds no "
        "config: give the dataset, preset and --bert that it was trained with)"
    )
    what.add_argument(
        "--resume", action="store_true",
        help="go on with a run that was stopped, with the same flags: finished seeds are taken from the seeds CSV, an "
        "unfinished one from where it was saved. Does no harm where there is nothing to go on with"
    )

    files = parser.add_argument_group("files")
    files.add_argument(
        "--dataPath", type=Path, metavar="FILE",
        help="feature pickle; default the dataset's below the data root"
    )
    files.add_argument(
        "--bert", metavar="DIR",
        help="text encoder: a folder or a hub name; default pretrained_model/bert_en or bert_cn if there, else "
        "google-bert/bert-base-uncased or -chinese from the hub"
    )
    files.add_argument(
        "--aligned", action="store_true",
        help="the feature file is word-aligned: sound and face have one frame for each token, and the file no lengths"
    )
    files.add_argument(
        "--cache_dir", type=Path, metavar="DIR",
        help="where the converted features go; default beside the feature file"
    )
    files.add_argument(
        "--model_save_dir", type=Path, metavar="DIR", default=Path("results/models"),
        help="where each seed's best checkpoint goes; default results/models"
    )
    files.add_argument(
        "--res_save_dir", type=Path, metavar="DIR", default=Path("results/results"),
        help="where the CSVs go; default results/results"
    )
    files.add_argument(
        "--save_every", type=float, metavar="MINUTES", default=5.0,
        help="save the training's state at the first epoch's end after so many minutes; default 5. A better epoch, and a "
        "signal to stop (SIGTERM, SIGUSR1, Ctrl-C), save it anyway"
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--gpu_ids", type=int, nargs="+", metavar="N",
        help="the GPU to use, by number; -1: the CPU. Default: the GPU with most free memory, or the CPU"
    )
    machine.add_argument(
        "--precision", type=str.lower, choices=["float32", "bf16"],
        help="arithmetic of encoders and heads; default float32, as released (on a GPU its products are TF32). bf16 is "
        "faster where the chip supports it"
    )
    machine.add_argument(
        "--max_clips_per_pass", type=int, metavar="N",
        help="clips that go through the network at once; default 0: a whole window (batch_size x update_epochs clips). "
        "Lower it when memory runs out; only the draws of dropout change"
    )
    machine.add_argument(
        "--threads", type=int, metavar="N",
        help="CPU threads; default: one for each core. Lower it when several runs share a machine"
    )
    machine.add_argument(
        "--num_workers", type=int, metavar="N", default=0,
        help="processes that prepare windows ahead; default 0: none. Raise it to 1 or 2 where a GPU's memory doesn't hold "
        "the features; where it does, they lie there and nobody is needed"
    )
    machine.add_argument(
        "--deterministic", action="store_true",
        help="let a GPU compute the same to the bit each time, more slowly; a CPU does so anyway with the same --threads"
    )
    # fmt: on
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    if args.train_mode == "classification":
        raise UserError(
            "--train_mode classification: Self-MM is defined on regression labels only: the unimodal labels that it "
            "generates are shifts of a number"
        )
    if args.gpu_ids is not None and len(args.gpu_ids) > 1:
        raise UserError(f"--gpu_ids {' '.join(map(str, args.gpu_ids))}: a run uses one GPU; start one run for each")
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError(f"--seeds {' '.join(map(str, args.seeds))}: a seed is named twice")
    for seed in args.seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seeds {seed}: expected a number from 0 to 4294967295")
    for flag, least in (("threads", 1), ("num_workers", 0), ("save_every", 0)):
        value = getattr(args, flag)
        if value is not None and not value >= least:
            raise UserError(f"--{flag} {value}: expected {least} or more")


def chosen_settings(args: argparse.Namespace) -> dict[str, object]:
    """The hyper-parameters that the command line changes."""
    settings = dict(parse_setting(text) for text in args.settings)
    flags = ("tasks", "max_epochs", "precision", "max_clips_per_pass")
    return settings | {flag: getattr(args, flag) for flag in flags if getattr(args, flag) is not None}
