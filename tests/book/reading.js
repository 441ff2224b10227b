// Opens all folds of a page and waits until it has come to rest; then lists, by kind, what a reader
// would stumble over. A kind without findings is an empty list.
async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (const button of document.querySelectorAll(".toggle-button-hidden")) button.click();
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));

  const root = document.documentElement;
  const content = document.querySelector("article") ?? document.querySelector("main");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const words = (text) => text.trim().split(/\s+/);
  const name = (element) =>
    `<${element.localName} id="${element.id}" class="${element.className}"> ` +
    words(element.textContent).join(" ").slice(0, 60);
  const ancestors = (element) =>
    element.parentElement ? [element.parentElement, ...ancestors(element.parentElement)] : [];

  // A box within the text may scroll sideways, what holds the text should not.
  const overflow = (element) => getComputedStyle(element).overflowX;
  const scrolls = (element) => /auto|scroll/.test(overflow(element)) && !element.contains(content);
  const leaves = (element, box) => {
    const [inner, outer] = [element.getBoundingClientRect(), box.getBoundingClientRect()];
    return inner.right > outer.right + 1 || inner.left < outer.left - 1;
  };
  const isCut = (element) => {
    const around = ancestors(element);
    const scrolling = around.findIndex(scrolls);
    return around
      .slice(0, scrolling < 0 ? around.length : scrolling)
      .some((box) => (box === root || overflow(box) !== "visible") && leaves(element, box));
  };
  const tooWide = ancestors(content).filter(
    (box) => (box === root || overflow(box) !== "visible") && box.scrollWidth > box.clientWidth,
  );
  const reasons = tooWide.length
    ? all("*", content).filter((part) => leaves(part, root) && !ancestors(part).some(scrolls))
    : [];

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = [];
  while (texts.nextNode()) {
    const { data, parentElement } = texts.currentNode;
    if (/\\[([]/.test(data) && !parentElement.closest("script, style, pre, code")) raw.push(data);
  }

  return {
    "wider than the screen": [...tooWide, ...reasons].map(name),
    "formula not typeset": raw.concat(
      all(".math").filter((place) => !place.querySelector("mjx-container")).map(name),
    ),
    "formula in error": all("mjx-merror, [data-mjx-error], mtext[mathcolor='red']").map(name),
    "formula cut": all("mjx-container")
      .filter((formula) => formula.checkVisibility() && isCut(formula))
      .map(name),
    "picture without a description": all("img")
      .filter((img) =>
        content.contains(img)
          ? words(img.alt).length < 10 || /\.(svg|png)\b/i.test(img.alt)
          : !img.alt && !img.closest("a, button")?.textContent.trim(),
      )
      .map((img) => `${img.src}: "${img.alt}"`),
  };
};
