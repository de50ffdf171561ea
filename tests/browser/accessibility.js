// Rules that can be checked on any page; returns what breaks them.
() => {
  const problems = [];
  const shown = (element) => element.getClientRects().length > 0;
  const name = (element) => element.outerHTML.slice(0, 90).replace(/\s+/g, " ");

  if (!document.documentElement.lang) { problems.push("html has no lang"); }
  if (!document.title.trim()) { problems.push("page has no title"); }
  if (document.querySelectorAll("h1").length !== 1) { problems.push("page has not exactly one h1"); }
  if (document.querySelectorAll("main").length !== 1) { problems.push("page has not exactly one main"); }

  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => problems.push("id twice: " + id));

  let level = 1;
  document.querySelectorAll("h1, h2, h3, h4").forEach((heading) => {
    const here = Number(heading.tagName[1]);
    if (here > level + 1) { problems.push("heading skips a level: " + name(heading)); }
    level = here;
  });
  document.querySelectorAll("img").forEach((image) => {
    if (!image.hasAttribute("alt")) { problems.push("image without alt: " + name(image)); }
  });
  document.querySelectorAll("input:not([type=hidden]), select, textarea").forEach((field) => {
    if (!field.labels.length && !field.ariaLabel) { problems.push("field without label: " + name(field)); }
  });
  document.querySelectorAll("a[href], button, summary").forEach((control) => {
    if (!(control.ariaLabel || control.textContent).trim()) { problems.push("control without name: " + name(control)); }
  });
  document.querySelectorAll("th").forEach((head) => {
    if (!head.scope) { problems.push("th without scope: " + name(head)); }
  });
  document.querySelectorAll("[role=img], [role=region], svg").forEach((part) => {
    if (shown(part) && !part.ariaLabel && !part.getAttribute("aria-labelledby")) { problems.push("no name: " + name(part)); }
  });
  document.querySelectorAll("[aria-labelledby]").forEach((part) => {
    if (!document.getElementById(part.getAttribute("aria-labelledby"))) { problems.push("label is missing: " + name(part)); }
  });
  document.querySelectorAll(".scroll").forEach((part) => {
    if (part.tabIndex !== 0) { problems.push("scrolls, but not by keyboard: " + name(part)); }
  });

  // Contrast of text against what lies behind it, WCAG 2.2, 1.4.3.
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((c) => {
    const part = c / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const rgba = channels(getComputedStyle(at).backgroundColor);
      if (rgba.length < 4 || rgba[3] > 0.99) { return rgba; }
    }
    return [255, 255, 255];
  };
  const seen = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(element)) { continue; }
    if (element.closest(".off, [aria-hidden=true]")) { continue; }
    const style = getComputedStyle(element);
    const pair = [luminance(channels(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    const key = style.color + getComputedStyle(element).backgroundColor + element.className;
    if (ratio < 4.5 && !seen.has(key)) {
      seen.add(key);
      problems.push("contrast " + ratio.toFixed(2) + ": " + name(element));
    }
  }
  return problems;
}
