// The classifier of this page: what `tinylens serve` does behind POST /predict, done here.

import { wayOf } from "./frame.js";
import { evaluated } from "./evaluate.js";
import { bytesOf, openNetwork } from "./network.js";
import { pixelsOf } from "./pixels.js";

const TOP = 5;

/**
 * Open what the page holds.
 * @param {Document} page with the blocks #packed-settings, #packed-model and #packed-wasm
 * @returns {Promise<object>} {settings, card, pixels, predict}
 */
export async function openHere(page) {
  const settings = JSON.parse(page.getElementById("packed-settings").textContent);
  const [model, wasm] = await Promise.all(["model", "wasm"].map((name) => unpacked(page.getElementById(`packed-${name}`), name)));
  const { card, run } = await openNetwork(model, wasm, settings.tolerance);
  wayOf(card.image); // a rule that is not known is said now, not at the first image

  /** Return the network's pixels for a File or Blob. */
  const pixels = (file) => pixelsOf(file, card.image, settings.most);

  /** Answer one image, a File or Blob, with a tree like that of POST /predict. */
  async function predict(file) {
    const start = performance.now();
    const tree = { model: { name: settings.name, sha256: settings.sha256 } };
    const result = await answered(file).catch((error) => ({ error: error.message }));
    return { ...tree, milliseconds: performance.now() - start, results: [{ name: file.name ?? null, ...result }] };
  }

  async function answered(file) {
    const image = await pixels(file);
    const { probabilities, ood_score } = await run(image.data, 1);
    const told = evaluated(probabilities, ood_score?.[0] ?? null, card, settings.shares, TOP);
    return { ...told, findings: [], seen: drawn(image), look: null, error: null };
  }

  return { settings, card, pixels, predict };
}

/** Return the bytes of a block of the page, which is let go: gzip, written as base64. */
async function unpacked(block, name) {
  const packed = bytesOf(block.textContent.trim());
  block.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error(`the ${name} in this page is damaged; copy the page again from where it was made`);
  }
}

/** Return the network's pixels as an image in an address. */
function drawn({ width, height, channels, data }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = data[channels * pixel + (channels === 3 ? channel : 0)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}
