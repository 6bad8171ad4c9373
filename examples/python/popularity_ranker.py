#!/usr/bin/env python3
"""An own ranker behind the Open Inference Protocol: an item's score is how often it was chosen.

    python3 examples/python/popularity_ranker.py counts.npy --address 127.0.0.1:8001
"""
import argparse

import numpy

import sluice

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("counts", help=".npy with a number an item")
parser.add_argument("--address", default="127.0.0.1:8001")
flags = parser.parse_args()
counts = numpy.log1p(numpy.load(flags.counts))


def score(user, history, item):
    return counts[item]


server = sluice.serve_ranker(score, address=flags.address)
print(f"serving at {server.address}; ctrl-C ends it", flush=True)
server.wait()
