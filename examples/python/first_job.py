#!/usr/bin/env python3
"""From events to a trained recommender, from Python: prepare, supervised training, gated reinforcement learning.

    ./sluice up &                                      # a coordinator, ranks, reward server and actors on this machine
    python3 examples/python/first_job.py events.csv work/

events.csv has the columns user, item, timestamp; work/ gets the data set. Reinforcement learning needs a reward server
that serves this data set; without one give --rl-steps 0.
"""
import argparse
import os

import sluice


def follow(job):
    """Prints a job's measurements as they come; raises if the job does not end well."""
    print(f"{job.id}: submitted")
    for point in job.watch_metrics():
        shown = {name: round(value, 4) for name, value in point.values.items()
                 if name in ("loss/nll", "gate/open_rate", "validation/hr@10")}
        if shown:
            print(f"{job.id}: step {point.step} of {point.total_steps}", shown)
    print(f"{job.id}: {job.wait().message}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("events")
    parser.add_argument("work")
    parser.add_argument("--passes", type=int, default=24, help="of supervised training")
    parser.add_argument("--rl-steps", type=int, default=200, help="0: no reinforcement learning")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--min-events", type=int, default=5, help="users and items with fewer events are left out")
    flags = parser.parse_args()
    data = os.path.abspath(os.path.join(flags.work, "data"))

    with sluice.Client() as client:  # $SLUICE_SERVER, or 127.0.0.1:7070
        follow(client.submit({
            "name": "prepare", "kind": "prepare",
            "prepare": {"events": os.path.abspath(flags.events), "output": data,
                        "min_user_events": flags.min_events, "min_item_events": flags.min_events}}))
        sft = client.submit({
            "name": "sft", "kind": "sft", "data": data, "model": {"hidden_size": flags.hidden_size},
            "sft": {"passes": flags.passes}})
        follow(sft)
        policy = sft.describe().run_folder
        if flags.rl_steps:
            rl = client.submit({
                "name": "rl", "kind": "rl", "data": data, "model": {"path": policy}, "rl": {"steps": flags.rl_steps}})
            follow(rl)
            policy = rl.describe().run_folder
        evaluation = client.submit({
            "name": "evaluate", "kind": "evaluate", "data": data, "model": {"path": policy}})
        follow(evaluation)
        metrics = evaluation.run_folder().results()["numbers"]["metrics"]
        print(
            f"HR@10 {metrics['hr@10']:.4f}, NDCG@10 {metrics['ndcg@10']:.4f} over {metrics['prompts']:.0f} test users")


if __name__ == "__main__":
    main()
