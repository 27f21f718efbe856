// A round sign for a name: its first letters on a colour that is always the same for the same name.

import { element } from "./dom.js";

const COLOURS = 8;

function initials(name) {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...name].slice(0, 1);
  return letters.join("").toLocaleUpperCase();
}

function colour(name) {
  let sum = 0;
  for (const letter of name) {
    sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  }
  return sum % COLOURS;
}

export function avatar(name) {
  return element("span", { class: `avatar avatar-${colour(name)}`, "aria-hidden": "true" }, initials(name));
}
