"""The gateway's page in a browser: the button, the service worker's notifications, and the incident they open.

Chromium of Linux distributions has no push service behind it. So the page's `PushManager` is given a subscription of
the tests' own push service, which takes, checks and decrypts what a worker pushes; DevTools hands that to the service
worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from push_world import PushService, push_service
from stores_world import PATIENCE_S, TOKEN, Gateway, an_alert, gateway, opened, world
from websockets.asyncio.client import ClientConnection, connect

from agents.alerts.push import PushSink
from streams.kafka import create_topics
from streams.push.keys import push_keys
from streams.settings import Settings
from streams.topics import ALERTS

BUTTON = "document.getElementById('notify')"
NOTE = "document.getElementById('push-note').textContent"
SHOWN = ("navigator.serviceWorker.ready.then(worker => worker.getNotifications()).then(all => all.map("
         "one => [one.title, one.tag, one.silent]))")


class Chromium:
    """One, by the DevTools protocol."""

    def __init__(self, line: ClientConnection) -> None:
        self.events: list[dict[str, Any]] = []
        self._line = line
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self._line:
            said = json.loads(text)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self.events.append(said)

    async def do(self, method: str, tab: str = "", **more: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._line.send(json.dumps({"id": number, "method": method, "params": more}
                                         | ({"sessionId": tab} if tab else {})))
        said = await asyncio.wait_for(answer, PATIENCE_S)
        assert "error" not in said, said
        return dict(said["result"])

    async def tab(self, url: str, before: str = "") -> str:
        """A page whose first script is `before`."""
        target = await self.do("Target.createTarget", url="about:blank")
        tab = str((await self.do("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"])
        await self.do("Page.enable", tab)
        await self.do("Page.addScriptToEvaluateOnNewDocument", tab,
                      source=f"localStorage.setItem('streamgauge.token', '{TOKEN}'); {before}")
        await self.do("Page.navigate", tab, url=url)
        return tab

    async def js(self, tab: str, code: str) -> Any:
        said = await self.do("Runtime.evaluate", tab, expression=code, awaitPromise=True, returnByValue=True)
        return said["result"].get("value")

    async def until(self, tab: str, code: str, right: Callable[[Any], bool]) -> Any:
        """What the code says once that is right."""
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not right(found := await self.js(tab, code)):
                    await asyncio.sleep(0.05)
        assert right(found), (code, found)
        return found


@pytest.fixture
async def chromium(tmp_path: Path) -> AsyncIterator[Chromium]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here")
    process = await asyncio.create_subprocess_exec(
        found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'chromium'}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            while b"DevTools listening on" not in (said := await process.stderr.readline()):
                assert said, "Chromium has ended"
        async with connect(said.decode().split()[-1], max_size=None, proxy=None) as line:
            yield Chromium(line)
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str, tansu: str) -> Settings:
    found = await world(tmp_path, postgres_url, valkey_url, kafka_url=tansu, push_private_endpoints=True)
    await create_topics(found)
    return found


async def grant(browser: Chromium, running: Gateway) -> None:
    """What somebody says who is asked whether the page may notify them."""
    await browser.do("Browser.grantPermissions", origin=running.page, permissions=["notifications"])


def standing_in(service: PushService) -> str:
    """A browser's half of a subscription, for all pages of its origin."""
    return f"const wish = {json.dumps(service.device('phone'))};" + """
        const own = key => ({ options: { applicationServerKey: key }, toJSON: () => wish,
          unsubscribe: async () => { localStorage.removeItem("test.own"); return true; } });
        PushManager.prototype.subscribe = async options => {
          if (!options.userVisibleOnly) throw new Error("not visible");
          localStorage.setItem("test.own", Array.from(options.applicationServerKey).join());
          return own(options.applicationServerKey.buffer);
        };
        PushManager.prototype.getSubscription = async () => {
          const key = localStorage.getItem("test.own");
          return key ? own(Uint8Array.from(key.split(",")).buffer) : null;
        };"""


async def registration(browser: Chromium, tab: str) -> str:
    """The service worker's, as DevTools names it."""
    await browser.do("ServiceWorker.enable", tab)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for event in browser.events:
                for one in event["params"].get("registrations", []):
                    return str(one["registrationId"])
            await asyncio.sleep(0.05)


async def test_a_phone_shows_an_incident_once_and_opens_it(settings: Settings, chromium: Chromium) -> None:
    incident = {"incident_id": "incident-1", "severity": "critical"}
    async with (opened(settings) as hot, gateway(settings) as running,
                push_service(push_keys(settings).public) as service):
        await hot.append_alert(an_alert(1, **incident))
        await grant(chromium, running)
        stand_in = standing_in(service)
        tab = await chromium.tab(running.page, stand_in)
        await chromium.until(tab, "document.getElementById('state').textContent", lambda text: text == "live")
        await chromium.js(tab, f"{BUTTON}.click()")
        await chromium.until(tab, f"{BUTTON}.textContent", lambda text: text == "Stop notifying this device")
        assert [one["host"] for one in await running.get("/api/push/subscriptions")] == ["127.0.0.1"]

        sink = PushSink(settings, push_keys(settings))
        tell = (await sink.open())[ALERTS.name]
        await tell([an_alert(1, **incident), an_alert(2, **incident | {"state": "resolved"}), an_alert(3)])
        await sink.close()
        known = await registration(chromium, tab)
        fired, over, other = service.told["phone"]
        for message, shown in (
                (fired, [["🔴 churn is slow (1)", "incident-1", False]]),
                (fired, [["🔴 churn is slow (1)", "incident-1", True]]),        # a repeat makes no noise
                (over, [["🟢 churn is slow (2)", "incident-1", True]]),
                (fired, [["🟢 churn is slow (2)", "incident-1", True]]),        # one that was overtaken changes nothing
                (other, [["🟠 churn is slow (3)", "incident-3", False], ["🟢 churn is slow (2)", "incident-1", True]])):
            await chromium.do("ServiceWorker.deliverPushMessage", tab, origin=running.page, registrationId=known,
                              data=json.dumps(message))
            await chromium.until(tab, SHOWN, lambda found, shown=shown: sorted(found) == sorted(shown))

        linked = await chromium.tab(running.page + fired["link"], stand_in)
        await chromium.until(linked, "document.querySelector('#open .asked b')?.textContent",
                             lambda text: text == "churn is slow (1)")
        await chromium.until(linked, f"{BUTTON}.textContent", lambda text: text == "Stop notifying this device")
        await chromium.js(linked, f"{BUTTON}.click()")
        await chromium.until(linked, f"{BUTTON}.textContent", lambda text: text == "Notify me on this device")
        assert await running.get("/api/push/subscriptions") == []
        assert (await chromium.do("Page.getAppManifest", tab))["errors"] == []
        assert (await chromium.do("Page.getInstallabilityErrors", tab))["installabilityErrors"] == []


@pytest.mark.parametrize(("before", "says"), [
    ("delete window.PushManager;", "no web push"),
    ("Object.defineProperty(window, 'isSecureContext', { value: false });", "https"),
    ("Object.defineProperty(Notification, 'permission', { value: 'denied' });", "blocked")])
async def test_where_it_cannot_be_the_button_says_why(settings: Settings, chromium: Chromium, before: str, says: str
                                                      ) -> None:
    async with gateway(settings) as running:
        tab = await chromium.tab(running.page, before)
        await chromium.until(tab, f"[{BUTTON}.disabled, {NOTE}]", lambda found: found and found[0] and says in found[1])


async def test_what_the_gateway_refuses_is_said_beside_the_button(settings: Settings, chromium: Chromium) -> None:
    async with gateway(settings.model_copy(update={"push_subscriptions": 0})) as running:
        await grant(chromium, running)
        tab = await chromium.tab(running.page)
        await chromium.until(tab, "document.getElementById('state').textContent", lambda text: text == "live")
        await chromium.js(tab, f"{BUTTON}.click()")
        await chromium.until(tab, NOTE, lambda text: "STREAMGAUGE_PUSH_KEY" in text)
        assert await chromium.js(tab, f"{BUTTON}.disabled") is False
