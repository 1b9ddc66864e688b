// What scrolls sideways inside the page (a wide table, a formula, code) can be reached and scrolled with the keyboard.
(() => {
  const mend = () => {
    for (const region of document.querySelectorAll(".bd-article :is(table, pre, div.math, .output, [data-circuitsvis])")) {
      const scrolls = region.scrollWidth > region.clientWidth && getComputedStyle(region).overflowX !== "visible";
      if (scrolls) region.tabIndex = 0;
      else region.removeAttribute("tabindex");
    }
  };
  addEventListener("load", mend);
  addEventListener("resize", mend);
  // A table that was folded away has no width until it is opened.
  document.addEventListener("toggle", mend, true);
})();
