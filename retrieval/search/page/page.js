// A tab is a section of the page, whose name is in the address; its form's action and fields are a route and what it asks.

const SLOW = 4000; // milliseconds after which it is said why it may take so long

// What a route gives, shown in the tab's place for answers: returns the line above them.
const SHOW = {
  search(found, into) {
    into.append(...found.hits.map(row));
    return found.hits.length ? `${found.hits.length} found` : "The index has no text.";
  },
  similar(found, into) {
    into.append(...found.similar.map(row));
    return found.similar.length ? `${found.similar.length} written` : "The model wrote nothing but the text itself.";
  },
  compare(found, into) {
    into.textContent = found.cosine.toFixed(3);
    return "Cosine";
  },
};

function row({ text, score }) {
  const line = document.createElement("li");
  for (const [name, content] of [["score", score.toFixed(3)], ["text-of-answer", text]]) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = content;
    line.append(part);
  }
  return line;
}

const title = document.title;

function open() {
  const asked = location.hash.slice(1), name = Object.hasOwn(SHOW, asked) ? asked : "search";
  for (const section of document.querySelectorAll("section")) section.hidden = section.id !== "tab-" + name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === "#" + name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "search" ? title : document.querySelector("nav a[aria-current]").textContent + " – " + title;
  document.querySelector(`#tab-${name} :is(input, textarea)`)?.focus();
}

// The answer of a route, or an Error whose message is one line that says what is wrong.
async function ask(form) {
  const fields = [...new FormData(form)], longest = Number(form.closest("main").dataset.longest);
  for (const [name, text] of fields) {
    const length = [...text].length; // as the server counts, by code points
    if (length > longest) {
      const label = form.elements[name].labels[0].firstChild.textContent.trim();
      throw Error(`${label}: ${length.toLocaleString("en")} characters; give at most ${longest.toLocaleString("en")}.`);
    }
  }
  let answer;
  try {
    answer = await fetch(form.getAttribute("action") + "?" + new URLSearchParams(fields));
  } catch {
    throw Error("The server does not answer. Is it still running?");
  }
  const found = await answer.json().catch(() => null);
  if (!answer.ok || !found) throw Error(found?.detail ?? `The server answered with an error (${answer.status}).`);
  return found;
}

async function submit(event) {
  event.preventDefault();
  const form = event.target, section = form.closest("section"), button = form.querySelector("button");
  const said = section.querySelector(".said"), answers = section.querySelector(".answers");
  if (section.hasAttribute("aria-busy")) return; // one at a time
  const begin = performance.now();
  section.setAttribute("aria-busy", "true");
  button.setAttribute("aria-disabled", "true"); // disabled, it would lose the keyboard
  said.classList.remove("wrong");
  said.textContent = form.dataset.busy + " …";
  answers.replaceChildren();
  const slow = setTimeout(() => said.append(" The first of a length takes longest: it is being compiled."), SLOW);
  try {
    const found = await ask(form);
    const line = SHOW[section.id.slice("tab-".length)](found, answers);
    said.textContent = `${line}, ${((performance.now() - begin) / 1000).toFixed(2)} s`;
  } catch (error) {
    said.classList.add("wrong");
    said.textContent = error.message;
  }
  clearTimeout(slow);
  said.scrollIntoView({ block: "nearest" });
  section.removeAttribute("aria-busy");
  button.removeAttribute("aria-disabled");
}

// Enter asks, also where a text may have several lines (Shift and Enter); but not the one that ends the input of a
// Chinese word, which is the input method's own.
function enter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}

for (const form of document.forms) form.addEventListener("submit", submit);
for (const area of document.querySelectorAll("textarea")) area.addEventListener("keydown", enter);
addEventListener("hashchange", open);
open();
