// The client against a real WebSocket server that breaks, repeats, falls silent and refuses.
import assert from "node:assert/strict";
import test from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { Follower, after } from "../dist/index.js";

const it = (name, act) => test(name, { timeout: 60_000 }, act);
const alert = number => ({ type: "alert", id: `100-${number}`, group: "g", alert: { alert_id: `a-${number}` } });
const hello = (last = "100-0", heartbeat_ms = 60_000) => ({ type: "hello", last_id: last, heartbeat_ms, overflow: "resume" });

async function serve(talk) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await new Promise(resolve => server.once("listening", resolve));
  const asked = [];
  server.on("connection", (socket, request) => {
    asked.push({ query: new URL(request.url, "http://x").searchParams, protocol: socket.protocol });
    const say = message => socket.send(JSON.stringify(message));
    talk(asked.length, say, socket);
  });
  return { url: `http://127.0.0.1:${server.address().port}`, asked, close: () => new Promise(resolve => {
    server.clients.forEach(client => client.terminate());
    server.close(resolve);
  }) };
}

function follow(server, more = {}) {
  const got = [], missed = [], states = [];
  const follower = new Follower({
    url: server.url, token: "T", WebSocket, firstWaitMs: 5, longestWaitMs: 20, onAlert: found => got.push(found.alert_id),
    onMissed: found => missed.push(found), onState: state => states.push(state), ...more }).start();
  return { follower, got, missed, states };
}

async function until(condition) {
  for (let turn = 0; turn < 500; turn++) {
    if (condition()) return;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  assert.fail("it did not happen");
}

it("ids compare by number, not by letters", () => {
  assert.ok(after("100-10", "100-9"));
  assert.ok(after("1000-0", "999-99"));
  assert.ok(!after("100-9", "100-9"));
});

it("after a break it resumes from the last id, and nothing comes twice", async () => {
  const server = await serve((turn, say, socket) => {
    say(hello());
    if (turn === 1) { say(alert(1)); say(alert(2)); socket.close(1012); }
    else { say(alert(2)); say(alert(3)); }          // a gateway that repeats
  });
  const { follower, got } = follow(server, { lastId: "0" });
  await until(() => got.length === 3);
  assert.deepEqual(got, ["a-1", "a-2", "a-3"]);
  assert.equal(server.asked[0].query.get("last_id"), "0");
  assert.equal(server.asked[1].query.get("last_id"), "100-2");
  assert.equal(server.asked[0].protocol, "bearer.T");
  assert.equal(follower.lastId, "100-3");
  follower.stop();
  await server.close();
});

it("without a place it begins at the hello's, so that a break right after it loses nothing", async () => {
  const server = await serve((turn, say, socket) => { say(hello("100-7")); if (turn === 1) socket.close(1012); });
  const { follower } = follow(server);
  await until(() => server.asked.length === 2);
  assert.equal(server.asked[0].query.get("last_id"), null);
  assert.equal(server.asked[1].query.get("last_id"), "100-7");
  follower.stop();
  await server.close();
});

it("a heartbeat moves the place on, and a gap is told", async () => {
  const gap = { type: "missed", reason: "trimmed", count: null, from_id: "100-1", to_id: "100-5" };
  const server = await serve((_, say) => {
    say(hello()); say(gap); say({ type: "heartbeat", ts: 1, last_id: "100-9" });
    say({ type: "heartbeat", ts: 1, last_id: null });
  });
  const { follower, missed } = follow(server, { lastId: "0" });
  await until(() => follower.lastId === "100-9");
  assert.deepEqual(missed, [gap]);
  follower.stop();
  await server.close();
});

it("a line that falls silent is left for another", async () => {
  const server = await serve((_, say) => say(hello("100-0", 20)));
  const { follower, states } = follow(server);
  await until(() => server.asked.length >= 2);
  assert.ok(states.includes("waiting"));
  follower.stop();
  await server.close();
});

it("a withdrawn token ends it", async () => {
  const server = await serve((_, say, socket) => { say(hello()); socket.close(4401, "withdrawn"); });
  const { states } = follow(server);
  await until(() => states.includes("refused"));
  await new Promise(resolve => setTimeout(resolve, 100));
  assert.equal(server.asked.length, 1);
  await server.close();
});

it("filters go into the question", async () => {
  const server = await serve((_, say) => say(hello()));
  const { follower } = follow(server, { environment: "prod", model: "churn", severity: "critical", silenced: true });
  await until(() => server.asked.length === 1);
  assert.equal(server.asked[0].query.toString(), "environment=prod&model=churn&severity=critical&silenced=true");
  follower.stop();
  await server.close();
});
