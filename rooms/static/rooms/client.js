// The client of the native protocol, without any page around it: it logs in, joins, sends and
// listens, and does all of that again after a lost connection, so that its user sees every message of
// its rooms once and in order. How it behaves is written in docs/client-behaviour.md, as numbered rules.
// Parts: client/connection.js (sockets), client/requests.js (replies), client/outbox.js (what is sent
// again), client/membership.js (where we stand in a room).
//
//   const client = new RoomsClient("/ws/rooms/chat/");
//   client.on("message", ({ room, data, from }) => ...);
//   client.connect({ name: "ann" });
//   await client.join("lobby");
//   await client.send("lobby", { text: "Hello" });
//
// Events: the pushes of the protocol under their own names (message, joined, left, members, removed,
// room_added, room_removed), and
//   state         {state, code?, message?, delay?, mayHurry?}, see client/connection.js
//   login         the user; after every connection
//   login_needed  the RoomsError, or one with code "not_logged_in": connect again with a name
//   room          a join's reply and whether it is `fresh`; after a first join, a resume or a gap.
//                 `messages` then holds only what was not handed on before
//   trouble       a RoomsError that answers no request

import { LOGGED_OUT, SESSION_EXPIRED } from "./client/closing.js";
import { Connection } from "./client/connection.js";
import { Emitter } from "./client/emitter.js";
import { RoomsError, disconnected } from "./client/errors.js";
import { newKey } from "./client/key.js";
import { Membership } from "./client/membership.js";
import { Outbox } from "./client/outbox.js";
import { Requests } from "./client/requests.js";
import { wakeOnReturn } from "./client/wake.js";

export { RoomsError };

const READS = new Set(["rooms", "history", "members", "join"]);

export class RoomsClient extends Emitter {
  #connection;
  #requests;
  #outbox;
  #storage;
  #storageKey;
  #name = null;
  #turn = 0; // counts connections, so that what one of them began does not go on in the next
  #memberships = new Map();

  /** The user whom the server knows us as, once logged in. */
  user = null;

  /** `options` are for tests and other surroundings: WebSocket, storage, random. */
  constructor(url, options = {}) {
    super();
    this.#connection = new Connection(url, options);
    this.#requests = new Requests((frame) => this.#connection.send(frame));
    this.#outbox = new Outbox((...question) => this.#requests.ask(...question), options);
    this.#storage = options.storage ?? globalThis.sessionStorage;
    this.#storageKey = `rooms ${url}`;
    this.#connection.on("state", (change) => this.#stateChanged(change));
    this.#connection.on("frame", (frame) => this.#receive(frame));
    wakeOnReturn(this.#connection);
  }

  /** Whether a login is remembered in this tab. */
  get remembered() {
    return this.#storage.getItem(this.#storageKey) !== null;
  }

  /** Connects, as the signed-in user, with the remembered login, or as a guest called `name`. */
  connect({ name } = {}) {
    this.#name = name ?? this.#name;
    this.#connection.start();
  }

  /** Ends the connection. The login stays remembered. */
  disconnect() {
    this.#connection.stop();
  }

  /** Does not wait for the next attempt, unless the server itself has told when that may be. */
  reconnect() {
    this.#connection.start();
    this.#connection.wake();
  }

  /** Leaves every room, forgets the login and disconnects. */
  async logout() {
    await this.#requests.ask("logout").catch(() => {}); // gone is gone, whether or not the server hears it
    this.#storage.removeItem(this.#storageKey);
    this.#name = null;
    this.user = null;
    this.#memberships.clear();
    this.#outbox.clear();
    this.disconnect();
  }

  /** Resolves with the join's reply. The room is joined again after every reconnect until left. */
  join(room, options = {}) {
    let membership = this.#memberships.get(room);
    if (!membership) {
      membership = new Membership(room, options);
      this.#memberships.set(room, membership);
    }
    return this.#enter(membership).catch((error) => {
      this.#memberships.delete(room);
      throw error;
    });
  }

  async leave(room) {
    this.#memberships.delete(room);
    await this.#outbox.push("leave", { room });
  }

  /**
   * Resolves with {seq, time} when the server has the message. To send again what failed, give the same
   * `key`: the server stores a message once. `onReply` is called with the answer before anything that
   * the server sent after it is handed on. What is `volatile` goes at once or not at all.
   */
  async send(room, data, { key = newKey(), onReply, ...fields } = {}) {
    if (!fields.volatile) {
      return this.#outbox.push("message", { room, data, key, ...fields }, { repeatable: true, onReply });
    }
    if (!this.#outbox.opened || this.#memberships.get(room)?.joining) {
      throw disconnected();
    }
    return this.#requests.ask("message", { room, data, ...fields }, onReply);
  }

  /** Any other request of the protocol, such as rooms, create, history, members or kick. */
  request(type, fields = {}) {
    return this.#outbox.push(type, fields, { repeatable: READS.has(type) });
  }

  #receive(frame) {
    if (frame.type === "connected") {
      this.#begin(frame.user ?? null);
    } else if (frame.type === "reply" || frame.type === "error") {
      if (!this.#requests.answer(frame) && frame.type === "error") {
        this.emit("trouble", new RoomsError(frame));
      }
    } else if (frame.type === "message") {
      this.#message(frame);
    } else {
      if (frame.type === "removed") {
        this.#memberships.delete(frame.room);
      } else if (frame.type === "closing") {
        this.#outbox.close();
      }
      this.emit(frame.type, frame);
    }
  }

  async #begin(user) {
    const turn = ++this.#turn;
    try {
      this.user = user ?? (await this.#login());
    } catch (error) {
      if (error.retry && (this.user || error.code !== "name_taken")) {
        if (turn === this.#turn) {
          this.#connection.retry(); // waiting here would only run into the time limit for logging in
        }
      } else {
        this.#name = null;
        this.disconnect();
        this.emit("login_needed", error);
      }
      return;
    }
    this.#memberships.forEach((membership) => this.#rejoin(membership));
    this.emit("login", this.user);
    if (turn === this.#turn) {
      this.#outbox.open();
    }
  }

  async #login() {
    const token = this.#storage.getItem(this.#storageKey);
    let refusal = new RoomsError({ code: "not_logged_in" });
    if (token !== null) {
      try {
        return this.#remember(await this.#requests.ask("login", { token }));
      } catch (error) {
        if (error.retry) {
          throw error;
        }
        this.#storage.removeItem(this.#storageKey);
        // That a token has had its day is nobody's concern; that its user is banned is.
        refusal = error.code === "bad_token" ? refusal : error;
      }
    }
    const name = this.#name ?? (this.user?.guest ? this.user.name : null);
    if (name === null) {
      throw refusal;
    }
    return this.#remember(await this.#requests.ask("login", { name }));
  }

  #remember({ user, token }) {
    this.#storage.setItem(this.#storageKey, token);
    return user;
  }

  #enter(membership) {
    if (membership.joining) {
      return membership.joining;
    }
    const done = () => {
      if (membership.joining === joining) {
        membership.joining = null;
      }
    };
    const joining = this.#outbox.push("join", () => membership.request(), {
      room: membership.room,
      repeatable: true,
      // Back into a room goes before what waits to be said there, and is asked for as long as it takes.
      urgent: membership.entered,
      patience: membership.entered ? Infinity : undefined,
      onReply: (reply) => {
        done();
        if (this.#memberships.get(membership.room) === membership) {
          this.emit("room", { ...reply, ...membership.enter(reply) });
        }
      },
    });
    membership.joining = joining;
    joining.then(done, done);
    return joining;
  }

  async #rejoin(membership) {
    try {
      await this.#enter(membership);
    } catch (error) {
      if (this.#memberships.delete(membership.room)) {
        this.emit("removed", { room: membership.room, reason: error.code, message: error.message });
      }
    }
  }

  #message(frame) {
    const membership = this.#memberships.get(frame.room);
    const place = membership?.place(frame.seq);
    if (place === "next") {
      this.emit("message", frame);
    } else if (place === "gap") {
      this.#rejoin(membership); // its reply brings what is missing, this message included
    }
  }

  #stateChanged(change) {
    if (change.state !== "open") {
      this.#turn += 1;
      this.#outbox.close();
      this.#requests.failAll();
    }
    if (change.code === SESSION_EXPIRED || change.code === LOGGED_OUT) {
      this.#storage.removeItem(this.#storageKey);
    }
    this.emit("state", change);
  }
}
