// Pillow's antialiased bicubic resampling of 8-bit images, to the last bit.
//
// A canvas resamples in its own way, and in another one in each browser. This is Pillow's: along
// rows and along columns, rounded to 8 bits in between, with weights in fixed point.

const PRECISION = 2 ** 22; // of the weights: 32 bits less 8 of a pixel and 2 for overshoot
const REACH = 2; // of the cubic, in pixels of the smaller image

/**
 * Return an image in another size.
 * @param {{width: number, height: number, channels: number, data: Uint8Array}} image
 * @param {number} width
 * @param {number} height
 */
export function resized(image, width, height) {
  const along = { rows: [width, true], columns: [height, false] };
  // which comes first decides some last bits; this is the order of Pillow from version 13 on
  const lost = image.height - height;
  const columnsFirst = lost > 0 && lost > 2 * (image.width - width);
  const order = columnsFirst ? [along.columns, along.rows] : [along.rows, along.columns];
  return order.reduce((result, [size, alongRows]) => {
    const same = (alongRows ? result.width : result.height) === size;
    return same ? result : stretched(result, size, alongRows);
  }, image);
}

/** Return the cubic of Keys 1981 with a = −1/2, which has its support from −2 to 2. */
function cubic(place) {
  const x = Math.abs(place);
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Return, for each new pixel, the first old one that it is made of, and the weights from there. */
function weightsOf(from, to) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // enlarging does not blur
  const support = REACH * stretch;
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = new Float64Array(end - start);
    let sum = 0;
    for (let i = 0; i < weights.length; i++) {
      weights[i] = cubic((i + start - centre + 0.5) * (1 / stretch));
      sum += weights[i];
    }
    return { start, weights: Int32Array.from(weights, (weight) => fixed(weight / sum)) };
  });
}

function fixed(weight) {
  return Math.trunc(weight * PRECISION + (weight < 0 ? -0.5 : 0.5));
}

function stretched({ width, height, channels, data }, size, alongRows) {
  const weights = weightsOf(alongRows ? width : height, size);
  const [newWidth, newHeight] = alongRows ? [size, height] : [width, size];
  const result = new Uint8Array(newWidth * newHeight * channels);
  const step = alongRows ? channels : width * channels; // from one pixel that is added to the next
  let place = 0;
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const { start, weights: own } = weights[alongRows ? x : y];
      const first = alongRows ? (y * width + start) * channels : (start * width + x) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = PRECISION / 2;
        for (let i = 0, at = first + channel; i < own.length; i++, at += step) sum += data[at] * own[i];
        result[place++] = clipped(Math.floor(sum / PRECISION));
      }
    }
  }
  return { width: newWidth, height: newHeight, channels, data: result };
}

function clipped(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
