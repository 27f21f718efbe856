// Client of the native protocol, independent of the DOM. It logs in, joins rooms, sends and receives
// messages, and restores all of this after a lost connection: an application receives every message of
// its rooms once and in order. docs/client-behaviour.md specifies the behaviour as numbered rules.
// Parts: client/connection.js (sockets), client/requests.js (matching replies), client/request-queue.js
// (order and resending), client/membership.js (position in a room).
//
//   const client = new RoomsClient("/ws/rooms/chat/");
//   client.on("message", ({ room, data, from }) => ...);
//   client.connect({ name: "ann" });
//   await client.join("lobby");
//   await client.send("lobby", { text: "Hello" });
//
// Events: the pushes of the protocol under their own names (message, joined, left, members, removed,
// room_added, room_removed), and
//   state           {state, code?, message?, delay?, canRetryNow?}, see client/connection.js
//   login           the user; after every connection
//   login_required  a RoomsError, with code "not_logged_in" if no login was tried; connect again with a name
//   room            the reply to a join and `fresh`; after a first join, a resume or a gap. If `fresh`,
//                   the messages replace all earlier ones, otherwise they are only those not yet received
//   error           a RoomsError that belongs to no request

import { LOGGED_OUT, SESSION_EXPIRED } from "./client/close-codes.js";
import { Connection } from "./client/connection.js";
import { Emitter } from "./client/emitter.js";
import { RoomsError, disconnected } from "./client/errors.js";
import { newKey } from "./client/key.js";
import { Membership } from "./client/membership.js";
import { RequestQueue } from "./client/request-queue.js";
import { Requests } from "./client/requests.js";
import { wakeOnBrowserEvents } from "./client/wake.js";

export { RoomsError };

const READ_REQUESTS = new Set(["rooms", "history", "members", "join"]);

export class RoomsClient extends Emitter {
  #connection;
  #requests;
  #queue;
  #storage;
  #storageKey;
  #name = null;
  #connectionCount = 0; // detects that a connection was replaced during an asynchronous step
  #memberships = new Map();

  /** The user of this connection, once logged in. */
  user = null;

  /** `options` replace the browser's objects in tests: WebSocket, storage, random. */
  constructor(url, options = {}) {
    super();
    this.#connection = new Connection(url, options);
    this.#requests = new Requests((frame) => this.#connection.send(frame));
    this.#queue = new RequestQueue((...request) => this.#requests.send(...request), options);
    this.#storage = options.storage ?? globalThis.sessionStorage;
    this.#storageKey = `rooms ${url}`;
    this.#connection.on("state", (change) => this.#handleState(change));
    this.#connection.on("frame", (frame) => this.#handleFrame(frame));
    wakeOnBrowserEvents(this.#connection);
  }

  /** Whether this tab stores a login token. */
  get hasStoredLogin() {
    return this.#storage.getItem(this.#storageKey) !== null;
  }

  /** Connects as the signed-in user, with the stored login, or as a guest called `name`. */
  connect({ name } = {}) {
    this.#name = name ?? this.#name;
    this.#connection.start();
  }

  /** Ends the connection. The login stays stored. */
  disconnect() {
    this.#connection.stop();
  }

  /** Connects at once, unless the server has set the time of the next attempt. */
  reconnect() {
    this.#connection.start();
    this.#connection.wake();
  }

  /** Leaves every room, deletes the stored login and disconnects. */
  async logout() {
    await this.#requests.send("logout").catch(() => {}); // the disconnect below ends the login in any case
    this.#storage.removeItem(this.#storageKey);
    this.#name = null;
    this.user = null;
    this.#memberships.clear();
    this.#queue.clear();
    this.disconnect();
  }

  /** Resolves with the reply. The client joins the room again after every reconnect until it leaves. */
  join(room, options = {}) {
    let membership = this.#memberships.get(room);
    if (!membership) {
      membership = new Membership(room, options);
      this.#memberships.set(room, membership);
    }
    return this.#sendJoin(membership).catch((error) => {
      this.#memberships.delete(room);
      throw error;
    });
  }

  async leave(room) {
    this.#memberships.delete(room);
    await this.#queue.push("leave", { room });
  }

  /**
   * Resolves with {seq, time} when the server acknowledges the message. To resend a failed message, pass the
   * same `key`: the server stores a message once. `onReply` is called with the reply before later frames are
   * handled. A `volatile` message is sent at once or fails.
   */
  async send(room, data, { key = newKey(), onReply, ...fields } = {}) {
    if (!fields.volatile) {
      return this.#queue.push("message", { room, data, key, ...fields }, { repeatable: true, onReply });
    }
    if (!this.#queue.isOpen || this.#memberships.get(room)?.joining) {
      throw disconnected();
    }
    return this.#requests.send("message", { room, data, ...fields }, onReply);
  }

  /** Sends any other request of the protocol, such as rooms, create, history, members or kick. */
  request(type, fields = {}) {
    return this.#queue.push(type, fields, { repeatable: READ_REQUESTS.has(type) });
  }

  #handleFrame(frame) {
    if (frame.type === "connected") {
      this.#handleConnected(frame.user ?? null);
    } else if (frame.type === "reply" || frame.type === "error") {
      if (!this.#requests.complete(frame) && frame.type === "error") {
        this.emit("error", new RoomsError(frame));
      }
    } else if (frame.type === "message") {
      this.#handleMessage(frame);
    } else {
      if (frame.type === "removed") {
        this.#memberships.delete(frame.room);
      } else if (frame.type === "closing") {
        this.#queue.close();
      }
      this.emit(frame.type, frame);
    }
  }

  async #handleConnected(user) {
    const current = ++this.#connectionCount;
    try {
      this.user = user ?? (await this.#login());
    } catch (error) {
      if (error.retry && (this.user || error.code !== "name_taken")) {
        if (current === this.#connectionCount) {
          this.#connection.retry(); // waiting on this connection would exceed the server's login timeout
        }
      } else {
        this.#name = null;
        this.disconnect();
        this.emit("login_required", error);
      }
      return;
    }
    this.#memberships.forEach((membership) => this.#rejoin(membership));
    this.emit("login", this.user);
    if (current === this.#connectionCount) {
      this.#queue.open();
    }
  }

  async #login() {
    const token = this.#storage.getItem(this.#storageKey);
    let refusal = new RoomsError({ code: "not_logged_in" });
    if (token !== null) {
      try {
        return this.#storeLogin(await this.#requests.send("login", { token }));
      } catch (error) {
        if (error.retry) {
          throw error;
        }
        this.#storage.removeItem(this.#storageKey);
        // An expired token is not worth an error message; a ban is.
        refusal = error.code === "bad_token" ? refusal : error;
      }
    }
    const name = this.#name ?? (this.user?.guest ? this.user.name : null);
    if (name === null) {
      throw refusal;
    }
    return this.#storeLogin(await this.#requests.send("login", { name }));
  }

  #storeLogin({ user, token }) {
    this.#storage.setItem(this.#storageKey, token);
    return user;
  }

  #sendJoin(membership) {
    if (membership.joining) {
      return membership.joining;
    }
    const done = () => {
      if (membership.joining === joining) {
        membership.joining = null;
      }
    };
    const joining = this.#queue.push("join", () => membership.request(), {
      room: membership.room,
      repeatable: true,
      // A rejoin precedes the messages that wait for its room, and is retried without a limit.
      urgent: membership.hasJoined,
      maxRetries: membership.hasJoined ? Infinity : undefined,
      onReply: (reply) => {
        done();
        if (this.#memberships.get(membership.room) === membership) {
          this.emit("room", { ...reply, ...membership.update(reply) });
        }
      },
    });
    membership.joining = joining;
    joining.then(done, done);
    return joining;
  }

  async #rejoin(membership) {
    try {
      await this.#sendJoin(membership);
    } catch (error) {
      if (this.#memberships.delete(membership.room)) {
        this.emit("removed", { room: membership.room, reason: error.code, message: error.message });
      }
    }
  }

  #handleMessage(frame) {
    const membership = this.#memberships.get(frame.room);
    const order = membership?.advance(frame.seq);
    if (order === "next") {
      this.emit("message", frame);
    } else if (order === "gap") {
      this.#rejoin(membership); // the reply contains the missing messages and this one
    }
  }

  #handleState(change) {
    if (change.state !== "open") {
      this.#connectionCount += 1;
      this.#queue.close();
      this.#requests.failAll();
    }
    if (change.code === SESSION_EXPIRED || change.code === LOGGED_OUT) {
      this.#storage.removeItem(this.#storageKey);
    }
    this.emit("state", change);
  }
}
