// Elements, figures and images: what every part of the page needs.

/**
 * Return an element.
 * @param {string} name of the tag, with classes: "p.note"
 * @param {object} properties of the element; `data` and `aria` hold those of that kind, and a
 *   function is called on the event of its name
 * @param {...(Node|string|null)} children null is left out
 */
export function make(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key === "aria") setAria(element, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function setAria(element, values) {
  for (const [key, value] of Object.entries(values)) element.setAttribute(`aria-${key}`, value);
}

/** Return a share as the report writes it; never "100 %" of what is not sure. */
export function percent(share) {
  if (share < 0.0005) return "< 0.1\u202f%";
  if (share >= 0.9995 && share < 1) return "> 99.9\u202f%";
  return `${(100 * share).toFixed(1)}\u202f%`;
}

/** Return a count with its noun: "1 image", "1,200 images". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Return a size in bytes as people say it. */
export function bytes(size) {
  if (size < 1e3) return `${size} bytes`;
  return size < 1e6 ? `${Math.round(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

/** Return a loaded image, or null where the browser cannot show it. */
export async function loaded(address) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    return null;
  }
  return image;
}
