// Creates elements. Text is always inserted as text nodes, so input of users is never parsed as HTML.

/** element("a", {class: "link", href: "/"}, "text", child) omits attributes that are null or false. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      node.addEventListener(name, value);
    } else if (value !== null && value !== false && value !== undefined) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Returns the element of the page's template with this `data-part`. */
export function part(name, root = document) {
  return root.querySelector(`[data-part="${name}"]`);
}

const WEB_ADDRESS = /(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/;

/** Returns a text as nodes, in which web addresses are links. */
export function linkify(text) {
  // split() with one capturing group puts the matches at the odd indexes.
  return text
    .split(WEB_ADDRESS)
    .map((piece, index) =>
      index % 2 ? element("a", { href: piece, target: "_blank", rel: "noopener noreferrer nofollow" }, piece) : piece,
    );
}
