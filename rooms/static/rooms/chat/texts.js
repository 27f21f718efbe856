// The texts for error codes, removals and close codes. For a code that is not listed, the page shows the
// server's message.

const ERRORS = {
  bad_password: "The password is wrong.",
  disconnected: "The connection was lost before the server answered.",
  internal_error: "The server could not process this. The error is in its log.",
  message_too_large: "This message is too long.",
  name_taken: "This name is already in use. Choose another one.",
  not_logged_in: "You are signed out.",
  not_member: "You are no longer in this room.",
  not_sender: "Only the owner of this room can send messages.",
  permission_denied: "You do not have permission to do this.",
  rate_limited: "Too many requests. Wait a moment.",
  room_closed: "This room is closed.",
  room_exists: "A room with this name already exists.",
  room_not_found: "This room does not exist.",
  unavailable: "The server is not available at the moment. Try again later.",
};

// Reasons of a removal by the server; a message of the server is more specific.
const REMOVALS = {
  kicked: (title) => `You were removed from ${title}.`,
  banned: (title) => `You are banned from ${title}.`,
  closed: (title) => `${title} was closed.`,
  logged_out: (title) => `You left ${title}.`,
};

// Errors of a join after a reconnect; these texts are more specific than the message of the server.
const REJOIN_ERRORS = {
  bad_password: (title) => `The password of ${title} has changed.`,
  room_not_found: (title) => `${title} no longer exists.`,
};

const BANNED = 4504;

const CLOSE_CODES = {
  1000: "The connection was closed.",
  4501: "You cannot enter this chat.",
  4503: "You were removed from this chat.",
  [BANNED]: "You are banned from this chat.",
  4505: "There are too many connections from your address. Close another tab and try again.",
  4506: "You signed in on another device or in another window. This window is signed out.",
  4508: "The server closed the connection after too many requests.",
  4509: "This chat is closed.",
  4510: "You are signed out.",
};

export const errorText = (error) => ERRORS[error.code] ?? error.message;

export const memberCount = (count) => (count === 1 ? "1 member" : `${count} members`);

/** Returns an extension's answer to the sender: its `text`, or all of it as JSON; null if it is empty. */
export function answerText(answer) {
  if (Object.keys(answer).length === 0) {
    return null;
  }
  return typeof answer.text === "string" ? answer.text : JSON.stringify(answer);
}

export function removalText({ reason, message }, title) {
  if (message && !(reason in REJOIN_ERRORS)) {
    return `${title}: ${message}`;
  }
  const text = REJOIN_ERRORS[reason] ?? REMOVALS[reason];
  return text ? text(title) : `You are no longer in ${title}.`;
}

export function closeText({ code, message }) {
  // For a ban the message of the server can contain the reason.
  const reason = code === BANNED ? message : "";
  return reason || CLOSE_CODES[code] || message || "The connection was closed.";
}
