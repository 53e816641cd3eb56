// The calculator: laws of size and data, from the JSON that book/_ext/calculator.py puts into the page.
// First the mathematics, without the page; then the page.

const scalingLaws = (function () {
  "use strict";
  let laws = [], kaplan = null;

  function find(law) {
    const found = typeof law === "string" ? laws.find((each) => each.id === law) : law;
    if (!found) throw new Error("no law is called " + law);
    return found;
  }

  // The terms of a law as [level, exponent, input], each worth exp(level - exponent * (log input - centre)).
  function shape(law) {
    if (law.form === "chinchilla") {
      const [e, a, b, alpha, beta] = law.theta;
      return { outer: 1, floor: e, size: [a, alpha], data: [b, beta] };
    }
    const [a, b, alphaN, alphaD] = law.theta;
    return { outer: alphaD, floor: null, size: [a / alphaD, alphaN / alphaD], data: [b / alphaD, 1] };
  }

  // Log loss and its derivatives by theta, as Form.evaluate in minitransformer/laws/forms.py.
  function evaluate(law, N, D) {
    const x = Math.log(N) - law.centre[0], y = Math.log(D) - law.centre[1];
    const { outer, floor, size, data } = shape(law);
    const terms = [size[0] - size[1] * x, data[0] - data[1] * y];
    if (floor !== null) terms.push(floor);
    const top = Math.max(...terms);
    const joint = top + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - top), 0));
    const [n, d, e] = terms.map((term) => Math.exp(term - joint));
    const gradient = law.form === "chinchilla"
      ? [e, n, d, -n * x, -d * y]
      : [n, d, -n * x, joint - n * terms[0] - d * law.theta[1] / outer];
    return { log: outer * joint, gradient };
  }

  function loss(law, { N, D }) {
    return Math.exp(evaluate(find(law), N, D).log);
  }

  // 95 %: where the law itself runs; with `extra` = 1, where a newly trained model should come out. Null without a covariance.
  function interval(law, { N, D }, extra) {
    law = find(law);
    if (!law.covariance) return null;
    const { log, gradient } = evaluate(law, N, D);
    let variance = extra * law.sigma ** 2;
    law.covariance.forEach((row, i) => row.forEach((value, j) => { variance += gradient[i] * value * gradient[j]; }));
    const half = (extra ? law.q_new : law.q_band) * Math.sqrt(Math.max(variance, 0));
    return { low: Math.exp(log - half), high: Math.exp(log + half) };
  }
  const band = (law, at) => interval(law, at, 0);
  const predict = (law, at) => interval(law, at, 1);

  // The log size of least loss along C = 6 N D, where both terms fall equally fast: eq. 4 of Hoffmann et al. 2022, and alike for Kaplan's form.
  function logSize(law, C) {
    const { size, data } = shape(law), [middleN, middleD] = law.centre;
    const gap = Math.log(size[1]) + size[0] + size[1] * middleN - Math.log(data[1]) - data[0] - data[1] * middleD;
    return (gap + data[1] * Math.log(C / 6)) / (size[1] + data[1]);
  }

  // Half the 95 % interval of that log size, by differences in theta; null without a covariance.
  function halfWidth(law, C) {
    if (!law.covariance) return null;
    const slopes = law.theta.map((value, i) => {
      const step = 1e-4 * Math.max(Math.abs(value), 0.1);
      const moved = (by) => logSize({ ...law, theta: law.theta.map((each, j) => (i === j ? each + by : each)) }, C);
      return (moved(step) - moved(-step)) / (2 * step);
    });
    let variance = 0;
    law.covariance.forEach((row, i) => row.forEach((value, j) => { variance += slopes[i] * value * slopes[j]; }));
    return law.q_band * Math.sqrt(Math.max(variance, 0));
  }

  // `low` and `high` are for a newly trained model; all intervals 95 %, absent without a covariance.
  function optimum(law, C) {
    law = find(law);
    const N = Math.exp(logSize(law, C)), D = C / (6 * N), half = halfWidth(law, C), best = { N, D, loss: loss(law, { N, D }) };
    if (half === null) return best;
    const factor = Math.exp(half);
    return { ...best, ...predict(law, best), N_low: N / factor, N_high: N * factor, D_low: D / factor, D_high: D * factor };
  }

  // Table 6 of Kaplan et al. 2020, D by eq. 6.7 (twice C_min at the critical batch), loss by eq. 1.3; C in FLOPs is their C_min.
  function kaplanRules(C) {
    const days = C / kaplan.pf_day, rule = ([scale, exponent]) => scale * days ** exponent;
    return { N: rule(kaplan.N), D: 2 * C / (6 * rule(kaplan.N)), B: rule(kaplan.B), S: rule(kaplan.S), loss: (kaplan.loss[0] / days) ** kaplan.loss[1] };
  }

  // Eq. 1.4: the batch, in tokens, that takes twice the fewest steps and twice the fewest tokens.
  const criticalBatch = (L) => kaplan.critical[0] / L ** (1 / kaplan.critical[1]);

  // Eqs. 5.4 and 5.5: what the same loss takes with a very large batch (fewest steps) and a very small one (least tokens and compute).
  function batch({ N, D, B, L }) {
    const critical = criticalBatch(L), S = D / B;
    return { S, critical, steps: S / (1 + critical / B), tokens: D / (1 + B / critical), compute: 6 * N * D / (1 + B / critical) };
  }

  function read(json) {
    const data = JSON.parse(json);
    laws = data.laws;
    kaplan = data.kaplan;
    return laws;
  }

  // --- numbers as text ---

  const SUFFIX = { k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12 };

  // "70B", "1.4e12", "1,500" -> a number above zero, or NaN. A comma that parts no thousands may be a decimal one: NaN.
  function parse(text) {
    const match = /^(\d{1,3}(?:,\d{3})+(?:\.\d*)?|[\d.]+(?:e[+-]?\d+)?)([kmbgt]?)$/.exec(text.replace(/[\s_]/g, "").toLowerCase());
    const value = match ? Number(match[1].replace(/,/g, "")) * (SUFFIX[match[2]] || 1) : NaN;
    return value > 0 && value < 1e60 ? value : NaN;
  }

  // 1536 -> "1.54k", 7e10 -> "70B", 5.76e23 -> "5.76e23".
  function short(value, digits = 3) {
    const rounded = Number(value.toPrecision(digits));
    if (rounded >= 1e15 || rounded < 1e-2) return rounded.toExponential().replace("e+", "e");
    for (const [limit, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (rounded >= limit) return Number((rounded / limit).toPrecision(digits)) + suffix;
    return String(rounded);
  }

  // The same for reading: 5.76e23 -> 5.76 × 10²³.
  function pretty(value, digits = 3) {
    return raised(short(value, digits));
  }

  // Compute, always with its power of ten.
  function flops(value) {
    return raised(value.toExponential(2).replace("e+", "e"));
  }

  function raised(text) {
    const [mantissa, power] = text.split("e");
    if (power === undefined) return mantissa;
    const above = power.replace("-", "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
    return (mantissa === "1" ? "" : mantissa + " × ") + "10" + above;
  }

  return {
    read, find, loss, band, predict, optimum, kaplanRules, criticalBatch, batch, parse, short, pretty, flops,
    get laws() { return laws; }, get kaplan() { return kaplan; },
  };
})();
window.scalingLaws = scalingLaws;

(function () {
  "use strict";
  const { short, pretty, flops } = scalingLaws;
  const QUANTITIES = {
    N: { label: "Size N", unit: "parameters" },
    D: { label: "Data D", unit: "tokens" },
    C: { label: "Compute C", unit: "6ND, FLOPs" },
    B: { label: "Batch B", unit: "tokens per step" },
  };
  const WANTED = "Give a number above zero, such as 1500, 70B or 1.4e12, with a point for decimals.";
  const STEP = 0.01; // decades
  const BATCHES = 1e3; // the slider of B goes this far either way
  const PAUSE = 400; // milliseconds of rest before a setting is read out and kept in the address

  const state = { law: "", N: 0, D: 0, B: 0, hold: false };
  let place, part, timer;
  let touched = false; // the reader has changed something
  let chosen = false; // N, D and B are the reader’s, not the law’s start

  const nats = (value) => (value < 1000 ? value.toPrecision(4) : pretty(value, 4));
  const exponential = (value, digits) => Number(value.toPrecision(digits)).toExponential().replace("e+", "e").replace(/e0$/, "");
  const escape = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

  // The ends of each slider: the runs behind the law and some way beyond, as people use laws.
  function ends(law) {
    const reach = ([low, high]) => [low / 10, high * 100];
    const N = reach(law.ranges.N), D = reach(law.ranges.D);
    return { N, D, C: [6 * N[0] * D[0], 6 * N[1] * D[1]], B: [law.start.B / BATCHES, law.start.B * BATCHES] };
  }

  const law = () => scalingLaws.find(state.law);
  const value = (name) => (name === "C" ? 6 * state.N * state.D : state[name]);

  function set(name, number) {
    const C = value("C");
    chosen = true;
    if (name === "C") {
      const best = scalingLaws.optimum(law(), number);
      state.N = best.N;
      state.D = best.D;
    } else {
      state[name] = number;
      if (state.hold && name === "N") state.D = C / (6 * number);
      if (state.hold && name === "D") state.N = C / (6 * number);
    }
  }

  function choose(id) {
    state.law = id;
    const limits = ends(law());
    const fits = ["N", "D", "B"].every((name) => state[name] >= limits[name][0] && state[name] <= limits[name][1]);
    if (chosen && fits) return;
    Object.assign(state, law().start);
    chosen = false;
  }

  // --- the address ---

  function fromAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!scalingLaws.laws.some((each) => each.id === wanted.get("law"))) {
      if (wanted.has("law")) readdress(location.href.split("#")[0]);
      return false;
    }
    state.law = wanted.get("law");
    Object.assign(state, law().start);
    for (const name of ["N", "D", "B"]) {
      const number = scalingLaws.parse(wanted.get(name) || "");
      if (number) state[name] = number;
    }
    chosen = true;
    state.hold = wanted.get("hold") === "1";
    return true;
  }

  function toAddress() {
    const number = (name) => exponential(state[name], 6);
    const hash = `#law=${state.law}&N=${number("N")}&D=${number("D")}&B=${number("B")}${state.hold ? "&hold=1" : ""}`;
    readdress(hash);
  }

  function readdress(address) {
    try { history.replaceState(null, "", address); } catch (error) { /* some browsers forbid it to pages from the disk */ }
  }

  // --- controls ---

  const control = (name) => `
    <div class="calc-control" data-quantity="${name}">
      <label for="calc-${name}">${QUANTITIES[name].label}</label>
      <span class="calc-number"><input type="text" id="calc-${name}" inputmode="text" autocomplete="off" spellcheck="false" size="8"
        aria-describedby="calc-${name}-unit calc-${name}-wrong"> <span id="calc-${name}-unit" class="calc-unit">${QUANTITIES[name].unit}</span></span>
      <span class="calc-track"><input type="range" id="calc-${name}-slider" step="${STEP}" aria-label="${QUANTITIES[name].label}, logarithmic">
        <span class="calc-fitted" hidden></span></span>
      <span id="calc-${name}-wrong" class="calc-wrong"></span>
    </div>`;

  const mark = (kind) => `<svg class="calc-key" viewBox="-12 -8 24 16" width="24" height="16" aria-hidden="true">${sign(kind, 0, 0)}</svg>`;

  function build() {
    const laws = scalingLaws.laws.map((each) => `
      <label class="calc-law"><input type="radio" name="calc-law" value="${each.id}"><span>${escape(each.label)}</span></label>`).join("");
    place.innerHTML = `
      <fieldset class="calc-laws"><legend>Law</legend>${laws}</fieldset>
      <p class="calc-tokens"></p>
      <div class="calc-controls">${["N", "D", "C", "B"].map(control).join("")}</div>
      <p class="calc-switches"><label><input type="checkbox" id="calc-hold"> Keep C fixed when N or D moves</label>
        <button type="button" id="calc-best">Go to the best N and D for this C</button></p>
      <p class="calc-hint">Moving C goes to the best N and D by itself. The bar under a slider marks the runs behind the law.
        Numbers may be typed as 70B, 1.4T or 5.76e23.</p>
      <figure class="calc-figure">
        <svg class="calc-plot" role="img" aria-labelledby="calc-plot-title calc-said"><title id="calc-plot-title">Loss against model size at fixed compute</title></svg>
        <ul class="calc-legend"></ul>
        <figcaption><span id="calc-said" role="status"></span></figcaption>
      </figure>
      <div class="calc-results"></div>
      <div class="calc-warnings"></div>`;
    part = (selector) => place.querySelector(selector);
    place.addEventListener("input", onInput);
    place.addEventListener("change", onChange);
    part("#calc-best").addEventListener("click", () => { set("C", value("C")); changed(); });
  }

  function onInput(event) {
    const at = event.target, name = at.closest("[data-quantity]")?.dataset.quantity;
    if (at.type === "range") set(name, 10 ** Number(at.value));
    else if (at.type === "text") {
      const number = scalingLaws.parse(at.value), wrong = Number.isNaN(number);
      at.setAttribute("aria-invalid", wrong);
      part(`#calc-${name}-wrong`).textContent = wrong ? WANTED : "";
      if (wrong) return;
      set(name, number);
    } else if (at.name === "calc-law") choose(at.value);
    else if (at.id === "calc-hold") state.hold = at.checked;
    changed(at);
  }

  function onChange(event) {
    const at = event.target, typed = at.value;
    if (at.type !== "text") return;
    show();
    if (Number.isNaN(scalingLaws.parse(typed)))
      part(`#${at.id}-wrong`).textContent = `“${typed.slice(0, 20)}” was not taken. ${WANTED}`;
  }

  function changed(source) {
    touched = true;
    show(source);
  }

  // --- results ---

  const misses = (at) => ["N", "D"].filter((name) => {
    const [low, high] = law().ranges[name];
    return at[name] < low * (1 - 1e-9) || at[name] > high * (1 + 1e-9);
  });

  // One sentence about what lies outside the runs behind the law; none where nothing does.
  function outside(here, best) {
    const found = [...misses(here).map((name) => `your ${name}`), ...misses(best).map((name) => `the best ${name}`)];
    const span = (name) => `${name} from ${law().ranges[name].map((end) => short(end)).join(" to ")}`;
    return found.length ? [`Outside the runs behind this law (${span("N")}, ${span("D")}), where it may not hold: ${found.join(", ")}.`] : [];
  }

  const between = (range) => `${nats(range.low)} to ${nats(range.high)}`;
  const item = ([name, text, more]) => `<div><dt>${name}</dt><dd>${text}${more ? ` <span class="calc-more">${more}</span>` : ""}</dd></div>`;
  const group = (kind, title, items) => `<section><h3>${kind ? mark(kind) : ""} ${title}</h3><dl>${items.map(item).join("")}</dl></section>`;

  function results(here, best) {
    const { N, D, B } = state, C = value("C"), range = scalingLaws.band(law(), here), fresh = scalingLaws.predict(law(), here);
    const excess = 100 * (here.loss / best.loss - 1);
    let html = group("here", "Your setting", [
      ["Loss", `<strong>${nats(here.loss)}</strong> nats per token`, range ? `95 %: ${between(range)} for the law, ${between(fresh)} for a new run` : "no band published"],
      ["D / N", `${pretty(D / N)} tokens per parameter`],
      ["D / B", `${pretty(D / B)} steps`],
      ["Above the best", excess < 0.005 ? "less than 0.01 %" : `${excess.toPrecision(2)} %`],
    ]) + group("best", "Best for this C", [
      ["Loss", `<strong>${nats(best.loss)}</strong> nats per token`, best.low ? `95 %: ${between(best)} for a new run` : ""],
      ["N", pretty(best.N), best.N_low ? `95 %: ${pretty(best.N_low)} to ${pretty(best.N_high)}` : ""],
      ["D", pretty(best.D), best.D_low ? `95 %: ${pretty(best.D_low)} to ${pretty(best.D_high)}` : ""],
      ["D / N", `${pretty(best.D / best.N)} tokens per parameter`],
    ]);
    if (law().id === "kaplan") {
      const rule = scalingLaws.kaplanRules(C), took = scalingLaws.batch({ N, D, B, L: here.loss });
      html += group("rule", "Kaplan’s rule", [
        ["C<sub>min</sub>", `${pretty(C / scalingLaws.kaplan.pf_day)} PF-days`, "the C set above, taken for what this rule’s model would take with very small batches"],
        ["Loss", `${nats(rule.loss)} nats per token`, "by eq. 1.3"],
        ["N", pretty(rule.N)],
        ["Batch", `${pretty(rule.B)} tokens`, `fewest steps S<sub>min</sub> = ${pretty(rule.S)}`],
        ["D", pretty(rule.D), "at that batch, where C is twice C<sub>min</sub>"],
      ]) + group("", "Your batch", [
        ["Critical batch", `${pretty(took.critical)} tokens`, `at a loss of ${nats(here.loss)}`],
        ["Steps", `${pretty(took.S / took.steps)} × the fewest`, `S<sub>min</sub> = ${pretty(took.steps)}`],
        ["Compute", `${pretty(C / took.compute)} × the least`,
          `C<sub>min</sub> = ${flops(took.compute)} FLOPs, what your own N and loss would take with very small batches; the rule’s C<sub>min</sub> is another model’s`],
      ]);
    }
    return html;
  }

  function sentences(here, best) {
    const range = scalingLaws.band(law(), here);
    return [
      `${law().label}: loss ${nats(here.loss)}${range ? ` (95 % band ${between(range)})` : ""} nats per token at N = ${pretty(state.N)} and D = ${pretty(state.D)}, C = ${flops(value("C"))} FLOPs.`,
      `The best size for this compute is N = ${pretty(best.N)} with D = ${pretty(best.D)}: loss ${nats(best.loss)}.`,
      ...outside(state, best),
    ].join(" ");
  }

  function show(source) {
    const limits = ends(law()), here = { N: state.N, D: state.D, loss: scalingLaws.loss(law(), state) };
    const best = scalingLaws.optimum(law(), value("C"));
    place.querySelectorAll("[name=calc-law]").forEach((radio) => { radio.checked = radio.value === state.law; });
    part("#calc-hold").checked = state.hold;
    part(".calc-tokens").textContent =
      `Loss in nats per token of this law’s own tokens (${law().tokens}): losses of two laws must not be compared, sizes and tokens with care.`;
    for (const name of ["N", "D", "C", "B"]) {
      const text = part(`#calc-${name}`), slider = part(`#calc-${name}-slider`), fitted = slider.nextElementSibling;
      const [low, high] = limits[name].map(Math.log10), number = value(name);
      if (text !== source) {
        text.value = name === "C" ? exponential(number, 4) : short(number, 4);
        text.removeAttribute("aria-invalid");
        part(`#calc-${name}-wrong`).textContent = "";
      }
      slider.min = low;
      slider.max = high;
      if (slider !== source) slider.value = Math.log10(number);
      slider.setAttribute("aria-valuetext", `${name === "C" ? flops(number) : pretty(number)} ${QUANTITIES[name].unit}`);
      if (law().ranges[name]) {
        const [from, to] = law().ranges[name].map((end) => (Math.log10(end) - low) / (high - low));
        fitted.hidden = false;
        fitted.style.setProperty("--from", from);
        fitted.style.setProperty("--share", to - from);
      }
    }
    const warnings = [...outside(here, best), ...law().warnings.map((text) => `Of the fit: ${text}.`)];
    part(".calc-results").innerHTML = results(here, best);
    part(".calc-warnings").innerHTML = warnings.map((text) => `<p class="calc-warning">${escape(text)}</p>`).join("");
    draw(here, best);
    clearTimeout(timer);
    timer = setTimeout(() => {
      part("#calc-said").textContent = sentences(here, best);
      if (touched) toAddress();
    }, touched ? PAUSE : 0);
  }

  // --- the picture: loss against N along C = 6 N D ---

  function sign(kind, x, y) {
    if (kind === "here") return `<circle class="calc-here" cx="${x}" cy="${y}" r="9"/>`;
    if (kind === "best") return `<path class="calc-best" d="M${x} ${y - 7.5}l7.5 7.5l-7.5 7.5l-7.5 -7.5z"/>`;
    if (kind === "rule") return `<path class="calc-rule" d="M${x - 6} ${y - 6}h12v12h-12z"/>`;
    if (kind === "band") return `<path class="calc-band" d="M-12 -5h24v10h-24z"/>`;
    return `<path class="calc-line${kind === "beyond" ? " calc-beyond" : ""}" d="M-12 0h24"/>`;
  }

  function ticks(low, high, wanted) {
    if (high / low > 8) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const digit of high / low > 100 ? [1] : [1, 2, 5]) found.push(digit * 10 ** power);
      return found.filter((tick) => tick >= low && tick <= high);
    }
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(6)));
    return found;
  }

  function draw(here, best) {
    const svg = part(".calc-plot"), width = Math.max(280, svg.clientWidth || 640), height = Math.round(Math.min(380, Math.max(260, width * 0.55)));
    const left = 50, right = 14, top = 12, bottom = 46, C = value("C");
    const rule = law().id === "kaplan" ? scalingLaws.kaplanRules(C) : null;
    const sizes = [here.N, best.N, ...(rule ? [rule.N] : [])];
    const from = Math.min(best.N / 100, Math.min(...sizes) / 3), to = Math.max(best.N * 100, Math.max(...sizes) * 3);
    const points = [];
    for (let i = 0; i <= 160; i++) {
      const N = from * (to / from) ** (i / 160), at = { N, D: C / (6 * N) };
      points.push({ ...at, loss: scalingLaws.loss(law(), at), band: scalingLaws.band(law(), at), inside: misses(at).length === 0 });
    }
    const bottomLoss = Math.min(best.loss, scalingLaws.band(law(), best)?.low || Infinity), topLoss = Math.max(...points.map((point) => point.loss));
    const margin = (topLoss / bottomLoss) ** 0.06, low = bottomLoss / margin, high = topLoss * margin;
    const x = (N) => left + (width - left - right) * Math.log(N / from) / Math.log(to / from);
    const y = (L) => top + (height - top - bottom) * Math.log(high / L) / Math.log(high / low);
    const path = (list) => list.map(([N, L], i) => `${i ? "L" : "M"}${x(N).toFixed(1)} ${y(Math.min(Math.max(L, low / 10), high * 10)).toFixed(1)}`).join("");
    const decades = [];
    const every = Math.ceil(Math.log10(to / from) / ((width - left - right) / 58));
    for (let power = Math.ceil(Math.log10(from)); power <= Math.log10(to); power++) if (power % every === 0) decades.push(10 ** power);

    let inside = `<title id="calc-plot-title">Loss against model size at fixed compute</title>
      <defs><clipPath id="calc-clip"><rect x="${left}" y="${top}" width="${width - left - right}" height="${height - top - bottom}"/></clipPath></defs>`;
    inside += ticks(low, high, 7).map((tick) => `<path class="calc-grid" d="M${left} ${y(tick).toFixed(1)}H${width - right}"/>
      <text x="${left - 8}" y="${(y(tick) + 4).toFixed(1)}" text-anchor="end">${pretty(tick)}</text>`).join("");
    inside += decades.map((tick) => `<path class="calc-grid" d="M${x(tick).toFixed(1)} ${top}V${height - bottom}"/>
      <text x="${x(tick).toFixed(1)}" y="${height - bottom + 18}" text-anchor="middle">${pretty(tick)}</text>`).join("");
    inside += `<path class="calc-axis" d="M${left} ${top}V${height - bottom}H${width - right}"/>
      <text x="${(left + width - right) / 2}" y="${height - 8}" text-anchor="middle">N, parameters, at C = ${flops(C)} FLOPs</text>
      <text transform="translate(13 ${(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">loss, nats per token</text>
      <g clip-path="url(#calc-clip)">`;
    if (points[0].band)
      inside += `<path class="calc-band" d="${path([...points.map((p) => [p.N, p.band.high]), ...points.map((p) => [p.N, p.band.low]).reverse()])}Z"/>`;
    inside += `<path class="calc-line calc-beyond" d="${path(points.map((p) => [p.N, p.loss]))}"/>`;
    const covered = points.filter((p) => p.inside);
    if (covered.length > 1) inside += `<path class="calc-line" d="${path(covered.map((p) => [p.N, p.loss]))}"/>`;
    inside += "</g>";
    inside += `<path class="calc-drop" d="M${x(best.N).toFixed(1)} ${y(best.loss).toFixed(1)}V${height - bottom}"/>`;
    if (rule) inside += sign("rule", x(rule.N), y(scalingLaws.loss(law(), { N: rule.N, D: C / (6 * rule.N) })));
    inside += sign("best", x(best.N), y(best.loss)) + sign("here", x(here.N), y(here.loss));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.innerHTML = inside;

    const entries = [["here", "your setting"], ["best", "least loss on this curve"]];
    if (rule) entries.push(["rule", "Kaplan’s rule: only its N is drawn, its loss and D are below"]);
    if (covered.length > 1) entries.push(["line", "N and D among the runs fitted"]);
    if (covered.length < points.length) entries.push(["beyond", "beyond them"]);
    if (points[0].band) entries.push(["band", "95 % band of the law"]);
    part(".calc-legend").innerHTML = entries.map(([kind, text]) => `<li>${mark(kind)} ${text}</li>`).join("");
  }

  function start() {
    const data = document.getElementById("scaling-laws");
    place = document.getElementById("scaling-calculator");
    if (!data || !place) return;
    scalingLaws.read(data.textContent);
    build();
    if (!fromAddress()) choose(scalingLaws.laws[0].id);
    show();
    window.addEventListener("hashchange", () => { if (fromAddress()) show(); });
    let width = 0;
    new ResizeObserver(([box]) => {
      if (Math.abs(box.contentRect.width - width) < 1) return;
      width = box.contentRect.width;
      show();
    }).observe(part(".calc-figure"));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
