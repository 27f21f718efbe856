// Renders one message. A text of a user is a bubble, a text of the server is a notice, and an event
// without a text is one compact line.

import { avatar } from "./avatar.js";
import { element, linkify } from "./dom.js";
import { dayName, fullTime, shortTime } from "./time.js";

/** Returns the text in data: the data itself, or its `text`; null if it has none. */
function textOf(data) {
  if (typeof data === "string") {
    return data;
  }
  return typeof data?.text === "string" ? data.text : null;
}

/** Returns the text of a message, or null for an event. Every event of the server that has a `text` counts. */
export function messageText({ event, data, from }) {
  return event === "message" || (from === null && data?.text) ? textOf(data) : null;
}

/** Whether a message only deletes a state value, which is shown above the messages. */
export const deletesState = ({ state, data }) => state === true && data === null;

function renderText(text) {
  return element("div", { class: "text", dir: "auto" }, ...linkify(text));
}

function renderContent(message) {
  const text = messageText(message);
  if (text !== null) {
    return renderText(text);
  }
  const { event, data, answer } = message;
  const line = element("div", { class: "event-line" }, element("strong", {}, event), " ", renderData(data));
  return answer ? element("div", {}, line, renderText(answer)) : line;
}

/** Renders data in one line: its text, or all of it as JSON. */
export function renderData(data) {
  const text = textOf(data);
  if (text !== null) {
    return element("span", { dir: "auto" }, text);
  }
  return data === null ? null : element("code", { dir: "ltr" }, JSON.stringify(data));
}

function renderMeta(message, date) {
  const name = message.from ? element("bdi", { class: "name" }, message.from.name) : null;
  const time = element("time", { datetime: date.toISOString(), title: fullTime(date) }, shortTime(date));
  const direct = message.to ? element("span", { class: "direct" }, "only visible to you") : null;
  return element("div", { class: "meta" }, name, " ", time, direct && " ", direct);
}

/** Renders a message; `own` aligns it to the side of the user's own messages. */
export function renderMessage(message, own) {
  const date = new Date(message.time);
  const kind = messageText(message) === null ? "event" : message.from ? "user-text" : "notice";
  const classes = [
    "message",
    kind,
    own && "own",
    message.answer && "answered",
    deletesState(message) && "deletes-state",
  ];
  return element(
    "li",
    { class: classes.filter(Boolean).join(" "), "data-seq": message.seq },
    element("div", { class: "day" }, element("span", {}, dayName(date))),
    kind === "user-text" ? avatar(message.from.name) : null,
    element("div", { class: "bubble" }, renderMeta(message, date), renderContent(message)),
  );
}
