#!/usr/bin/env python3
"""A log to try things on: 60 users, 40 items, and one rule to learn, that item i is followed by i + 7, nine times of ten.

    python3 examples/python/toy_events.py events.csv
"""
import random
import sys

USERS, EVENTS, ITEMS, STRIDE, FOLLOWS = 60, 12, 40, 7, 0.9


def events(seed=7):
    """(user, item, time) rows, the same for a seed."""
    draw = random.Random(seed)
    for user in range(USERS):
        item = draw.randrange(ITEMS)
        for time in range(EVENTS):
            yield f"u{user}", f"i{item}", 1000 * user + time
            item = (item + STRIDE) % ITEMS if draw.random() < FOLLOWS else draw.randrange(ITEMS)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("user,item,timestamp\n")
        file.writelines(f"{user},{item},{time}\n" for user, item, time in events())
