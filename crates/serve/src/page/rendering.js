// A text in Markdown as elements that grow with it: what stands there already is changed, not built again, so that
// nothing flickers, and a selection stays. Knows no rules of Markdown.

import { copy } from "./basics.js";
import { parse } from "./markdown.js";

/// One growing text in an element.
export class Rendering {
  constructor(element) {
    this.element = element;
    this.base = 0; // so many characters
    this.count = 0; // and blocks are settled
  }

  /// `text` is what was shown before and more; `open` while still more may come.
  show(text, open) {
    const rest = text.slice(this.base);
    const nodes = parse(rest, open);
    patch(this.element, nodes, this.count);
    // The last line can change the last block, and the one before it by becoming part of it; none before those.
    const settled = nodes.length - 2;
    if (settled <= 0) return;
    const lines = rest.split("\n").slice(0, nodes[settled].line);
    this.base += lines.reduce((sum, line) => sum + line.length + 1, 0);
    this.count += settled;
  }
}

/// Makes the children of an element, from one on, what the nodes say.
function patch(parent, nodes, from = 0) {
  nodes.forEach((node, index) => {
    const isText = typeof node === "string";
    let child = parent.childNodes[from + index];
    if (child?.nodeName !== (isText ? "#text" : node.tag.toUpperCase())) {
      const fresh = isText ? document.createTextNode("") : document.createElement(node.tag);
      if (child) child.replaceWith(fresh);
      else parent.append(fresh);
      child = fresh;
    }
    if (isText) {
      write(child, node);
    } else {
      dress(child, node.attributes);
      patch(child, node.children);
    }
  });
  while (parent.childNodes.length > from + nodes.length) parent.lastChild.remove();
}

function write(child, text) {
  if (text.startsWith(child.data)) {
    if (text.length > child.data.length) child.appendData(text.slice(child.data.length));
  } else {
    child.data = text;
  }
}

function dress(child, attributes) {
  for (const name of child.getAttributeNames()) if (!(name in attributes)) child.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (child.getAttribute(name) !== value) child.setAttribute(name, value);
  }
}

/// Lets the copy buttons of all code within an element work.
export function watchCopies(element) {
  element.addEventListener("click", (event) => {
    const button = event.target.closest(".copy-code");
    if (button) copy(button.closest(".code").querySelector("code").textContent, button);
  });
}
