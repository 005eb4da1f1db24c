// Where the network looked: a heatmap over an image, in the colours of tinylens's other pages.

// matplotlib's inferno at 0, 1/16, ... 1: from dark to bright for every eye, and when printed grey
const INFERNO = [
  [0, 0, 4], [11, 7, 36], [33, 12, 74], [61, 9, 101], [87, 16, 110], [113, 25, 110],
  [138, 34, 106], [163, 44, 97], [188, 55, 84], [210, 70, 68], [228, 90, 49], [241, 115, 29],
  [249, 142, 9], [252, 172, 17], [249, 203, 53], [242, 234, 105], [252, 255, 164],
];
const LIGHTEST = 0.1; // share of the colour where the map is 0
const STRONGEST = 0.8; // and where it is 1
const SIDE = 448; // pixels of the longer side of what is drawn

/** Return the colour of a value from 0 to 1 as [red, green, blue]. */
export function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (INFERNO.length - 1);
  const lower = Math.min(Math.floor(place), INFERNO.length - 2);
  const share = place - lower;
  return INFERNO[lower].map((from, band) => from + share * (INFERNO[lower + 1][band] - from));
}

/** Return the largest of a map's values, in nats, or 0 where none is above 0. */
export function strongest(look) {
  return look.values.reduce((most, row) => Math.max(most, ...row), 0);
}

/**
 * Draw an image in grey with a map over it. The map is stretched over the image, as the image
 * was stretched to the network's size.
 * @param {HTMLCanvasElement} canvas is given its size
 * @param {HTMLImageElement} image
 * @param {{height: number, width: number, values: number[][]}} look
 */
export function drawLook(canvas, image, look) {
  const { naturalWidth, naturalHeight } = image;
  const scale = SIDE / Math.max(naturalWidth, naturalHeight);
  canvas.width = Math.max(Math.round(naturalWidth * scale), 1);
  canvas.height = Math.max(Math.round(naturalHeight * scale), 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = scale < 1;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  blend(pixels, look);
  context.putImageData(pixels, 0, 0);
}

/** Draw the colours from 0 to 1 from left to right. */
export function drawScale(canvas) {
  [canvas.width, canvas.height] = [64, 1];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(64, 1);
  for (let x = 0; x < 64; x += 1) pixels.data.set([...colour(x / 63), 255], 4 * x);
  context.putImageData(pixels, 0, 0);
}

function blend({ data, width, height }, look) {
  const most = strongest(look) || 1;
  const columns = shares(look.width, width);
  const rows = shares(look.height, height);
  let at = 0;
  for (const [top, down] of rows) {
    const upper = look.values[top];
    const lower = look.values[Math.min(top + 1, look.height - 1)];
    for (const [left, right] of columns) {
      const next = Math.min(left + 1, look.width - 1);
      const value =
        (1 - down) * ((1 - right) * upper[left] + right * upper[next]) +
        down * ((1 - right) * lower[left] + right * lower[next]);
      put(data, at, Math.max(value, 0) / most);
      at += 4;
    }
  }
}

function put(data, at, value) {
  const grey = (data[at] + data[at + 1] + data[at + 2]) / 3;
  const share = LIGHTEST + (STRONGEST - LIGHTEST) * value;
  const over = colour(value);
  for (let band = 0; band < 3; band += 1) data[at + band] = (1 - share) * grey + share * over[band];
}

/** Return for each pixel the place before its middle, and how far it is to the next one. */
function shares(places, pixels) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const place = Math.min(Math.max(((pixel + 0.5) * places) / pixels - 0.5, 0), places - 1);
    return [Math.floor(place), place - Math.floor(place)];
  });
}
