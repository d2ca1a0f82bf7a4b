// "Notify me on this device": a browser's subscription to web push, and the same at /api/push.
const bytes = text => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), c => c.charCodeAt(0));
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
const ID = "streamgauge.push", PATIENCE_MS = 20_000;
/** Browsers without a push service, or behind a wall, may leave the question open for ever. */
const soon = (promise, text) => Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(text)), PATIENCE_MS))]);

/** Why this browser cannot, or nothing. */
function missing() {
  if (!window.isSecureContext) return "Notifications need https (or this machine's own localhost).";
  if (!("serviceWorker" in navigator) || !("PushManager" in window) || !("Notification" in window))
    return /iPhone|iPad/.test(navigator.userAgent) ? "On this device, first add the page to the home screen."
      : "This browser has no web push.";
  if (Notification.permission === "denied") return "Notifications of this page are blocked in the browser's settings.";
  return "";
}

export class Notifier {
  /** `call(path, options)`: fetch with the token, which throws the gateway's message. */
  constructor(button, note, call) {
    Object.assign(this, { button, note, call, on: false });
    button.onclick = () => this.toggle();
    this.say(missing());
  }

  say(text, able = !text) {
    this.button.textContent = this.on ? "Stop notifying this device" : "Notify me on this device";
    this.button.disabled = !able; this.note.textContent = text;
  }

  /** What the browser has subscribed already is subscribed again: the token, or the gateway's key, may be another. */
  async resume() {
    if (missing() || !localStorage.getItem(ID)) return;
    try {
      const worker = await navigator.serviceWorker.getRegistration("/");
      if (await worker?.pushManager.getSubscription()) await this.subscribe(); else localStorage.removeItem(ID);
    } catch (error) { this.say(error.message, true); }
  }

  async toggle() {
    this.say("One moment …", false);
    try {
      if (this.on) await this.end();
      else if (await Notification.requestPermission() === "granted") await this.subscribe();
      this.say(missing());
    } catch (error) { this.say(error.message, true); }
  }

  async subscribe() {
    const { key } = await this.call("/api/push/key");
    await navigator.serviceWorker.register("/worker.js", { scope: "/" });
    const worker = await navigator.serviceWorker.ready;
    let own = await worker.pushManager.getSubscription();
    if (own && !same(new Uint8Array(own.options.applicationServerKey ?? []), bytes(key))) { await own.unsubscribe(); own = null; }
    own ??= await soon(worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: bytes(key) }),
                       "The browser's push service does not answer.");
    const { endpoint, keys } = own.toJSON();
    const kept = await this.call("/api/push/subscriptions", { method: "POST", body: JSON.stringify({ endpoint, keys }) });
    localStorage.setItem(ID, kept.id);
    this.on = true; this.say("");
  }

  /** End it here and at the gateway; that one forgets it by itself if it cannot be asked now. */
  async end() {
    const id = localStorage.getItem(ID);
    localStorage.removeItem(ID);
    this.on = false;
    const worker = await navigator.serviceWorker?.getRegistration("/");
    await (await worker?.pushManager.getSubscription())?.unsubscribe();
    if (id) await this.call(`/api/push/subscriptions/${id}`, { method: "DELETE" }).catch(() => {});
  }
}
