/**
 * A follower of `/ws/alerts` or `/ws/anomalies`: it comes back after every break from the last id that it has, drops
 * what it has seen, and says what it cannot get. The protocol: gateway-asyncapi.json, by `streamgauge schemas`.
 */
/** The token has expired or was withdrawn: coming back does not help. */
const WITHDRAWN = 4401;
const SILENT_HEARTBEATS = 3;
/** Ids as numbers that compare: MILLISECONDS-NUMBER. */
export function after(id, other) {
    const [ms = "0", number = "0"] = id.split("-");
    const [otherMs = "0", otherNumber = "0"] = other.split("-");
    return BigInt(ms) > BigInt(otherMs) || (BigInt(ms) === BigInt(otherMs) && BigInt(number) > BigInt(otherNumber));
}
export class Follower {
    options;
    /** Everything up to it was seen; keep it, and begin from it next time. */
    lastId;
    socket;
    timer;
    watchdog;
    heartbeatMs = 15_000;
    waitMs;
    over = false;
    constructor(options) {
        this.options = options;
        this.lastId = options.lastId;
        this.waitMs = options.firstWaitMs ?? 500;
    }
    start() {
        this.connect();
        return this;
    }
    stop() {
        this.over = true;
        clearTimeout(this.timer);
        clearTimeout(this.watchdog);
        this.socket?.close(1000);
        this.options.onState?.("closed", "");
    }
    address() {
        const { options } = this;
        const query = new URLSearchParams();
        for (const name of ["environment", "model", "severity", "overflow"]) {
            const value = options[name];
            if (value)
                query.set(name, value);
        }
        if (options.silenced)
            query.set("silenced", "true");
        if (options.leads)
            query.set("leads", "true");
        if (this.lastId !== undefined)
            query.set("last_id", this.lastId);
        return `${options.url.replace(/^http/, "ws").replace(/\/$/, "")}/ws/${options.kind ?? "alerts"}?${query}`;
    }
    connect() {
        this.options.onState?.("connecting", "");
        const Class = this.options.WebSocket ?? globalThis.WebSocket;
        const socket = new Class(this.address(), [`bearer.${this.options.token}`]);
        this.socket = socket;
        this.alive(socket);
        socket.onmessage = event => {
            if (socket !== this.socket || this.over)
                return;
            this.take(JSON.parse(String(event.data))); // the first one says how often to expect the next
            this.alive(socket);
        };
        socket.onerror = () => undefined; // a close follows
        socket.onclose = event => this.gone(socket, event.code, event.reason);
    }
    gone(socket, code, reason) {
        if (socket !== this.socket || this.over)
            return;
        clearTimeout(this.watchdog);
        this.socket = undefined;
        if (code === WITHDRAWN) {
            this.over = true;
            this.options.onState?.("refused", reason);
            return;
        }
        this.options.onState?.("waiting", reason);
        this.timer = setTimeout(() => this.connect(), this.waitMs * (0.5 + Math.random() / 2));
        this.waitMs = Math.min(2 * this.waitMs, this.options.longestWaitMs ?? 10_000);
    }
    /** A line that says nothing for three heartbeats is dead, whatever TCP thinks. */
    alive(socket) {
        clearTimeout(this.watchdog);
        this.watchdog = setTimeout(() => {
            socket.close();
            this.gone(socket, 1006, "silent");
        }, SILENT_HEARTBEATS * this.heartbeatMs);
    }
    take(message) {
        switch (message.type) {
            case "hello":
                this.heartbeatMs = message.heartbeat_ms;
                this.waitMs = this.options.firstWaitMs ?? 500;
                this.lastId ??= message.last_id;
                this.options.onState?.("live", "");
                break;
            case "heartbeat":
                this.seen(message.last_id ?? undefined);
                break;
            case "missed":
                this.options.onMissed?.(message);
                this.seen(message.to_id);
                break;
            case "alert":
            case "anomaly":
                if (this.lastId === undefined || after(message.id, this.lastId)) {
                    this.lastId = message.id;
                    this.options.onAlert(message[message.type], message.id, message.group ?? "");
                }
        }
    }
    seen(id) {
        if (id !== undefined && (this.lastId === undefined || after(id, this.lastId)))
            this.lastId = id;
    }
}
