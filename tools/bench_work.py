"""The work that ./sluice bench --compare gives both sides: semantic IDs, prompts, completions, sequences, users."""

import array
import ast
import json
import os
import random

LEVELS, CODES = 4, 256
PROMPTS, CANDIDATES, EVAL_BEAMS, SEQUENCES = 8, 16, 50, 64
LOOP_PROMPTS = 640


def read_npy(path):
    """A one- or two-dimensional .npy array of int32 or int64 as (shape, flat list)."""
    with open(path, "rb") as file:
        magic = file.read(10)
        if magic[:6] != b"\x93NUMPY" or magic[6] != 1:
            raise ValueError(f"{path} is no .npy file of version 1")
        header = ast.literal_eval(file.read(int.from_bytes(magic[8:10], "little")).decode("latin1"))
        kind = {"<i4": "i", "<i8": "q"}.get(header["descr"])
        if kind is None or header["fortran_order"]:
            raise ValueError(f"{path}: want int32 or int64 in row-major order, got {header}")
        values = array.array(kind)
        values.frombytes(file.read())
    return header["shape"], values.tolist()


class Events:
    """Users' items in time order, and the codes of each item."""

    def __init__(self, name, users, sids, codes):
        self.name = name
        self.users = users
        self.sids = sids
        self.codes = codes

    @staticmethod
    def beauty(folder):
        with open(os.path.join(folder, "inter.json"), encoding="utf-8") as file:
            users = list(json.load(file).values())
        with open(os.path.join(folder, "index_rqvae.json"), encoding="utf-8") as file:
            index = json.load(file)
        sids = [index[str(item)] for item in range(len(index))]
        return Events("Amazon Beauty, inter.json, RQ-VAE semantic IDs", users, sids, CODES)

    @staticmethod
    def prepared(folder, name):
        """A data set folder that a prepare job wrote."""
        _, first = read_npy(os.path.join(folder, "first_event.npy"))
        _, items = read_npy(os.path.join(folder, "event_item.npy"))
        (_, levels), flat = read_npy(os.path.join(folder, "item_codes.npy"))
        if levels != LEVELS:
            raise ValueError(f"{folder} has semantic IDs of {levels} levels, want {LEVELS}")
        users = [items[begin:end] for begin, end in zip(first, first[1:])]
        return Events(name, users, [flat[i:i + levels] for i in range(0, len(flat), levels)], CODES)

    @staticmethod
    def synthetic():
        """Beauty's shape: 12,101 items, codes of later levels that follow from few of the earlier ones, and histories
        of 5 events and more, with a long tail."""
        chance = random.Random(7)
        sids = []
        for _ in range(12101):
            first = int(CODES * chance.random() * chance.random())
            sids.append([first, (first * 7 + chance.randrange(40)) % CODES, chance.randrange(CODES), chance.randrange(4)])
        users = [[chance.randrange(len(sids)) for _ in range(5 + int(chance.expovariate(1 / 3.9)))] for _ in range(4000)]
        users += [[chance.randrange(len(sids)) for _ in range(21 + chance.randrange(60))] for _ in range(250)]
        return Events("synthetic events and semantic IDs of Beauty's shape", users, sids, CODES)


def make_work(events, history, eval_users):
    """The work file's contents. Prompts are users whose history fills `history` items, so that neither side pads them;
    sequences and evaluated users come as they are, cut to the latest `history` items."""
    chance = random.Random(history)
    long = [user for user in events.users if len(user) > history]
    if len(long) < PROMPTS:
        raise ValueError(f"{events.name} has {len(long)} users with more than {history} events, want {PROMPTS}")
    chosen = chance.sample(long, PROMPTS)
    advantages = []
    for _ in range(PROMPTS):
        raw = [chance.gauss(0, 1) for _ in range(CANDIDATES)]
        mean = sum(raw) / CANDIDATES
        deviation = (sum((x - mean) ** 2 for x in raw) / (CANDIDATES - 1)) ** 0.5
        advantages.append([(x - mean) / (deviation + 1e-4) for x in raw])
    evaluated = chance.sample([user for user in events.users if len(user) >= 2], eval_users)
    trained = chance.sample([user for user in events.users if len(user) >= 4], SEQUENCES)
    return {
        "data": events.name, "levels": LEVELS, "codes": events.codes, "history": history, "sids": events.sids,
        "candidates": CANDIDATES, "eval_beams": EVAL_BEAMS,
        "prompts": [user[:-1][-history:] for user in chosen], "targets": [user[-1] for user in chosen],
        "completions": [[chance.randrange(len(events.sids)) for _ in range(CANDIDATES)] for _ in chosen],
        "advantages": advantages,
        "sequences": [user[:-2][-history - 1:] for user in trained],
        "eval": [{"history": user[:-1][-history:], "target": user[-1]} for user in evaluated],
    }


def make_loop_work(events, history):
    """For row loop: prompts drawn as an rl job draws them, from every training event that has a history, and the events
    that the co-occurrence rule is made of."""
    chance = random.Random(history)
    training = [user[:-2] for user in events.users if len(user) >= 3]
    ends = [(u, position) for u, user in enumerate(training) for position in range(1, len(user))]
    if len(ends) < LOOP_PROMPTS:
        raise ValueError(f"{events.name} has {len(ends)} training events with a history, want {LOOP_PROMPTS}")
    return {"data": events.name, "levels": LEVELS, "codes": events.codes, "history": history, "sids": events.sids,
            "candidates": CANDIDATES, "training": training,
            "loop_prompts": [training[u][:position][-history:] for u, position in chance.sample(ends, LOOP_PROMPTS)]}
