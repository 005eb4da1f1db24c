// What a picture's bytes say before any pixel is decoded: format, EXIF, orientation.

const JPEG_APP1 = 0xe1; // EXIF, and XMP
const JPEG_START_OF_SCAN = 0xda;
const SHORT = 3; // the TIFF number of a 16-bit value
const ORIENTATION = 0x0112;

/** Return bytes as text of one character a byte. */
export function latin(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

/** Return the format that bytes start like, or null. */
export function sniff(bytes) {
  const start = latin(bytes, 0, 12);
  if (start.startsWith("\x89PNG\r\n\x1a\n")) return "PNG";
  if (start.startsWith("\xff\xd8\xff")) return "JPEG";
  if (/^GIF8[79]a/.test(start)) return "GIF";
  if (/^RIFF[^]{4}WEBP$/.test(start)) return "WebP";
  return start.startsWith("BM") ? "BMP" : null;
}

/**
 * Take the EXIF out, so that no browser turns the picture by it: we do, as everywhere else.
 * @param {string} kind
 * @param {Uint8Array} bytes
 * @returns {{content: Uint8Array[], exif: ?Uint8Array}} the parts of what is left
 */
export function withoutExif(kind, bytes) {
  if (kind === "JPEG") return withoutApp1(bytes);
  if (kind === "WebP") return withoutChunk(bytes);
  return { content: [bytes], exif: null };
}

/** Return the EXIF orientation, 1 to 8; 1, upright, where there is none to be understood. */
export function orientation(exif) {
  if (!exif) return 1;
  const tiff = latin(exif, 0, 6) === "Exif\0\0" ? exif.subarray(6) : exif;
  const order = latin(tiff, 0, 2);
  if ((order !== "II" && order !== "MM") || tiff.length < 8) return 1;
  const little = order === "II";
  const view = viewOf(tiff);
  const start = view.getUint32(4, little);
  if (start + 2 > tiff.length) return 1;
  const end = Math.min(start + 2 + 12 * view.getUint16(start, little), tiff.length - 11);
  for (let entry = start + 2; entry < end; entry += 12) {
    if (view.getUint16(entry, little) !== ORIENTATION) continue;
    const value = view.getUint16(entry + 8, little);
    return view.getUint16(entry + 2, little) === SHORT && value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

/** Return a DataView of the very bytes. */
export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function withoutApp1(bytes) {
  const content = [bytes.subarray(0, 2)];
  let exif = null;
  let start = 2;
  while (start + 4 <= bytes.length) {
    const marker = bytes[start + 1];
    const end = start + 2 + viewOf(bytes).getUint16(start + 2);
    if (bytes[start] !== 0xff || marker === JPEG_START_OF_SCAN || end > bytes.length) break;
    if (marker !== JPEG_APP1) content.push(bytes.subarray(start, end));
    else if (latin(bytes, start + 4, start + 10) === "Exif\0\0") exif ??= bytes.subarray(start + 4, end);
    start = end;
  }
  return { content: [...content, bytes.subarray(start)], exif };
}

/** Rename a WebP's chunk of EXIF, which readers then do not know and leave alone. */
function withoutChunk(bytes) {
  const copy = bytes.slice();
  for (let start = 12; start + 8 <= bytes.length; ) {
    const length = viewOf(bytes).getUint32(start + 4, true);
    if (latin(bytes, start, start + 4) === "EXIF") {
      copy.set([0x58, 0x58, 0x58, 0x58], start);
      return { content: [copy], exif: bytes.subarray(start + 8, start + 8 + length) };
    }
    start += 8 + length + (length % 2);
  }
  return { content: [bytes], exif: null };
}
