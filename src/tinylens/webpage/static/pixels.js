// Bytes in, the network's pixels out: the steps of tinylens.data.images, one after the other.

import { orientation, sniff, withoutExif } from "./headers.js";
import { decodePng } from "./png.js";
import { framed } from "./frame.js";

// EXIF orientation → where the upright picture's pixel (x, y) is; w and h are the stored size less 1
const UPRIGHT = {
  2: (x, y, w) => [w - x, y],
  3: (x, y, w, h) => [w - x, h - y],
  4: (x, y, w, h) => [x, h - y],
  5: (x, y) => [y, x],
  6: (x, y, w, h) => [y, h - x],
  7: (x, y, w, h) => [w - y, h - x],
  8: (x, y, w) => [w - y, x],
};

/**
 * Return the pixels that the network is given for a picture.
 * @param {Uint8Array} bytes of a PNG, JPEG, WebP, BMP or GIF
 * @param {{height: number, width: number, channels: number, background: number[], aspect: ?string}} rule
 * @param {{pixels: number, side: number}} most how large a picture may be
 * @returns {Promise<{width: number, height: number, channels: number, data: Uint8Array}>}
 */
export async function pixelsOf(bytes, rule, most) {
  const kind = sniff(bytes);
  if (!kind) throw new Error(bytes.length ? "not a picture: expected PNG, JPEG, WebP, BMP or GIF" : "empty file");
  const checkSize = (width, height) => {
    if (Math.max(width, height) <= most.side && width * height <= most.pixels) return;
    const millions = Math.floor(most.pixels / 1e6);
    throw new Error(
      `too large: ${width}×${height} pixels, expected sides up to ${most.side} and ${millions} million pixels in all`,
    );
  };
  const decode = kind === "PNG" ? decodePng : (content) => decodeByBrowser(kind, content, checkSize);
  const { picture, exif } = await decode(bytes, checkSize);
  return fitted(picture, orientation(exif), rule);
}

/** Return a decoded picture as the rule wants it. */
export function fitted(picture, turn, rule) {
  const flat = composited(upright(picture, turn), rule.background);
  return framed(withChannels(flat, rule.channels), rule);
}

async function decodeByBrowser(kind, bytes, checkSize) {
  const { content, exif } = withoutExif(kind, bytes);
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob(content), options).catch(() => {
    throw new Error(`broken ${kind}: this browser cannot decode it`);
  });
  const { width, height } = bitmap;
  checkSize(width, height);
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true }); // on the processor
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const data = new Uint8Array(context.getImageData(0, 0, width, height).data.buffer);
  return { picture: { width, height, channels: 4, data }, exif };
}

function upright(picture, turn) {
  const from = UPRIGHT[turn];
  if (!from) return picture;
  const { channels, data } = picture;
  const [width, height] = turn >= 5 ? [picture.height, picture.width] : [picture.width, picture.height];
  const result = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += channels) {
      const [column, row] = from(x, y, picture.width - 1, picture.height - 1);
      const start = (row * picture.width + column) * channels;
      for (let channel = 0; channel < channels; channel++) result[to + channel] = data[start + channel];
    }
  }
  return { width, height, channels, data: result };
}

/** Put a picture with alpha, of 2 or 4 channels, on a background, rounded as Pillow rounds. */
function composited(picture, background) {
  const { width, height, channels, data } = picture;
  if (channels === 1 || channels === 3) return picture;
  const result = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += channels) {
    const alpha = data[from + channels - 1];
    for (let channel = 0; channel < 3; channel++) {
      const over = data[from + (channels === 4 ? channel : 0)];
      const sum = over * alpha * 128 + background[channel] * (255 - alpha) * 128 + (128 << 7);
      result[to++] = ((sum >> 8) + sum) >> 15; // a division by 255, and 7 bits of precision
    }
  }
  return { width, height, channels: 3, data: result };
}

function withChannels(picture, channels) {
  if (picture.channels === channels) return picture;
  const { width, height, data } = picture;
  const result = new Uint8Array(width * height * channels);
  if (channels === 3) result.forEach((_, i) => (result[i] = data[Math.floor(i / 3)]));
  else {
    result.forEach((_, i) => {
      // ITU-R 601 in 16 bits of fixed point
      result[i] = (data[3 * i] * 19595 + data[3 * i + 1] * 38470 + data[3 * i + 2] * 7471 + 32768) >> 16;
    });
  }
  return { width, height, channels, data: result };
}
