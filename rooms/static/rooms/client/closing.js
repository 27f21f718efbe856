// Which closed connections come back. The protocol's own codes say it by their range; of the
// codes that WebSocket itself defines only these mean "the server or the way to it is gone".

const PASSING = new Set([1001, 1005, 1006, 1011, 1012, 1013]);

export const SESSION_EXPIRED = 4005;
export const LOGGED_OUT = 4510;

/** Whether a client whose connection closed with `code` connects again. */
export function comesBack(code) {
  return PASSING.has(code) || (code >= 4000 && code < 4500);
}
