#!/usr/bin/env python3
"""Writes inter_std.json: Amazon Beauty with the numbering of one repository and the order of another.

    python3 tools/order_beauty.py inter.json Beauty.txt inter_std.json

inter.json (NonameUntitled/tiger) numbers users and items as its semantic IDs do. Beauty.txt (salesforce/ICLRec) holds
the same events in the order that most papers evaluate on, under other numbers; both give each user's items in time
order and differ in how events of one day are ordered. Nothing names who is who, but users and items form the same
graph: colours that start equal and are refined by the colours of the neighbours tell apart all but 35 of 22,363 users
and 9 of 12,101 items. Those left are twins (same neighbours); they are paired in the order of their numbers.

docs/data.md has the digests of all three files. Needs Python's standard library alone.
"""

import collections
import json
import sys

ROUNDS = 6


def colours(sequences):
    """Users and items as {number: colour}; equal colours mean equal neighbourhoods up to ROUNDS steps away."""
    users_of = collections.defaultdict(list)
    for user, items in sequences.items():
        for item in items:
            users_of[item].append(user)
    user_colour = dict.fromkeys(sequences, 0)
    item_colour = dict.fromkeys(users_of, 0)
    for _ in range(ROUNDS):
        item_colour = {item: hash((item_colour[item], tuple(sorted(user_colour[u] for u in users))))
                       for item, users in users_of.items()}
        user_colour = {user: hash((user_colour[user], tuple(sorted(item_colour[i] for i in items))))
                       for user, items in sequences.items()}
    return user_colour, item_colour


def pairs(numbered, ordered):
    """{number in `ordered`: number in `numbered`} by colour, twins by ascending number."""
    classes = collections.defaultdict(lambda: ([], []))
    for side, colouring in enumerate((numbered, ordered)):
        for number in sorted(colouring):
            classes[colouring[number]][side].append(number)
    if any(len(left) != len(right) for left, right in classes.values()):
        sys.exit("order_beauty: the two files do not hold the same events")
    return {theirs: ours for left, right in classes.values() for ours, theirs in zip(left, right)}


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: order_beauty.py inter.json Beauty.txt inter_std.json")
    with open(sys.argv[1], encoding="utf-8") as file:
        numbered = {int(user): items for user, items in json.load(file).items()}
    with open(sys.argv[2], encoding="utf-8") as file:
        rows = [list(map(int, line.split())) for line in file]
    ordered = {row[0]: row[1:] for row in rows}

    our_users, our_items = colours(numbered)
    their_users, their_items = colours(ordered)
    user_of = pairs(our_users, their_users)
    item_of = pairs(our_items, their_items)
    result = {user_of[user]: [item_of[item] for item in items] for user, items in ordered.items()}
    for user, items in result.items():
        if sorted(items) != sorted(numbered[user]):
            sys.exit(f"order_beauty: user {user} has other items in the two files")
    with open(sys.argv[3], "w", encoding="utf-8") as file:
        json.dump({str(user): result[user] for user in numbered}, file, separators=(",", ":"))
    moved = sum(result[user] != numbered[user] for user in numbered)
    print(f"{len(result)} users; {moved} of them in another order than in {sys.argv[1]}")


if __name__ == "__main__":
    main()
