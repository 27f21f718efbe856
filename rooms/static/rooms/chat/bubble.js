// One message as an element. What a message says decides its form: people's words are bubbles, the
// server's words a notice, and events that the page does not know a compact line. Next: messages.js.

import { avatar } from "./avatar.js";
import { element, linked } from "./dom.js";
import { clockTime, dayName, fullTime } from "./time.js";

/** The text in data: the data itself, or its `text`. Null where it has none. */
function textOf(data) {
  if (typeof data === "string") {
    return data;
  }
  return typeof data?.text === "string" ? data.text : null;
}

/** The words of a message, or null where it is an event. What the server says is words wherever it has a `text`. */
export function wordsOf({ event, data, from }) {
  return event === "message" || (from === null && data?.text) ? textOf(data) : null;
}

/** Whether it only takes a current value away, which is seen where that stood. */
export const endsState = ({ state, data }) => state === true && data === null;

function content(message) {
  const words = wordsOf(message);
  if (words !== null) {
    return element("div", { class: "words", dir: "auto" }, ...linked(words));
  }
  const { event, data, answer } = message;
  const line = element("div", { class: "event-line" }, element("strong", {}, event), " ", value(data));
  return answer ? element("div", {}, line, element("div", { class: "words", dir: "auto" }, ...linked(answer))) : line;
}

/** Data as one line: its text, or else all of it as JSON. */
export function value(data) {
  const text = textOf(data);
  if (text !== null) {
    return element("span", { dir: "auto" }, text);
  }
  return data === null ? null : element("code", { dir: "ltr" }, JSON.stringify(data));
}

function meta(message, date) {
  const name = message.from ? element("bdi", { class: "name" }, message.from.name) : null;
  const time = element("time", { datetime: date.toISOString(), title: fullTime(date) }, clockTime(date));
  const only = message.to ? element("span", { class: "only" }, "only to you") : null;
  return element("div", { class: "meta" }, name, " ", time, only && " ", only);
}

/** `own` puts it on the writer's side of the page. */
export function bubble(message, own) {
  const date = new Date(message.time);
  const kind = wordsOf(message) === null ? "event" : message.from ? "said" : "notice";
  const classes = ["message", kind, own && "own", message.answer && "answered", endsState(message) && "void"];
  return element(
    "li",
    { class: classes.filter(Boolean).join(" "), "data-seq": message.seq },
    element("div", { class: "day" }, element("span", {}, dayName(date))),
    kind === "said" ? avatar(message.from.name) : null,
    element("div", { class: "bubble" }, meta(message, date), content(message)),
  );
}
