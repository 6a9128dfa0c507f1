// Runs the script of docs/inbox.md in place of a browser: just what it uses of a document, with an
// EventSource over fetch. Arguments: the script, the API, the origin of the page, a token.
// Prints the list, as JSON in a line, whenever it has changed; clicks each row that is unread.
import { readFileSync } from "node:fs";

const [script, api, origin, token] = process.argv.slice(2);
const realFetch = globalThis.fetch;
const rows = [];
let printed = "";
let tokens = 0;

function print() {
  const shown = JSON.stringify(rows.map(({ textContent, className }) => [textContent, className]));
  if (shown !== printed) process.stdout.write((printed = shown) + "\n");
}

class Row {
  textContent = "";
  className = "";
  set innerHTML(_) {
    throw new Error("the page shows texts only");
  }
}

globalThis.document = {
  querySelector: (name) =>
    name === "#inbox" ? { dataset: { user: "a/b ä".replace(" ", "") }, prepend: (row) => rows.unshift(row) } : null,
  createElement: () => new Row(),
};
globalThis.fetch = async (url, options = {}) => {
  if (url === "/inbox-token" && tokens++ === 0) throw new Error("the backend is away");
  if (url === "/inbox-token") return { json: async () => ({ token }) };
  const headers = { ...options.headers, Origin: origin };
  const response = await realFetch(url.replace("https://notify.example.com", api), { ...options, headers });
  if (response.headers.get("access-control-allow-origin") !== origin) throw new Error("the origin is not allowed");
  return response;
};
globalThis.EventSource = class {
  listeners = {};
  constructor(url) {
    this.read(url).catch((error) => this.onerror(error));
  }
  addEventListener(name, listener) {
    this.listeners[name] = listener;
  }
  close() {}
  async read(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`status ${response.status}`);
    let text = "";
    let isOpen = false;
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      if (!isOpen) this.onopen();
      isOpen = true;
      text += piece;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames.filter((each) => !each.startsWith(":"))) {
        const [name, data] = frame.split("\n");
        this.listeners[name.slice("event: ".length)]?.({ data: data.slice("data: ".length) });
      }
    }
  }
};
const clicked = new Set();
setInterval(() => {
  print();
  for (const row of rows.filter((each) => each.className === "unread" && !clicked.has(each))) {
    clicked.add(row);
    row.onclick();
  }
}, 20);
await import("data:text/javascript," + encodeURIComponent(readFileSync(script, "utf8")));
