/**
 * A follower of `/ws/alerts` or `/ws/anomalies`: it comes back after every break from the last id that it has, drops
 * what it has seen, and says what it cannot get. The protocol: gateway-asyncapi.json, by `streamgauge schemas`.
 */

export type Severity = "info" | "warning" | "critical";

/** A transition of an incident; see alerts.schema.json for all of its fields. */
export interface Alert {
  alert_id: string;
  incident_id: string;
  environment: string;
  model: string;
  version: string;
  component: string;
  state: "open" | "escalated" | "acknowledged" | "noted" | "resolved";
  cause: string;
  severity: Severity;
  title: string;
  detail: string;
  /** Event time, epoch milliseconds; so are the others that end in `_ms`. */
  ts: number;
  opened_ms: number;
  onset_ms: number;
  actor?: string;
  note?: string;
  [field: string]: unknown;
}

export interface Missed {
  type: "missed";
  reason: "slow" | "trimmed";
  /** null: unknown. */
  count: number | null;
  from_id: string;
  to_id: string;
}

export type State = "connecting" | "live" | "waiting" | "refused" | "closed";

export interface Options {
  /** Of the gateway: https://HOST or http://HOST:PORT. */
  url: string;
  token: string;
  kind?: "alerts" | "anomalies";
  environment?: string;
  model?: string;
  severity?: Severity;
  /** Also what falls under a silence. */
  silenced?: boolean;
  /** Of open incidents of one cause, only the first. */
  leads?: boolean;
  /** Resume after this id; "0": everything that is kept; absent: from now on. */
  lastId?: string;
  overflow?: "resume" | "gap" | "close";
  onAlert(alert: Alert, id: string, group: string): void;
  onMissed?(missed: Missed): void;
  onState?(state: State, why: string): void;
  /** Where there is no global WebSocket (Node before 22). */
  WebSocket?: SocketClass;
  firstWaitMs?: number;
  longestWaitMs?: number;
}

interface Socket {
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: unknown) => void) | null;
  close(code?: number): void;
}
type SocketClass = new (url: string, protocols: string[]) => Socket;

/** The token has expired or was withdrawn: coming back does not help. */
const WITHDRAWN = 4401;
const SILENT_HEARTBEATS = 3;

/** Ids as numbers that compare: MILLISECONDS-NUMBER. */
export function after(id: string, other: string): boolean {
  const [ms = "0", number = "0"] = id.split("-");
  const [otherMs = "0", otherNumber = "0"] = other.split("-");
  return BigInt(ms) > BigInt(otherMs) || (BigInt(ms) === BigInt(otherMs) && BigInt(number) > BigInt(otherNumber));
}

export class Follower {
  /** Everything up to it was seen; keep it, and begin from it next time. */
  lastId: string | undefined;
  private socket: Socket | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setTimeout> | undefined;
  private heartbeatMs = 15_000;
  private waitMs: number;
  private over = false;

  constructor(private readonly options: Options) {
    this.lastId = options.lastId;
    this.waitMs = options.firstWaitMs ?? 500;
  }

  start(): this {
    this.connect();
    return this;
  }

  stop(): void {
    this.over = true;
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    this.socket?.close(1000);
    this.options.onState?.("closed", "");
  }

  private address(): string {
    const { options } = this;
    const query = new URLSearchParams();
    for (const name of ["environment", "model", "severity", "overflow"] as const) {
      const value = options[name];
      if (value) query.set(name, value);
    }
    if (options.silenced) query.set("silenced", "true");
    if (options.leads) query.set("leads", "true");
    if (this.lastId !== undefined) query.set("last_id", this.lastId);
    return `${options.url.replace(/^http/, "ws").replace(/\/$/, "")}/ws/${options.kind ?? "alerts"}?${query}`;
  }

  private connect(): void {
    this.options.onState?.("connecting", "");
    const Class = this.options.WebSocket ?? (globalThis as unknown as { WebSocket: SocketClass }).WebSocket;
    const socket = new Class(this.address(), [`bearer.${this.options.token}`]);
    this.socket = socket;
    this.alive(socket);
    socket.onmessage = event => {
      if (socket !== this.socket || this.over) return;
      this.take(JSON.parse(String(event.data))); // the first one says how often to expect the next
      this.alive(socket);
    };
    socket.onerror = () => undefined; // a close follows
    socket.onclose = event => this.gone(socket, event.code, event.reason);
  }

  private gone(socket: Socket, code: number, reason: string): void {
    if (socket !== this.socket || this.over) return;
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
  private alive(socket: Socket): void {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      socket.close();
      this.gone(socket, 1006, "silent");
    }, SILENT_HEARTBEATS * this.heartbeatMs);
  }

  private take(message: { type: string; [field: string]: any }): void {
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
        this.options.onMissed?.(message as unknown as Missed);
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

  private seen(id: string | undefined): void {
    if (id !== undefined && (this.lastId === undefined || after(id, this.lastId))) this.lastId = id;
  }
}
