// The ways in which images come: chosen, photographed, pasted, dropped, also as folders.

/**
 * Call `take` with the images of every such act, as a list of {file, name}.
 * @param {Document} page whose #choose, #camera and drop zone are used
 * @param {function({file: File, name: string}[])} take
 */
export function receiveImages(page, take) {
  for (const [button, input] of [["#choose", "#file"], ["#photograph", "#photo"]]) {
    const field = page.querySelector(input);
    page.querySelector(button).addEventListener("click", () => field.click());
    field.addEventListener("change", () => {
      const chosen = named(field.files);
      field.value = ""; // so that the same file can be chosen again
      if (chosen.length) take(chosen);
    });
  }
  page.addEventListener("paste", (event) => {
    const pasted = named(event.clipboardData?.files ?? []);
    if (!pasted.length) return; // words for a field
    event.preventDefault();
    take(pasted);
  });
  receiveDrops(page, take);
}

function receiveDrops(page, take) {
  const zone = page.querySelector("#drop");
  const mark = (on) => zone.classList.toggle("over", on);
  page.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    mark(true);
  });
  page.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) mark(false);
  });
  page.addEventListener("drop", async (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    mark(false);
    const dropped = await walk(event.dataTransfer);
    if (dropped.length) take(dropped);
  });
}

function named(files) {
  return [...files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

/** Return the files of a drop, those in folders by their path; hidden ones are left out there. */
async function walk(transfer) {
  // both lists are emptied as soon as this function waits
  const files = named(transfer.files);
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return files;
  const found = [];
  for (const entry of entries.filter(Boolean)) await collect(entry, found);
  return found.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
}

async function collect(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, name: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return; // a hundred come at a time
    for (const each of some) if (!each.name.startsWith(".")) await collect(each, found);
  }
}
