#!/usr/bin/env python3
"""How many scores a second a reward server gives: by a ranker of its own, and by a function of Python behind
sluice.serve_ranker.

    .venv/bin/python tests/bench/reward_server/own_ranker.py [--seconds 5]

Groups of 16 candidates and a target, 64 in a request, two requests at a time, histories of 12 items, on the tiny world of
the integration tests. The function returns item / 1000, so that what is measured is the way there and back. Prints a row a
ranker.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path[:0] = [os.path.join(TOP, "tests", "integration"), os.environ.get("SLUICE_PYTHON_SITE", os.path.join(TOP, "build", "python", "site"))]
GROUPS, CANDIDATES, HISTORY, CALLERS = 64, 16, 12, 2
WARM_UP_S = 1


def generated(folder):
    """The module of reward.proto, which the package does not hold."""
    proto = os.path.join(TOP, "proto")
    subprocess.run(["protoc", f"--proto_path={proto}", f"--python_out={folder}", "sluice/v1/reward.proto"], check=True)
    sys.path.insert(0, os.path.join(folder, "sluice", "v1"))
    import reward_pb2
    return reward_pb2


def request(pb, harness, ranker, catalog):
    asked = pb.ScoreRequest(ranker=ranker, catalog_version=catalog)
    for g in range(GROUPS):
        group = asked.groups.add(ordinal=g, user=g % harness.USERS, target=g % harness.ITEMS)
        group.history.extend((g + 3 * i) % harness.ITEMS for i in range(HISTORY))
        for c in range(CANDIDATES):
            group.candidates.add(items=[(g + 7 * c) % harness.ITEMS])
    return asked


def rate(channel, pb, asked, seconds):
    """Scores a second."""
    call = channel.unary_unary("/sluice.v1.RewardService/Score", request_serializer=pb.ScoreRequest.SerializeToString,
                               response_deserializer=pb.ScoreResponse.FromString)
    counts = [0] * CALLERS
    begin = time.monotonic() + WARM_UP_S
    end = begin + seconds

    def work(caller):
        while time.monotonic() < end:
            answer = call(asked, timeout=60)
            assert all(group.status == pb.GROUP_SCORE_STATUS_OK for group in answer.groups), answer.groups[0].error
            if time.monotonic() >= begin:
                counts[caller] += 1

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * GROUPS * (CANDIDATES + 1) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5)
    seconds = parser.parse_args().seconds
    import grpc
    import harness
    import sluice

    class Bench(harness.SluiceTest):
        def runTest(self):
            data = self.prepare()
            with tempfile.TemporaryDirectory() as folder:
                pb = generated(folder)
            server = sluice.serve_ranker(lambda user, history, item: item / 1000, address="127.0.0.1:0", concurrency=2)
            rankers, flags = ["cooccurrence", "sequential"], []
            for name, keys in (("pairs", {}), ("typed", {"contents": "typed"})):
                with open(self.path(f"{name}.yaml"), "w", encoding="utf-8") as file:
                    json.dump({"name": name, "open_inference": {"address": server.address, "model": "ranker", **keys},
                               "inputs": {key: {"from": key} for key in ("user", "history", "item")},
                               "outputs": {"score": {}}}, file)
                flags += ["--ranker", self.path(f"{name}.yaml")]
                rankers.append(name)
            reward = self.start("reward", "sluice-reward", "--data", data, "--address", "127.0.0.1:0", *flags)
            said = reward.wait_for(r"serving address=(\S+) .*catalog_version=(\S+)")
            with grpc.insecure_channel(said.group(1), options=[("grpc.enable_http_proxy", 0)]) as channel:
                for ranker in rankers:
                    asked = request(pb, harness, ranker, said.group(2))
                    print(f"| {ranker} | {rate(channel, pb, asked, seconds):,.0f} |", flush=True)
            server.stop(0)

    result = Bench().run()
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
