// Requests to the server, and its errors as one class. Addresses are relative, so that the page works behind a proxy's path.

import { read } from "./store.js";

export class ApiError extends Error {
  /** status is HTTP's, or 0 where no answer came; retryAfter is in seconds, or null. */
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", status, retryAfter });
  }

  get offline() { return this.status === 0; }
  get needsKey() { return this.status === 401 || this.status === 403; }
  /** True where the same request may succeed later. */
  get passing() { return this.offline || this.status === 429 || this.status === 503; }
}

export const address = (path) => new URL(path, document.baseURI);
export const key = () => read("key", "");

const authorized = (headers = {}) => (key() ? { ...headers, Authorization: `Bearer ${key()}` } : headers);

/** Return the error that an answer of the server describes, in our own form, OpenAI's or LibreTranslate's. */
export function describedError(body, status, retryAfter = null) {
  const error = body?.error ?? body?.detail;
  const message = typeof error === "string" ? error : error?.message;
  return new ApiError(message || `The server answered with the error ${status}.`, {
    status: error?.status ?? status,
    retryAfter: error?.retry_after ?? retryAfter,
  });
}

async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path), { ...options, headers: authorized(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("No connection to the server.");
  }
  if (answer.ok) return answer;
  const seconds = Number.parseFloat(answer.headers.get("Retry-After"));
  throw describedError(await answer.json().catch(() => null), answer.status, Number.isFinite(seconds) ? seconds : null);
}

const json = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const get = async (path) => (await send(path)).json();

export const settings = () => get("api/settings");
export const models = () => get("api/models");
export const translate = async (request, signal) => (await send("api/translate", { ...json(request), signal })).json();
export const detect = async (text, signal) => (await send("api/detect", { ...json({ text }), signal })).json();

export async function sendFile(file, fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  body.append("file", file);
  return (await send("api/files", { method: "POST", body })).json();
}
export const fileState = (id) => get(`api/files/${encodeURIComponent(id)}`);
export const fileResult = async (id) => (await send(`api/files/${encodeURIComponent(id)}/result`)).blob();

/** Yield the events of a streamed answer (server-sent events), as plain data, until [DONE]. */
export async function* stream(path, request, signal) {
  const answer = await send(path, { ...json({ ...request, stream: true }), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? "\n" : value;
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw describedError(event, 500);
      yield event;
    }
    if (done) return;
  }
}
