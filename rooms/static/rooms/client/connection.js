// One WebSocket after another to the same address: opens it, notices when it is dead, and opens
// the next one by the protocol's rules. It knows frames, not what they mean. Next: requests.js.
//
// Events: "frame" (one object of the server), "state" ({state, ...}) where state is
//   idle        not started, or stopped by us
//   connecting  a socket is on its way
//   open        the server has said "connected"
//   waiting     lost; the next attempt comes in `delay` milliseconds, or with wake() if it `mayHurry`
//   closed      ended by the server for good, with `code` and `message`

import { Backoff } from "./backoff.js";
import { comesBack } from "./closing.js";
import { Emitter } from "./emitter.js";

const PROTOCOL = "rooms.v1";
const STABLE_AFTER = 30_000; // open for so long, the back-off starts over
const PONG_WITHIN = 10_000; // beyond the server's own ping interval
const PROBE_WITHIN = 5_000; // for an answer when the machine has just woken up
const DEFAULT_PING = 25;

export class Connection extends Emitter {
  #url;
  #WebSocket;
  #backoff;
  #socket = null;
  #ping = DEFAULT_PING;
  #closing = null;
  #mayHurry = false;
  #timers = { silence: null, stable: null, retry: null };

  state = "idle";

  constructor(url, { WebSocket = globalThis.WebSocket, random = Math.random } = {}) {
    super();
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.#backoff = new Backoff({ random });
  }

  /** Connects, unless that is under way already. */
  start() {
    if (this.state === "idle" || this.state === "closed") {
      this.#open();
    }
  }

  /** Ends the connection and stays away. */
  stop() {
    this.#drop();
    this.#backoff.reset();
    this.#become("idle");
  }

  /** Gives this socket up and comes back after a back-off. */
  retry() {
    this.#lost(1006);
  }

  /** Whether the frame was handed to an open socket. */
  send(frame) {
    // After "closing" the server reads no more.
    if (this.state !== "open" || this.#closing) {
      return false;
    }
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** The machine or the tab came back: do not sit out a back-off, and find a dead socket quickly. */
  wake() {
    if (this.state === "waiting" && this.#mayHurry) {
      this.#open();
    } else if (this.send({ type: "ping" })) {
      this.#expectFrameWithin(PROBE_WITHIN);
    }
  }

  #open() {
    this.#drop();
    this.#closing = null;
    this.#ping = DEFAULT_PING;
    const socket = new this.#WebSocket(this.#url, PROTOCOL);
    this.#socket = socket;
    // A socket that was given up may still speak; only the current one is heard.
    const heard = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onmessage = heard((event) => this.#receive(event.data));
    socket.onclose = heard((event) => this.#lost(event.code));
    this.#expectFrame();
    this.#become("connecting");
  }

  #receive(text) {
    this.#expectFrame();
    const socket = this.#socket;
    for (const line of String(text).split("\n")) {
      // A listener may have ended this socket while the lines before were handled.
      if (line.trim() && socket === this.#socket) {
        this.#handle(JSON.parse(line));
      }
    }
  }

  #handle(frame) {
    if (frame.type === "ping") {
      this.send({ type: "pong" });
      return;
    }
    if (frame.type === "connected") {
      this.#ping = frame.ping ?? DEFAULT_PING;
      this.#expectFrame();
      this.#timers.stable = setTimeout(() => this.#backoff.reset(), STABLE_AFTER);
      this.#become("open");
    } else if (frame.type === "closing") {
      this.#closing = frame;
    }
    this.emit("frame", frame);
  }

  #lost(closeCode) {
    const closing = this.#closing;
    // Some servers turn every end into 1006; what was said before is then the better reason.
    const code = closeCode >= 4000 ? closeCode : (closing?.code ?? closeCode);
    this.#drop();
    if (!comesBack(code)) {
      this.#become("closed", { code, message: closing?.message ?? "" });
      return;
    }
    // The server has spread its clients by `retry_in` already: wait exactly that.
    this.#mayHurry = closing?.retry_in == null;
    const delay = this.#mayHurry ? this.#backoff.next() : closing.retry_in * 1000;
    this.#timers.retry = setTimeout(() => this.#open(), delay);
    this.#become("waiting", { code, delay, mayHurry: this.#mayHurry });
  }

  #expectFrame() {
    this.#expectFrameWithin(this.#ping * 1000 + PONG_WITHIN);
  }

  #expectFrameWithin(milliseconds) {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => this.#lost(1006), milliseconds);
  }

  #drop() {
    Object.values(this.#timers).forEach(clearTimeout);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #become(state, detail = {}) {
    this.state = state;
    this.emit("state", { state, ...detail });
  }
}
