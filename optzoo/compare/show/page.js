"use strict";
const part = id => JSON.parse(document.getElementById(id).textContent);
const { optimizers, labels, problems, palette, sizes } = part("names");
const places = new Map(optimizers.map((name, place) => [name, place]));
const scheme = matchMedia("(prefers-color-scheme: dark)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const bar = document.getElementById("view");
const sheet = document.head.appendChild(document.createElement("style"));

// What readers chose, as the address keeps it: who has which colour, words of the names to show,
// and the place on the page.
const best = palette.map((_, place) => optimizers[place] ?? "");
const view = { pick: best, optimizers: "", problems: "", at: "" };
// The colours in the order in which they were given away, for the next to take the oldest one.
let given = palette.map((_, place) => palette.length - 1 - place);
let shown = new Set(optimizers);

function read() {
  const text = location.hash.slice(1);
  if (text && !text.includes("=")) {
    view.at = new URLSearchParams("at=" + text).get("at");
    return;
  }
  const asked = new URLSearchParams(text), pick = asked.getAll("pick");
  view.pick = pick.length ? palette.map((_, i) => places.has(pick[i]) ? pick[i] : "") : best;
  for (const key of ["optimizers", "problems", "at"]) view[key] = asked.get(key) ?? "";
}

function write() {
  const asked = new URLSearchParams();
  if (view.pick.join("\n") !== best.join("\n")) view.pick.forEach(n => asked.append("pick", n));
  for (const key of ["optimizers", "problems"]) if (view[key]) asked.set(key, view[key]);
  const changed = asked.size;
  if (view.at) asked.set("at", view.at);
  const text = changed ? `${asked}` : encodeURIComponent(view.at);
  history.replaceState(null, "", text ? "#" + text : location.href.split("#")[0]);
}

function matching(names, text) {
  const words = text.toLowerCase().split(/[\s,]+/).filter(Boolean);
  const fits = name => !words.length || words.some(word => name.toLowerCase().includes(word));
  return new Set(names.filter(fits));
}

function toggle(name) {
  let slot = view.pick.indexOf(name);
  const goes = slot >= 0;
  if (!goes) {
    slot = view.pick.indexOf("");
    if (slot < 0) slot = given[0];
    given = [...given.filter(other => other !== slot), slot];
  }
  view.pick = view.pick.with(slot, goes ? "" : name);
  apply();
}

function apply() {
  write();
  shown = matching(optimizers, view.optimizers);
  const open = matching(problems, view.problems);
  const hidden = (names, kept, mark) => names.map((name, place) =>
    kept.has(name) ? "" : `[data-${mark}="${place}"]{display:none}`).join("");
  const dots = view.pick.map((name, slot) =>
    name && `[data-optimizer="${places.get(name)}"] .dot{background:${palette[slot]}}`).join("");
  sheet.textContent =
    hidden(optimizers, shown, "optimizer") + hidden(problems, open, "problem") + dots;
  for (const key of ["optimizers", "problems"]) {
    const field = bar.querySelector(`[name="${key}"]`);
    if (field.value !== view[key]) field.value = view[key];
  }
  document.querySelectorAll("tr button[aria-pressed]").forEach(button => {
    const place = button.closest("tr").dataset.optimizer;
    button.setAttribute("aria-pressed", view.pick.includes(optimizers[place]));
  });
  const names = view.pick.filter(Boolean);
  bar.querySelector(".chips").replaceChildren(...names.map(name => {
    const chip = document.createElement("button"), dot = document.createElement("i");
    chip.type = "button";
    chip.className = "name";
    chip.dataset.optimizer = places.get(name);
    chip.title = `${name}: take the highlight away`;
    dot.className = "dot";
    chip.append(dot, labels[places.get(name)]);
    return chip;
  }));
  bar.querySelector("[role=status]").textContent = `${shown.size} of ${optimizers.length} ` +
    `optimizers, ${open.size} of ${problems.length} problems, ${names.length} highlighted`;
  version += 1;
  near.forEach(renew);
}

// Charts are drawn when they come into view, and again when what they show has changed since.
const near = new Set(), parts = {};
let version = 0;
function renew(box) {
  if (box.drawn !== version) draw(box);
}

function figureOf(kind, place) {
  if (!parts[place]) {
    const { lists, figures } = part("data" + place);
    for (const { data } of Object.values(figures))
      for (const trace of data) { trace.x = lists[trace.x]; trace.y = lists[trace.y]; }
    parts[place] = figures;
  }
  return parts[place][place ? `${kind}-${place}` : kind];
}

const css = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
function inked(value, own) {
  if (typeof value === "string")
    return value === "$own" ? own : value[0] === "$" ? css(value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(one => inked(one, own));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, inked(one, own)]));
}

function draw(box) {
  const [kind, place = ""] = box.dataset.shows.split("-");
  const clock = kind === "clock";
  const figure = figureOf(clock ? "loss" : kind, place);
  const narrow = box.clientWidth < 420;
  const short = name => {
    const label = labels[places.get(name)];
    return narrow && label.length > 14 ? label.slice(0, 13) + "…" : label;
  };
  const own = name => palette[view.pick.indexOf(name)] ?? (name === figure.best ? css("ink") : "");
  const rows = figure.rows?.filter(name => shown.has(name));
  const rise = name => rows ? rows.length - rows.indexOf(name)
    - figure.rows.length + figure.rows.indexOf(name) : 0;
  let last = Infinity;
  if (figure.frames) {
    const slider = box.parentNode.querySelector("input");
    last = +slider.value;
    slider.nextElementSibling.value = "gradient " + figure.frames[last];
  }
  const back = [], front = [];
  let end = 0;
  for (const { only, pace, ...trace } of figure.data) {
    const lit = trace.meta && own(trace.meta);
    if (trace.meta && !shown.has(trace.meta) || only && !lit || clock && !pace) continue;
    if (lit && !only) Object.assign(trace, figure.lit);
    for (const key of ["line", "marker", "fillcolor", "colorscale"])
      if (key in trace) trace[key] = inked(trace[key], lit || css("muted"));
    if (clock) trace.x = trace.x.map(step => +(step * pace).toPrecision(4));
    if (rows) trace.y = trace.y.map(y => y + rise(trace.meta));
    if (figure.frames && trace.meta) {
      trace.x = trace.x.slice(0, last + 1);
      trace.y = trace.y.slice(0, last + 1);
    }
    end = Math.max(end, trace.x.at(-1));
    (lit ? front : back).push(trace);
  }
  const layout = inked(figure.layout);
  if (clock) Object.assign(layout.xaxis, { title: { text: figure.clock }, range: [0, end] });
  if (rows) {
    layout.height -= (figure.rows.length - rows.length) * sizes.row;
    layout.annotations = layout.annotations?.filter((_, at) => shown.has(figure.rows[at]));
    layout.annotations?.forEach((note, at) => { note.y = rows.length - at; });
    Object.assign(layout.yaxis, {
      range: [0.4, rows.length + 0.6],
      tickvals: rows.map((_, at) => rows.length - at),
      ticktext: rows.map(short),
    });
    layout.margin.l = 16 + sizes.letter * Math.max(0, ...rows.map(name => short(name).length));
  }
  if (figure.ends) {
    const ends = Object.entries(figure.ends).filter(([name]) => shown.has(name) && own(name))
      .map(([name, y]) => ({ y, text: short(name), colour: own(name) }));
    layout.annotations = endLabels(ends, layout);
    layout.margin.r = 12 + sizes.letter * Math.max(0, ...ends.map(one => one.text.length));
  }
  if (narrow) {
    const title = layout.xaxis.title;
    if (title) title.text = title.text.replace(/ (?=\S+$)/, "<br>");
    layout.margin.b += 14;
  }
  const axis = { gridcolor: css("line"), linecolor: css("line"), zeroline: false,
    automargin: false };
  Object.assign(layout, { paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: css("soft"), size: 12, family: getComputedStyle(document.body).fontFamily },
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } });
  box.style.height = layout.height + "px";
  Plotly.react(box, [...back, ...front], layout, { displayModeBar: false, responsive: true });
  // What Plotly measures texts with.
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
  if (!box.drawn) box.on("plotly_click", ({ points }) => {
    if (points[0].data.meta) toggle(points[0].data.meta);
  });
  box.drawn = version;
}

// Names at the ends of lines, pushed apart as `end_labels` of figures/form.py does.
function endLabels(ends, { height, yaxis: { range } }) {
  const gap = (range[1] - range[0]) * sizes.label / (height - 52);
  ends.sort((one, other) => one.y - other.y);
  ends.forEach((one, at) => { if (at) one.y = Math.max(one.y, ends[at - 1].y + gap); });
  let limit = range[1] - gap / 2;
  for (const one of [...ends].reverse()) {
    one.y = Math.min(one.y, limit);
    limit = one.y - gap;
  }
  return ends.map(({ y, text, colour }) => ({ xref: "paper", x: 1, y, text, xanchor: "left",
    xshift: 4, showarrow: false, font: { color: colour, size: 12 } }));
}

const watch = new IntersectionObserver(entries => entries.forEach(entry => {
  if (!entry.isIntersecting) return near.delete(entry.target);
  near.add(entry.target);
  renew(entry.target);
}), { rootMargin: "600px" });

document.addEventListener("click", ({ target }) => {
  const name = target.closest("[data-optimizer] .name, .name[data-optimizer], tr button");
  if (name) toggle(optimizers[name.closest("[data-optimizer]").dataset.optimizer]);
  const button = target.closest("[data-chart]");
  if (button) {
    const box = button.closest("figure").querySelector(".chart");
    box.dataset.shows = button.dataset.chart;
    button.parentNode.querySelectorAll("button").forEach(other =>
      other.setAttribute("aria-pressed", other === button));
    draw(box);
  }
});
bar.addEventListener("input", ({ target }) => { view[target.name] = target.value; apply(); });
bar.querySelector("[data-all]").addEventListener("click", () => {
  Object.assign(view, { pick: best, optimizers: "", problems: "" });
  apply();
});
document.querySelectorAll("[data-moves]").forEach(slider => {
  const box = document.getElementById(slider.dataset.moves);
  const button = slider.parentNode.querySelector("button");
  let timer;
  const stop = () => { clearInterval(timer); timer = undefined; button.textContent = "play"; };
  slider.addEventListener("input", () => { stop(); draw(box); });
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    button.textContent = "stop";
    timer = setInterval(() => {
      if (slider.value === slider.max) return stop();
      slider.value = +slider.value + 1;
      draw(box);
    }, calm.matches ? 500 : 90);
  });
});

function arrive() {
  const jumps = location.hash.includes("=");
  read();
  apply();
  if (jumps) document.getElementById(view.at)?.scrollIntoView();
}
arrive();
addEventListener("hashchange", arrive);
scheme.addEventListener("change", apply);
document.querySelectorAll(".chart").forEach(box => watch.observe(box));

// Screen readers are not told of what is not laid out: one problem after the other, all are.
const idle = window.requestIdleCallback ?? setTimeout;
function layOut([section, ...rest]) {
  if (section) idle(() => { section.style.contentVisibility = "visible"; layOut(rest); });
}
layOut(document.querySelectorAll("section[data-problem]"));
