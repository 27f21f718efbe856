// Matches answers to questions by `id`. A question belongs to one connection: when that is lost,
// every open question fails with "disconnected". Who wants it asked again uses outbox.js.

import { RoomsError, disconnected } from "./errors.js";

export class Requests {
  #send;
  #open = new Map();
  #lastId = 0;

  /** `send(frame)` tells whether the frame went out. */
  constructor(send) {
    this.#send = send;
  }

  /**
   * Resolves with the reply's data. `onReply` is called with it before any later frame is handled;
   * a promise is too late for that, because several frames may arrive in one piece.
   */
  ask(type, fields = {}, onReply = () => {}) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.#send({ type, id, ...fields })) {
        this.#open.set(id, { resolve, reject, onReply });
      } else {
        reject(disconnected());
      }
    });
  }

  /** Takes a "reply" or "error" frame. Errors without a known id are nobody's answer: returns false. */
  answer(frame) {
    const question = this.#open.get(frame.id);
    if (!question) {
      return false;
    }
    this.#open.delete(frame.id);
    if (frame.type === "reply") {
      question.onReply(frame.data);
      question.resolve(frame.data);
    } else {
      question.reject(new RoomsError(frame));
    }
    return true;
  }

  /** The connection is gone. */
  failAll() {
    const questions = [...this.#open.values()];
    this.#open.clear();
    questions.forEach(({ reject }) => reject(disconnected()));
  }
}
