// A WebSocket without a network; the methods after `close` act as the server.

import { RoomsClient } from "../../rooms/static/rooms/client.js";

export class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }

  sent = [];
  closedWith = null;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    FakeSocket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  push(...frames) {
    this.onmessage({ data: frames.map((frame) => JSON.stringify(frame)).join("\n") });
  }

  drop(code = 1006) {
    this.onclose({ code });
  }

  connected(user = null) {
    this.push({ type: "connected", connection: "c", application: "chat", user, ping: 25, version: 1 });
  }

  requests(type) {
    return this.sent.filter((frame) => frame.type === type);
  }

  reply(type, data, index = -1) {
    this.push({ type: "reply", id: this.requests(type).at(index).id, data });
  }

  refuse(type, code, { retry = false, index = -1 } = {}) {
    this.push({ type: "error", id: this.requests(type).at(index).id, code, message: code, retry });
  }
}

export class FakeStorage extends Map {
  getItem(key) {
    return this.get(key) ?? null;
  }
  setItem(key, value) {
    this.set(key, value);
  }
  removeItem(key) {
    this.delete(key);
  }
}

export const ANN = { name: "ann", id: "1", guest: false };
export const GUEST = { name: "gus", id: "g", guest: true };

/** Returns a client whose jitter is always the maximum, its storage, and its emitted events. */
export function makeClient() {
  FakeSocket.all = [];
  const storage = new FakeStorage();
  const client = new RoomsClient("ws://x/ws/rooms/chat/", { WebSocket: FakeSocket, storage, random: () => 1 });
  const events = [];
  for (const name of ["state", "login", "login_required", "room", "message", "removed", "joined", "error"]) {
    client.on(name, (detail) => events.push([name, detail]));
  }
  const emitted = (name) => events.filter(([event]) => event === name).map(([, detail]) => detail);
  return { client, storage, emitted };
}

/** Runs the reactions of settled promises. */
export async function runMicrotasks() {
  for (let turn = 0; turn < 20; turn += 1) {
    await null;
  }
}

export const message = (seq, room = "lobby") => ({
  type: "message",
  room,
  event: "message",
  data: { text: `message ${seq}` },
  from: ANN,
  seq,
  time: "2026-01-01T00:00:00.000Z",
});

export const joined = (seq, { messages = [], recovered = false, epoch = "e", room = "lobby" } = {}) => ({
  room: { name: room, title: room, mode: "open", owner: null, you: { send: true, moderate: false } },
  members: [ANN],
  count: 1,
  state: [],
  messages,
  recovered,
  position: seq === null ? null : { epoch, seq },
});
