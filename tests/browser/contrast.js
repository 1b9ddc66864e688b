// Return one sentence for each piece of visible text in the article or the sidebars whose contrast is too low.
() => {
  const parse = (color) => {
    const canvas = parse.canvas ??= Object.assign(document.createElement("canvas"), {width: 1, height: 1});
    const context = parse.context ??= canvas.getContext("2d", {willReadFrequently: true});
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((channel, i) => channel * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      const style = getComputedStyle(node);
      if (style.backgroundImage !== "none") return null;
      layers.push(parse(style.backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((channel) => {
      const share = channel / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (element.closest("svg, script, style, noscript, mjx-assistive-mml, .visually-hidden, [data-circuitsvis], [disabled]")) continue;
    const style = getComputedStyle(element);
    const below = ground(element);
    if (!below || parseFloat(style.fontSize) === 0) continue;
    const [light, dark] = [luminance(over(parse(style.color), below)), luminance(below)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      const place = element.closest("[class]")?.className ?? element.tagName;
      found.add(`${ratio.toFixed(2)}: ${style.color} on ${below.map(Math.round)} in ${place}: ${walker.currentNode.data.trim().slice(0, 40)}`);
    }
  }
  return [...found];
};
