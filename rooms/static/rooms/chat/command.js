// What a written line says: words, or "/name and the rest", which is an event for the room's extension.

const COMMAND = /^\/([\w.-]{1,64})(?:\s+([^]*))?$/;

/** The rest of a command: as JSON where it is some ("7" is a number), else as the text that it is. */
function value(text) {
  try {
    const data = JSON.parse(text);
    // Of a number that JavaScript cannot hold only the text is true.
    return typeof data === "number" && Math.abs(data) > Number.MAX_SAFE_INTEGER ? text : data;
  } catch {
    return text;
  }
}

/** {event, data} of a line. */
export function parse(line) {
  const [, event, rest] = line.match(COMMAND) ?? [];
  return event ? { event, data: rest ? value(rest) : null } : { event: "message", data: { text: line } };
}
