// The network in model.onnx, opened, checked by its golden samples, and asked.

import { env, InferenceSession, Tensor } from "./onnxruntime.js";

const METADATA_FIELD = 0x72; // of ModelProto, as tag: field 14, of bytes

/**
 * Open a model file of tinylens and check that it answers as recorded in it.
 * @param {Uint8Array} model
 * @param {Uint8Array} wasm onnxruntime's
 * @param {number} tolerance between probabilities of the same network on two machines
 * @returns {Promise<{card: object, run: function(Uint8Array, number): Promise<object>}>} `run` takes
 *   the pixels of some images and their number, and gives float32 `probabilities` and, where the
 *   model tells it, `ood_score`
 */
export async function openNetwork(model, wasm, tolerance) {
  const card = readCard(model);
  Object.assign(env.wasm, { numThreads: 1, proxy: false, wasmBinary: wasm });
  env.logLevel = "error";
  const session = await InferenceSession.create(model, { executionProviders: ["wasm"] });
  const { height, width, channels } = card.image;
  let last = Promise.resolve(); // one question at a time: sessions cannot take two
  const run = (pixels, count) => {
    const feeds = { image: new Tensor("uint8", pixels, [count, height, width, channels]) };
    const answer = last.then(() => session.run(feeds));
    last = answer.catch(() => {});
    return answer.then((found) => ({
      probabilities: found.probabilities.data,
      ood_score: found.ood_score?.data ?? null,
    }));
  };
  await checkGolden(card, run, tolerance);
  return { card, run };
}

/** Return what the file says of itself: the first entry of its metadata. */
export function readCard(model) {
  const entry = fieldAt(model, 0, METADATA_FIELD);
  const key = fieldAt(entry.body, 0, 0x0a);
  const value = fieldAt(entry.body, key.end, 0x12);
  const text = new TextDecoder();
  if (text.decode(key.body) !== "tinylens") throw new Error("the model does not begin with a model card");
  return JSON.parse(text.decode(value.body));
}

function fieldAt(bytes, start, tag) {
  if (bytes[start] !== tag) throw new Error("the model is not a file of tinylens");
  let place = start + 1;
  let length = 0;
  for (let shift = 1; ; shift *= 128) {
    const digit = bytes[place++];
    length += (digit & 127) * shift;
    if (!(digit & 128)) break; // also past the end, where a digit is undefined
  }
  return { body: bytes.subarray(place, place + length), end: place + length };
}

async function checkGolden({ golden }, run, tolerance) {
  if (!golden) throw new Error("the model has no golden samples to check it by");
  const pixels = bytesOf(golden.images.data);
  const expected = new Float32Array(bytesOf(golden.probabilities.data).buffer);
  const { probabilities } = await run(pixels, golden.images.shape[0]);
  let worst = 0;
  // what is not a number is never close enough
  expected.forEach((value, i) => (worst = Math.max(worst, Math.abs(probabilities[i] - value))));
  if (worst <= tolerance) return;
  throw new Error(
    `the network does not give its recorded answers here: they differ by ${worst.toPrecision(2)}, expected at most ${tolerance}`,
  );
}

/** Return the bytes that base64 stands for. */
export function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
