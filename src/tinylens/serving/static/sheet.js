// Many images: a queue, a row each, and a table to save.

import { found, plain, sentence, state } from "./answer.js";
import { csv } from "./csv.js";
import { counted, make, percent } from "./dom.js";
import { Trouble } from "./server.js";

const LANES = 4; // questions at a time: the server's queue has room for others too
const BLOCK = 50; // rows
const THUMBNAIL = 96; // pixels of the longer side
const HEADINGS = [
  "file", "label", "confidence", "unknown", "reason", "ood_score", "findings", "error", "model",
  "sha256",
];

/**
 * Return a sheet in an element.
 * @param {Element} place the section; holds #rows, #progress, #count, #stop, #save and #clear
 * @param {object} calls
 * @param {function(File, AbortSignal): Promise<object>} calls.ask answers one image
 * @param {function({file: File, name: string})} calls.open shows one image's answer
 * @param {function(string)} calls.say tells those who do not see
 * @param {function()} calls.changed is called after each answer
 */
export function makeSheet(place, { ask, open, say, changed }) {
  const at = (id) => place.querySelector(`#${id}`);
  let rows = [];
  let next = 0; // the first row that may be waiting
  let running = null; // an AbortController, while questions are asked

  function add(images) {
    const added = images.map((image) => newRow(image, open));
    rows.push(...added);
    for (const row of added) block(at("rows")).append(row.element);
    place.hidden = false;
    say(`${counted(added.length, "image")} in the sheet.`);
    start();
  }

  function start() {
    if (running) return;
    running = new AbortController();
    next = 0;
    const { signal } = running;
    const lanes = Array.from({ length: LANES }, () => lane(signal));
    Promise.all(lanes).then(() => {
      if (!signal.aborted) finish();
    });
    showProgress();
  }

  async function lane(signal) {
    for (;;) {
      while (next < rows.length && rows[next].state !== "waiting") next += 1;
      const row = rows[next];
      if (!row || signal.aborted) return;
      row.state = "asking";
      const found = await answered(row, (file) => ask(file, signal)).catch((error) => {
        if (!signal.aborted) throw error;
      });
      if (signal.aborted) return; // the row is another lane's by now
      fill(row, found);
      showProgress();
      changed();
    }
  }

  function finish() {
    running = null;
    showProgress();
    const failed = rows.filter((row) => row.result.error).length;
    const unknown = rows.filter((row) => state(row.result) === "unknown").length;
    say(
      `${counted(rows.length, "image")} answered; ${unknown} unknown, ` +
        `${failed} could not be answered.`,
    );
  }

  function showProgress() {
    const done = rows.filter((row) => row.state === "done").length;
    at("progress").max = Math.max(rows.length, 1);
    at("progress").value = done;
    at("count").textContent = `${done.toLocaleString("en")} of ${counted(rows.length, "image")}`;
    at("stop").hidden = done === rows.length;
    at("stop").textContent = running ? "Stop" : "Go on";
    at("save").disabled = done === 0;
    place.setAttribute("aria-busy", String(running !== null));
  }

  function stop() {
    running?.abort();
    running = null;
    for (const row of rows) if (row.state === "asking") row.state = "waiting";
    showProgress();
  }

  at("stop").addEventListener("click", () => (running ? stop() : start()));
  at("save").addEventListener("click", () => save(rows.filter((row) => row.state === "done")));
  at("clear").addEventListener("click", () => {
    stop();
    rows = [];
    at("rows").replaceChildren();
    place.hidden = true;
    say("The sheet is empty.");
  });

  return {
    add,
    /** Ask for everything again, as after a change of the model. */
    restart() {
      if (!rows.length) return;
      stop();
      for (const row of rows) empty(row);
      start();
    },
    /** Whether any image was found to be unlike the training images. */
    hasFindings: () => rows.some((row) => row.result && found(row.result).length),
  };
}

// --- a row

/** Return the block that the next row belongs to; blocks out of sight cost a browser nothing. */
function block(place) {
  const last = place.lastElementChild;
  if (last && last.childElementCount < BLOCK) return last;
  const made = make("div.block", { role: "rowgroup" });
  place.append(made);
  return made;
}

function newRow(image, open) {
  const thumbnail = make("canvas.thumbnail", { width: 1, height: 1, aria: { hidden: true } });
  const name = make("button.file", { type: "button", click: () => open(image) }, image.name);
  const which = make("div.which", { role: "rowheader" }, thumbnail, name);
  const label = make("div.told", { role: "cell" }, make("span.muted", {}, "waiting"));
  const sure = make("div.sureness", { role: "cell" });
  const element = make("div.row", { role: "row" }, which, label, sure);
  return { image, element, thumbnail, label, sure, state: "waiting", result: null, model: null };
}

function empty(row) {
  Object.assign(row, { state: "waiting", result: null, model: null });
  delete row.element.dataset.state;
  row.label.replaceChildren(make("span.muted", {}, "waiting"));
  row.sure.replaceChildren();
}

/** Return {result, model} for a row, when its thumbnail is drawn, too. */
async function answered(row, ask) {
  const drawn = row.thumbnail.width > 1 ? null : drawThumbnail(row.thumbnail, row.image.file);
  const asked = ask(row.image.file).catch((error) => {
    if (!(error instanceof Trouble)) throw error;
    return { model: null, results: [{ error: error.message }] };
  });
  const { model, results: [result] } = await asked;
  await drawn;
  return { result, model };
}

function fill(row, answered) {
  Object.assign(row, answered, { state: "done" });
  row.element.dataset.state = state(row.result);
  row.label.replaceChildren(...told(row.result));
  row.sure.replaceChildren(...sureness(row.result));
}

function told(result) {
  if (result.error) return [make("small.fault", {}, plain(result.error))];
  const list = kinds(result);
  const findings = list ? make("small", {}, `Unlike training: ${list}`) : null;
  if (result.unknown) {
    const why = sentence(result).replace(/^Unknown, /, "");
    return [make("strong", {}, "Unknown"), make("small", {}, why), ...(findings ? [findings] : [])];
  }
  return [make("strong", {}, result.label), ...(findings ? [findings] : [])];
}

function kinds(result) {
  return found(result).map(({ kind, fixed }) => (fixed ? `${kind} (fixed)` : kind)).join(", ");
}

function sureness(result) {
  if (result.error) return [];
  const bar = make("i");
  bar.style.setProperty("--share", `${100 * result.confidence}%`);
  return [
    make("span", {}, percent(result.confidence)),
    make("span.track", { aria: { hidden: true } }, bar),
  ];
}

async function drawThumbnail(canvas, file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    canvas.classList.add("none"); // the browser cannot show it; the server may still read it
    return;
  }
  const scale = THUMBNAIL / Math.max(image.width, image.height);
  canvas.width = Math.max(Math.round(image.width * scale), 1);
  canvas.height = Math.max(Math.round(image.height * scale), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = scale < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
}

// --- the table to save

function save(rows) {
  const address = URL.createObjectURL(new Blob([table(rows)], { type: "text/csv;charset=utf-8" }));
  make("a", { href: address, download: "answers.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function table(rows) {
  const lines = rows.map(({ image, result, model }) => [
    image.name,
    result.label,
    result.confidence,
    result.error ? null : Boolean(result.unknown),
    result.unknown,
    result.ood_score,
    kinds(result),
    result.error,
    model?.name,
    model?.sha256,
  ]);
  return csv([HEADINGS, ...lines]);
}
