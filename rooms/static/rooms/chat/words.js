// What happened, in plain words. Where a code is not listed, the server's own sentence is the better one.

const ERRORS = {
  bad_password: "That is not this room’s password.",
  banned: "You are banned here.",
  disconnected: "The connection was lost before the server could answer.",
  internal_error: "Something went wrong on the server. It has been noted there.",
  login_refused: "You cannot come in here.",
  message_too_large: "That message is too long.",
  muted: "You may read along here, but not write for now.",
  name_taken: "Somebody here has that name already. Choose another one.",
  not_logged_in: "You have been signed out.",
  not_member: "You are not in this room any more.",
  not_sender: "Only the owner of this room can write here.",
  permission_denied: "You are not allowed to do that.",
  rate_limited: "That was too fast. Wait a moment.",
  room_closed: "This room is closed.",
  room_exists: "There is a room with that name already.",
  room_not_found: "There is no such room.",
  unavailable: "The server cannot do that right now. Try again in a moment.",
};

const REMOVALS = {
  kicked: "You were removed from",
  banned: "You were banned from",
  closed: "This room was closed:",
  logged_out: "You left",
  bad_password: "The password has changed of",
  room_not_found: "This room is gone:",
};

const CLOSINGS = {
  1000: "The connection was ended.",
  4501: "You are not allowed in here.",
  4503: "You were removed from this chat.",
  4504: "You are banned from this chat.",
  4505: "There are too many connections from here. Close another tab and try again.",
  4506: "You are signed in somewhere newer, and this window was signed out.",
  4508: "Too much was sent at once, so the server hung up.",
  4509: "This chat does not exist any more.",
  4510: "You have been signed out.",
};

export const errorText = (error) => ERRORS[error.code] ?? error.message;

export const removalText = ({ reason, message }, title) =>
  message && !(reason in REMOVALS) ? `${title}: ${message}` : `${REMOVALS[reason] ?? "You are no longer in"} ${title}.`;

export const closingText = ({ code, message }) => CLOSINGS[code] ?? (message || "The connection was ended.");
