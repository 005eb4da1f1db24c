// An answer as people see it: what it is, how sure, what went in, and where the network looked.
//
// It takes a row of `results` as POST /predict gives it, and knows of no server, so that a page
// which classifies in the browser shows its answers with it too. It needs base.css and answer.css.

import { loaded, make, percent } from "./dom.js";
import { drawLook, drawScale, strongest } from "./look.js";

const CRISP = 96; // pixels: smaller images are enlarged with their pixels to be seen
const SHOWN = 5; // classes
const UNJUDGED = "unjudged"; // the kind of what is said where there is nothing to judge by

/**
 * Show an answer in the place of what `place` holds.
 * @param {Element} place
 * @param {object} result a row of `results`; `look` and `seen` may be null
 * @param {object} options
 * @param {?string} options.image address of the image as it came, or null
 * @param {?string} options.note a line below, such as which model answered
 * @param {?{on: boolean, change: function(boolean)}} options.fixing the switch that lets findings
 *   be fixed, or null where nothing can fix them
 * @returns {Promise<void>} settled when the images are drawn
 */
export async function showAnswer(place, result, { image = null, note = null, fixing = null } = {}) {
  const words = make("div.words", {}, ...verdict(result));
  if (note) words.append(make("p.note.muted", {}, note));
  const figures = make("div.figures");
  const beside = make("div.beside", {}, figures, ...inputChecks(result, fixing));
  place.replaceChildren(make("article.answer", { data: { state: state(result) } }, words, beside));
  await showFigures(figures, result, image);
}

/** Return an answer in a sentence, for a screen reader and a title. */
export function sentence(result) {
  if (result.error) return `It could not be answered: ${plain(result.error)}.`;
  if (result.unknown) return `Unknown, perhaps ${result.label}: ${result.unknown}.`;
  return `${result.label}, ${percent(result.confidence)} sure.`;
}

/** Return an error without the bytes that only a programmer can read. */
export function plain(error) {
  return error.replace(/^not an image: starts with .*, expected/s, "not an image, expected");
}

/** Return what was found about an image; a model that cannot judge images finds nothing. */
export function found(result) {
  return (result.findings ?? []).filter(({ kind }) => kind !== UNJUDGED);
}

/** Return "known", "unknown" or "failed". */
export function state(result) {
  if (result.error) return "failed";
  return result.unknown ? "unknown" : "known";
}

// --- words

function verdict(result) {
  if (result.error) {
    const [title, why] = fault(result.error);
    return [make("h2.label", { tabIndex: -1 }, title), make("p", {}, `${capital(why)}.`)];
  }
  const sure = percent(result.confidence);
  const said = result.unknown
    ? [
        make("h2.label", { tabIndex: -1 }, "It does not know"),
        make("p", {}, `${capital(result.unknown)}.`),
        make("p", {}, "It would say ", make("b", {}, result.label), ` and be ${sure} sure.`),
      ]
    : [
        make("h2.label", { tabIndex: -1 }, result.label),
        make("p.sure", {}, make("b", {}, sure), " sure"),
      ];
  return [...said, bars(result.top.slice(0, SHOWN)), ...unusual(result)];
}

const FAULTS = [
  [/^not an image/, "This is not an image"],
  [/^empty file/, "This file is empty"],
  [/^broken/, "This image is broken"],
  [/too large/, "This image is too large"],
];

/** Return a title and what else is to be said of an error. */
function fault(error) {
  const title = FAULTS.find(([pattern]) => pattern.test(error))?.[1] ?? "No answer";
  return [title, plain(error).replace(/^(not an image[,:] |too large: )/, "")];
}

function bars(top) {
  const rows = top.map(({ label, probability }) => {
    const bar = make("i", {});
    bar.style.setProperty("--share", `${100 * probability}%`);
    return make(
      "li",
      {},
      make("span.name", {}, label),
      make("span.track", { aria: { hidden: true } }, bar),
      make("span.share", {}, percent(probability)),
    );
  });
  return make("ol.bars", { aria: { label: "The most probable classes" } }, ...rows);
}

function unusual({ ood_score, unknown }) {
  if (unknown || !Number.isFinite(ood_score)) return [];
  const share = percent(ood_score);
  return [make("p.note.muted", {}, `More unusual than ${share} of ordinary images.`)];
}

function capital(text) {
  return (text[0].toUpperCase() + text.slice(1)).replace(/\.$/, "");
}

// --- input checks

function inputChecks(result, fixing) {
  const findings = found(result);
  if (!findings.length && !fixing?.on) return [];
  const parts = [make("h3", {}, "Unlike the training images")];
  if (findings.length) parts.push(make("ul.findings", {}, ...findings.map(finding)));
  else parts.push(make("p.muted", {}, unjudged(result) ?? "Nothing was found."));
  if (fixing) parts.push(switchOf(fixing));
  return [make("div.input-checks", {}, ...parts)];
}

function unjudged(result) {
  const why = result.findings?.find(({ kind }) => kind === UNJUDGED);
  return why ? `${capital(why.message)}.` : null;
}

function finding({ kind, message, fixed }) {
  return make(
    "li",
    { data: { kind, fixed } },
    make("span", {}, `${capital(message)}.`),
    " ",
    make("small.mark", {}, fixed ? "fixed" : "as it is"),
  );
}

function switchOf({ on, change }) {
  const box = make("input", {
    type: "checkbox",
    checked: on,
    change: (event) => change(event.target.checked),
  });
  box.setAttribute("role", "switch");
  return make("label.switch", {}, box, make("span", {}, "Fix what can be fixed"));
}

// --- images

async function showFigures(place, result, address) {
  const [own, seen] = await Promise.all([address, result.seen].map((from) => from && loaded(from)));
  const shown = [];
  if (own) shown.push(figure(own, "Your image", sizeOf(own), "The image that you gave"));
  if (seen) shown.push(figure(seen, "What it saw", sizeOf(seen), "The image as the network saw it"));
  const fixed = found(result).some((finding) => finding.fixed);
  const changed = fixed || (result.look?.aspect ?? "stretch") !== "stretch";
  const below = changed ? seen : own ?? seen; // it may have been moved, cut or padded
  place.dataset.count = shown.length;
  place.replaceChildren(...shown);
  if (!result.look || !below) return;
  const told = effect(strongest(result.look), result.label);
  place.dataset.count = shown.length + 1;
  place.append(looked(below, result.look, told), make("p.note.muted", {}, told));
}

function sizeOf({ naturalWidth, naturalHeight }) {
  return `${naturalWidth} × ${naturalHeight}`;
}

function figure(image, title, small, alt) {
  image.alt = alt;
  if (Math.max(image.naturalWidth, image.naturalHeight) <= CRISP) image.className = "crisp";
  return make("figure", {}, image, make("figcaption", {}, title, make("small", {}, small)));
}

function looked(image, look, told) {
  const canvas = make("canvas.look", { aria: { label: `Where it looked. ${told}` } });
  canvas.setAttribute("role", "img");
  drawLook(canvas, image, look);
  const scale = make("canvas.scale", { aria: { hidden: true } });
  drawScale(scale);
  return make("figure", {}, canvas, make("figcaption", {}, "Where it looked", scale));
}

/** Say what covering the brightest place does: odds are what a difference of log-odds divides. */
function effect(nats, label) {
  const times = Math.exp(nats);
  if (times < 1.05) return `No single place speaks for ${label}.`;
  const factor = times < 10 ? times.toFixed(1) : Math.min(Math.round(times), 1e6).toLocaleString("en");
  return (
    `The brighter a place, the more it speaks for ${label}: ` +
    `with the brightest covered, its odds are ${factor} times smaller.`
  );
}
