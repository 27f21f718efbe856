// Close codes after which the client reconnects. The range of a protocol code decides; of the codes that
// WebSocket itself defines, only those in RETRYABLE mean a server or network failure.

const RETRYABLE = new Set([1001, 1005, 1006, 1011, 1012, 1013]);

export const SESSION_EXPIRED = 4005;
export const LOGGED_OUT = 4510;

/** Whether a client whose connection closed with `code` connects again. */
export function shouldReconnect(code) {
  return RETRYABLE.has(code) || (code >= 4000 && code < 4500);
}
