// Inflates script and data of the explorers of this name. Python puts the name in place of IDENTIFIER.

const inflate = (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
};

const start = async (host) => {
  // Set at once, so that a second script of the same name leaves this explorer alone while it is being inflated.
  host.dataset.opened = "";
  if (!("DecompressionStream" in globalThis)) {
    const words = "This browser is too old to run the circuit (it has no DecompressionStream): the drawing is not live.";
    host.querySelector(".scx-title").insertAdjacentHTML("afterend", `<p class="scx-still">${words}</p>`);
    return;
  }
  const text = await inflate(host.querySelector(".scx-packed").textContent);
  const end = text.indexOf("\n");
  host.circuit = JSON.parse(text.slice(0, end));
  const script = document.createElement("script");
  // An element runs wherever this script does; `eval` is forbidden on some pages. Its names are its own.
  script.textContent = `(() => {${text.slice(end)}\n})();`;
  host.append(script);
  script.remove();
};

document.querySelectorAll('[data-explorer="IDENTIFIER"]:not([data-opened])').forEach(start);
