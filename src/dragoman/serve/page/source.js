// The box for the text. A copy behind it, out of sight but for its marks, gives it its height and shows which words
// belong to the word of the translation that is pointed at.

import { characters, find, make, number, setChildren, setLanguage } from "./dom.js";
import { partners } from "./draft.js";

export class SourceBox extends EventTarget {
  /** Dispatches "input" when the text changes, and "point" with {piece, word} or null when a word is pointed at. */
  constructor(limit) {
    super();
    this.box = find("source");
    this.mirror = find("mirror");
    this.limit = limit;
    this.pieces = []; // {key, node, marks}: a copy of each piece, and of each of its words
    this.box.addEventListener("input", () => this.#changed());
    this.box.addEventListener("pointermove", (event) => this.#point(this.#under(event)));
    this.box.addEventListener("pointerleave", () => this.#point(null));
    this.box.addEventListener("click", () => this.#point(this.#atCaret()));
    this.box.addEventListener("keyup", (event) => {
      if (/^(Arrow|Home|End|Page)/.test(event.key)) this.#point(this.#atCaret());
    });
    this.box.addEventListener("blur", () => this.#point(null));
    find("clear").addEventListener("click", () => {
      this.box.select();
      document.execCommand("delete"); // unlike an empty value, this can be undone
    });
    this.end = make("span", {}, "\u200b"); // gives a last empty line its height
    this.#count();
  }

  get text() { return this.box.value; }
  set text(text) {
    this.box.value = text;
    this.#changed();
  }

  get beforeCaret() { return this.text.slice(0, this.box.selectionStart); }
  get excess() { return this.limit ? characters(this.text) - this.limit : 0; }

  set language(code) {
    for (const node of [this.box, this.mirror]) setLanguage(node, code);
  }

  #changed() {
    this.#count();
    this.dispatchEvent(new Event("input"));
  }

  #count() {
    const count = characters(this.text);
    find("count").textContent = this.limit ? `${number(count)} of ${number(this.limit)} characters` : `${number(count)} characters`;
    find("count").classList.toggle("over", this.excess > 0);
    this.box.setAttribute("aria-invalid", String(this.excess > 0));
    find("clear").hidden = !this.text;
  }

  /** Bring the copy up to date; pieces that did not change keep their nodes. */
  draw(pieces) {
    const keyed = pieces.map((piece) => ({ key: piece.source + piece.after, piece }));
    const earlier = partners(this.pieces, keyed, (each) => each.key);
    this.pieces = keyed.map(({ key, piece }, i) => (earlier[i]?.key === key ? earlier[i] : { key, ...mirrored(piece) }));
    setChildren(this.mirror, [...this.pieces.map((piece) => piece.node), this.end]);
  }

  /** Mark these words of a piece, and no others. */
  highlight(piece, numbers) {
    for (const mark of this.mirror.querySelectorAll(".on")) mark.classList.remove("on");
    for (const word of numbers) this.pieces[piece]?.marks[word]?.classList.add("on");
  }

  #under(event) {
    return this.#place(document.elementsFromPoint(event.clientX, event.clientY).find((node) => node.matches("#mirror mark")));
  }

  #atCaret() {
    let left = this.box.selectionStart;
    if (left !== this.box.selectionEnd) return null;
    for (const { node } of this.pieces) {
      for (const part of node.childNodes) {
        if (part.nodeType === Node.ELEMENT_NODE && left <= part.textContent.length) return this.#place(part);
        left -= part.textContent.length;
        if (left < 0) return null;
      }
    }
    return null;
  }

  #place(mark) {
    const piece = mark ? this.pieces.findIndex((each) => each.node === mark.parentNode) : -1;
    return piece < 0 ? null : { piece, word: this.pieces[piece].marks.indexOf(mark) };
  }

  #point(place) {
    this.dispatchEvent(new CustomEvent("point", { detail: place }));
  }
}

/** Copy a piece, its words in marks: words are what white space separates, as in alignments. */
function mirrored(piece) {
  const parts = piece.source.split(/(\s+)/).filter(Boolean).map((part) => (/^\s/.test(part) ? part : make("mark", {}, part)));
  return { node: make("span", {}, ...parts, piece.after), marks: parts.filter((part) => typeof part !== "string") };
}
