// The server as the page knows it: questions that wait while it is busy, gone or wants a token.

const AGAIN_MS = 1500; // between two looks whether the server is back
const LONGEST_WAIT_S = 30; // however long a busy server asks to wait
const BREAKS = 3; // of one request, with the server there, until it is given up

/** A question that stays without an answer; the message is a sentence for people. */
export class Trouble extends Error {}

/**
 * Return a client of this page's own server.
 * @param {function({gone: boolean, busy: number, token: ?string})} tell is called whenever that
 *   changes: whether the server cannot be reached, the seconds to wait where it is busy, and
 *   "needed" or "wrong" where it wants a token
 */
export function connect(tell) {
  const state = { gone: false, busy: 0, token: null };
  let token = null; // here and nowhere else
  let given = null; // called with the next token
  let waiting = 0; // questions, for a busy server
  let back = null; // a promise, while the server is gone

  const set = (changes) => tell(Object.assign(state, changes));

  async function send(path, request) {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    return fetch(path, { ...request, headers, credentials: "omit", cache: "no-store" });
  }

  async function ask(path, request) {
    for (let breaks = 0; ; ) {
      const used = token;
      const response = await send(path, request).catch(() => null);
      request.signal?.throwIfAborted();
      if (response === null) {
        breaks = (await isAlive()) ? breaks + 1 : 0;
        if (breaks === BREAKS) throw new Trouble("the connection breaks while the image is sent");
        if (breaks === 0) await untilBack(request.signal);
      } else if (response.status === 401) {
        if (used === token) await untilToken(used, request.signal);
      } else if (response.status === 503) {
        await untilFree(response, request.signal);
      } else {
        if (state.busy || state.token) set({ busy: 0, token: null });
        return response;
      }
    }
  }

  async function isAlive() {
    const response = await fetch("v2/health/live", { cache: "no-store" }).catch(() => null);
    return response !== null;
  }

  async function isReady() {
    const response = await fetch("v2/health/ready", { cache: "no-store" }).catch(() => null);
    return response !== null && response.ok;
  }

  function untilBack(signal) {
    if (back === null) {
      set({ gone: true, busy: 0 });
      back = (async () => {
        while (!(await isReady())) await pause(AGAIN_MS);
        back = null;
        set({ gone: false });
      })();
    }
    return orAborted(back, signal);
  }

  function untilToken(used, signal) {
    if (given === null) {
      const waiting = {};
      waiting.promise = new Promise((resolve) => (waiting.resolve = resolve));
      given = waiting;
      set({ token: used === null ? "needed" : "wrong" });
    }
    return orAborted(given.promise, signal);
  }

  async function untilFree(response, signal) {
    const asked = Number(response.headers.get("retry-after")) || 1;
    const seconds = Math.min(Math.max(asked, 1), LONGEST_WAIT_S);
    if (state.busy !== seconds) set({ busy: seconds });
    waiting += 1;
    try {
      await orAborted(pause(1000 * seconds), signal);
    } catch (stopped) {
      if (waiting === 1) set({ busy: 0 }); // nobody asks any more
      throw stopped;
    } finally {
      waiting -= 1;
    }
  }

  return {
    /** Give the token that is asked for. */
    setToken(text) {
      token = text;
      given?.resolve();
      given = null;
    },

    /** Return the models that are served. */
    async models() {
      const response = await ask("models", {});
      return (await json(response)).models;
    },

    /**
     * Return the answer to one image: the whole tree, with one row in `results`.
     * @param {Blob} file
     * @param {object} question model, look, seen, fix and top
     * @param {?AbortSignal} signal ends the waiting
     */
    async predict(file, question, signal = null) {
      if (!file.size) throw new Trouble("empty file");
      const query = new URLSearchParams(question);
      const response = await ask(`predict?${query}`, { method: "POST", body: raw(file), signal });
      const tree = await json(response);
      if (tree.results) return tree;
      throw new Trouble(response.status === 413 ? tooLarge(file, tree.error) : tree.error);
    },
  };
}

/** Return a file without its type: the server looks at the bytes, and a form's type would mislead. */
function raw(file) {
  return file.slice(0, file.size, "application/octet-stream");
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new Trouble(`the server's answer cannot be read (status ${response.status})`);
  }
}

function tooLarge(file, sentence) {
  const most = /(\d+) bytes/.exec(sentence);
  const limit = most ? `, and the server takes up to ${megabytes(Number(most[1]))}` : "";
  return `the file is too large: it has ${megabytes(file.size)}${limit}`;
}

function megabytes(size) {
  return `${(size / 1e6).toFixed(1)} MB`;
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Wait for a promise, or until a question is not asked any more. */
function orAborted(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
