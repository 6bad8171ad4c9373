"""A headless Chromium that looks at one page, over the DevTools protocol on a pipe: nothing but Python's standard library.

    with Chromium() as browser:
        page = browser.open("report.html", width=390, dark=True)
        page.problems        # requests beyond the file itself, messages on the console, exceptions
        page.evaluate("document.documentElement.scrollWidth")
        page.screenshot("narrow.png")

Also as a command that photographs a page as docs/ shows it: python3 chromium.py PAGE OUTPUT.png [--width W] [--dark] ...
"""
import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
LIMIT_S = 60


def find():
    """The program's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """The browser; a context manager. Everything it leaves behind goes with it."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def pipes():  # the browser reads from 3 and writes to 4
            os.dup2(to_browser, 1003)
            os.dup2(from_browser, 1004)
            os.dup2(1003, 3)
            os.dup2(1004, 4)
            os.closerange(5, 1005)

        self._process = subprocess.Popen(
            [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
             "--hide-scrollbars", "--font-render-hinting=none", f"--user-data-dir={self._folder.name}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
            preexec_fn=pipes, start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._events = b"", 0, []
        return self

    def __exit__(self, *unused):
        os.close(self._write)
        os.close(self._read)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        # Its children may still be dying in there.
        for _ in range(50):
            try:
                self._folder.cleanup()
                return
            except OSError:
                time.sleep(0.1)

    def _message(self, until):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(f"Chromium said nothing for {LIMIT_S} s")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("Chromium ended by itself")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def call(self, method, session=None, **values):
        """What the browser answers to a method of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + LIMIT_S
        while True:
            answer = self._message(until)
            if answer.get("id") != self._number:
                self._events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            return answer["result"]

    def wait_for(self, event, session):
        """Events so far, up to and including the first of that name."""
        until = time.monotonic() + LIMIT_S
        while not any(e.get("method") == event and e.get("sessionId") == session for e in self._events):
            self._events.append(self._message(until))

    def events(self, session):
        return [e for e in self._events if e.get("sessionId") == session]

    def open(self, path, width=1280, height=900, dark=False, scale=1):
        """The page of a file, loaded, in a window of that size."""
        return Page(self, pathlib.Path(path).resolve().as_uri(), width, height, dark, scale)


class Page:
    def __init__(self, browser, address, width, height, dark, scale):
        self._browser, self.address = browser, address
        self._width, self._height, self._scale = width, height, scale
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self._resize(height)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=address)
        browser.wait_for("Page.loadEventFired", self._session)

    def call(self, method, **values):
        return self._browser.call(method, self._session, **values)

    def _resize(self, height):
        self.call("Emulation.setDeviceMetricsOverride", width=self._width, height=height, deviceScaleFactor=self._scale,
                  mobile=False)

    @property
    def problems(self):
        """Whatever a page that needs nothing else must not do, in words."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = []
        for event in self._browser.events(self._session):
            values = event["params"]
            if event["method"] == "Network.requestWillBeSent" and values["request"]["url"] != self.address:
                found.append(f"asks for {values['request']['url']}")
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(f"console: {values['type']} {values['args']}")
            elif event["method"] == "Runtime.exceptionThrown":
                found.append(f"exception: {values['exceptionDetails']['text']}")
            elif event["method"] == "Log.entryAdded":
                found.append(f"log: {values['entry']['text']}")
        return found

    def evaluate(self, expression):
        """The value of a JavaScript expression; a promise's once it is there."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    def screenshot(self, path, full=True, top=0):
        """A PNG of the whole page, or of a window's height from `top` on."""
        if full:
            self._resize(int(self.evaluate("document.documentElement.scrollHeight")))
        self.evaluate(f"window.scrollTo(0, {top})")
        data = self.call("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def pdf(self, path):
        """The page on A4."""
        data = self.call("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page")
    parser.add_argument("output")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--full", action="store_true", help="the whole page, not a window of it")
    flags = parser.parse_args()
    with Chromium() as browser:
        page = browser.open(flags.page, flags.width, flags.height, flags.dark)
        if flags.output.endswith(".pdf"):
            page.pdf(flags.output)
        else:
            page.screenshot(flags.output, flags.full, flags.top)


if __name__ == "__main__":
    main()
