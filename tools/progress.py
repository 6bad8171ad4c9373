#!/usr/bin/env python3
"""Runs ninja and shows how far it is.

    python3 tools/progress.py --title TITLE --log FILE -- ninja ...

On a terminal: one line with a bar, files done, rate and time left. Otherwise: a plain line about every tenth of the
way. Everything that ninja prints goes to the log; what a failed command printed is also shown. Ends with ninja's exit
status. NO_COLOR or TERM=dumb ask for plain lines.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time

STATUS = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
MAX_ERROR_LINES = 80


def duration(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


class Display:
    """Shows counts; knows nothing about ninja."""

    def __init__(self, title, terminal):
        self.title = title
        self.terminal = terminal
        self.started = time.monotonic()
        self.next_share = 0.0
        self.total = 0

    def show(self, done, total, what):
        self.total = total
        elapsed = time.monotonic() - self.started
        rate = done / elapsed if elapsed > 0 else 0
        # The first files say little: a precompiled header takes longer than twenty others.
        left = duration((total - done) / rate) if rate > 0 and done >= total / 20 else "?"
        if self.terminal:
            columns = shutil.get_terminal_size().columns
            bar = "=" * (24 * done // max(total, 1))
            line = f"{self.title} [{bar:<24}] {done}/{total}  {rate:.1f}/s  ETA {left}  {what}"
            print("\r" + line[:columns - 1] + "\033[K", end="", flush=True)
        elif done >= self.next_share * total:
            self.next_share = done / max(total, 1) + 0.1
            print(f"{self.title}: {done} of {total}, {rate:.1f} a second, {left} left", flush=True)

    def close(self, ok):
        if self.terminal:
            print("\r\033[K", end="")
        elapsed = duration(time.monotonic() - self.started)
        if ok:
            print(f"{self.title}: " + (f"{self.total} steps in {elapsed}" if self.total else "nothing to do"), flush=True)
        else:
            print(f"{self.title}: failed after {elapsed}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--title", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
    display = Display(args.title, terminal)
    environment = dict(os.environ, NINJA_STATUS="[%f/%t] ")
    errors = []  # what the first failed commands printed
    failed = False
    with open(args.log, "w", encoding="utf-8") as log:
        process = subprocess.Popen(args.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                                   text=True, errors="replace")
        try:
            for line in process.stdout:
                log.write(line)
                status = STATUS.match(line)
                if status:
                    failed = False
                    display.show(int(status.group(1)), int(status.group(2)), status.group(3).rstrip())
                    continue
                failed = failed or line.startswith(("FAILED:", "ninja: error", "ninja: fatal"))
                if failed and len(errors) < MAX_ERROR_LINES:
                    errors.append(line)
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()
            code = 130
    display.close(code == 0)
    if code != 0:
        sys.stderr.writelines(errors)
    return code


if __name__ == "__main__":
    sys.exit(main())
