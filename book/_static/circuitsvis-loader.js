// CircuitsVis weighs 1.3 MB, more than everything else on a page, so a page fetches it, from this site, only when the
// reader asks for one of its figures. What it draws is then named and coloured so that everybody can read it.
(() => {
  const source = new URL("vendor/circuitsvis.js", document.currentScript.src).href;
  const figures = () => [...document.querySelectorAll("[data-circuitsvis]")];

  const fetchScript = () => {
    document.querySelectorAll(".sc-ask").forEach((button) => (button.disabled = true));
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => {
      document.dispatchEvent(new Event("circuitsvis-ready"));
      figures().forEach(name);
    };
    document.head.append(script);
  };

  // Black or white, whichever stands out more from the ground: they do equally where its luminance (WCAG 2.1) is 0.18.
  const inkOn = (element) => {
    const channels = getComputedStyle(element).backgroundColor.match(/[\d.]+/g).slice(0, 3).map((channel) => channel / 255);
    const [r, g, b] = channels.map((share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
  };

  // React draws when it likes, and again after a click on a head.
  const name = (figure) => {
    const label = figure.getAttribute("aria-label");
    const mend = () => {
      figure.querySelectorAll("canvas:not([aria-label])").forEach((canvas) => {
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", label);
      });
      figure.querySelectorAll("h4").forEach((heading) => (heading.style.color = inkOn(heading)));
    };
    mend();
    new MutationObserver(mend).observe(figure, {childList: true, subtree: true});
  };

  document.addEventListener("DOMContentLoaded", () => {
    if (window.CircuitsVis) return;
    for (const figure of figures()) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sc-ask";
      button.textContent = `Draw the ${figure.getAttribute("aria-label")} (loads 1.3 MB)`;
      button.addEventListener("click", fetchScript);
      figure.replaceChildren(button);
    }
  });
})();
