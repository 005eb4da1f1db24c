// The page: images in, answers shown; nothing of it leaves the page.

import { sentence, showAnswer } from "./answer.js";
import { make } from "./dom.js";
import { openHere } from "./here.js";
import { receiveImages } from "./images.js";
import { makeSheet } from "./sheet.js";

const at = (id) => document.getElementById(id);

let current = null; // the image whose answer is shown: {file, name, address}

const opened = openHere(document);
const sheet = makeSheet(at("sheet"), {
  ask: async (file) => (await opened).predict(file),
  open: (image) => show(image, { move: true }),
  say,
  changed() {},
});
// for whoever looks on from the browser's console: `await tinylens` has predict(file)
globalThis.tinylens = opened;

opened.then(describe, refuse);

async function describe({ card, settings }) {
  const { height, width, channels } = card.image;
  const size = `${width} × ${height} pixels, ${channels === 1 ? "grey" : "in colour"}`;
  at("eyebrow").textContent = `tinylens · ${settings.name} · ${size}`;
  at("known").textContent = `The ${card.class_names.length} classes that it knows`;
  at("classes").replaceChildren(...card.class_names.map((name) => make("li", {}, name)));
  at("knows").hidden = false;
  at("photograph").hidden = navigator.maxTouchPoints === 0; // elsewhere it would choose a file too
  receiveImages(document, take);
  document.body.dataset.state = "ready";
  banner("", "");
}

/** Say what is wrong, and take no images: an answer would be worth nothing. */
function refuse(error) {
  document.body.dataset.state = "failed";
  banner("fault", `This page gives no answers: ${error.message.replace(/\.$/, "")}.`);
}

function take(images) {
  document.body.dataset.asked = "true"; // from now on the answers have the room
  if (images.length === 1) show(images[0]);
  else sheet.add(images);
}

async function show(image, { move = false } = {}) {
  if (current) URL.revokeObjectURL(current.address);
  const asked = { ...image, address: URL.createObjectURL(image.file) };
  current = asked;
  at("name").textContent = image.name;
  at("answer").hidden = false;
  at("answer").setAttribute("aria-busy", "true");
  const { results: [result], milliseconds } = await (await opened).predict(image.file);
  if (current !== asked) return;
  const note = result.error ? null : `Answered here in ${milliseconds.toFixed(0)} ms.`;
  await showAnswer(at("shown"), result, { image: asked.address, note });
  if (current !== asked) return;
  at("answer").setAttribute("aria-busy", "false");
  say(sentence(result));
  if (!move) return;
  at("answer").scrollIntoView({ block: "start" });
  at("shown").querySelector(".label").focus({ preventScroll: true });
}

function banner(kind, words) {
  at("banner").dataset.kind = kind;
  at("banner").textContent = words;
}

function say(words) {
  at("said").textContent = words;
}
