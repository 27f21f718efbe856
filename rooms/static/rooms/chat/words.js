// What happened, in plain words. Where a code is not listed, the server's own sentence is the better one.

const ERRORS = {
  bad_password: "That is not this room’s password.",
  disconnected: "The connection was lost before the server could answer.",
  internal_error: "Something went wrong on the server. It has been noted there.",
  message_too_large: "That message is too long.",
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

// Why one is out of a room: where the server says no more than that, and where it says it worse.
const REMOVALS = {
  kicked: "You were removed from",
  banned: "You were banned from",
  closed: "This room was closed:",
  logged_out: "You left",
};
const FAILED_RETURNS = {
  bad_password: "The password has changed of",
  room_not_found: "This room is gone:",
};

const BANNED = 4504;

const CLOSINGS = {
  1000: "The connection was ended.",
  4501: "You are not allowed in here.",
  4503: "You were removed from this chat.",
  [BANNED]: "You are banned from this chat.",
  4505: "There are too many connections from here. Close another tab and try again.",
  4506: "You are signed in somewhere newer, and this window was signed out.",
  4508: "Too much was sent at once, so the server hung up.",
  4509: "This chat is closed.",
  4510: "You have been signed out.",
};

export const errorText = (error) => ERRORS[error.code] ?? error.message;

/** What an extension answered to its sender alone: its `text`, or all of it; null where it answered nothing. */
export function answerText(answer) {
  if (Object.keys(answer).length === 0) {
    return null;
  }
  return typeof answer.text === "string" ? answer.text : JSON.stringify(answer);
}

export function removalText({ reason, message }, title) {
  if (message && !(reason in FAILED_RETURNS)) {
    return `${title}: ${message}`;
  }
  return `${FAILED_RETURNS[reason] ?? REMOVALS[reason] ?? "You are no longer in"} ${title}.`;
}

export function closingText({ code, message }) {
  // The server may know why.
  const reason = code === BANNED ? message : "";
  return reason || CLOSINGS[code] || message || "The connection was ended.";
}
