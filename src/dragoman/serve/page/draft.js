// The text being translated and what stands as its translation. Knows neither the document nor the network.
//
// What stands is not rewritten without need:
// - The text is divided into sentences where the model translates sentence by sentence, else into lines. What has been
//   answered is remembered by its source, so only sentences that changed are asked again; the others stay.
// - While a sentence is being changed, its earlier translation stands in its place until the new one is there.
// - Where the reader has chosen a word, the translation up to it is a forced beginning, and stays one as long as the
//   sentence only grows at its end. Without a choice nothing is forced: half a sentence would fix the wrong words.
// - When typing rests, lines of several sentences are asked again as a whole. Where the server divides a line otherwise
//   than this page, its answer to the whole replaces ours: the box says what a list or a file would.

import { glue, pieces } from "./words.js";

const MOST_REMEMBERED = 2000; // answers
const LONG = 200; // characters of a long sentence
const plain = (text) => text.split(/\s+/).join(" ").trim();

export class Draft {
  #answers = new Map(); // source and forced beginning -> answer; cleared when model or glossary change
  #choices = new Map(); // source -> {prefix} or {candidate}
  #whole = new Set(); // lines that the server does not divide as we do
  #checked = new Set(); // lines whose sentences, put together, are the server's answer
  #shown = []; // the pieces as they stand
  #text = "";

  constructor() {
    this.splits = true;
    this.language = "en";
  }

  /** Forget all answers: another model, another glossary. */
  reset({ splits, language }) {
    Object.assign(this, { splits, language });
    for (const known of [this.#answers, this.#choices, this.#whole, this.#checked]) known.clear();
    this.#shown = [];
    return this.update(this.#text);
  }

  /**
   * Take the text, and return its pieces: {source, after, line, start, text, stale, answer, candidate, choice}. `text` is
   * what stands; `candidate` is what it was taken from. While a piece is `stale`, it has the text of an earlier one.
   */
  update(text) {
    this.#text = text;
    const before = this.#shown;
    const now = pieces(text, this.language, (line) => !this.splits || this.#whole.has(line));
    const earlierOnes = partners(before, now, (piece) => piece.source);
    let start = 0;
    this.#shown = now.map((piece, i) => {
      const earlier = earlierOnes[i];
      this.#keepChoice(earlier?.source, piece.source);
      const found = { ...piece, start, ...this.#standing(piece.source, earlier) };
      start += piece.source.length + piece.after.length;
      return found;
    });
    return this.#shown;
  }

  #standing(source, earlier) {
    const choice = this.#choices.get(source);
    const answer = source ? this.#answers.get(this.#name(source)) : null;
    if (answer) {
      const candidate = choice?.candidate ?? answer.candidates[0];
      return { answer, choice, candidate, text: candidate.text, stale: false };
    }
    return { answer: null, choice, candidate: null, text: source ? earlier?.text ?? "" : "", stale: source !== "" };
  }

  #keepChoice(before, now) {
    const choice = before && this.#choices.get(before);
    if (choice?.prefix && now !== before && now.startsWith(before) && !this.#choices.has(now)) this.#choices.set(now, choice);
  }

  #name(source) {
    return JSON.stringify([source, this.#choices.get(source)?.prefix ?? ""]);
  }

  /** Return what to ask next: {texts, prefix?}, at most so many texts, or a long one; null when all is answered. */
  next(most) {
    const missing = this.#shown.filter((piece) => piece.stale);
    const forced = missing.find((piece) => piece.choice?.prefix);
    if (forced) return { texts: [forced.source], prefix: forced.choice.prefix };
    const texts = new Set();
    let size = 0;
    for (const { source } of missing) {
      if (texts.size && (texts.size >= most || size + source.length > most * LONG)) break;
      if (!texts.has(source)) size += source.length;
      texts.add(source);
    }
    return texts.size ? { texts: [...texts] } : null;
  }

  /** Remember the answers to a question of next(). */
  learn({ texts, prefix = "" }, translations) {
    texts.forEach((source, i) => this.#remember(source, prefix, translations[i]));
    return this.update(this.#text);
  }

  #remember(source, prefix, answer) {
    this.#answers.set(JSON.stringify([source, prefix]), answer);
    const most = Math.max(MOST_REMEMBERED, 2 * this.#shown.length); // what is shown is never forgotten
    if (this.#answers.size > most) this.#answers.delete(this.#answers.keys().next().value);
  }

  /** Choose a beginning or a candidate for the piece with this source; null takes the choice back. */
  choose(source, choice) {
    if (choice) this.#choices.set(source, choice);
    else this.#choices.delete(source);
    return this.update(this.#text);
  }

  /** Return lines of several sentences that have not been compared with the server's answer to the whole, some at a time. */
  unchecked(characters = 3000) {
    const found = [];
    for (const [line, parts] of this.#lines()) {
      if (parts.length < 2 || this.#checked.has(line) || parts.some((piece) => piece.choice || piece.stale)) continue;
      if (found.length && (characters -= line.length) < 0) break;
      found.push(line);
    }
    return found;
  }

  /** Compare the server's answers to whole lines with what stands. */
  check(lines, translations) {
    const standing = this.#lines();
    lines.forEach((line, i) => {
      this.#checked.add(line);
      const parts = standing.get(line) ?? [];
      if (plain(this.#joined(parts)) === plain(translations[i].text)) return;
      this.#whole.add(line);
      this.#remember(line, "", translations[i]);
    });
    return this.update(this.#text);
  }

  #lines() {
    const found = new Map();
    for (const [, parts] of Map.groupBy(this.#shown.filter((piece) => piece.source), (piece) => piece.line)) {
      const first = parts[0], last = parts.at(-1);
      found.set(this.#text.slice(first.start, last.start + last.source.length), parts);
    }
    return found;
  }

  #joined(parts) {
    return parts.map((piece, i) => piece.text + glue(piece, piece.text, i === parts.length - 1)).join("");
  }

  get translation() { return this.#joined(this.#shown); }
  get pieces() { return this.#shown; }
  get text() { return this.#text; }
}

/** Return for each item the earlier one that it takes the place of: equal ones at head and tail, the rest in their order. */
export function partners(before, now, key) {
  const { head, tail } = common(before, now, key);
  const moved = before.length - now.length;
  const left = before.length - tail;
  return now.map((_, i) => (i >= now.length - tail ? before[i + moved] : i < left ? before[i] : undefined));
}

/** Return how many items two lists have in common at the head, and then at the tail. */
export function common(before, now, key) {
  const most = Math.min(before.length, now.length);
  let head = 0, tail = 0;
  while (head < most && key(before[head]) === key(now[head])) head += 1;
  while (tail < most - head && key(before.at(-1 - tail)) === key(now.at(-1 - tail))) tail += 1;
  return { head, tail };
}
