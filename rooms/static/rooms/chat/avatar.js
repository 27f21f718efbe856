// A round avatar for a name: its initials on a colour derived from the name.

import { element } from "./dom.js";

const COLOURS = 8;

function initials(name) {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...name].slice(0, 1);
  return letters.join("").toLocaleUpperCase();
}

function colour(name) {
  let hash = 0;
  for (const letter of name) {
    hash = (hash * 31 + letter.codePointAt(0)) % 9973;
  }
  return hash % COLOURS;
}

export function avatar(name) {
  return element("span", { class: `avatar avatar-${colour(name)}`, "aria-hidden": "true" }, initials(name));
}
