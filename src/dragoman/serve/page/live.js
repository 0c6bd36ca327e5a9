// The socket that translates as one types. One request is under way at a time: the server drops it when a newer one
// comes. Where a proxy lets no socket through, the same requests go by plain HTTP.

import { ApiError, address, describedError, key, translate } from "./api.js";

export class Live {
  #socket = null;
  #opening = null;
  #open = new Map(); // id -> how to settle the promise of a request
  #id = 0;
  #plain = false; // true once sockets have failed and plain requests have not

  /** Return the server's answer to a request of /api/translate. */
  async translate(request, signal) {
    if (this.#plain) return translate(request, signal);
    let socket;
    try {
      socket = await this.#connected();
    } catch {
      const answer = await translate(request, signal); // throws what is wrong with the server, if it is not the socket
      this.#plain = true;
      return answer;
    }
    signal?.throwIfAborted();
    return this.#exchange(socket, request, signal);
  }

  #exchange(socket, request, signal) {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject });
      signal?.addEventListener("abort", () => {
        this.#open.delete(id);
        reject(signal.reason);
      });
      socket.send(JSON.stringify({ ...request, id, ...(key() && { api_key: key() }) }));
    });
  }

  #connected() {
    if (this.#socket?.readyState === WebSocket.OPEN) return this.#socket;
    this.#opening ??= new Promise((resolve, reject) => {
      const url = address("api/live");
      url.protocol = url.protocol.replace("http", "ws");
      const socket = new WebSocket(url);
      socket.onopen = () => {
        this.#socket = socket;
        this.#opening = null;
        resolve(socket);
      };
      socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
      socket.onclose = () => {
        this.#opening = null;
        reject(new ApiError("No connection to the server."));
        this.#lose();
      };
    });
    return this.#opening;
  }

  #receive({ id, ...answer }) {
    const waiting = this.#open.get(id);
    if (!waiting) return; // its sender has gone on to another text
    this.#open.delete(id);
    if (answer.error) waiting.reject(describedError(answer, 500));
    else waiting.resolve(answer);
  }

  #lose() {
    for (const { reject } of this.#open.values()) reject(new ApiError("The connection to the server was lost."));
    this.#open.clear();
  }
}
