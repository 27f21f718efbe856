// What the server refuses, as an exception with the protocol's own error code.

export class RoomsError extends Error {
  constructor({ code, message = "", retry = false }) {
    super(message || code);
    this.name = "RoomsError";
    this.code = code;
    this.retry = retry;
  }
}

/** The answer to a request whose connection went away before the reply: it may have happened or not. */
export const disconnected = () =>
  new RoomsError({ code: "disconnected", message: "The connection was lost.", retry: true });

/** The answer to a request for which there is no place to wait. */
export const queueFull = (most) =>
  new RoomsError({ code: "queue_full", message: `${most} requests are waiting already.`, retry: true });
