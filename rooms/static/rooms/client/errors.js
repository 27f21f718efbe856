// Errors of requests, with the error codes of the protocol.

export class RoomsError extends Error {
  constructor({ code, message = "", retry = false }) {
    super(message || code);
    this.name = "RoomsError";
    this.code = code;
    this.retry = retry;
  }
}

/** The connection was lost before the reply: the server may have processed the request. */
export const disconnected = () =>
  new RoomsError({ code: "disconnected", message: "The connection was lost.", retry: true });

/** The request queue has reached its limit. */
export const queueFull = (limit) =>
  new RoomsError({ code: "queue_full", message: `The queue is full: ${limit} requests wait.`, retry: true });
