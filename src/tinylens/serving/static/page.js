// The page of `tinylens serve`: images in, answers shown, and what stands between the two.

import { sentence, showAnswer } from "./answer.js";
import { counted, make } from "./dom.js";
import { receiveImages } from "./images.js";
import { connect, Trouble } from "./server.js";
import { makeSheet } from "./sheet.js";

const BACK_MS = 4000; // for which it is said that the server is back
const at = (id) => document.getElementById(id);

const chosen = { models: [], model: "", fix: false };
let current = null; // the image whose answer is shown: {file, name, address, asking}
let wasGone = false;

const server = connect(showState);
const sheet = makeSheet(at("sheet"), {
  ask: (file, signal) => server.predict(file, question(), signal),
  open: (image) => show(image, { move: true }),
  say,
  changed: () => (at("fix-all").hidden = !(chosen.fix || sheet.hasFindings())),
});

receiveImages(document, take);
at("token").addEventListener("submit", giveToken);
at("model").addEventListener("change", (event) => choose({ model: event.target.value }));
at("fix").addEventListener("change", (event) => choose({ fix: event.target.checked }));
at("photograph").hidden = navigator.maxTouchPoints === 0; // elsewhere it would choose a file too
loadModels();

// --- images

function take(images) {
  document.body.dataset.asked = "true"; // from now on the answers have the room
  if (images.length === 1) show(images[0]);
  else sheet.add(images);
}

/** Ask for one image and show its answer; `move` brings the answer before the reader. */
async function show(image, { move = false } = {}) {
  current?.asking.abort();
  if (current && current.file !== image.file) URL.revokeObjectURL(current.address);
  const address = current?.file === image.file ? current.address : URL.createObjectURL(image.file);
  const asked = { ...image, address, asking: new AbortController() };
  current = asked;
  at("name").textContent = image.name;
  at("answer").hidden = false;
  at("answer").setAttribute("aria-busy", "true");
  try {
    const tree = await answer(asked);
    await draw(asked, tree, move);
  } catch (error) {
    if (!asked.asking.signal.aborted) throw error;
  }
}

async function answer({ file, asking }) {
  try {
    return await server.predict(file, { ...question(), look: true, seen: true }, asking.signal);
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    return { model: null, results: [{ error: error.message }] };
  }
}

async function draw(asked, { model, results: [result], milliseconds }, move) {
  const note = model && !result.error && `${model.name} answered in ${milliseconds.toFixed(1)} ms.`;
  const fixing = result.error ? null : { on: chosen.fix, change: (fix) => choose({ fix }) };
  const kept = document.activeElement?.getAttribute("role") === "switch";
  await showAnswer(at("shown"), result, { image: asked.address, note, fixing });
  if (current !== asked) return;
  at("answer").setAttribute("aria-busy", "false");
  say(sentence(result));
  if (kept) at("shown").querySelector("[role=switch]")?.focus();
  if (move) {
    at("answer").scrollIntoView({ block: "start" });
    at("shown").querySelector(".label").focus({ preventScroll: true });
  }
}

function question() {
  return { top: 5, model: chosen.model, fix: chosen.fix ? "all" : "" };
}

// --- what is chosen

/** Take a choice, and ask again for all that is shown. */
function choose(changes) {
  Object.assign(chosen, changes);
  at("fix").checked = chosen.fix;
  describe();
  if (current) show(current);
  sheet.restart();
}

async function loadModels() {
  try {
    chosen.models = await server.models();
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    return banner("fault", `The server does not say what it serves: ${error.message}.`);
  }
  if (!chosen.models.some((model) => model.name === chosen.model)) {
    chosen.model = chosen.models[0].name;
  }
  const names = chosen.models.map(({ name }) => make("option", { value: name }, name));
  at("model").replaceChildren(...names);
  at("model").value = chosen.model;
  at("models").hidden = names.length < 2;
  describe();
}

function describe() {
  const model = chosen.models.find(({ name }) => name === chosen.model);
  if (!model) return;
  const { height, width, channels } = model.image;
  const size = `${width} × ${height} pixels, ${channels === 1 ? "grey" : "in colour"}`;
  at("eyebrow").textContent = `tinylens · ${model.name} · ${size}`;
  const count = counted(model.classes.length, "class").replace("classs", "classes");
  at("known").textContent = `The ${count} that it knows`;
  at("classes").replaceChildren(...model.classes.map((name) => make("li", {}, name)));
  at("knows").hidden = false;
}

// --- the server's state

function showState({ gone, busy, token }) {
  at("token").hidden = token === null;
  at("docs").hidden = at("docs").hidden || token !== null; // a link bears no token
  if (token !== null) askToken(token);
  if (gone) banner("fault", "The server does not answer. It is asked again until it does.");
  else if (busy) banner("busy", `The server is busy; it is asked again in ${busy} s.`);
  else if (wasGone) banner("well", "The server is back.");
  else if (token === null) banner("", "");
  if (wasGone && !gone) {
    loadModels();
    setTimeout(() => at("banner").dataset.kind === "well" && banner("", ""), BACK_MS);
  }
  wasGone = gone;
}

function banner(kind, words) {
  at("banner").dataset.kind = kind;
  at("banner").textContent = words;
}

function askToken(why) {
  const words = {
    needed: "This server answers those who have its token.",
    wrong: "That is not this server's token. Look at it again.",
  };
  at("token-why").textContent = words[why];
  at("token-field").focus();
}

function giveToken(event) {
  event.preventDefault();
  const given = at("token-field").value.trim();
  at("token-field").value = "";
  if (given) server.setToken(given);
}

function say(words) {
  at("said").textContent = words;
}
