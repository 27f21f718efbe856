// Matches replies to requests by `id`. A request belongs to one connection: when that is lost, every
// request in flight fails with "disconnected". request-queue.js resends where that is harmless.

import { RoomsError, disconnected } from "./errors.js";

export class Requests {
  #sendFrame;
  #inFlight = new Map();
  #lastId = 0;

  /** `sendFrame(frame)` returns whether the connection accepted the frame. */
  constructor(sendFrame) {
    this.#sendFrame = sendFrame;
  }

  /**
   * Resolves with the data of the reply. `onReply` is called with it before any later frame is handled;
   * the promise resolves too late for that, because one WebSocket message can hold several frames.
   */
  send(type, fields = {}, onReply = () => {}) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.#sendFrame({ type, id, ...fields })) {
        this.#inFlight.set(id, { resolve, reject, onReply });
      } else {
        reject(disconnected());
      }
    });
  }

  /** Completes the request of a "reply" or "error" frame; returns false if its id is unknown. */
  complete(frame) {
    const request = this.#inFlight.get(frame.id);
    if (!request) {
      return false;
    }
    this.#inFlight.delete(frame.id);
    if (frame.type === "reply") {
      request.onReply(frame.data);
      request.resolve(frame.data);
    } else {
      request.reject(new RoomsError(frame));
    }
    return true;
  }

  /** Fails every request in flight, because the connection is lost. */
  failAll() {
    const requests = [...this.#inFlight.values()];
    this.#inFlight.clear();
    requests.forEach(({ reject }) => reject(disconnected()));
  }
}
