// CircuitsVis weighs 1.3 MB, so a page fetches it, from this site, only when it holds one of its figures.
(() => {
  const source = new URL("vendor/circuitsvis.js", document.currentScript.src).href;
  document.addEventListener("DOMContentLoaded", () => {
    if (!document.querySelector("[data-circuitsvis]") || window.CircuitsVis) return;
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => document.dispatchEvent(new Event("circuitsvis-ready"));
    document.head.append(script);
  });
})();
