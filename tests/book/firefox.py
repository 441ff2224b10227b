"""A stock Firefox, by WebDriver BiDi: what Playwright speaks, only a Firefox of its own knows."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from websockets.sync.client import ClientConnection, connect

ALONE: dict[str, str | int] = {  # nothing but this machine, whatever Firefox itself wants to know
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}
OVERLAY = {"ui.useOverlayScrollbars": 1}  # bars that take no room, as on a phone and in Chromium
COLOURS = "layout.css.prefers-color-scheme.content-override"
EVENTS = [
    "log.entryAdded",
    "network.beforeRequestSent",
    "network.fetchError",
    "network.responseCompleted",
]
# Of an expression its value, of a function what it returns; as text, since others come in pieces.
EVALUATE = """async (source) => {
  const value = (0, eval)(source);
  return JSON.stringify(await (typeof value === "function" ? value() : value)) ?? "null";
}"""


class Tab:
    """The tab of a Firefox, as far as the tests need what Playwright's has."""

    def __init__(self, socket: ClientConnection, width: int, height: int) -> None:
        self.socket = socket
        self.asked = 0
        self.events: list[dict[str, Any]] = []
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=EVENTS)
        self.place = self.ask("browsingContext.getTree")["contexts"][0]["context"]
        size = {"width": width, "height": height}
        self.ask("browsingContext.setViewport", context=self.place, viewport=size)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; what happens until it is answered is kept."""
        self.asked += 1
        self.socket.send(json.dumps({"id": self.asked, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.asked:
            self.events.append(answer)
        if answer["type"] == "error":
            raise RuntimeError(f"Firefox refuses {method}: {answer['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def goto(self, address: str) -> None:
        self.ask("browsingContext.navigate", context=self.place, url=address, wait="complete")

    def evaluate(self, source: str) -> Any:
        answer = self.ask(
            "script.callFunction",
            functionDeclaration=EVALUATE,
            arguments=[{"type": "string", "value": source}],
            target={"context": self.place},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])


@contextmanager
def firefox(
    program: str, profile: Path, colours: Literal["light", "dark"], width: int, height: int = 900
) -> Iterator[Tab]:
    """Start a Firefox with a new profile, and end it."""
    settings = ALONE | OVERLAY | {COLOURS: ["dark", "light"].index(colours)}
    lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in settings.items())
    profile.joinpath("user.js").write_text("".join(lines), encoding="utf-8")
    command = [program, "--headless", "--no-remote", "--remote-debugging-port", "0"]
    log = profile / "log"
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen([*command, "--profile", str(profile)], stderr=said) as process,
    ):
        try:
            address = address_in(log, process)
            with connect(f"{address}/session", max_size=None, ping_interval=None) as socket:
                yield Tab(socket, width, height)
        finally:
            process.terminate()


def address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until a Firefox has said where it listens."""
    while process.poll() is None:
        if found := re.search(r"BiDi listening on (ws://\S+)\n", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"Firefox ended before it listened: {log.read_text(encoding='utf-8')}")
