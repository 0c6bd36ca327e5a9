// Where sentences and words begin and end in a text.

const LINE = /\r\n|\n|\r/;
const WITHOUT_SPACE = /[。！？｡，、；：]["'”’」』）]*$|[」』）]$/;
const UNSPACED = /^(zh|yue|wuu|ja|th|lo|km|my|bo|dz)\b/i;

// After these a full stop ends no sentence. Too few cost a moment of a worse translation (see draft.js: the whole line is
// checked in the end), too many only make the pieces longer.
const ABBREVIATION =
  /(^|[\s("'„“«])(\p{L}|\p{L}*\.\p{L}+|Dr|Mr|Mrs|Ms|Prof|St|vs|etc|approx|No|Nr|Sr|Sra|Srta|Dra|Ud|Uds|Av|pág|p|ca|bzw|usw|Hr|Fr|Mme|Mlle|Jr|Inc|Ltd|Co|Fig|Art|cf|al|Vol|Jan|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec)\.["')\]»”]*\s*$/u;

const segmenters = new Map();
function segments(text, language, granularity) {
  const name = `${granularity} ${language}`;
  if (!segmenters.has(name)) {
    let segmenter;
    try {
      segmenter = new Intl.Segmenter(language || "en", { granularity });
    } catch {
      segmenter = new Intl.Segmenter("en", { granularity }); // a code of the run's own
    }
    segmenters.set(name, segmenter);
  }
  return segmenters.get(name).segment(text);
}

/** Return whether two stretches are two sentences; the server asks the same of what stands on both sides. */
function divides(before, after) {
  const first = after.match(/[\p{L}\p{N}]/u)?.[0] ?? "";
  const spaced = /[\s。！？｡．॥।۔؟”』」）]$/.test(before);
  return spaced && /\p{L}/u.test(before) && /\p{L}/u.test(first) && !/\p{Ll}/u.test(first) && !ABBREVIATION.test(before);
}

const divided = new Map(); // line -> its sentences; a long text is divided anew with every key
function sentencesOf(line, language) {
  const name = `${language} ${line}`;
  if (divided.has(name)) return divided.get(name);
  if (divided.size > 50_000) divided.clear();
  const found = [];
  divided.set(name, found);
  for (const { segment } of segments(line, language, "sentence")) {
    if (found.length && !divides(found.at(-1), segment)) found[found.length - 1] += segment;
    else found.push(segment);
  }
  return found;
}

/**
 * Return the pieces of a text that are translated by themselves: {source, after, line}. `after` is the white space that
 * follows, line ends included; the sources and what follows them make up the text. `whole(line)` is true for lines that
 * stay in one piece.
 */
export function pieces(text, language, whole) {
  const found = [];
  let line = 0;
  for (const part of text.split(/(\r\n|\n|\r)/)) {
    if (LINE.test(part)) {
      if (!found.length) found.push({ source: "", after: "", line });
      found.at(-1).after += part;
      line += 1;
      continue;
    }
    const lead = part.match(/^\s*/)[0];
    if (lead && found.length) found.at(-1).after += lead;
    else if (lead) found.push({ source: "", after: lead, line });
    const rest = part.slice(lead.length);
    for (const sentence of rest ? (whole(rest.trimEnd()) ? [rest] : sentencesOf(rest, language)) : []) {
      const source = sentence.trimEnd();
      found.push({ source, after: sentence.slice(source.length), line });
    }
  }
  return found;
}

/** Return what stands between a piece's translation and the next one: its own white space, but for scripts without. */
export function glue(piece, translation, last) {
  if (LINE.test(piece.after) || last) return piece.after;
  if (translation && WITHOUT_SPACE.test(translation)) return "";
  return piece.after || !WITHOUT_SPACE.test(piece.source) ? piece.after : " ";
}

/**
 * Return the words of a text: {text, start, end, number}, where `number` counts words between spaces, as alignments do.
 * Where the script writes no spaces, several words share a number.
 */
export function words(text, language) {
  const found = [];
  let number = 0;
  for (const match of text.matchAll(/\S+/g)) {
    const parts = UNSPACED.test(language ?? "") ? [...segments(match[0], language, "word")] : [{ segment: match[0], index: 0 }];
    for (const { segment, index } of parts) {
      const start = match.index + index;
      if (found.length && !/[\p{L}\p{N}]/u.test(segment) && found.at(-1).end === start) {
        found.at(-1).end += segment.length; // punctuation goes with the word before it
        found.at(-1).text += segment;
      } else found.push({ text: segment, start, end: start + segment.length, number });
    }
    number += 1;
  }
  return found;
}

/** Return a word without the punctuation around it. */
export const bare = (word) => word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "") || word;
