"use strict";

// What scrolls can be reached by keyboard, at any width, in an opened fold, too.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) {
        target.tabIndex = 0;
      }
    }
  });
  for (const region of document.querySelectorAll("pre, mjx-container[display], .output.text_html")) {
    observer.observe(region);
  }
});
