// The start page: open incidents and the last alerts, live. A client of /api and /ws/alerts like any other.
import { Follower } from "./client.js";         // of dashboards/client, as `make client` compiles it
import { Notifier } from "./push.js";

const $ = id => document.getElementById(id);
const SHOWN = 50, REDRAW_MS = 15000, RANK = { critical: 0, warning: 1, info: 2 };
const incidents = new Map();
let [asked, askedEnvironment] = ["incident", "environment"].map(name => new URLSearchParams(location.search).get(name) ?? "");
let recent = [], token = localStorage.getItem("streamgauge.token") || "", follower = null, figures = {};

const make = (tag, text, name) => { const e = document.createElement(tag); e.textContent = text; if (name) e.className = name; return e; };
const say = (text, name = "") => { $("state").textContent = text; $("state").className = name; };
const ago = ms => {
  const s = Math.max(0, (Date.now() - ms) / 1000);
  return s < 90 ? `${Math.round(s)} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : new Date(ms).toLocaleString();
};

function card(alert) {
  const li = make("li", "", alert.state === "resolved" ? "resolved" : alert.severity);
  if (alert.incident_id === asked) li.classList.add("asked");
  li.append(make("b", alert.title));
  if (alert.detail && alert.state !== "resolved") li.append(make("p", alert.detail));
  const when = make("small", `${alert.state} · ${alert.severity} · ${alert.environment} · ${ago(alert.ts)}`);
  when.title = new Date(alert.ts).toISOString();
  li.append(when);
  return li;
}

function draw() {
  const open = [...incidents.values()].sort((a, b) => RANK[a.severity] - RANK[b.severity] || b.opened_ms - a.opened_ms);
  $("open").replaceChildren(...(open.length ? open.map(card) : [make("li", "None. All quiet.", "resolved none")]));
  $("alerts").replaceChildren(...(recent.length ? recent.map(card) : [make("li", "None yet.", "none")]));
  const tiles = { "open incidents": incidents.size, "critical": open.filter(a => a.severity === "critical").length,
                  "models today": figures.models ?? "–", "anomalies today": figures.anomalies ?? "–" };
  $("figures").replaceChildren(...Object.entries(tiles).map(([name, value]) => {
    const div = make("div", ""); div.append(make("dt", name), make("dd", Number(value) >= 0 ? Number(value).toLocaleString() : value)); return div;
  }));
  document.title = incidents.size ? `(${incidents.size}) Streamgauge` : "Streamgauge";
}

async function ask(path, more = {}) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" }, ...more });
  if (answer.status === 401) throw new Error("token");
  if (!answer.ok) throw new Error((await answer.json()).message);
  return answer.status === 204 ? null : answer.json();
}

const notifier = new Notifier($("notify"), $("push-note"), ask);

// The incident that a notification was about: where it is on the page, or, if it is over, by itself on top.
let sought = "";
async function find() {
  if (!asked || asked === sought) return;
  sought = asked;
  const shown = () => $("open").querySelector(".asked");
  if (!shown()) {
    const list = make("ul", "");
    try {
      const story = await ask(`/api/incidents/${encodeURIComponent(asked)}?environment=${encodeURIComponent(askedEnvironment)}`);
      list.append(card(story.at(-1)));
    } catch (error) { list.append(make("li", error.message, "none asked")); }
    if (!shown()) $("asked").replaceChildren(make("h2", "The incident"), list);
  } else $("asked").replaceChildren();
  document.querySelector(".asked")?.scrollIntoView({ block: "center" });
}
navigator.serviceWorker?.addEventListener("message", event => {
  ({ incident: asked, environment: askedEnvironment } = event.data); sought = ""; draw(); find();
});

function login(text) {
  say(text, text ? "bad" : ""); $("login").hidden = false; $("board").hidden = true; $("token").focus();
}

// What is open and what was last, then whatever came over the socket while we asked.
async function load(since) {
  const [open, alerts] = await Promise.all([ask("/api/incidents?state=open&limit=1000"), ask(`/api/alerts?limit=${SHOWN}`)]);
  incidents.clear(); open.forEach(alert => incidents.set(alert.incident_id, alert));
  recent = alerts; since.forEach(take); draw();
  ask("/api/overview").then(found => {
    figures = { models: found.models.length, anomalies: found.counts.anomalies }; draw();
  }).catch(() => {});
}

function take(alert) {
  if (!recent.some(known => known.alert_id === alert.alert_id)) recent = [alert, ...recent].slice(0, SHOWN);
  if (alert.state === "resolved") incidents.delete(alert.incident_id); else incidents.set(alert.incident_id, alert);
}

function connect() {
  if (!token) return login("");
  document.cookie = `streamgauge_token=${encodeURIComponent(token)}; path=/api; samesite=strict`;
  let pending = [];
  const fresh = () => {      // a later load has what an earlier one still waits for
    const mine = pending = [...pending ?? []];
    load(mine).catch(error => { say(error.message, "bad"); mine.forEach(take); draw(); })
      .finally(() => { if (pending === mine) pending = null; find(); });
  };
  const refused = text => { follower.stop(); login(text); };
  const state = {
    live() { say("live", "live"); $("login").hidden = true; $("board").hidden = false; fresh(); notifier.resume(); },
    waiting() {
      say("reconnecting", "bad");
      ask("/api/incidents?limit=1").catch(error => { if (error.message === "token") refused("the token is wrong"); });
    },
    refused() { refused("the token has expired or was withdrawn"); },
  };
  follower = new Follower({
    url: location.origin, token, onMissed: fresh, onState: name => state[name]?.(),
    onAlert: alert => { if (pending) pending.push(alert); else { take(alert); draw(); } } }).start();
}

$("login").onsubmit = event => {
  event.preventDefault();
  token = $("token").value.trim(); $("token").value = "";
  localStorage.setItem("streamgauge.token", token);
  follower?.stop();
  connect();
};
$("leave").onclick = async () => {
  await notifier.end().catch(() => {});
  localStorage.removeItem("streamgauge.token");
  document.cookie = "streamgauge_token=; path=/api; max-age=0; samesite=strict";
  location.reload();
};
setInterval(() => { if (!$("board").hidden) draw(); }, REDRAW_MS);
connect();
