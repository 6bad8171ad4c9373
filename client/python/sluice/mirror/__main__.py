"""The command; see the package's text."""
from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from typing import Any

from sluice.errors import InvalidRequestError, SluiceError
from sluice.mirror import Mirrored, mirror_run

# Options of sluicectl by the same names: where the coordinator is, and how to be let in.
_CONNECTION = (("server", "HOST:PORT", "the coordinator; default: as sluicectl finds it"),
               ("context", "NAME", "of the named coordinators this one"),
               ("tls-ca", "FILE", "PEM file of the CA whose certificates are believed"),
               ("tls-cert", "FILE", "PEM file of the own certificate"),
               ("tls-key", "FILE", "PEM file of its private key"),
               ("token-file", "FILE", "file with the token that goes with every call"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sluice.mirror", description="Copies a job's, or a run folder's, metrics, spec and state to a "
        "tracker. Called again it goes on; nothing is sent twice.")
    parser.add_argument("run", metavar="RUN_FOLDER", nargs="?")
    parser.add_argument("--job", help="of a coordinator, in place of a run folder: its id, or a beginning of it")
    parser.add_argument("--to", required=True, metavar="KIND",
                        help="mlflow (with --uri), tensorboard or wandb (with --folder; wandb needs the package wandb); or in "
                        "one: mlflow:URI, tensorboard:FOLDER, wandb:FOLDER; kubeflow: the status of the TrainJob that this is "
                        "a container of")
    parser.add_argument("--uri", help="of the MLflow server, http://HOST:PORT")
    parser.add_argument("--folder", help="of the event files, or of W&B's offline runs")
    parser.add_argument("--name", help="of the run at the target (default: the job's id, the folder's name)")
    parser.add_argument("--experiment", default="sluice", help="MLflow's experiment, W&B's project (default: sluice)")
    parser.add_argument("--follow", action="store_true", help="go on until the job ends, or ctrl-C")
    parser.add_argument("--every", type=float, metavar="S", help="look so often (default: 5; wandb: 300)")
    parser.add_argument("--patience", type=float, default=60.0, metavar="S",
                        help="ask a server that does not answer for so long (default: 60)")
    parser.add_argument("--cursor", metavar="FILE", help="where it remembers what was sent (default: in RUN_FOLDER/mirror, "
                        "beside the target's folder, or in ~/.local/state/sluice/mirror)")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="S", help="for one call to the coordinator (default: 5)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how the result is printed")
    for name, metavar, text in _CONNECTION:
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    return parser


def _to(flags: argparse.Namespace) -> str:
    """KIND:PLACE, however it was said."""
    kind, _, place = flags.to.partition(":")
    if kind == "kubeflow":
        if given := [name for name in ("uri", "folder") if getattr(flags, name) is not None]:
            raise InvalidRequestError(f"--{given[0]} is not for --to kubeflow, which Trainer tells where by variables")
        return str(flags.to)
    wanted, other = ("uri", "folder") if kind == "mlflow" else ("folder", "uri")
    if getattr(flags, other) is not None:
        raise InvalidRequestError(f"--{other} is not for --to {kind}" + ("; it takes --uri" if kind == "mlflow" else
                                                                        "; it takes --folder"))
    given = getattr(flags, wanted)
    if given is not None and place:
        raise InvalidRequestError(f"--to {flags.to} and --{wanted}: want one of them")
    if given is None and not place and kind in ("mlflow", "tensorboard", "wandb"):
        raise InvalidRequestError(f"--to {kind} needs --{wanted} " + ("http://HOST:PORT" if wanted == "uri" else "FOLDER"))
    return flags.to if given is None else f"{kind}:{given}"


def _mirror(flags: argparse.Namespace, stop: threading.Event) -> Mirrored:
    if (flags.job is None) == (flags.run is None):
        raise InvalidRequestError("want a run folder, or --job JOB")
    options: dict[str, Any] = dict(name=flags.name, experiment=flags.experiment, follow=flags.follow, every=flags.every,
                                   patience=flags.patience, cursor=flags.cursor, stop=stop)
    to = _to(flags)
    if flags.job is None:
        return mirror_run(flags.run, to, **options)
    try:
        from sluice.client import Client
    except ImportError as error:
        raise InvalidRequestError(f"a job is read through grpcio, and {error.name} is not installed; 'pip install grpcio "
                                  "protobuf', or name the run folder") from None
    names = [name.replace("-", "_") for name, _, _ in _CONNECTION]
    with Client(timeout=flags.timeout, **{name: getattr(flags, name) for name in names}) as client:
        return mirror_run(client.job(flags.job), to, **options)


def _print(done: Mirrored, output: str) -> None:
    if done.kept_first:
        print("sluice.mirror: the job resumed from a checkpoint; steps that it measured again keep their first values "
              "there", file=sys.stderr)
    if output == "json":
        print(json.dumps({"schema_version": 1, "points": done.points, "last_step": done.last_step, "place": done.place,
                          "kept_first": done.kept_first, "state": done.state}))
        return
    state = f"; the job is {done.state}" if done.state else ""
    print(f"{done.points} points sent, up to step {done.last_step}: {done.place}{state}" if done.last_step >= 0 else
          f"nothing was measured yet: {done.place}{state}")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code, as docs/python.md lists them."""
    flags = _parser().parse_args(argv)
    stop = threading.Event()
    if flags.follow:  # the batch under way is finished first
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *unused: stop.set())
    try:
        done = _mirror(flags, stop)
    except SluiceError as error:
        print(f"sluice.mirror: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sluice.mirror: stopped; the same command goes on", file=sys.stderr)
        return 130
    _print(done, flags.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
