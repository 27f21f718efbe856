// Parses a line of input: a text, or a command "/name value", which is an event for the room's extension.

const COMMAND = /^\/([\w.-]{1,64})(?:\s+([^]*))?$/;

/** Parses the value of a command: as JSON if it is valid JSON ("7" is a number), otherwise as text. */
function parseValue(text) {
  try {
    const data = JSON.parse(text);
    // A number outside the safe range would be rounded, so it stays a text.
    return typeof data === "number" && Math.abs(data) > Number.MAX_SAFE_INTEGER ? text : data;
  } catch {
    return text;
  }
}

/** Returns the {event, data} of a line. */
export function parse(line) {
  const [, event, value] = line.match(COMMAND) ?? [];
  return event ? { event, data: value ? parseValue(value) : null } : { event: "message", data: { text: line } };
}
