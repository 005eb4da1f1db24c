// An image in the network's size, whatever the ratio of its sides: stretched, cropped or padded.

import { resized } from "./resample.js";

const WAYS = {
  stretch: (image, { width, height }) => resized(image, width, height),
  crop: (image, { width, height }) => resized(cropped(image, width, height), width, height),
  pad: padded,
};

/**
 * Return an image as the rule wants it.
 * @param {{width: number, height: number, channels: number, data: Uint8Array}} image
 * @param {{height: number, width: number, aspect: ?string}} rule without an aspect, it stretches
 */
export function framed(image, rule) {
  return wayOf(rule)(image, rule);
}

/** Return what brings an image to its size; a page that cannot follow a rule gives no answers. */
export function wayOf({ aspect = "stretch" }) {
  if (Object.hasOwn(WAYS, aspect)) return WAYS[aspect];
  throw new Error(
    `the model wants images brought to its size by “${aspect}”, and this page knows ` +
      `${Object.keys(WAYS).join(", ")}; export it anew with the tinylens that trained it`,
  );
}

/** Return the largest part of the ratio wanted, from the middle, at its own size. */
function cropped(image, newWidth, newHeight) {
  const { channels, data } = image;
  let { width, height } = image;
  if (width * newHeight > height * newWidth) width = share(height, newWidth, newHeight);
  else height = share(width, newHeight, newWidth);
  const left = Math.floor((image.width - width) / 2);
  const top = Math.floor((image.height - height) / 2);
  const result = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * channels;
    result.set(data.subarray(start, start + width * channels), y * width * channels);
  }
  return { width, height, channels, data: result };
}

/** Return the whole image in the middle, on the mean of those of its edges that meet the rest. */
function padded(image, rule) {
  const wide = image.width * rule.height > image.height * rule.width;
  const width = wide ? rule.width : share(image.width, rule.height, image.height);
  const height = wide ? share(image.height, rule.width, image.width) : rule.height;
  const inner = resized(image, width, height);
  if (width === rule.width && height === rule.height) return inner;
  const { channels } = inner;
  const ground = meanOfEdges(inner, height < rule.height);
  const result = new Uint8Array(rule.width * rule.height * channels);
  result.forEach((_, i) => (result[i] = ground[i % channels]));
  const left = Math.floor((rule.width - width) / 2);
  const top = Math.floor((rule.height - height) / 2);
  for (let y = 0; y < height; y++) {
    const row = inner.data.subarray(y * width * channels, (y + 1) * width * channels);
    result.set(row, ((top + y) * rule.width + left) * channels);
  }
  return { width: rule.width, height: rule.height, channels, data: result };
}

/** Return the mean of each channel over the first and the last row, or column, rounded. */
function meanOfEdges({ width, height, channels, data }, ofRows) {
  const [across, along] = ofRows ? [height, width] : [width, height];
  const sums = new Array(channels).fill(0);
  for (const edge of [0, across - 1]) {
    for (let i = 0; i < along; i++) {
      const pixel = ofRows ? edge * width + i : i * width + edge;
      for (let channel = 0; channel < channels; channel++) sums[channel] += data[pixel * channels + channel];
    }
  }
  return sums.map((sum) => Math.floor((2 * sum + 2 * along) / (4 * along)));
}

/** Return side · times / of, rounded, at least 1. */
function share(side, times, of) {
  return Math.max(Math.floor((2 * side * times + of) / (2 * of)), 1);
}
