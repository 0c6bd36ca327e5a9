// Small helpers for the document: find, make, say aloud.

export const find = (id) => document.getElementById(id);

/** Make an element. Attributes that are null or undefined are left out; on... are listeners; children are nodes or text. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Make these the children of a node; those that stand where they should are not touched. */
export function setChildren(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, i) => {
    if (parent.childNodes[i] !== node) parent.insertBefore(node, parent.childNodes[i] ?? null);
  });
}

/** Say which language a node is in; "" for one that is not known. */
export function setLanguage(node, code) {
  if (code) node.lang = code;
  else node.removeAttribute("lang");
}

/** Copy a text that a node shows; return whether that was allowed. Without TLS browsers offer the old way only. */
export async function copied(text, node) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}

/** Say a text to screen readers, when they have finished what they are saying. */
export function announce(text) {
  find("said").textContent = text;
}

/** Wire a dialog: its Close button, and a click beside it. Return a function that opens it. */
export function dialog(id, prepare) {
  const node = find(id);
  node.querySelector("[data-close]").addEventListener("click", () => node.close());
  node.addEventListener("click", (event) => {
    if (event.target === node) node.close();
  });
  return () => {
    prepare();
    if (!node.open) node.showModal();
  };
}

/** Return a number as people of this browser's language write it. */
export const number = (value) => value.toLocaleString();

/** Return the count of a text as the server counts it: in characters, not in UTF-16 units. */
export function characters(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
