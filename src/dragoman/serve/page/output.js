// The translation: sentences of words that can be pointed at, walked through with the arrow keys, and opened. Words
// that did not change keep their nodes, so that what stands does not flicker and a screen reader keeps its place.

import { announce, find, make, setChildren, setLanguage } from "./dom.js";
import { common, partners } from "./draft.js";
import { bare, glue, words } from "./words.js";

const UNSURE = 0.25; // of a word's least probable token; lower than most wrong guesses, so that few words are marked
const percent = (share) => `${Math.round(100 * share)}%`;

export class Output extends EventTarget {
  /** Dispatches "point" with {piece, word} or null, and "open" with {piece, start, text, node} of a word. */
  constructor() {
    super();
    this.node = find("output");
    this.sentences = []; // {key, node, words: [{text, start, end, number, sure, lead, node}], rest}
    this.at = null; // the word that the arrow keys have reached: {piece, word}
    this.node.addEventListener("pointerover", (event) => this.#point(this.#place(event.target)));
    this.node.addEventListener("pointerleave", () => this.#point(null));
    this.node.addEventListener("click", (event) => {
      this.at = this.#place(event.target);
      this.#open(this.at);
    });
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.node.addEventListener("focus", () => this.node.matches(":focus-visible") && this.#walk(this.at));
    this.node.addEventListener("blur", () => this.#unmark());
  }

  set language(code) {
    this.code = code;
    setLanguage(this.node, code);
  }

  draw(pieces) {
    const keyed = pieces.map((piece) => ({ key: identity(piece) }));
    const earlier = partners(this.sentences, keyed, (sentence) => sentence.key);
    this.sentences = pieces.map((piece, i) => {
      const sentence = earlier[i] ?? { node: make("span", { class: "sentence" }), words: [], rest: document.createTextNode("") };
      this.#fill(sentence, piece, i === pieces.length - 1);
      return sentence;
    });
    setChildren(this.node, this.sentences.map((sentence) => sentence.node));
    if (this.at && !this.#word(this.at)) this.#walk(null);
  }

  #fill(sentence, piece, last) {
    sentence.key = identity(piece);
    sentence.node.classList.toggle("stale", piece.stale);
    sentence.node.classList.toggle("chosen", Boolean(piece.choice));
    const between = glue(piece, piece.text, last);
    if (sentence.text === piece.text && sentence.after === between && sentence.candidate === piece.candidate) return;
    const sure = certainty(piece);
    const now = words(piece.text, this.code).map((word) => ({ ...word, sure: Math.min(1, ...sure.slice(word.start, word.end)) }));
    const { head, tail } = common(sentence.words, now, (word) => word.text);
    let end = 0;
    now.forEach((word, i) => {
      const kept = sentence.words[i < head ? i : i >= now.length - tail ? i - now.length + sentence.words.length : -1];
      word.lead = kept?.lead ?? document.createTextNode("");
      word.node = kept?.node ?? make("span", { class: "word" }, word.text);
      setText(word.lead, piece.text.slice(end, word.start));
      end = word.end;
      const unsure = word.sure < UNSURE;
      word.node.classList.toggle("unsure", unsure);
      if (unsure) word.node.title = `Less sure of this word (${percent(word.sure)})`;
      else word.node.removeAttribute("title");
    });
    setText(sentence.rest, piece.text.slice(end) + between);
    setChildren(sentence.node, [...now.flatMap((word) => [word.lead, word.node]), sentence.rest]);
    Object.assign(sentence, { words: now, text: piece.text, after: between, candidate: piece.candidate });
  }

  /** Give sentences a class, or take it: one truth value for each. */
  mark(name, which) {
    this.sentences.forEach(({ node }, i) => node.classList.toggle(name, which[i]));
  }

  /** Mark these words of a piece (numbers as in alignments), and no others. */
  highlight(piece, numbers) {
    for (const node of this.node.querySelectorAll(".word.on")) node.classList.remove("on");
    for (const word of this.sentences[piece]?.words ?? []) if (numbers.includes(word.number)) word.node.classList.add("on");
  }

  #place(target) {
    for (const [piece, sentence] of this.sentences.entries()) {
      const word = sentence.words.findIndex((each) => each.node === target);
      if (word >= 0) return { piece, word };
    }
    return null;
  }

  #word(place) {
    return this.sentences[place.piece]?.words[place.word];
  }

  #point(place) {
    const word = place && this.#word(place);
    this.dispatchEvent(new CustomEvent("point", { detail: word ? { piece: place.piece, word: word.number } : null }));
  }

  #open(place) {
    const word = place && this.#word(place);
    if (word) this.dispatchEvent(new CustomEvent("open", { detail: { piece: place.piece, start: word.start, text: word.text, node: word.node } }));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#open(this.at ?? this.#all()[0] ?? null);
      return;
    }
    if (event.key === "Escape") return this.#walk(null);
    const backwards = this.#rightToLeft();
    const step = { ArrowRight: backwards ? -1 : 1, ArrowLeft: backwards ? 1 : -1, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = this.#all();
    const here = this.at ? all.findIndex((place) => place.piece === this.at.piece && place.word === this.at.word) : step > 0 ? -1 : all.length;
    this.#walk(all[Math.max(0, Math.min(all.length - 1, here + step))] ?? null);
  }

  #all() {
    return this.sentences.flatMap((sentence, piece) => sentence.words.map((_, word) => ({ piece, word })));
  }

  #rightToLeft() {
    const node = (this.at && this.#word(this.at)?.node) ?? this.node;
    const strong = node.textContent.match(/\p{L}/u)?.[0] ?? "";
    return /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/.test(strong);
  }

  #unmark() {
    this.node.querySelector(".word.here")?.classList.remove("here");
    this.#point(null);
  }

  /** Go to a word by keyboard: it is marked as if pointed at, and said with its source. */
  #walk(place) {
    this.#unmark();
    this.at = place;
    if (!place) return;
    this.#point(place);
    const word = this.#word(place);
    word.node.classList.add("here");
    word.node.scrollIntoView({ block: "nearest" });
    const from = [...document.querySelectorAll("#mirror .on")].map((mark) => bare(mark.textContent)).join(" ");
    announce([bare(word.text), from && `from ${from}`, word.sure < UNSURE && "less sure"].filter(Boolean).join(", "));
  }
}

function setText(node, text) {
  if (node.data !== text) node.data = text;
}

const identity = (piece) => JSON.stringify([piece.source, piece.text]);

/** Return for each character the probability of its token, 1 for signs; nothing where the tokens spell another text. */
function certainty(piece) {
  const tokens = piece.candidate?.tokens ?? [];
  const spelled = tokens.map((token) => token.text).join("");
  if (spelled.trim() !== piece.text) return [];
  const found = tokens.flatMap(({ text, log_prob: logProb }) => text.split("").map((sign) => (/[\p{L}\p{N}]/u.test(sign) ? Math.exp(logProb) : 1)));
  return found.slice(spelled.length - spelled.trimStart().length);
}
