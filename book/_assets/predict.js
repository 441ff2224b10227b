"use strict";

// A question's choices become radio buttons that remember, and what was chosen is said again at the
// answer. Without this script, or with storage switched off, they are lists, or forget.
addEventListener("DOMContentLoaded", () => {
  const page = location.pathname.split("/").pop().replace(/\.html$/, "");
  const key = (/** @type {number} */ question) => `prediction:${page}:${question}`;
  const remember = (question, choice) => {
    try {
      localStorage.setItem(key(question), choice);
    } catch {}
  };
  const recall = (question) => {
    try {
      return localStorage.getItem(key(question));
    } catch {
      return null;
    }
  };
  const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

  document.querySelectorAll("ul.choices").forEach((list, index) => {
    const question = index + 1;
    const answer = document.getElementById(`answer-${question}`);
    const asked = list.previousElementSibling;
    asked.id ||= `question-${question}`;
    const group = make("fieldset", { className: "choices" });
    group.setAttribute("aria-labelledby", asked.id);
    list.before(group);
    group.append(list);

    const noted = make("p", { className: "noted" });
    noted.setAttribute("role", "status");
    group.append(noted);
    const said = make("p", { className: "you-said", hidden: true });
    answer?.before(said);

    const choose = (/** @type {HTMLInputElement} */ input) => {
      noted.replaceChildren("Noted. ");
      if (answer) noted.append(make("a", { href: `#${answer.id}`, textContent: "See what happens" }), " when you get there.");
      said.hidden = false;
      const words = [...input.parentElement.childNodes].filter((node) => node !== input);
      said.replaceChildren("You said ", ...words.map((node) => node.cloneNode(true)));
    };
    for (const item of list.children) {
      const value = item.textContent.trim()[1];
      const input = make("input", { type: "radio", name: key(question), value });
      const label = make("label");
      label.append(input, ...(item.querySelector("p") ?? item).childNodes);
      item.replaceChildren(label);
      input.addEventListener("change", () => {
        remember(question, value);
        choose(input);
      });
      if (recall(question) === value) {
        input.checked = true;
        choose(input);
      }
    }
  });
});
