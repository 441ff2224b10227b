// Makes a book for paper of the page that holds all of it, given the names of its parts: the "book"
// without its solutions, or the "solutions", each below its exercise.
async ([parts, edition]) => {
  const element = (name, className, text) => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  };

  const unfold = () => {
    for (const link of document.querySelectorAll(".headerlink")) link.remove();
    for (const summary of document.querySelectorAll("details > summary")) {
      const folded = summary.parentElement;
      if (folded.matches(".solution")) {
        const box = element("div", folded.className, "");
        box.id = folded.id;
        box.append(element("p", "admonition-title", summary.textContent));
        summary.remove();
        box.append(...folded.childNodes);
        folded.replaceWith(box);
        continue;
      }
      summary.remove();
      folded.replaceWith(...folded.childNodes);
    }
    document.querySelector("#take-it-along")?.remove(); // it is about files beside the HTML
  };

  // A chapter stands below the landing page here; on paper both are of one level.
  const promote = (chapter) => {
    for (const heading of chapter.querySelectorAll("h2, h3, h4, h5, h6")) {
      const higher = document.createElement(`h${heading.tagName[1] - 1}`);
      higher.append(...heading.childNodes);
      heading.replaceWith(higher);
    }
  };

  const entry = (chapter) => {
    const title = chapter.querySelector("h1").textContent;
    const line = element("a", "entry", "");
    line.href = `#${chapter.id}`;
    line.append(element("span", "title", title), element("span", "page", "000"));
    return line;
  };

  // Each chapter has a running title, which a page takes from the style it is named after.
  const run = (chapter, number) => {
    const title = JSON.stringify(chapter.querySelector("h1").textContent);
    const style = `@page chapter-${number} { @top-center { content: ${title}; } }`;
    document.head.append(element("style", "", style));
    chapter.style.page = `chapter-${number}`;
  };

  const arrange = () => {
    const contents = document.querySelector("nav");
    const landing = document.querySelector("article > section");
    const wrappers = [...document.querySelectorAll(".toctree-wrapper")];
    contents.append(element("p", "contents", "Contents"), entry(landing));
    const chapters = wrappers.map((part) => [...part.querySelectorAll(":scope > section")]);
    chapters.flat().forEach((chapter) => {
      chapter.prepend(chapter.previousElementSibling); // where links to the chapter lead
      promote(chapter);
    });
    landing.after(...wrappers);
    wrappers.forEach((part, index) => {
      if (parts[index]) contents.append(element("p", "part", parts[index]));
      contents.append(...chapters[index].map(entry));
    });
    [landing, ...chapters.flat()].forEach(run);
  };

  const select = () => {
    if (edition === "book") {
      for (const solution of document.querySelectorAll(".solution")) solution.remove();
      return;
    }
    document.querySelector(".title-page .title").after(element("p", "subtitle", "Solutions"));
    for (const chapter of document.querySelectorAll("article > section, .toctree-wrapper > section")) {
      const kept = chapter.querySelectorAll(".exercise, .solution");
      if (kept.length) chapter.replaceChildren(chapter.querySelector("h1"), ...kept);
      else {
        document.querySelector(`nav [href="#${chapter.id}"]`).remove();
        chapter.remove();
      }
    }
    for (const part of document.querySelectorAll("nav .part"))
      if (!part.nextElementSibling?.matches(".entry")) part.remove();
    for (const link of document.querySelectorAll("article a[href^='#']"))
      if (!document.getElementById(link.hash.slice(1))) link.replaceWith(...link.childNodes);
  };

  const fit = () => {
    const fitted = "article mjx-container[display='true'], article table, article .sig";
    for (const wide of document.querySelectorAll(fitted)) {
      const room = wide.parentElement.clientWidth;
      const width = Math.max(wide.scrollWidth, wide.firstElementChild?.scrollWidth ?? 0);
      if (room && width > room) wide.style.fontSize = `${Math.floor((96 * room) / width)}%`;
    }
  };

  window.fillPageNumbers = (numbers) => {
    document.querySelectorAll("nav .page").forEach((page, index) => {
      page.textContent = numbers[index];
    });
  };

  // Each coloured word of code becomes a tag in the file: colour those that carry the structure.
  const simplify = (code) => {
    for (const word of code.querySelectorAll("span:not(.k, .kn, .kc, .ow, .c1, .s1, .s2, .sd)"))
      word.replaceWith(...word.childNodes);
    code.normalize();
  };

  // One tag for a formula, with its source to be read out, in place of one for each of its letters.
  const describe = (formula) => {
    formula.typesetRoot.firstElementChild.removeAttribute("aria-hidden");
    formula.typesetRoot.setAttribute("role", "img");
    formula.typesetRoot.setAttribute("aria-label", formula.math.trim());
  };

  unfold();
  arrange();
  select();
  document.querySelectorAll("pre").forEach(simplify);
  await MathJax.startup.promise;
  await MathJax.typesetPromise();
  for (const formula of MathJax.startup.document.math) describe(formula);
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode()));
  fit();
}
