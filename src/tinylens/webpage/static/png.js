// PNG, decoded here: a browser's own decoder gives pixels back multiplied by their alpha, and makes
// 8 bits of 16 in another way than Pillow does.

import { latin, viewOf } from "./headers.js";

const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by colour type
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
const GREY = 0, RGB = 2, PALETTE = 3;
const WHOLE = [[0, 0, 1, 1]];
// the seven passes of an interlaced picture: first column and row, steps between them
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/**
 * Return the pixels of a PNG in 8 bits, and its EXIF.
 * @param {Uint8Array} bytes
 * @param {function(number, number)} checkSize throws for a size that is too large
 * @returns {Promise<{picture: object, exif: ?Uint8Array}>}
 */
export async function decodePng(bytes, checkSize) {
  const png = readChunks(bytes);
  checkSize(png.width, png.height);
  const passes = (png.interlaced ? ADAM7 : WHOLE)
    .map(([x, y, stepX, stepY]) => ({
      x, y, stepX, stepY,
      width: Math.ceil((png.width - x) / stepX),
      height: Math.ceil((png.height - y) / stepY),
    }))
    .filter(({ width, height }) => width > 0 && height > 0);
  const rowBytes = ({ width }) => Math.ceil((width * png.channels * png.depth) / 8);
  const total = passes.reduce((sum, pass) => sum + pass.height * (1 + rowBytes(pass)), 0);
  const filtered = await inflated(png.data, total);
  const samples = new Uint16Array(png.width * png.height * png.channels);
  let start = 0;
  for (const pass of passes) {
    const row = rowBytes(pass);
    const part = filtered.subarray(start, (start += pass.height * (1 + row)));
    unfilter(part, row, Math.max(1, (png.channels * png.depth) >> 3));
    place(png, pass, part, row, samples);
  }
  return { picture: toEightBits(png, samples), exif: png.exif };
}

// --- chunks

function readChunks(bytes) {
  const png = { data: [], exif: null, palette: null, transparency: null };
  for (const { name, body } of chunks(bytes)) {
    if (name === "IHDR") Object.assign(png, readHeader(body));
    else if (name === "PLTE") png.palette = body;
    else if (name === "tRNS" && !png.data.length) png.transparency = body;
    else if (name === "eXIf") png.exif = body;
    else if (name === "IDAT") png.data.push(body);
  }
  if (!png.width || !png.height || !DEPTHS[png.type]?.includes(png.depth)) throw broken("no header to be understood");
  if (png.type === PALETTE && !png.palette) throw broken("no palette");
  png.channels = CHANNELS[png.type];
  return png;
}

function* chunks(bytes) {
  const view = viewOf(bytes);
  let pixels = false;
  for (let start = 8; start + 8 <= bytes.length; ) {
    const end = start + 8 + view.getUint32(start);
    const name = latin(bytes, start + 4, start + 8);
    pixels ||= name === "IDAT";
    const whole = end + 4 <= bytes.length;
    if (!pixels && !(whole && crc(bytes.subarray(start + 4, end)) === view.getUint32(end))) {
      throw broken(`its part ${name} is damaged`);
    }
    if (name === "IEND") return;
    if (whole || name === "IDAT") yield { name, body: bytes.subarray(start + 8, Math.min(end, bytes.length)) };
    start = end + 4;
  }
}

function readHeader(body) {
  const view = viewOf(body);
  if (body.length < 13) throw broken("no header to be understood");
  const [depth, type, , , interlaced] = body.subarray(8, 13);
  return { width: view.getUint32(0), height: view.getUint32(4), depth, type, interlaced };
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function broken(what) {
  return new Error(`broken PNG: ${what}`);
}

// --- rows

/** Return exactly so many bytes: what comes after them is never unpacked. */
async function inflated(parts, total) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  const result = new Uint8Array(total);
  let filled = 0;
  while (filled < total) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) throw broken(`it is damaged or cut off after ${filled} of ${total} bytes of pixels`);
    result.set(value.subarray(0, total - filled), filled);
    filled += Math.min(value.length, total - filled);
  }
  reader.cancel().catch(() => {}); // all that was needed is there
  return result;
}

/** Undo the filter of each row, in place; `pixel` is how many bytes back the left neighbour is. */
function unfilter(part, row, pixel) {
  for (let start = 1; start < part.length; start += row + 1) {
    const filter = part[start - 1];
    const first = start === 1;
    if (filter > 4) throw broken(`it has a row of unknown kind ${filter}`);
    for (let i = 0; filter && i < row; i++) {
      const left = i < pixel ? 0 : part[start + i - pixel];
      const up = first ? 0 : part[start + i - row - 1];
      const corner = first || i < pixel ? 0 : part[start + i - row - 1 - pixel];
      part[start + i] += guess(filter, left, up, corner);
    }
  }
}

function guess(filter, left, up, corner) {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const byLeft = Math.abs(up - corner);
  const byUp = Math.abs(left - corner);
  const byCorner = Math.abs(left + up - 2 * corner);
  if (byLeft <= byUp && byLeft <= byCorner) return left;
  return byUp <= byCorner ? up : corner;
}

/** Put the samples of a pass where they belong in the picture. */
function place({ width, channels, depth }, pass, part, row, samples) {
  const mask = (1 << depth) - 1;
  for (let y = 0; y < pass.height; y++) {
    const start = y * (row + 1) + 1;
    let to = ((pass.y + y * pass.stepY) * width + pass.x) * channels;
    for (let x = 0; x < pass.width; x++, to += pass.stepX * channels) {
      for (let channel = 0; channel < channels; channel++) {
        const sample = x * channels + channel;
        if (depth === 8) samples[to + channel] = part[start + sample];
        else if (depth === 16) {
          samples[to + channel] = (part[start + 2 * sample] << 8) | part[start + 2 * sample + 1];
        } else {
          const bit = sample * depth;
          samples[to + channel] = (part[start + (bit >> 3)] >> (8 - depth - (bit & 7))) & mask;
        }
      }
    }
  }
}

// --- samples

/** Return 8 bits a channel, with alpha where anything says what is transparent, as Pillow has it. */
function toEightBits(png, samples) {
  const { width, height, type, channels } = png;
  if (type === PALETTE) return withPalette(png, samples);
  const clear = png.transparency && clearOf(png);
  const eight = type === GREY ? greyScale(png.depth) : png.depth === 16 ? (value) => value >> 8 : (value) => value;
  if (!clear) return { width, height, channels, data: Uint8Array.from(samples, eight) };
  const data = new Uint8Array(width * height * (channels + 1));
  for (let from = 0, to = 0; from < samples.length; from += channels) {
    let same = true;
    for (let channel = 0; channel < channels; channel++) {
      const value = eight(samples[from + channel]);
      // what is transparent is looked for among the 8-bit values, but in 16-bit grey
      same &&= (type === GREY && png.depth === 16 ? samples[from] : value) === clear[channel];
      data[to++] = value;
    }
    data[to++] = same ? 0 : 255;
  }
  return { width, height, channels: channels + 1, data };
}

function greyScale(depth) {
  if (depth === 16) return (value) => Math.floor((value + 128) / 257);
  const factor = 255 / ((1 << depth) - 1);
  return (value) => value * factor;
}

/** Return what is seen through, one number a channel; null where the PNG names none. */
function clearOf({ type, depth, transparency, channels }) {
  if (type !== GREY && type !== RGB) return null;
  if (transparency.length < 2 * channels) throw broken("it names no whole colour to be seen through");
  const view = viewOf(transparency);
  const named = Array.from({ length: channels }, (_, channel) => view.getUint16(2 * channel));
  if (type === GREY && depth === 16) return named;
  return named.map((value) => (depth === 1 ? (value ? 255 : 0) : value & 255)); // as Pillow has it
}

function withPalette({ width, height, palette, transparency }, samples) {
  const channels = transparency ? 4 : 3;
  const data = new Uint8Array(samples.length * channels);
  for (let i = 0; i < samples.length; i++) {
    for (let channel = 0; channel < 3; channel++) {
      data[i * channels + channel] = palette[3 * samples[i] + channel] ?? 0;
    }
    if (transparency) data[i * channels + 3] = transparency[samples[i]] ?? 255;
  }
  return { width, height, channels, data };
}
