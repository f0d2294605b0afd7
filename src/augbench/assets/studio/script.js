"use strict";
// The page of `augbench studio`. Texts are set as text, never as markup. All that counts is saved by the server.

const $ = (id) => document.getElementById(id);
const all = (query) => [...document.querySelectorAll(query)];
const el = (tag, props = {}, ...inner) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...inner.filter((one) => one !== null && one !== undefined));
  return node;
};
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`);
const number = (value) => value.toLocaleString("en");

let info = {};        // what the server says
let step = "surface";
let source = null;    // {name, image}
let mask = null;      // canvas of the source's size: white is where
let origin = { origin: "drawn", of: "" };
let strokes = [];     // masks before each stroke
let region = "";      // id of the mask on the server; "" = it changed
let outcome = null;   // {id, image, mask, difference} of the last job
let item = null;      // under certification: {...public, bitmap, maskCanvas, sourceBitmap, differenceBitmap}
let list = { state: "queue", prompt: "", items: [], total: 0 };
let revises = "";
let erasing = false;
const view = { zoom: 1, x: 0.5, y: 0.5 };

// -- server

const url = (name, query = {}) => `/api/${name}?${new URLSearchParams(query)}`;

async function answer(response) {
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
    throw new Error(problem.error);
  }
  return response;
}
async function get(name, query) { return (await answer(await reached(url(name, query)))).json(); }
async function post(name, body = {}) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await answer(await reached(url(name), options))).json();
}
async function picture(name, query) { return createImageBitmap(await (await answer(await reached(url(name, query)))).blob()); }
async function reached(address, options) {
  try { return await fetch(address, options); } catch { throw new Error("the server does not answer: is augbench studio still running?"); }
}

let hiding = 0;
function say(text, isError = false) {
  const box = $("message");
  box.textContent = text; box.hidden = false; box.className = isError ? "error" : "";
  clearTimeout(hiding); hiding = setTimeout(() => { box.hidden = true; }, isError ? 9000 : 2600);
}
const guarded = (act) => async (...given) => { try { await act(...given); } catch (error) { say(error.message, true); } };
const on = (id, event, act) => $(id).addEventListener(event, guarded(act));

// -- images: panes that share zoom and place

const panes = new Map();
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function outlineOf(canvas) {  // the border of a mask as a path in its pixels
  const { width, height } = canvas;
  const data = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[4 * (y * width + x) + 3] > 127 && data[4 * (y * width + x)] > 127;
  const path = new Path2D();
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (!at(x, y)) continue;
    if (!at(x - 1, y)) { path.moveTo(x, y); path.lineTo(x, y + 1); }
    if (!at(x + 1, y)) { path.moveTo(x + 1, y); path.lineTo(x + 1, y + 1); }
    if (!at(x, y - 1)) { path.moveTo(x, y); path.lineTo(x + 1, y); }
    if (!at(x, y + 1)) { path.moveTo(x, y + 1); path.lineTo(x + 1, y + 1); }
  }
  return path;
}

function place(pane, image) {  // scale and offset of an image in a pane, in device pixels
  const { width, height } = pane.canvas;
  const pad = 16 * devicePixelRatio;
  const fit = Math.min((width - 2 * pad) / image.width, (height - 2 * pad) / image.height);
  const scale = fit * view.zoom;
  return { scale, left: width / 2 - view.x * image.width * scale, top: height / 2 - view.y * image.height * scale };
}

function show(wanted) {  // [{name, label, image, mask, path, tint}]
  const names = wanted.map((one) => one.name);
  for (const [name, pane] of panes) if (!names.includes(name)) { pane.node.remove(); panes.delete(name); }
  wanted.forEach((one) => {
    if (!panes.has(one.name)) {
      const canvas = el("canvas"), label = el("p"), node = el("div", { className: "pane" }, canvas, label);
      const pane = { node, canvas, label, pointer: null };
      canvas.dataset.pane = one.name;
      listen(pane);
      panes.set(one.name, pane);
    }
    Object.assign(panes.get(one.name), { what: one });
    panes.get(one.name).label.textContent = one.label;
    $("panes").append(panes.get(one.name).node);
  });
  const image = wanted.find((one) => one.image)?.image, box = $("panes").getBoundingClientRect(), many = wanted.length;
  const fit = (width, height) => (image ? Math.min(width / image.width, height / image.height) : 0);
  $("panes").classList.toggle("stacked", fit(box.width, box.height / many) > fit(box.width / many, box.height));
  draw();
}

function draw() {
  for (const pane of panes.values()) {
    const { canvas, what } = pane;
    const box = canvas.getBoundingClientRect();
    const size = [Math.max(1, Math.round(box.width * devicePixelRatio)), Math.max(1, Math.round(box.height * devicePixelRatio))];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, ...size);
    pane.node.classList.toggle("drawing", step === "where");
    pane.node.classList.toggle("moving", step !== "where");
    if (!what.image) continue;
    const { scale, left, top } = place(pane, what.image);
    pen.imageSmoothingEnabled = scale < 3;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(what.image, left, top, what.image.width * scale, what.image.height * scale);
    if (what.mask && $("show-outline").checked) {
      if (what.tint) {
        pen.globalAlpha = 0.38; pen.imageSmoothingEnabled = false;
        pen.drawImage(tinted(what.mask), left, top, what.image.width * scale, what.image.height * scale);
        pen.globalAlpha = 1;
      }
      what.path = what.path || outlineOf(what.mask);
      pen.save();
      pen.setTransform(scale, 0, 0, scale, left, top);
      for (const [style, width] of [["rgba(0,0,0,.5)", 3], ["#fff", 1.4]]) {
        pen.strokeStyle = style; pen.lineWidth = (width * devicePixelRatio) / scale; pen.lineCap = "square"; pen.stroke(what.path);
      }
      pen.restore();
    }
    if (step === "where" && pane.pointer) {
      const [x, y] = pane.pointer;
      pen.beginPath();
      pen.arc(left + x * scale, top + y * scale, Math.max(2, (brush() * scale) / 2), 0, 7);
      pen.lineWidth = 1.5 * devicePixelRatio; pen.strokeStyle = erasing ? "#fff" : colour("--accent"); pen.stroke();
    }
  }
}

function tinted(canvas) {
  const copy = el("canvas", { width: canvas.width, height: canvas.height }), pen = copy.getContext("2d");
  pen.drawImage(canvas, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = colour("--accent");
  pen.fillRect(0, 0, copy.width, copy.height);
  return copy;
}

function listen(pane) {
  const { canvas } = pane;
  const at = (event) => {
    const box = canvas.getBoundingClientRect(), { scale, left, top } = place(pane, pane.what.image);
    return [((event.clientX - box.left) * devicePixelRatio - left) / scale, ((event.clientY - box.top) * devicePixelRatio - top) / scale];
  };
  let last = null, moving = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (!pane.what.image) return;
    canvas.setPointerCapture(event.pointerId);
    if (step === "where" && event.button === 0 && !event.shiftKey) {
      strokes.push(copyOf(mask)); if (strokes.length > 60) strokes.shift();
      last = at(event); stroke(last, last);
    } else moving = [event.clientX, event.clientY];
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pane.what.image) return;
    pane.pointer = at(event);
    if (last) { for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) { const next = at(one); stroke(last, next); last = next; } }
    else if (moving) {
      const { scale } = place(pane, pane.what.image);
      view.x -= ((event.clientX - moving[0]) * devicePixelRatio) / scale / pane.what.image.width;
      view.y -= ((event.clientY - moving[1]) * devicePixelRatio) / scale / pane.what.image.height;
      moving = [event.clientX, event.clientY];
    }
    draw();
  });
  const end = () => { if (last) changed(); last = moving = null; };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => { pane.pointer = null; draw(); });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => { if (step !== "where") zoom("fit"); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!pane.what.image) return;
    const [x, y] = at(event), { width, height } = pane.what.image, before = view.zoom;
    view.zoom = Math.min(40, Math.max(1, view.zoom * Math.exp(-event.deltaY / 500)));
    const kept = before / view.zoom;
    view.x = x / width + (view.x - x / width) * kept; view.y = y / height + (view.y - y / height) * kept;
    if (view.zoom === 1) view.x = view.y = 0.5;
    draw();
  }, { passive: false });
}

function zoom(how) {
  if (how === "fit") Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  else view.zoom = Math.min(40, Math.max(1, view.zoom * (how === "in" ? 1.5 : 1 / 1.5)));
  draw();
}

function copyOf(canvas) { const copy = el("canvas", { width: canvas.width, height: canvas.height }); copy.getContext("2d", { willReadFrequently: true }).drawImage(canvas, 0, 0); return copy; }

async function maskCanvas(bitmap) {  // white where the mask is, transparent elsewhere
  const canvas = el("canvas", { width: bitmap.width, height: bitmap.height }), pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i] > 127 ? 255 : 0;
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

// -- steps

const panesOf = {
  surface: () => (source ? [{ name: "main", label: source.name, image: source.image }] : []),
  where: () => (source ? [{ name: "main", label: source.name, image: source.image, mask, tint: true }] : []),
  what: () => (source ? [{ name: "main", label: source.name, image: source.image, mask, tint: true }] : []),
  generate: () => {
    if (!source) return [];
    const marked = info.needs_region ? { mask } : {};
    const found = [{ name: "main", label: `source: ${source.name}`, image: source.image, tint: true, ...marked }];
    if (!outcome) return found;
    const made = [{ name: "made", label: `made: ${outcome.id}`, image: outcome.image, mask: outcome.mask }];
    if (!$("compare").checked) return made;
    if (outcome.source) found[0] = { ...found[0], image: outcome.source, mask: outcome.mask, label: `source: ${outcome.name}` };
    return [...found, ...made, ...(outcome.difference ? [{ name: "difference", label: "difference, 4 times", image: outcome.difference }] : [])];
  },
  certify: () => {
    if (!item) return [];
    const found = [{ name: "made", label: item.id, image: item.bitmap, mask: item.maskCanvas }];
    if (!$("compare").checked || !item.source_bitmap) return found;
    found.unshift({ name: "main", label: `source: ${item.source}`, image: item.source_bitmap });
    if (item.difference) found.push({ name: "difference", label: "difference, 4 times", image: item.difference });
    return found;
  },
  summary: () => [],
};

function render() {
  all("[data-step]").forEach((button) => {
    const name = button.dataset.step;
    if (name === step) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
    const ready = { surface: source, where: mask && !isEmpty(mask), what: $("prompt").value.trim(), generate: outcome, certify: info.counts?.decided, summary: false }[name];
    button.classList.toggle("ready", Boolean(ready));
    button.disabled = (Boolean(info.pool) && !["certify", "summary"].includes(name)) || (name === "where" && !info.needs_region);
  });
  all("[data-panel]").forEach((panel) => { panel.hidden = panel.dataset.panel !== step; });
  document.body.classList.toggle("in-summary", step === "summary");
  $("sheet").hidden = step !== "summary";
  $("panes").hidden = step === "summary";
  $("zoom").hidden = step === "summary";
  $("compare-box").hidden = !(step === "generate" || (step === "certify" && item && !item.hidden && item.has_source));
  const counts = info.counts || { queue: 0, decided: 0 };
  $("counts").replaceChildren(el("b", { textContent: number(counts.queue) }), " wait · ", el("b", { textContent: number(counts.decided) }), " decided");
  document.querySelector("[data-step=certify] span").textContent = counts.queue ? number(counts.queue) : "";
  const shown = panesOf[step]();
  const nothing = {
    surface: "No image here.", where: "Choose a surface first.", what: "Choose a surface first.", generate: "Choose a surface first.",
    certify: list.state === "queue" ? "Nothing waits for a decision." : "None here.", summary: "",
  }[step];
  $("empty").hidden = step === "summary" || Boolean(shown.length);
  $("empty").textContent = nothing;
  show(shown);
}

async function go(name) {
  if (name === "where" && !info.needs_region) name = "what";
  step = name;
  history.replaceState(null, "", `#${name}`);
  if (name === "surface" || name === "where" || name === "what") film(names, source?.name, (one) => choose(one), (one) => url("thumb", { name: one }));
  if (name === "what") prompts();
  if (name === "generate") { wish(); await estimate(); jobFilm(); }
  if (name === "where") keptMasks();
  if (name === "certify") await certify();
  if (name === "summary") await summary();
  render();
}

function film(ids, chosen, act, address, states = {}) {
  const shown = ids.map((id) => {
    const image = el("img", { src: address(id), alt: "", loading: "lazy" });
    const button = el("button", { type: "button", title: id, className: states[id] || "" }, image);
    button.setAttribute("role", "option");
    button.setAttribute("aria-selected", String(id === chosen));
    button.dataset.id = id;
    button.addEventListener("click", guarded(() => act(id)));
    return button;
  });
  $("film").replaceChildren(...shown);
  $("film").querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest", inline: "center" });
}
const mark = (id) => all("#film button").forEach((one) => one.setAttribute("aria-selected", String(one.dataset.id === id)));

// -- Surface

let names = [], total = 0, asked = 0;

async function search(query, offset = 0) {
  const mine = ++asked, found = await get("sources", { query, offset });
  if (mine !== asked) return;
  names = offset ? [...names, ...found.names] : found.names; total = found.total;
  $("found").textContent = total ? `${number(total)} of ${number(info.sources)} ${info.start}, ${number(names.length)} below` : "None has this name.";
  if (["surface", "where", "what"].includes(step)) film(names, source?.name, (one) => choose(one), (one) => url("thumb", { name: one }));
}

async function choose(name) {
  const image = await picture("source", { name });
  const same = source && source.image.width === image.width && source.image.height === image.height;
  source = { name, image };
  if (!same || !mask) mask = el("canvas", { width: image.width, height: image.height });
  if (!same) strokes = [];
  changed(); zoom("fit");
  $("brush").max = Math.max(8, Math.round(Math.min(image.width, image.height) / 2));
  if (!same) $("brush").value = Math.max(3, Math.round(Math.min(image.width, image.height) / 12));
  brushShown();
  facts("source-facts", { name, size: `${image.width} × ${image.height}` });
  mark(name);
  render();
}

function facts(id, values) {
  const rows = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  $(id).replaceChildren(...rows.flatMap(([key, value]) => [el("dt", { textContent: key }), el("dd", { textContent: String(value) })]));
}

let typed = 0;
on("query", "input", () => { clearTimeout(typed); typed = setTimeout(guarded(() => search($("query").value)), 180); });
on("random", "click", async () => {
  if (!total) return;
  const offset = Math.floor(Math.random() * total), found = await get("sources", { query: $("query").value, offset });
  await choose(found.names[0]);
});
on("next-source", "click", async () => {
  let at = names.indexOf(source?.name) + 1;
  if (at >= names.length && names.length < total) await search($("query").value, names.length);
  if (names.length) await choose(names[at % names.length]);
});

// -- Where

const brush = () => Number($("brush").value);
const brushShown = () => { $("brush-size").textContent = brush(); };
const isEmpty = (canvas) => !canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, canvas.width, canvas.height).data.some((value, i) => i % 4 === 3 && value > 127);

function stroke(from, to) {
  const pen = mask.getContext("2d", { willReadFrequently: true });
  pen.globalCompositeOperation = erasing ? "destination-out" : "source-over";
  pen.strokeStyle = pen.fillStyle = "#fff"; pen.lineWidth = brush(); pen.lineCap = pen.lineJoin = "round";
  pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + 0.001, to[1]); pen.stroke();
  const pane = panes.get("main"); if (pane) pane.what.path = null;
  region = "";
}

function changed() {  // the mask is another one
  region = "";
  if (mask) {
    const data = mask.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, mask.width, mask.height).data;
    let covered = 0; for (let i = 3; i < data.length; i += 4) covered += data[i] > 127;
    const share = covered / (mask.width * mask.height), real = info.mask_shares || [];
    $("share").textContent = covered ? `${percent(share)} of the image` : "Nothing is marked yet.";
    const place = (value) => `${Math.min(100, 100 * Math.sqrt(value / Math.max(share, real[2] || 0.1, 0.02)))}%`;
    $("gauge").querySelector("b").style.left = place(share);
    const band = $("gauge").querySelector("i");
    band.hidden = !real.length;
    if (real.length) { band.style.left = place(real[0]); band.style.width = `calc(${place(real[2])} - ${place(real[0])})`; }
    $("share-real").textContent = real.length ? `Real training defects: ${percent(real[0])} to ${percent(real[2])}, median ${percent(real[1])}.` : "No real training defect has a mask to compare with.";
  }
  const pane = panes.get("main"); if (pane?.what) pane.what.path = null;
  render();
}

function setMask(canvas, from) { if (mask) strokes.push(copyOf(mask)); mask = canvas; origin = from; changed(); }
function undoStroke() { if (strokes.length) { mask = strokes.pop(); if (!strokes.length) origin = { origin: "drawn", of: "" }; changed(); } }
function tool(isErasing) { erasing = isErasing; $("draw").setAttribute("aria-pressed", String(!erasing)); $("erase").setAttribute("aria-pressed", String(erasing)); draw(); }

on("draw", "click", () => tool(false));
on("erase", "click", () => tool(true));
on("brush", "input", brushShown);
on("undo-stroke", "click", undoStroke);
on("clear", "click", () => { if (mask) setMask(el("canvas", { width: mask.width, height: mask.height }), { origin: "drawn", of: "" }); });
on("procedural", "click", async () => {
  if (!source) throw new Error("choose a surface first");
  const kind = $("kind").value, seed = Math.floor(Math.random() * 2 ** 31);
  setMask(await maskCanvas(await picture("procedural", { source: source.name, kind, area: $("area").value, seed })), { origin: "procedural", of: kind });
});
async function loadReal(name) {
  if (!source) throw new Error("choose a surface first");
  if (name) setMask(await maskCanvas(await picture("defect_mask", { name, source: source.name })), { origin: "defect", of: name });
}
on("real", "change", () => loadReal($("real").value));
on("random-real", "click", async () => {
  const options = [...$("real").options].filter((one) => one.value);
  if (!options.length) return;
  $("real").value = options[Math.floor(Math.random() * options.length)].value;
  await loadReal($("real").value);
});
on("keep-mask", "click", async () => { take(await post("keep_region", { region: await sent() })); keptMasks(); say("kept in masks/"); });

async function sent() {  // the id of the mask on the server
  if (!info.needs_region) return "";
  if (!mask || isEmpty(mask)) throw new Error("mark where the defect is to be, under Where");
  if (region) return region;
  const canvas = el("canvas", { width: mask.width, height: mask.height }), pen = canvas.getContext("2d");
  pen.fillStyle = "#000"; pen.fillRect(0, 0, canvas.width, canvas.height); pen.drawImage(mask, 0, 0);
  const body = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const response = await answer(await reached(url("region", { source: source.name, ...origin }), { method: "POST", headers: { "Content-Type": "image/png" }, body }));
  region = (await response.json()).region;
  return region;
}

function keptMasks() {
  $("kept-box").hidden = !info.masks.length;
  $("kept-masks").replaceChildren(...info.masks.map((one) => {
    const load = el("button", { type: "button", textContent: one.name.slice(0, -4), title: [one.origin, one.of].filter(Boolean).join(": ") });
    load.addEventListener("click", guarded(async () => {
      if (!source) throw new Error("choose a surface first");
      setMask(await maskCanvas(await picture("kept_mask", { name: one.name, source: source.name })), { origin: one.origin === "procedural" ? "procedural" : "drawn", of: one.of });
    }));
    const drop = el("button", { type: "button", textContent: "✕", title: "Take it out of masks/" });
    drop.addEventListener("click", guarded(async () => { take(await post("drop_mask", { name: one.name })); keptMasks(); }));
    return el("span", {}, load, drop);
  }));
}

// -- What

function prompts() {
  $("own-prompts").replaceChildren(...info.prompts.map((one) => {
    const use = el("button", { type: "button", className: "use", textContent: one.prompt });
    use.addEventListener("click", () => { $("prompt").value = one.prompt; render(); });
    const keep = el("input", { type: "checkbox", checked: one.kept, title: "Keep it in prompts.yaml" });
    keep.addEventListener("change", guarded(async () => { take(await post("keep_prompt", { prompt: one.prompt, kept: keep.checked })); prompts(); }));
    const rate = one.rate === null ? "–" : `${percent(one.rate)} of ${one.accepted + one.rejected}`;
    return el("tr", {}, el("td", {}, use), el("td", { className: "number", textContent: rate }), el("td", {}, keep));
  }));
  if (!info.prompts.length) $("own-prompts").replaceChildren(el("tr", {}, el("td", { colSpan: 3, className: "none", textContent: "None yet: those you generate with come here." })));
  $("negative-box").hidden = !info.needs_region;
}

function presets() {
  $("presets").replaceChildren(...info.presets.map((one) => {
    const inner = one.prompts.map((prompt) => {
      const use = el("button", { type: "button", className: "use", textContent: prompt });
      use.addEventListener("click", () => { $("prompt").value = prompt; if (one.negative !== null) $("negative").value = one.negative; render(); });
      return use;
    });
    return el("details", {}, el("summary", { textContent: `${one.name} (${one.prompts.length})` }), ...inner);
  }));
}
on("prompt", "input", render);

// -- Generate

function settings() {
  const limits = { strength: [0.05, 1, 0.01], guidance: [0, 30, 0.5], steps: [1, 100, 1] };
  $("settings").replaceChildren(...Object.entries(info.settings).map(([name, one]) => {
    const [min, max, by] = limits[name];
    const slide = el("input", { type: "range", min, max, step: by, value: one.value, title: one.help });
    const exact = el("input", { type: "number", min, step: by, value: one.value });
    exact.dataset.setting = name; exact.setAttribute("aria-label", name); slide.setAttribute("aria-label", name);
    slide.addEventListener("input", () => { exact.value = slide.value; later(); });
    exact.addEventListener("input", () => { slide.value = exact.value; later(); });
    return el("div", { className: "setting", title: one.help }, el("span", { textContent: name }), slide, exact);
  }));
}
const chosen = () => Object.fromEntries(all("[data-setting]").map((one) => [one.dataset.setting, Number(one.value)]));

function wish() {
  const where = info.needs_region ? (mask && !isEmpty(mask) ? $("share").textContent : "no region yet") : "the whole image";
  const parts = [`on ${source?.name ?? "no surface yet"}, ${where}`, $("negative").value.trim() && info.needs_region ? `not: ${$("negative").value.trim()}` : "", revises ? `to be better than ${revises}` : ""];
  $("wish").replaceChildren($("prompt").value.trim() || "no prompt yet", ...parts.filter(Boolean).map((text) => el("small", { textContent: text })));
}

let waiting = 0;
const later = () => { clearTimeout(waiting); waiting = setTimeout(guarded(estimate), 200); };
async function estimate() {
  const found = await get("estimate", { count: Math.max(1, Number($("count").value) || 1), ...chosen() });
  const load = found.is_loaded ? "" : " The pipeline is loaded first, once.";
  $("estimate").textContent = found.seconds === null ? `No image was made on this device yet, so the time is not known.${load}` : `About ${duration(found.seconds)}, by the last images.${load}`;
  $("unseen").textContent = Number($("count").value) > 1 ? "The first image is shown here; the others wait in Certify, unseen." : "";
}
const duration = (seconds) => (seconds < 10 ? `${seconds.toFixed(1)} s` : seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);
on("count", "input", later);

let jobItems = [];
on("generate", "click", async () => {
  if (!source) throw new Error("choose a surface first");
  const body = { source: source.name, prompt: $("prompt").value, negative_prompt: $("negative").value, region: await sent(), seed: Number($("seed").value), count: Number($("count").value), revises, ...chosen() };
  await post("generate", body);
  revises = ""; outcome = null; jobItems = [];
  await follow();
});
on("cancel", "click", async () => { await post("cancel"); });

let following = false;
async function follow() {
  if (following) return;
  following = true;
  try {
    for (;;) {
      take(await get("progress"));
      const { job } = info;
      const share = job.count ? (job.done + (job.steps ? Math.min(job.step / job.steps, 1) : 0)) / job.count : 0;
      const busy = job.state !== "idle";
      $("bar").hidden = !busy; $("bar").firstElementChild.style.width = `${100 * Math.min(1, share)}%`;
      $("generate").disabled = busy; $("cancel").hidden = !busy;
      const speed = share > 0.02 ? `, ${duration(job.seconds * (1 - share) / share)} left` : "";
      $("progress").textContent = !busy ? (job.message || (job.done ? `${job.done} made in ${duration(job.seconds)}` : "")) : job.state === "loading" ? "loading the pipeline" : `${job.done} of ${job.count}${job.steps ? `, step ${Math.min(job.step, job.steps)} of ${job.steps}` : ""}${speed}`;
      if (job.images.length && (!outcome || outcome.id !== job.images[0])) await showMade(job.images[0]);
      if (!busy) {
        if (job.message) say(job.message, !job.message.startsWith("cancelled"));
        if ($("new-seed").checked && job.done) $("seed").value = Math.floor(Math.random() * 1e6);
        if (step === "generate") await estimate();
        if (step === "certify" && !item) await certify();
        break;
      }
      await new Promise((done) => setTimeout(done, 250));
    }
  } finally { following = false; }
  render();
}

async function showMade(id) {
  const about = await get("item", { name: id }), image = await picture("image", { name: id });
  const made = { id, image, name: source?.name };
  if (about.has_mask) made.mask = await maskCanvas(await picture("image", { name: id, kind: "mask" }));
  if (!about.hidden && about.has_source) {
    made.source = await picture("image", { name: id, kind: "source" }); made.name = about.source;
    if (made.source.width === image.width) made.difference = await picture("image", { name: id, kind: "difference" });
  }
  outcome = made;
  if (step === "generate") { jobFilm(); render(); }
}
const jobFilm = () => $("film").replaceChildren();

// -- Certify

async function certify(id = "") {
  list = { ...list, state: $("show-state").value, prompt: $("filter").value };
  const filters = info.hides && list.state === "queue" ? [] : info.prompts.map((one) => one.prompt);
  $("filter-box").hidden = !filters.length;
  $("filter").replaceChildren(el("option", { value: "", textContent: "all" }), ...filters.map((one) => el("option", { value: one, textContent: one })));
  $("filter").value = filters.includes(list.prompt) ? list.prompt : ""; list.prompt = $("filter").value;
  const found = await get("items", { state: list.state, prompt: list.prompt });
  list.items = found.items; list.total = found.total;
  await look(id || found.items[0]?.id || "");
}

function filmOfItems() {
  const states = Object.fromEntries(list.items.map((one) => [one.id, one.state]));
  film(list.items.map((one) => one.id), item?.id, (id) => look(id), (id) => url("image", { name: id, kind: "thumb" }), states);
}

let busy = 0;  // while another image comes, keys would decide about one that nobody sees
async function alone(act) {
  if (busy) return;
  busy += 1; shownItem();
  try { await act(); } finally { busy -= 1; shownItem(); }
}

async function look(id) {
  if (!id) { item = null; filmOfItems(); shownItem(); render(); return; }
  const about = await get("item", { name: id }), next = { ...about };
  next.bitmap = await picture("image", { name: id });
  if (about.has_mask) next.maskCanvas = await maskCanvas(await picture("image", { name: id, kind: "mask" }));
  if (!about.hidden && about.has_source) {
    next.source_bitmap = await picture("image", { name: id, kind: "source" });
    if (next.source_bitmap.width === next.bitmap.width && next.source_bitmap.height === next.bitmap.height) next.difference = await picture("image", { name: id, kind: "difference" });
  }
  item = next;
  if (all("#film button").some((one) => one.dataset.id === id)) mark(id); else filmOfItems();
  shownItem(); render();
}

function shownItem() {
  const none = !item;
  for (const id of ["accept", "reject", "revise"]) { $(id).disabled = none || busy > 0; $(id).classList.toggle("on", item?.decision === id); }
  $("undo").disabled = !info.can_undo || busy > 0;
  const words = { "": "waits for a decision", accept: "accepted", reject: "rejected", revise: "to be revised" };
  $("verdict").hidden = none;
  $("verdict").className = `state ${item && item.decision ? item.state : ""}`;
  $("verdict").textContent = none ? "" : [words[item.decision], item.reason].filter(Boolean).join(": ");
  if (item) $("reason").value = item.reason;
  const hidden = item?.hidden ? { note: "Prompt and source are hidden: there may be catch trials, real images that tell how sure the decisions are." } : {};
  facts("item-facts", none ? {} : { image: item.id, prompt: item.prompt, "not this": item.negative_prompt, source: item.source, region: item.region, seed: item.seed, ...(item.settings || {}), revises: item.revises, pool: item.pool, index: item.index, ...hidden });
}

async function decide(decision, reason = $("reason").value) {
  if (!item) return;
  const was = item, found = await post("decide", { name: was.id, decision, reason: decision === "accept" ? "" : reason, expected: was.decision });
  take(found);
  const listed = list.items.find((one) => one.id === was.id);
  if (listed) Object.assign(listed, { state: decision === "accept" ? "accepted" : "rejected", decision });
  all("#film button").filter((one) => one.dataset.id === was.id).forEach((one) => { one.className = listed?.state || ""; });
  say({ accept: "accepted", reject: "rejected", revise: "to be revised" }[decision] + (reason && decision !== "accept" ? `: ${reason}` : ""));
  if (decision === "revise" && !was.hidden && !info.pool && was.source) return begin(was);
  if (list.state !== "queue") return look(was.id);
  if (found.item && !list.items.some((one) => one.id === found.item.id)) return certify(found.item.id);
  await look(found.item?.id || "");
}

async function begin(was) {  // again, with what an image was made from
  await choose(was.source);
  $("prompt").value = was.prompt || ""; $("negative").value = was.negative_prompt || "";
  if (was.maskCanvas && info.needs_region) setMask(copyOf(was.maskCanvas), was.region === "mask of a real defect" ? { origin: "defect", of: was.mask_of || "" } : { origin: "drawn", of: "" });
  all("[data-setting]").forEach((one) => { const value = was.settings?.[one.dataset.setting]; if (value !== undefined) { one.value = value; one.previousElementSibling.value = value; } });
  revises = was.id; outcome = null;
  await go("generate");
}

async function undo() {
  const found = await post("undo");
  take(found);
  if (!found.item) { say("nothing to undo"); return; }
  say(`undone: ${found.item.id}`);
  if (list.state !== found.item.state) $("show-state").value = found.item.state;
  await certify(found.item.id);
}
async function beside(by) {
  const at = list.items.findIndex((one) => one.id === item?.id) + by;
  if (at >= list.items.length && list.items.length < list.total) {
    const more = await get("items", { state: list.state, prompt: list.prompt, offset: list.items.length });
    list.items.push(...more.items); filmOfItems();
  }
  if (list.items[at]) await look(list.items[at].id);
}
on("accept", "click", () => alone(() => decide("accept")));
on("reject", "click", () => alone(() => decide("reject")));
on("revise", "click", () => alone(() => decide("revise")));
on("undo", "click", () => alone(undo));
on("show-state", "change", () => certify());
on("filter", "change", () => certify());

// -- Summary

async function summary() {
  const found = await get("summary"), out = [];
  $("numbers").replaceChildren(...[["accepted", found.counts.accepted], ["rejected", found.counts.rejected], ["waiting", found.counts.queue]].map(([name, value]) => el("div", {}, el("b", { textContent: number(value) }), el("span", { textContent: name }))));
  const table = (title, head, rows) => {
    if (!rows.length) return;
    out.push(el("h3", { textContent: title }), el("table", { className: "list" }, el("thead", {}, el("tr", {}, ...head.map((text, i) => el("th", { textContent: text, className: i ? "number" : "" })))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text, i) => el("td", { textContent: text, className: i ? "number" : "" })))))));
  };
  const share = (one) => (one.accepted + one.rejected ? percent(one.accepted / (one.accepted + one.rejected)) : "–");
  table("By prompt", ["prompt", "images", "accepted", "rate"], found.prompts.filter((one) => one.images).map((one) => [one.prompt, one.images, one.accepted, share(one)]));
  table("By region", ["region", "images", "accepted", "rate"], found.regions.map((one) => [one.region, one.images, one.accepted, share(one)]));
  table("Why not", ["reason", "images"], Object.entries(found.reasons));
  const rate = (one) => (one.decided ? `${percent(one.rate)} (${one.accepted} of ${one.decided}; 95 %: ${percent(one.low)} to ${percent(one.high)})` : "none decided yet");
  out.push(el("h3", { textContent: "Is the reviewer right?" }));
  if (found.catch_share || found.catch.hits.decided || found.catch.false_accepts.decided) {
    out.push(el("p", { className: "small", textContent: `Real defects accepted: ${rate(found.catch.hits)}.` }), el("p", { className: "small", textContent: `Normal images accepted: ${rate(found.catch.false_accepts)}.` }));
  } else out.push(el("p", { className: "small", textContent: "Not measured: start with --catch 0.1, and hidden real images among the others tell." }));
  out.push(el("h3", { textContent: "Distance to real defects (KID)" }));
  if (found.kid) out.push(el("p", { className: "small", textContent: `${found.kid.kid.toFixed(3)} (95 %: ${found.kid.low.toFixed(3)} to ${found.kid.high.toFixed(3)}): ${found.kid.accepted} accepted against ${found.kid.real} real ones, by ${found.kid.extractor}.` }));
  if (found.defects >= found.kid_needs) {
    const button = el("button", { type: "button", textContent: found.kid ? "Measure again" : "Measure" });
    button.addEventListener("click", guarded(async () => { await post("measure_kid"); say("measuring"); await follow(); await summary(); }));
    out.push(el("p", { className: "small", textContent: "It looks at real defects, and the review says so." }), button);
  } else out.push(el("p", { className: "small", textContent: `Needs ${found.kid_needs} real training defects, and there are ${found.defects}.` }));
  if (found.commands.length) out.push(el("h3", { textContent: "Use it" }));
  for (const one of found.commands) out.push(el("p", { className: "small", textContent: one.what }), el("pre", { textContent: one.command }));
  out.push(el("h3", { textContent: "What tables will say" }), el("p", { className: "small", textContent: `Prompts chosen by looking at: ${found.chosen_by}.` }));
  if (info.problems.length) out.push(el("h3", { textContent: "Damaged" }), ...info.problems.map((line) => el("p", { className: "small", textContent: line })));
  $("summary").replaceChildren(...out);
  $("film").replaceChildren();
  const any = found.counts.accepted + found.counts.rejected;
  $("sheet-image").hidden = !any;
  if (any) $("sheet-image").src = url("sheet", { at: Date.now() }).replace(/\?.*/, `#${Date.now()}`);
}

// -- keys, start

function take(found) { Object.assign(info, found); }

document.addEventListener("keydown", guarded(async (event) => {
  const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select");
  if (typing || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey) { if (key === "z" && (step === "where" || step === "certify")) { event.preventDefault(); if (step === "where") undoStroke(); else await alone(undo); } return; }
  if (key === "+" || key === "=") zoom("in"); else if (key === "-") zoom("out"); else if (key === "0") zoom("fit");
  else if (key === "o") { $("show-outline").checked = !$("show-outline").checked; draw(); }
  else if (step === "where" && key === "x") tool(!erasing);
  else if (step === "where" && (key === "[" || key === "]")) { $("brush").value = brush() + (key === "]" ? 1 : -1); brushShown(); draw(); }
  else if (step === "certify" && !event.repeat) {
    const act = { a: () => decide("accept"), r: () => decide("reject"), e: () => decide("revise"), u: undo, arrowright: () => beside(1), arrowleft: () => beside(-1) }[key];
    const reason = /^[1-9]$/.test(key) && info.reasons[Number(key) - 1];
    if (act) { event.preventDefault(); await alone(act); } else if (reason) await alone(() => decide("reject", reason));
  }
}));
all("[data-step]").forEach((button) => button.addEventListener("click", guarded(() => { button.blur(); return go(button.dataset.step); })));
all("[data-go]").forEach((button) => button.addEventListener("click", guarded(() => go(button.dataset.go))));
all("[data-zoom]").forEach((button) => button.addEventListener("click", () => zoom(button.dataset.zoom)));
on("show-outline", "change", draw);
on("compare", "change", render);
on("theme", "click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark"; $("theme").textContent = dark ? "Dark" : "Light"; draw();
});
addEventListener("resize", draw);

guarded(async () => {
  take(await get("state"));
  $("about").textContent = [info.dataset, info.pool ? `pool ${info.pool}` : info.title, info.review].filter(Boolean).join("  ·  ");
  $("surface-lead").textContent = `The ${info.start} of the training side, ${number(info.sources)} of them. No other image is shown.`;
  $("reason").replaceChildren(el("option", { value: "", textContent: "none given" }), ...info.reasons.map((one, i) => el("option", { value: one, textContent: `${i + 1}  ${one}` })));
  settings(); presets(); prompts(); keptMasks();
  if (!info.pool) {
    if (info.presets.length) { const own = info.presets.find((one) => one.name === info.preset) || info.presets[0]; $("negative").value = own.negative || ""; }
    await search("");
    if (names.length) await choose(names[0]);
    const real = info.needs_region ? await get("defects") : { rows: [] };
    $("real-box").hidden = !real.rows.length;
    $("real").replaceChildren(el("option", { value: "", textContent: "choose" }), ...real.rows.map((one) => el("option", { value: one.name, textContent: `${one.label}: ${one.name}` })));
  }
  if (info.problems.length) say(`damaged: ${info.problems[0]}${info.problems.length > 1 ? ` (and ${info.problems.length - 1} more, see Summary)` : ""}`, true);
  const asked = location.hash.slice(1);
  await go(info.pool ? (asked === "summary" ? asked : "certify") : asked in panesOf ? asked : "surface");
  if (info.job.state !== "idle") await follow();
})();
