(function () {
  "use strict";
  const svg = document.getElementById("timeline"), plot = document.getElementById("plot");
  const words = document.querySelectorAll("#words text"), ticks = document.getElementById("ticks"), pointer = document.getElementById("pointer");
  const [span, left, width, head, bottom] = ["span", "left", "width", "head", "bottom"].map((name) => +svg.dataset[name]);
  const height = svg.viewBox.baseVal.height;
  const steps = [50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 864e5];
  let from = 0, until = span, begun = null;
  const two = (n) => String(n).padStart(2, "0");
  function clock(ms, digits) {
    const s = ms / 1000;
    if (s < 60) return s.toFixed(digits) + " s";
    const rest = digits ? (s % 60).toFixed(digits).padStart(3 + digits, "0") : two(Math.floor(s % 60));
    return (s < 3600 ? Math.floor(s / 60) : Math.floor(s / 3600) + ":" + two(Math.floor(s / 60) % 60)) + ":" + rest;
  }
  function element(name, attributes, text) {
    const made = document.createElementNS(svg.namespaceURI, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text) made.textContent = text;
    return made;
  }
  const x = (ms) => left + (ms - from) / (until - from) * width;
  function show(a, b) {
    const least = Math.min(200, span), long = Math.min(Math.max(b - a, least), span);
    from = Math.min(Math.max(a, 0), span - long);
    until = from + long;
    plot.setAttribute("viewBox", from + " 0 " + long + " " + height);
    for (const word of words) {
      const a = Math.max(+word.dataset.a, from), b = Math.min(+word.dataset.b, until);
      const room = (b - a) / long * width;
      word.style.display = room >= word.textContent.length * 6.1 + 6 ? "" : "none";
      word.setAttribute("x", x(a) + 3);
    }
    const step = steps.find((step) => long / step <= 14) || 864e5, digits = step < 100 ? 2 : step < 1000 ? 1 : 0;
    ticks.replaceChildren();
    for (let at = Math.ceil(from / step) * step; at <= until; at += step) {
      const text = clock(at, digits);
      ticks.append(element("line", { class: "tick", x1: x(at), x2: x(at), y1: head - 4, y2: bottom }),
        element("text", { class: "time", x: x(at), y: head - 10 }, text), element("text", { class: "time", x: x(at), y: bottom + 15 }, text));
    }
  }
  function time(event) {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    return from + (Math.min(Math.max(at, left), left + width) - left) / width * (until - from);
  }
  svg.addEventListener("pointermove", (event) => {
    const now = time(event);
    pointer.replaceChildren(element("line", { x1: x(now), x2: x(now), y1: head - 4, y2: bottom }),
      element("text", { x: x(now), y: bottom + 15 }, clock(now, 2)));
    if (begun !== null) {
      const a = Math.min(begun, now), b = Math.max(begun, now);
      pointer.append(element("rect", { x: x(a), y: head - 4, width: x(b) - x(a), height: bottom - head + 4 }));
    }
  });
  svg.addEventListener("pointerdown", (event) => { begun = event.button ? null : time(event); });
  svg.addEventListener("pointerleave", () => { pointer.replaceChildren(); });
  addEventListener("pointerup", (event) => {
    if (begun === null) return;
    const a = begun, b = time(event);
    begun = null;
    if (Math.abs(b - a) > (until - from) / 150) show(Math.min(a, b), Math.max(a, b));
  });
  svg.addEventListener("dblclick", () => show(0, span));
  svg.addEventListener("wheel", (event) => {
    if (!event.shiftKey && !event.ctrlKey) return;
    event.preventDefault();
    const at = time(event), by = (event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8;
    show(at - (at - from) * by, at + (until - at) * by);
  }, { passive: false });
  const middle = () => (from + until) / 2, half = () => (until - from) / 2;
  const moves = {
    all: () => show(0, span),
    in: () => show(middle() - half() / 2, middle() + half() / 2),
    out: () => show(middle() - half() * 2, middle() + half() * 2),
    back: () => show(from - half(), until - half()),
    on: () => show(from + half(), until + half()),
  };
  for (const button of document.querySelectorAll("[data-move]")) button.addEventListener("click", moves[button.dataset.move]);
  for (const link of document.querySelectorAll("a[data-a]")) {
    link.addEventListener("click", () => {
      const a = +link.dataset.a, b = +link.dataset.b, around = Math.max(5000, (b - a) / 4);
      show(a - around, b + around);
    });
  }
  document.querySelector(".tools").hidden = false;
})();
