"use strict";

// Insert text from the data only through textContent, so that tokens are never read as markup.

const SVG = "http://www.w3.org/2000/svg";
const { episodes } = JSON.parse(document.getElementById("data").textContent);
const longest = Math.max(...episodes.map(({ trace }) => trace.steps.length));

// --- small pieces ---

function make(kind, properties = {}, ...children) {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
}

function draw(kind, attributes, text = "") {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function number(value, digits = 3) {
  const tiny = value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits;
  return (tiny ? value.toExponential(0) : value.toFixed(digits)).replaceAll("-", "−");
}

const signed = (value) => (value > 0 ? "+" : "") + number(value);
const percent = (p) => (p < 0.0005 ? String(Number((100 * p).toPrecision(1))).replace("-", "−") : (100 * p).toFixed(1)) + "%";

const rawName = (trace, token) => trace.token_names[token] ?? String(token);
const textOf = (trace, tokens) => tokens.map((token) => rawName(trace, token)).join(trace.joiner);

/** A token's text where it stands alone, white space made visible. */
function nameOf(trace, token) {
  const name = rawName(trace, token);
  return name.trim() === "" ? "␣".repeat(name.length) || "∅" : name;
}

/** A bar from zero to the value, on a scale [low, high] that holds both. */
function bar(value, [low, high]) {
  const element = make("span", { className: "bar", ariaHidden: "true" });
  const size = high - low || 1;
  element.style.setProperty("--from", `${(100 * (Math.min(value, 0) - low)) / size}%`);
  element.style.setProperty("--size", `${(100 * Math.abs(value)) / size}%`);
  if (value < 0) element.style.setProperty("--hue", "var(--minus)");
  return element;
}

function definitions(pairs) {
  const list = make("dl", { className: "facts" });
  for (const [term, value, detail] of pairs) {
    const small = detail ? [" ", make("small", { textContent: detail })] : [];
    list.append(make("div", {}, make("dt", { textContent: term }), make("dd", {}, value, ...small)));
  }
  return list;
}

// --- the sequence ---

function makeStrip(trace, go) {
  const largest = Math.max(...trace.steps.map((step) => Math.abs(step.reward))) || 1;
  const items = trace.steps.map((step, index) => {
    const name = nameOf(trace, step.token);
    const button = make("button", { type: "button", ariaLabel: `Token ${index + 1}: ${name}, reward ${signed(step.reward)}` });
    button.append(make("bdi", { textContent: name }), make("small", { textContent: signed(step.reward) }));
    button.style.setProperty("--hue", step.reward < 0 ? "var(--minus)" : "var(--plus)");
    button.style.setProperty("--shade", `${(45 * Math.abs(step.reward)) / largest}%`);
    button.addEventListener("click", () => go(index));
    return make("li", {}, button);
  });
  const strip = make("ol", { className: "strip", ariaLabel: "The sequence, with each token’s reward below it" }, ...items);
  const show = (position) =>
    items.forEach((item, index) => {
      item.className = index > position ? "later" : "";
      if (index === position) item.firstChild.setAttribute("aria-current", "step");
      else item.firstChild.removeAttribute("aria-current");
    });
  return [strip, show];
}

// --- Q over positions ---

function ticks(low, high) {
  const rough = (high - low) / 5;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= rough);
  const first = Math.ceil(low / step);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, index) => [(first + index) * step, ((first + index) * step).toFixed(digits).replace("-", "−")]);
}

const error = (step) => step.q_standard_error ?? 0;

/** One scale for all episodes, so that they can be compared. */
function rangeOfQ(steps) {
  const valuesOf = (step) => [step.q - error(step), step.q + error(step), ...step.completions.map(({ score }) => score)];
  const values = steps.flatMap(valuesOf);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return high - low < 1e-9 ? [low - 0.5, high + 0.5] : [low, high];
}

function makePlot(trace, [low, high], go) {
  const { steps } = trace;
  const height = 190;
  const edge = { left: 44, right: 12, top: 10, bottom: 26 };
  const label = `Q after each token: ${steps.map((step, index) => `${index + 1}: ${number(step.q)}`).join(", ")}`;
  const svg = draw("svg", { role: "img", "aria-label": label, height });
  const caption = "Q after each token, with a band of one standard error; dots are the scores of single completions.";
  const figure = make("figure", { className: "plot" }, svg, make("figcaption", { textContent: caption }));
  let [width, shown] = [0, 0];

  const x = (index) => edge.left + ((index + 0.5) * (width - edge.left - edge.right)) / steps.length;
  const y = (value) => edge.top + ((high - value) / (high - low)) * (height - edge.top - edge.bottom);
  const path = (points) => points.map((point) => point.map((part) => part.toFixed(1)).join(",")).join(" ");

  function redraw() {
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const [value, text] of ticks(low, high)) {
      svg.append(draw("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: edge.left - 8, y: y(value) + 4, "text-anchor": "end" }, text));
    }
    const every = [1, 2, 5, 10, 20, 50, 100].find((stride) => (stride * (width - edge.left)) / steps.length > 26) ?? 200;
    steps.forEach((step, index) => {
      if (index === 0 || (index + 1) % every === 0) {
        svg.append(draw("text", { x: x(index), y: height - 8, "text-anchor": "middle" }, String(index + 1)));
      }
      for (const { score } of step.completions) svg.append(draw("circle", { class: "dot", cx: x(index), cy: y(score), r: 2 }));
    });
    const upper = steps.map((step, index) => [x(index), y(step.q + error(step))]);
    const lower = steps.map((step, index) => [x(index), y(step.q - error(step))]);
    svg.append(draw("polygon", { class: "band", points: path([...upper, ...lower.reverse()]) }));
    svg.append(draw("polyline", { class: "line", points: path(steps.map((step, index) => [x(index), y(step.q)])) }));
    steps.forEach((step, index) => svg.append(draw("circle", { class: "point", cx: x(index), cy: y(step.q), r: 2.5 })));
    const at = { x1: x(shown), x2: x(shown), y1: edge.top, y2: height - edge.bottom };
    svg.append(draw("line", { class: "here", ...at }));
    svg.append(draw("circle", { class: "here-point", cx: x(shown), cy: y(steps[shown].q), r: 5 }));
  }

  svg.addEventListener("click", (event) => {
    const across = event.clientX - svg.getBoundingClientRect().left - edge.left;
    const index = Math.floor((across / (width - edge.left - edge.right)) * steps.length);
    go(Math.min(Math.max(index, 0), steps.length - 1));
  });
  // Draw at the actual width, so that the text stays readable on a phone.
  new ResizeObserver(() => {
    if (figure.clientWidth !== width && figure.clientWidth > 0) {
      width = figure.clientWidth;
      redraw();
    }
  }).observe(figure);
  const show = (position) => {
    shown = position;
    if (width) redraw();
  };
  return [figure, show];
}

// --- one token ---

function makePrefix(trace, position) {
  const tokens = trace.steps.map((step) => step.token);
  const before = textOf(trace, tokens.slice(0, position));
  const token = make("mark", { textContent: nameOf(trace, tokens[position]) });
  return make("p", { className: "prefix" }, before ? before + trace.joiner : "", token);
}

function makeFacts(trace, step) {
  const error = step.q_standard_error === null ? "" : `± ${number(step.q_standard_error)}`;
  const facts = [
    ["Probability", percent(Math.exp(step.log_prob)), `log p ${number(step.log_prob, 2)}`],
    ["Rank", String(step.rank), `of ${trace.vocab_size}`],
    ["Entropy", number(step.entropy, 2), "nats"],
    ["Q", number(step.q), step.completions.length ? error : "= R"],
    ["Reward", signed(step.reward)],
  ];
  if (step.advantage !== null) {
    const effect = step.advantage > 0 ? "the gradient makes it likelier" : "the gradient makes it less likely";
    facts.push(["Advantage", signed(step.advantage), step.advantage === 0 ? "no change" : effect]);
  }
  return definitions(facts);
}

function makeLikeliest(trace, step, largest) {
  const rows = step.top_k.map(([token, p], index) => [index + 1, token, p]);
  if (!rows.some(([, token]) => token === step.token)) rows.push([step.rank, step.token, Math.exp(step.log_prob)]);
  const items = rows.map(([rank, token, p]) => {
    const chosen = token === step.token;
    return make(
      "li",
      { className: chosen ? "chosen" : "" },
      make("span", { className: "rank", textContent: `${rank}.` }),
      make("bdi", { textContent: nameOf(trace, token) }),
      bar(p, [0, largest]),
      make("span", { className: "value", textContent: percent(p) }),
      make("span", { className: "note", textContent: chosen ? "◂ chosen" : "" }),
    );
  });
  const heading = make("h3", { textContent: "The policy’s likeliest tokens" });
  return make("section", {}, heading, make("ol", { className: "bars" }, ...items));
}

/** Completions as a tree of shared beginnings: a node's tokens, the completions that end at it, and its branches. */
function treeOf(completions, depth = 0) {
  const groups = new Map();
  for (const completion of completions) {
    const token = completion.tokens[depth];
    groups.set(token, [...(groups.get(token) ?? []), completion]);
  }
  const nodes = [...groups].map(([first, members]) => {
    const tokens = first === undefined ? [] : [first];
    const shared = (at) => members.every(({ tokens }) => at < tokens.length && tokens[at] === members[0].tokens[at]);
    let end = depth + tokens.length;
    while (tokens.length && shared(end)) tokens.push(members[0].tokens[end++]);
    const mean = members.reduce((sum, { score }) => sum + score, 0) / members.length;
    const isLeaf = members.every((member) => member.tokens.length === end);
    return { tokens, mean, count: members.length, branches: isLeaf ? [] : treeOf(members, end) };
  });
  return nodes.sort((one, other) => other.mean - one.mean);
}

function makeTree(trace, nodes, scale) {
  const items = nodes.map(({ tokens, mean, count, branches }) => {
    const value = make("span", { className: "value", textContent: number(mean) });
    const text = make("span", { className: "text", textContent: tokens.length ? textOf(trace, tokens) : "(ends here)" });
    const times = count > 1 ? make("small", { textContent: branches.length ? ` mean of ${count}` : ` × ${count}` }) : "";
    if (branches.length === 0) return make("li", { className: "leaf" }, value, bar(mean, scale), make("span", {}, text, times));
    const summary = make("summary", {}, value, times, " ", text, " …");
    return make("li", {}, make("details", { open: true }, summary, makeTree(trace, branches, scale)));
  });
  return make("ul", {}, ...items);
}

function makeCompletions(trace, step, scale, isOpen, onToggle) {
  if (step.completions.length === 0) {
    const text = "The last token completes the sequence itself, so there is nothing to complete: its Q is the reward R.";
    return make("section", {}, make("h3", { textContent: "Completions" }), make("p", { className: "note", textContent: text }));
  }
  const scores = step.completions.map(({ score }) => score);
  const range = ` · scores ${number(Math.min(...scores))} to ${number(Math.max(...scores))}, mean ${number(step.q)}`;
  const heading = make("h3", { textContent: `${scores.length} completions` });
  const tree = makeTree(trace, treeOf(step.completions), scale);
  tree.className = "tree";
  const details = make("details", { className: "completions", open: isOpen });
  details.append(make("summary", {}, heading, make("span", { textContent: range })), tree);
  details.addEventListener("toggle", () => onToggle(details.open));
  return details;
}

// --- the page ---

function makeEpisode({ title, trace }, range, go, completions) {
  const facts = [["Reward R", number(trace.sequence_reward)]];
  if (trace.discriminator_probability !== null) facts.push(["D(real)", number(trace.discriminator_probability)]);
  if (trace.oracle_nll !== null) facts.push(["Oracle NLL", number(trace.oracle_nll), "nats per token"]);
  facts.push(["Reward contract", trace.reward_contract, `γ = ${trace.gamma}`]);
  const [strip, showInStrip] = makeStrip(trace, go);
  const [plot, showInPlot] = makePlot(trace, range, go);
  const detail = make("div", { className: "step" });
  const card = make("article", { className: "episode" }, make("h2", { textContent: title }), definitions(facts), strip, plot, detail);
  const scale = [Math.min(0, range[0]), Math.max(0, range[1])];
  const show = (wanted, largest) => {
    const position = Math.min(wanted, trace.steps.length - 1);
    const step = trace.steps[position];
    showInStrip(position);
    showInPlot(position);
    const tried = makeCompletions(trace, step, scale, completions.open, (isOpen) => completions.set(isOpen));
    const columns = make("div", { className: "columns" }, makeLikeliest(trace, step, largest), tried);
    const ended = make("p", { className: "note", textContent: `This episode ended after ${trace.steps.length} tokens; its last is shown.` });
    detail.replaceChildren(...(wanted > position ? [ended] : []), makePrefix(trace, position), makeFacts(trace, step), columns);
  };
  return [card, show];
}

const slider = document.getElementById("position");
const [back, next, where] = ["back", "next", "where"].map((id) => document.getElementById(id));
const completions = {
  open: matchMedia("(min-width: 48rem)").matches,
  set(open) {
    this.open = open;
    for (const details of document.querySelectorAll(".completions")) details.open = open;
  },
};
let current = 0;

function go(position) {
  current = Math.min(Math.max(position, 0), longest - 1);
  slider.value = current + 1;
  where.textContent = `Token ${current + 1} of ${longest}`;
  back.disabled = current === 0;
  next.disabled = current === longest - 1;
  const likeliest = episodes.flatMap(({ trace }) => trace.steps[current]?.top_k[0][1] ?? []);
  for (const show of shows) show(current, Math.max(...likeliest));
}

const range = rangeOfQ(episodes.flatMap(({ trace }) => trace.steps));
const cards = episodes.map((episode) => makeEpisode(episode, range, go, completions));
const shows = cards.map(([, show]) => show);
document.getElementById("episodes").replaceChildren(...cards.map(([card]) => card));
slider.max = longest;
slider.addEventListener("input", () => go(Number(slider.value) - 1));
back.addEventListener("click", () => go(current - 1));
next.addEventListener("click", () => go(current + 1));
// On a page of its own this is the body, where keys always work; as part of a longer page, keys work while it has the focus.
document.getElementById("inspector").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === slider) return;
  const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: longest - 1 };
  if (event.key in moves) {
    event.preventDefault();
    go(moves[event.key]);
  } else if (event.key === "c") {
    completions.set(!completions.open);
  }
});
go(0);
