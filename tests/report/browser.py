"""A headless Chromium, spoken to by its DevTools protocol over a pipe: no port, no library.

The browser reads commands from its descriptor 3 and writes replies and events to 4, each a JSON
text ended by a zero byte.  It has a profile of its own, which is thrown away, and no network.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    # Whatever a page asked for by name would resolve to nothing.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
_PATIENCE_SECONDS = 60.0
#: Puts the two ends where the browser looks for them; above them first, where none is in the way.
_PLACE = (
    "import fcntl, os, sys; copy = lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD, 10);"
    " ends = copy({commands}), copy({answers}); os.dup2(ends[0], 3); os.dup2(ends[1], 4);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)

#: WCAG 2.2, 1.4.3: the ratio of text and what it stands on, over every text of the page.
CONTRAST = """
(() => {
  const parse = text => (text.match(/[0-9.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  let worst = [99, ''];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest('title, desc, style')) continue;
    const style = getComputedStyle(node), box = node.closest('g')?.querySelector('.shape');
    const ink = parse(node.closest('svg') ? style.fill : style.color);
    const ground = box ? parse(getComputedStyle(box).fill) : behind(node);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < worst[0]) worst = [ratio, walk.currentNode.data.trim()];
  }
  return worst;
})()
"""
#: Texts of pictures that run out of their box or over each other.
CROWDED = """
[...document.querySelectorAll('.picture svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()])
    .filter(([t, b]) => b.width);
  const frame = svg.getBoundingClientRect();
  const out = boxes.filter(([t, b]) => b.right > frame.right + 1 || b.left < frame.left - 1);
  const over = boxes.filter(([t, b], i) => boxes.some(([u, c], j) => j > i
    && b.left < c.right && c.left < b.right && b.top + 3 < c.bottom && c.top + 3 < b.bottom));
  const wide = boxes.filter(([t, b]) => {
    const rect = t.parentElement.tagName === 'g' && t.parentElement.querySelector('rect');
    return rect && b.right > rect.getBoundingClientRect().right;
  });
  return [...out, ...over, ...wide].map(([t]) => t.textContent);
})
"""
#: Pictures that neither fit their box nor say that they move, and cells of a table whose heading
#: is not seen and who do not say themselves what they are.
LOST = """
[...document.querySelectorAll('.picture')].filter(box => {
  const hint = box.parentElement.querySelector('.hint');
  return box.scrollWidth > box.clientWidth && !(hint && hint.getClientRects().length);
}).map(box => box.textContent.trim().split('\\n')[0]).concat(
  [...document.querySelectorAll('table')].filter(table => {
    const head = table.querySelector('thead');
    return head && head.getBoundingClientRect().right < 0;
  }).flatMap(table => {
    const heads = [...table.querySelectorAll('thead th')].length;
    return [...table.querySelectorAll('tbody td')].filter(cell => heads > 2 && cell.cellIndex > 0
      && cell.textContent.trim() && !cell.dataset.label && !cell.matches('.mark, .check')
      && cell.colSpan === 1 && !cell.querySelector('.badge'));
  }).map(cell => cell.textContent.trim()))
"""


def program() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a browser."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self._write, self._read = write_fd, read_fd
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.events: list[Mapping[str, Any]] = []

    def begin(self) -> None:
        """Open a page, and listen to everything it could complain about."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Security", "Audits"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: object) -> Mapping[str, Any]:
        """Send one command; return its result."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: Mapping[str, Any] = said["result"]
                return result

    def _next(self) -> Mapping[str, Any]:
        end = time.monotonic() + _PATIENCE_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has gone"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        said: Mapping[str, Any] = json.loads(line)
        if "method" in said:
            self.events.append(said)
        return said

    def show(self, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        """Load a file in a window so wide, by a reader who likes it light or dark."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask(
            "Emulation.setEmulatedMedia",
            media="",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.events.clear()
        self.ask("Page.navigate", url=path.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()
        # What the page complains of is told before this is answered.
        self.value("new Promise(done => requestAnimationFrame(() => done(1)))")

    def value(self, expression: str) -> Any:
        """Evaluate an expression beside the page, which itself may run nothing."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Return everything the console, the policy or the network complained about."""
        told = []
        for event in self.events:
            method, params = event["method"], event["params"]
            if method == "Log.entryAdded":
                told.append(params["entry"]["text"])
            elif method in {"Runtime.exceptionThrown", "Network.loadingFailed"}:
                told.append(json.dumps(params))
            elif method == "Audits.issueAdded":
                told.append(json.dumps(params["issue"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] != "log":
                told.append(json.dumps(params["args"]))
        return told

    def asked_for(self) -> list[str]:
        """Return every address the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, top: int = 0, height: int = 1600) -> bytes:
        """Return a piece of the page as a PNG, as wide as the window."""
        width = self.value("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def paper(self) -> bytes:
        """Print the page; return the PDF (A4)."""
        printed = self.ask(
            "Page.printToPDF",
            paperWidth=8.27,
            paperHeight=11.69,
            preferCSSPageSize=True,
            printBackground=False,
        )
        return base64.b64decode(printed["data"])


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser with one page for the block."""
    path = program()
    assert path is not None
    to_child, to_us = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="custody-", ignore_cleanup_errors=True) as folder:
        place = _PLACE.format(commands=to_child[0], answers=to_us[1])
        flags = [*_FLAGS, f"--user-data-dir={folder}/profile"]
        process = subprocess.Popen(
            [sys.executable, "-c", place, path, *flags],
            pass_fds=(to_child[0], to_us[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": folder},
        )
        os.close(to_child[0])
        os.close(to_us[1])
        page = Browser(to_child[1], to_us[0])
        try:
            page.begin()
            yield page
        finally:
            os.close(to_child[1])  # it ends when nobody can command it any more
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_us[0])
