// Prepare a page for a walk with the Tab key: mark what a reader can see and act on, and note what gets the focus.
() => {
  const kinds = "a[href], button, summary, input, select, textarea, [tabindex='0']";
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  };
  // Of a group of radio buttons one takes the focus, and the arrow keys go on from there.
  const passedOver = (element) => element.matches(":disabled, [type=radio]:not(:checked), [type=hidden]");
  const places = ".bd-article, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-area";
  const all = [...document.querySelectorAll(places)].flatMap((place) => [...place.querySelectorAll(kinds)]);
  const expected = new Set(all.filter((element) => seen(element) && !passedOver(element)));
  const walk = {total: expected.size, unseen: new Set(), order: 0};
  window.keyboardWalk = walk;
  const describe = (element) => `${element.tagName.toLowerCase()}.${element.className}: ${(element.innerText ?? element.value ?? "").trim().slice(0, 50)}`;
  walk.left = () => [...expected].map(describe);
  walk.hidden = () => [...walk.unseen];
  document.addEventListener("focusin", ({target}) => {
    expected.delete(target);
    const style = getComputedStyle(target);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    if (!outlined && style.boxShadow === "none") walk.unseen.add(describe(target));
  });
  return walk.total;
};
