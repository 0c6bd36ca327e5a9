// What this browser remembers: JSON values in localStorage. Where storage is closed or full, the page works and forgets.

const PREFIX = "dragoman.";
const held = new Map(); // stands in for storage that is closed

export function read(name, otherwise) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? held.get(name) ?? otherwise : JSON.parse(text);
  } catch {
    return held.get(name) ?? otherwise;
  }
}

export function write(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
    held.delete(name);
  } catch {
    held.set(name, value);
  }
}

export function forget(name) {
  held.delete(name);
  try {
    localStorage.removeItem(PREFIX + name);
  } catch { /* closed: nothing is there */ }
}
