// A series of WebSockets to one address: opens a socket, detects a dead one and reconnects by the rules of
// the protocol. It parses frames and leaves their meaning to ../client.js.
//
// Events: "frame" (one object of the server), "state" ({state, ...}) where state is
//   idle        not started, or stopped by the client
//   connecting  a socket is opening
//   open        the server has sent "connected"
//   waiting     lost; the next attempt starts in `delay` milliseconds, or with wake() if `canRetryNow`
//   closed      ended by the server for good, with `code` and `message`

import { Backoff } from "./backoff.js";
import { shouldReconnect } from "./close-codes.js";
import { Emitter } from "./emitter.js";

const SUBPROTOCOL = "rooms.v1";
const STABLE_AFTER = 30_000; // milliseconds open until the back-off is reset
const PONG_TIMEOUT = 10_000; // milliseconds in addition to the server's ping interval
const PROBE_TIMEOUT = 5_000; // milliseconds for a reply to the ping sent by wake()
const DEFAULT_PING_INTERVAL = 25; // seconds, as the server sends it

export class Connection extends Emitter {
  #url;
  #WebSocket;
  #backoff;
  #socket = null;
  #pingInterval = DEFAULT_PING_INTERVAL;
  #closing = null;
  #canRetryNow = false;
  #timers = { silence: null, stable: null, retry: null };

  state = "idle";

  constructor(url, { WebSocket = globalThis.WebSocket, random = Math.random } = {}) {
    super();
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.#backoff = new Backoff({ random });
  }

  /** Connects, unless an attempt is already under way. */
  start() {
    if (this.state === "idle" || this.state === "closed") {
      this.#open();
    }
  }

  /** Ends the connection and does not reconnect. */
  stop() {
    this.#discardSocket();
    this.#backoff.reset();
    this.#setState("idle");
  }

  /** Closes this socket and reconnects after a back-off. */
  retry() {
    this.#handleClose(1006);
  }

  /** Sends a frame; returns whether an open socket accepted it. */
  send(frame) {
    // After "closing" the server reads no more frames.
    if (this.state !== "open" || this.#closing) {
      return false;
    }
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** Ends a back-off, or checks quickly whether the open socket still works. */
  wake() {
    if (this.state === "waiting" && this.#canRetryNow) {
      this.#open();
    } else if (this.send({ type: "ping" })) {
      this.#setSilenceTimeout(PROBE_TIMEOUT);
    }
  }

  #open() {
    this.#discardSocket();
    this.#closing = null;
    this.#pingInterval = DEFAULT_PING_INTERVAL;
    const socket = new this.#WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    // A discarded socket can still emit events; only those of the current socket count.
    const ifCurrent = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onmessage = ifCurrent((event) => this.#handleData(event.data));
    socket.onclose = ifCurrent((event) => this.#handleClose(event.code));
    this.#resetSilenceTimeout();
    this.#setState("connecting");
  }

  #handleData(text) {
    this.#resetSilenceTimeout();
    const socket = this.#socket;
    for (const line of String(text).split("\n")) {
      // A listener can end this socket while an earlier line is handled.
      if (line.trim() && socket === this.#socket) {
        this.#handleFrame(JSON.parse(line));
      }
    }
  }

  #handleFrame(frame) {
    if (frame.type === "ping") {
      this.send({ type: "pong" });
      return;
    }
    if (frame.type === "connected") {
      this.#pingInterval = frame.ping ?? DEFAULT_PING_INTERVAL;
      this.#resetSilenceTimeout();
      this.#timers.stable = setTimeout(() => this.#backoff.reset(), STABLE_AFTER);
      this.#setState("open");
    } else if (frame.type === "closing") {
      this.#closing = frame;
    }
    this.emit("frame", frame);
  }

  #handleClose(closeCode) {
    const closing = this.#closing;
    // Some servers replace every close code by 1006; the code of the "closing" frame is then the right one.
    const code = closeCode >= 4000 ? closeCode : (closing?.code ?? closeCode);
    this.#discardSocket();
    if (!shouldReconnect(code)) {
      this.#setState("closed", { code, message: closing?.message ?? "" });
      return;
    }
    // The server has already spread its clients by `retry_in`: wait exactly that time.
    this.#canRetryNow = closing?.retry_in == null;
    const delay = this.#canRetryNow ? this.#backoff.next() : closing.retry_in * 1000;
    this.#timers.retry = setTimeout(() => this.#open(), delay);
    this.#setState("waiting", { code, delay, canRetryNow: this.#canRetryNow });
  }

  #resetSilenceTimeout() {
    this.#setSilenceTimeout(this.#pingInterval * 1000 + PONG_TIMEOUT);
  }

  #setSilenceTimeout(milliseconds) {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => this.#handleClose(1006), milliseconds);
  }

  #discardSocket() {
    Object.values(this.#timers).forEach(clearTimeout);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #setState(state, details = {}) {
    this.state = state;
    this.emit("state", { state, ...details });
  }
}
