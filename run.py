"""Trains and tests a model over several seeds: python run.py --modelName self_mm --datasetName mosi"""

import os
import shlex
import sys
import traceback
from pathlib import Path

from config.command_line import parse_arguments
from utils.errors import UserError, brief
from utils.files import make_folder
from utils.log import make_log
from utils.signals import Stopped, stop_signals


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 for a bug; 2 for what the user can mend, told in one line; 130 or 143 after a signal."""
    argv = sys.argv[1:] if argv is None else argv
    args = None
    try:
        with stop_signals():
            args = parse_arguments(argv)
            run(args)
    except UserError as error:
        if (
            args is not None or os.environ.get("RANK", "0") == "0"
        ):  # all of torchrun's processes find the same wrong flag
            print("error:", error, file=sys.stderr)
        return 2
    except Stopped as stop:
        again = argv if {"--resume", "--test_only", "--is_tune"} & set(argv) else [*argv, "--resume"]
        program = "torchrun ... run.py" if "TORCHELASTIC_RUN_ID" in os.environ else "python run.py"
        print(f"stopped by {stop.name}; to go on: {program} {shlex.join(again)}", file=sys.stderr)
        return stop.status
    except Exception:
        # A bug. Uncaught, its traceback would keep worker processes alive, for which Python waits at the end.
        traceback.print_exc()
        return 1
    return 0


def run(args) -> None:
    # Imported here, so that --help and a misspelt flag don't wait for torch and transformers.
    import torch

    from trains.runs.jobs import stop_with_parent
    from utils.device import keep_freed_memory, make_deterministic, pick_device
    from utils.ranks import join_ranks

    if args.as_job:
        stop_with_parent()
    keep_freed_memory()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.deterministic:
        make_deterministic()
    ranks = join_ranks()
    with ranks.with_one_voice():
        try:
            if ranks.size > 1 and (args.test_only or args.is_tune or args.jobs > 1):
                raise UserError(
                    "torchrun trains one model on several processes: leave out --test_only, --is_tune and --jobs"
                )
            mine = ranks.choose_gpus(args.gpu_ids)
            device = pick_device([-1] if args.jobs > 1 else mine)  # with --jobs, this process only waits for others
            if args.test_only:
                test_checkpoint(args, device)
            elif args.is_tune:
                tune(args, device)
            else:
                train_and_test(args, device, ranks)
            ranks.leave()
        except torch.OutOfMemoryError:
            raise UserError(
                "the GPU's memory is full: lower --jobs where they share a GPU, or --max_clips_per_pass (a window has "
                "batch_size x update_epochs clips; try half of that, then a quarter: the gradient stays the same), or "
                "choose another GPU with --gpu_ids"
            ) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(f"{brief(error)}; if it was for want of memory, --num_workers 0 needs less") from None


def train_and_test(args, device, ranks) -> None:
    """One model for each seed: train it, test its best checkpoint, write its row; then the summary and a table."""
    from data.schema import SPLITS
    from trains.runs.experiment import open_experiment
    from trains.runs.jobs import run_seeds
    from trains.runs.results import write_summary
    from trains.runs.seed_run import SeedRun, train_along

    splits = SPLITS if ranks.is_first else ("train", "valid")  # the first tests alone
    experiment = ranks.after_first(lambda: open_experiment(args, device, ranks, splits))
    ranks.check_same(config=experiment.config_hash, seeds=args.seeds, device=device.type)
    if not ranks.is_first:
        for seed in args.seeds:
            train_along(experiment, seed)
        return
    dataset = experiment.dataset.name
    results, models = make_folder(args.res_save_dir / "normals"), make_folder(args.model_save_dir)
    log = make_log(make_folder(Path("logs")) / f"{args.modelName}-{dataset}.log")
    seeds_csv, summary_csv = results / f"{dataset}-regression-seeds.csv", results / f"{dataset}-regression.csv"
    if not args.as_job:
        log.info(experiment.describe())
    if args.jobs > 1:
        run_seeds(args)
    tests = []
    for seed in args.seeds:
        seed_run = SeedRun(experiment, seed, models, seeds_csv, log, args.save_every)
        tests.append(seed_run.run(args.resume) if args.jobs == 1 else seed_run.finished_test())
        write_summary(seeds_csv, summary_csv, experiment.metric_names)
    if not args.as_job:
        log.info(experiment.report(f"test, {len(tests)} seed{'s' * (len(tests) > 1)}", tests))
        log.info(f"checkpoints in {models}, a row for each seed in {seeds_csv}, summary in {summary_csv}")


def tune(args, device) -> None:
    """A sweep, or this process's part of one: trials until --tune_times are finished; then a table and pictures."""
    from trains.runs.jobs import run_workers
    from trains.sweep.report import SweepReport
    from trains.sweep.study import open_sweep

    sweep = open_sweep(args, device)
    make_folder(args.res_save_dir / "tunes")
    log = make_log(make_folder(Path("logs")) / f"{args.modelName}-{sweep.experiment.dataset.name}-tune.log")
    report = SweepReport(sweep, args.res_save_dir, log)
    if not args.as_job:
        log.info(sweep.describe())
    if args.jobs > 1:
        run_workers(args, log)
    else:
        sweep.work(log, after_each=report.write)
    if not args.as_job:
        report.close()


def test_checkpoint(args, device) -> None:
    """Tests what --test_only names, and prints a table; writes no row."""
    from trains.runs.experiment import open_checkpoint

    experiment, model = open_checkpoint(args, device)
    print(experiment.report(f"{args.test_only} on {experiment.dataset.name}, test", [experiment.test(model)]))


if __name__ == "__main__":
    sys.exit(main())
