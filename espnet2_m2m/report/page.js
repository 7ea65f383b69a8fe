"use strict";

// ---- Tables: the title of a column is a button that sorts by it -------------------------------------

const NUMBER = /^[+-]?\d*\.?\d+(?= |$)/;
const EMPTY = /^(-|n\/a|)$/;

const titles = (table) => [...table.tHead.querySelectorAll("th[scope=col]")];

function sortTable(table, column) {
  const heads = titles(table);
  const body = table.tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const rows = [...body.rows];
  const numeric = rows.every((row) => NUMBER.test(text(row)) || EMPTY.test(text(row)));
  // Scores: the best first; words: from A to Z; then the other way round.
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const order = heads[column].getAttribute("aria-sort") === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) =>
    EMPTY.test(a) - EMPTY.test(b) || // without a value: last in either order
    sign * (numeric ? parseFloat(a) - parseFloat(b) || 0 : a.localeCompare(b, "en", { numeric: true }));
  rows.sort((a, b) => compare(text(a), text(b)));
  body.append(...rows);
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", order);
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  titles(table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortTable(table, column));
    head.append(button);
  });
}

// ---- Listening: one transport per example, all its clips at one position -------------------------------

class Player {
  constructor(example) {
    this.example = example;
    this.clips = [...example.querySelectorAll(".clip")].map((box) => ({
      box,
      radio: box.querySelector("input"),
      audio: box.querySelector("audio"),
      head: box.querySelector(".playhead"),
    }));
    this.current = this.clips[0];
    this.button = example.querySelector(".play");
    this.slider = example.querySelector(".transport input");
    this.time = example.querySelector(".time");
    example.querySelector(".transport").hidden = false;
    for (const clip of this.clips) {
      clip.audio.controls = false;
      clip.radio.hidden = false;
      clip.radio.addEventListener("change", () => this.choose(clip));
      clip.audio.addEventListener("timeupdate", () => this.show());
      for (const event of ["play", "pause", "ended"]) clip.audio.addEventListener(event, () => this.show());
    }
    this.clips[0].radio.checked = true;
    this.button.addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    example.addEventListener("keydown", (event) => {
      if (event.key === " " && event.target.type === "radio") {
        event.preventDefault();
        this.toggle();
      }
    });
    this.show();
  }

  get playing() {
    return !this.current.audio.paused;
  }

  load() {
    for (const clip of this.clips) clip.audio.preload = "auto";
  }

  play() {
    this.load();
    for (const player of players) if (player !== this) player.current.audio.pause();
    const follow = () => {
      this.show();
      cancelAnimationFrame(this.frame); // one loop, however often the clip is switched
      if (this.playing) this.frame = requestAnimationFrame(follow);
    };
    this.current.audio.play().then(follow, (error) => {
      if (error.name !== "AbortError") throw error; // paused or switched before it began
    });
  }

  toggle() {
    if (this.playing) this.current.audio.pause();
    else this.play();
    this.show();
  }

  seek(seconds) {
    this.current.audio.currentTime = seconds;
    this.show();
  }

  choose(clip) {
    this.load();
    const before = this.current;
    if (clip === before) return;
    const playing = this.playing;
    clip.audio.currentTime = before.audio.currentTime;
    this.current = clip;
    clip.radio.checked = true;
    before.audio.pause();
    if (playing) this.play();
    this.show();
  }

  show() {
    const seconds = this.current.audio.currentTime;
    const total = Number(this.slider.max);
    this.button.textContent = this.playing ? "Pause" : "Play";
    this.slider.value = seconds;
    this.slider.setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${total} seconds`);
    this.time.textContent = `${seconds.toFixed(1)} / ${total.toFixed(1)} s`;
    for (const clip of this.clips) clip.head.style.left = `${100 * Math.min(seconds / total, 1)}%`;
  }
}

const players = [];
for (const example of document.querySelectorAll(".example")) players.push(new Player(example));

// ---- Scatter plot: any two of mixture, systems and their improvements ----------------------------------

const SVG = "http://www.w3.org/2000/svg";
const MARKS = ["M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-4,-4h8v8h-8z", "M0,-5l5,9h-10z", "M0,-5l5,5l-5,5l-5,-5z"];

function element(parent, name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = size * [1, 2, 5, 10].find((factor) => factor * size >= raw);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(6)));
  return found;
}

class Scatter {
  constructor(plot) {
    this.plot = plot;
    const { systems, signals } = JSON.parse(document.getElementById("points").textContent);
    this.signals = signals;
    this.series = [{ name: "SI-SDR of the mixture (dB)", system: null, value: ({ si_sdr }) => si_sdr[0] }];
    systems.forEach((name, n) => {
      this.series.push({ name: `SI-SDR, ${name} (dB)`, system: n, value: ({ si_sdr }) => si_sdr[n + 1] });
    });
    systems.forEach((name, n) => {
      const value = ({ si_sdr }) => si_sdr[n + 1] - si_sdr[0];
      this.series.push({ name: `SI-SDR improvement, ${name} (dB)`, system: n, value, gain: true });
    });
    // One system: what it gains, over what it was given; several: the last against the first.
    const chosen = systems.length > 1 ? [1, systems.length] : [0, 2];
    this.selects = ["x", "y"].map((axis, n) => {
      const select = document.getElementById(`scatter-${axis}`);
      this.series.forEach(({ name }, index) => select.add(new Option(name, index, false, index === chosen[n])));
      select.addEventListener("change", () => this.draw());
      return select;
    });
    this.draw();
    new ResizeObserver(() => plot.clientWidth === this.width || this.draw()).observe(plot);
  }

  draw() {
    const [x, y] = this.selects.map((select) => this.series[select.value]);
    const width = (this.width = this.plot.clientWidth);
    const height = Math.round(Math.min(460, Math.max(280, 0.62 * width)));
    const box = { left: 46, right: width - 14, top: 30, bottom: height - 44 };
    const range = (series) => {
      const values = this.signals.map(series.value);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const margin = Math.max(0.5, 0.06 * (high - low));
      return [low - margin, high + margin];
    };
    const [xLow, xHigh] = range(x);
    const [yLow, yHigh] = range(y);
    const left = (value) => box.left + ((value - xLow) / (xHigh - xLow)) * (box.right - box.left);
    const top = (value) => box.bottom - ((value - yLow) / (yHigh - yLow)) * (box.bottom - box.top);

    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", `Scatter plot: ${y.name} over ${x.name}, ${this.signals.length} signals`);
    for (const value of ticks(xLow, xHigh, width / 80)) {
      element(svg, "path", { class: "grid", d: `M${left(value)},${box.top}V${box.bottom}` });
      element(svg, "text", { x: left(value), y: box.bottom + 16, "text-anchor": "middle" }, value);
    }
    for (const value of ticks(yLow, yHigh, height / 60)) {
      element(svg, "path", { class: "grid", d: `M${box.left},${top(value)}H${box.right}` });
      element(svg, "text", { x: box.left - 6, y: top(value) + 4, "text-anchor": "end" }, value);
    }
    const middle = (box.left + box.right) / 2;
    element(svg, "text", { x: 4, y: 14, class: "axis" }, y.name);
    element(svg, "text", { x: middle, y: height - 8, "text-anchor": "middle", class: "axis" }, x.name);
    // "No gain": equal scores, or an improvement of zero.
    const ends = [Math.max(xLow, yLow), Math.min(xHigh, yHigh)];
    if (!x.gain === !y.gain && ends[0] < ends[1]) {
      const [from, to] = ends.map((value) => `${left(value)},${top(value)}`);
      element(svg, "path", { class: "equal", d: `M${from}L${to}` });
    } else if (y.gain && yLow < 0 && yHigh > 0) {
      element(svg, "path", { class: "equal", d: `M${box.left},${top(0)}H${box.right}` });
    }
    // Those that can be listened to come last: they lie on top.
    const ordered = [...this.signals].sort((a, b) => (a.example !== null) - (b.example !== null));
    for (const signal of ordered) {
      const [h, v] = [x, y].map((series) => series.value(signal));
      const name = `${signal.utt}, talker ${signal.speaker}: ${x.name} ${h.toFixed(1)}, ${y.name} ${v.toFixed(1)}`;
      const place = { transform: `translate(${left(h).toFixed(1)},${top(v).toFixed(1)})` };
      const mark = { d: MARKS[(signal.speaker - 1) % MARKS.length], class: `speaker${signal.speaker}` };
      if (signal.example === null) {
        element(element(svg, "path", { ...place, ...mark }), "title", {}, name);
        continue;
      }
      const link = element(svg, "a", { ...place, href: `#example-${signal.example}`, "aria-label": `Listen to ${name}` });
      element(link, "circle", { r: 14, class: "target" }); // large enough for a finger
      element(link, "circle", { r: 8.5, class: "ring" });
      element(link, "path", mark);
      element(link, "title", {}, `${name} (click to listen)`);
      link.addEventListener("click", (event) => {
        event.preventDefault();
        this.listen(signal, (y.system ?? x.system) ?? 0);
      });
    }
    const focused = document.activeElement?.getAttribute("aria-label");
    this.plot.replaceChildren(svg);
    if (focused) this.plot.querySelector(`a[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  listen({ example, speaker }, system) {
    const player = players[example - 1];
    const clip = player.clips.find(
      ({ box }) => Number(box.dataset.speaker) === speaker && Number(box.dataset.system) === system,
    );
    player.choose(clip);
    player.seek(0);
    location.hash = `example-${example}`;
    clip.radio.focus({ preventScroll: true });
    player.play();
  }
}

const plot = document.getElementById("scatter"); // none without references
if (plot) new Scatter(plot);
