// A file in, the network's pixels out. The browser decodes; the resampling is that of Pillow.

import { framed } from "./frame.js";

// as it is stored: no colour profile is applied, but EXIF's orientation is
const DECODING = { colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none" };

/**
 * Return the pixels that the network is given for an image.
 * @param {Blob} file PNG, JPEG, WebP, BMP or GIF
 * @param {{height: number, width: number, channels: number, background: number[], aspect: ?string}} rule
 * @param {{pixels: number, side: number}} most how large an image may be
 * @returns {Promise<{width: number, height: number, channels: number, data: Uint8Array}>}
 */
export async function pixelsOf(file, rule, most) {
  if (!file.size) throw new Error("empty file");
  const bitmap = await createImageBitmap(file, DECODING).catch(() => {
    throw new Error("not an image: expected a whole PNG, JPEG, WebP, BMP or GIF");
  });
  const { width, height } = bitmap;
  if (Math.max(width, height) > most.side || width * height > most.pixels) {
    const millions = Math.floor(most.pixels / 1e6);
    throw new Error(
      `too large: ${width}×${height} pixels, expected sides up to ${most.side} and ${millions} million pixels in all`,
    );
  }
  const { channels } = rule;
  const data = channelsOf(drawn(bitmap, rule.background), channels);
  return framed({ width, height, channels, data }, rule);
}

/** Return RGBA pixels of a bitmap on a background. */
function drawn(bitmap, background) {
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true }); // on the processor
  context.fillStyle = `rgb(${background.join(" ")})`;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data;
}

function channelsOf(rgba, channels) {
  const result = new Uint8Array((rgba.length / 4) * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const [red, green, blue] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) {
      result[to++] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16; // ITU-R 601
    } else {
      result[to++] = red;
      result[to++] = green;
      result[to++] = blue;
    }
  }
  return result;
}
