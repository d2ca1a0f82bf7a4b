// The service worker: shows what is pushed, one notification an incident, and opens the incident when it is touched.
"use strict";
const MARK = { critical: "🔴", warning: "🟠", info: "🔵" };

async function show(alert) {
  const [shown] = await self.registration.getNotifications({ tag: alert.incident_id });
  const known = shown?.data;
  // Push services keep no order, and may repeat: what is newer stays, and only what is new makes a noise.
  const news = !known || (alert.alert_id !== known.alert_id && alert.ts >= known.ts);
  const told = news ? alert : known;
  const over = told.state === "resolved";
  await self.registration.showNotification(`${over ? "🟢" : MARK[told.severity] ?? ""} ${told.title}`.trim(), {
    body: told.model ? `${told.state} · ${told.severity} · ${told.environment}/${told.model}` : "", tag: told.incident_id, data: told,
    renotify: news, silent: !news || over, timestamp: told.ts, icon: "/static/icon-192.png",
    requireInteraction: told.severity === "critical" && !over });
}

async function open(link) {
  const url = new URL(link, self.location.origin);
  if (url.origin !== self.location.origin) return;
  const [page] = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (!page) { await self.clients.openWindow(url.href); return; }
  page.postMessage(Object.fromEntries(["incident", "environment"].map(name => [name, url.searchParams.get(name) ?? ""])));
  await page.focus();
}

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", event => event.waitUntil(self.clients.claim()));
self.addEventListener("push", event => {
  let alert;
  try { alert = event.data.json(); } catch { alert = { title: "Something that cannot be read", incident_id: "unreadable", ts: Date.now(), link: "/" }; }
  event.waitUntil(show(alert));
});
self.addEventListener("notificationclick", event => {
  event.notification.close();
  event.waitUntil(open(event.notification.data.link));
});
