"""The command; see the package's text."""
from __future__ import annotations

import argparse
import signal
import sys
import threading

from sluice.errors import SluiceError
from sluice.mirror import mirror_run


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code, as docs/python.md lists them."""
    parser = argparse.ArgumentParser(
        prog="python -m sluice.mirror", description="Copies a run's metrics to a tracker. Called again it goes on; "
        "nothing is sent twice.")
    parser.add_argument("run", metavar="RUN_FOLDER")
    parser.add_argument("--to", required=True, metavar="KIND:PLACE",
                        help="mlflow:URI, tensorboard:FOLDER or wandb:FOLDER (needs the package wandb)")
    parser.add_argument("--name", help="of the run at the target (default: the folder's name)")
    parser.add_argument("--experiment", default="sluice", help="MLflow's experiment, W&B's project (default: sluice)")
    parser.add_argument("--follow", action="store_true", help="go on until the job has its results, or ctrl-C")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="look so often (default: 5)")
    parser.add_argument("--patience", type=float, default=60.0, metavar="S",
                        help="ask a server that does not answer for so long (default: 60)")
    parser.add_argument("--cursor", metavar="FILE", help="where it remembers what was sent (default: in RUN_FOLDER/mirror)")
    flags = parser.parse_args(argv)
    stop = threading.Event()
    if flags.follow:  # the batch under way is finished first
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *unused: stop.set())
    try:
        done = mirror_run(flags.run, flags.to, name=flags.name, experiment=flags.experiment, follow=flags.follow,
                          every=flags.every, patience=flags.patience, cursor=flags.cursor, stop=stop)
    except SluiceError as error:
        print(f"sluice.mirror: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sluice.mirror: stopped; the same command goes on", file=sys.stderr)
        return 130
    if done.kept_first:
        print("sluice.mirror: the job resumed from a checkpoint; steps that it measured again keep their first values "
              "there", file=sys.stderr)
    print(f"{done.points} points sent, up to step {done.last_step}: {done.place}" if done.last_step >= 0 else
          f"nothing was measured yet: {done.place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
