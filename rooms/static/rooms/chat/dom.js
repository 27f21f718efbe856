// Makes elements. Text always goes in as text nodes, so nothing that anybody typed is ever read as HTML.

/** element("a", {class: "link", href: "/"}, "text", child): attributes that are null or false are left out. */
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

/** The element of the page's template with this `data-part`. */
export function part(name, root = document) {
  return root.querySelector(`[data-part="${name}"]`);
}

const ADDRESS = /(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/;

/** Text as nodes, in which web addresses are links. */
export function linked(text) {
  // Splitting by a pattern with one group puts what it found at the odd places.
  return text
    .split(ADDRESS)
    .map((piece, index) =>
      index % 2 ? element("a", { href: piece, target: "_blank", rel: "noopener noreferrer nofollow" }, piece) : piece,
    );
}
