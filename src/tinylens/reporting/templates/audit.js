// Decide about images by key or click, and save the decisions as fixes.csv.
const main = document.querySelector("main");
const cards = [...document.querySelectorAll(".card")];
const place = (card) => `${card.dataset.split}:${card.dataset.index}`;
const store = `tinylens-audit:${main.dataset.name}`;

// An image that stands on two cards has one decision.
const decisions = new Map(recall());

function recall() {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(store) ?? "{}"));
  } catch {
    return []; // some browsers keep nothing for files that were opened from the disk
  }
}

function keepInBrowser() {
  try {
    localStorage.setItem(store, JSON.stringify(Object.fromEntries(decisions)));
  } catch {
    // what is decided is still on the page, and can be saved
  }
}

function show() {
  for (const card of cards) {
    const decided = decisions.get(place(card));
    card.dataset.decided = decided?.action ?? "";
    if (decided?.label) card.querySelector("select").value = decided.label;
    for (const button of card.querySelectorAll("[data-action]"))
      button.setAttribute("aria-pressed", String(button.dataset.action === decided?.action));
  }
  const many = decisions.size;
  const status = document.querySelector("#count");
  if (status) status.textContent = many ? `${many} decided.` : "Nothing is decided yet.";
}

function decide(card, action) {
  const label = action === "change" ? card.querySelector("select").value : "";
  if (action) decisions.set(place(card), { action, label });
  else decisions.delete(place(card));
  keepInBrowser();
  show();
}

function goTo(card) {
  card?.focus({ preventScroll: true });
  card?.scrollIntoView({ block: "nearest" });
}

const actions = { k: "keep", c: "change", d: "drop", u: "" };
const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

for (const [number, card] of cards.entries()) {
  card.addEventListener("keydown", (event) => {
    if (event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in actions) {
      decide(card, actions[key]);
      if (actions[key]) goTo(cards[number + 1]);
    } else if (key in moves) {
      goTo(cards[number + moves[key]]);
    } else return;
    event.preventDefault();
  });
  for (const button of card.querySelectorAll("[data-action]"))
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      decide(card, pressed ? "" : button.dataset.action);
    });
  card.querySelector("select").addEventListener("change", () => decide(card, "change"));
}

function fixes() {
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const rows = [];
  const written = new Set();
  for (const card of cards) {
    const decided = decisions.get(place(card));
    if (!decided || written.has(place(card))) continue;
    written.add(place(card));
    rows.push({ ...card.dataset, ...decided });
  }
  const columns = main.dataset.columns.split(",");
  return [columns, ...rows.map((row) => columns.map((name) => quoted(row[name])))]
    .map((row) => `${row.join(",")}\n`)
    .join("");
}

document.querySelector("#save")?.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([fixes()], { type: "text/csv" }));
  link.download = "fixes.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});

show();
