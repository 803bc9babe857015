// Drawing alone: panes, curves, the tree, the policy. Knows no connection.

export const CURVES = [
  { name: 'Reward', of: ['reward', 'real_reward'] },
  { name: 'Value', of: ['value', 'real_value'] },
  { name: 'Going on', of: ['cont'], low: 0, high: 1 },
  { name: 'Policy entropy', of: ['entropy'] },
  { name: 'Uncertainty', of: ['spread'] },
  { name: 'Latent error', of: ['error'] },
  { name: 'Pixel difference', of: ['pixels'] },
  { name: 'Pixel correlation', of: ['alike'], low: 0, high: 1 },
];
const SHOWN = 240; // frames of a curve

export const $ = (id) => document.getElementById(id);
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
export const say = (x) => (x === null || x === undefined ? '–' : Math.abs(x) >= 100 ? x.toFixed(0) : x.toFixed(3));

export function make(tag, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

// A canvas in device pixels, and its context; sizes in CSS pixels.
function fitted(canvas) {
  const scale = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export function drawImage(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  const rgba = new Uint8ClampedArray(4 * image.width * image.height);
  for (let i = 0, j = 0; i < image.pixels.length; i += 3, j += 4) {
    rgba[j] = image.pixels[i];
    rgba[j + 1] = image.pixels[i + 1];
    rgba[j + 2] = image.pixels[i + 2];
    rgba[j + 3] = 255;
  }
  canvas.getContext('2d').putImageData(new ImageData(rgba, image.width, image.height), 0, 0);
}

// Panes of every camera: dream, real, and their difference.
export class Panes {
  constructor(root) {
    this.root = root;
    this.rows = new Map();
    this.hidden = new Set();
  }

  draw(images, names) {
    for (const key of names) {
      if (!this.rows.has(key)) this.add(key);
      const row = this.rows.get(key);
      const dream = images.find((i) => i.key === key && i.pane === 'dream');
      const real = images.find((i) => i.key === key && i.pane === 'real');
      row.root.classList.toggle('alone', !real);
      row.real.parentElement.hidden = row.difference.parentElement.hidden = !real;
      row.root.hidden = this.hidden.has(key);
      if (dream) drawImage(row.dream, dream);
      if (real) drawImage(row.real, real);
      if (real && dream && real.pixels.length === dream.pixels.length) {
        const pixels = dream.pixels.map((x, i) => Math.min(255, 2 * Math.abs(x - real.pixels[i])));
        drawImage(row.difference, { ...dream, pixels });
      }
    }
  }

  add(key) {
    const canvases = ['dream', 'real', 'difference'].map((pane) => {
      const canvas = make('canvas');
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `${pane}, ${key}`);
      const words = pane === 'difference' ? 'difference, doubled' : pane;
      return [canvas, make('figure', { className: pane }, canvas, make('figcaption', {}, words))];
    });
    const root = make('div', { className: 'panes', data: { key } }, ...canvases.map(([, f]) => f));
    this.root.append(root);
    this.rows.set(key, { root, dream: canvases[0][0], real: canvases[1][0], difference: canvases[2][0] });
    this.scale(this.factor || 0);
  }

  scale(factor) {
    this.factor = factor;
    for (const row of this.rows.values()) {
      for (const canvas of [row.dream, row.real, row.difference]) {
        canvas.style.width = factor ? `${factor * canvas.width}px` : '';
        canvas.style.maxWidth = '100%';
      }
    }
  }
}

export class Curves {
  constructor(root) {
    this.at = null;
    this.parts = CURVES.map((curve) => {
      const canvas = make('canvas'), words = make('p');
      canvas.setAttribute('role', 'img');
      root.append(make('div', { className: 'curve' }, words, canvas));
      canvas.addEventListener('pointermove', (event) => {
        const box = canvas.getBoundingClientRect();
        this.at = (event.clientX - box.left) / box.width;
        this.draw(this.path);
      });
      canvas.addEventListener('pointerleave', () => { this.at = null; this.draw(this.path); });
      return { ...curve, canvas, words };
    });
    this.path = [];
  }

  // path: numbers of the frames of this branch, from the start on.
  draw(path) {
    this.path = path;
    const shown = path.slice(-SHOWN);
    const index = this.at === null ? shown.length - 1 : Math.round(this.at * (shown.length - 1));
    for (const part of this.parts) {
      const series = part.of.map((name) => shown.map((stats) => stats[name] ?? null));
      const all = series.flat().filter((x) => x !== null);
      part.canvas.parentElement.hidden = all.length === 0;
      if (!all.length) continue;
      const { context, width, height } = fitted(part.canvas);
      const low = Math.min(part.low ?? Infinity, ...all), high = Math.max(part.high ?? -Infinity, ...all);
      const y = (v) => height - 3 - (height - 6) * (high > low ? (v - low) / (high - low) : 0.5);
      const x = (i) => (shown.length > 1 ? (i * width) / (shown.length - 1) : width / 2);
      series.forEach((values, s) => {
        context.strokeStyle = color(s ? 'real' : 'dream');
        context.lineWidth = 1.5;
        context.beginPath();
        values.forEach((v, i) => {
          if (v === null) return;
          if (i && values[i - 1] !== null) context.lineTo(x(i), y(v));
          else context.moveTo(x(i), y(v));
        });
        context.stroke();
      });
      if (this.at !== null) {
        context.fillStyle = color('soft');
        context.fillRect(x(index), 0, 1, height);
      }
      const values = series.map((s) => say(s[index]));
      part.words.replaceChildren(
        make('b', {}, part.name), ' ', make('span', { className: 'of-dream' }, values[0]),
        ...(values.length > 1 ? [' real ', make('span', { className: 'of-real' }, values[1])] : []),
      );
      part.canvas.setAttribute('aria-label', `${part.name}: ${values.join(', real ')}`);
    }
  }
}

// Branches: a row each, time to the right.
export class Tree {
  constructor(canvas, go) {
    this.canvas = canvas;
    this.spots = [];
    canvas.addEventListener('click', (event) => {
      const box = canvas.getBoundingClientRect();
      const near = (s) => Math.hypot(s.x - event.clientX + box.left, s.y - event.clientY + box.top);
      const best = this.spots.reduce((a, b) => (a === null || near(b) < near(a) ? b : a), null);
      if (best && near(best) < 30) go(best.number);
    });
  }

  draw(nodes, current) {
    const rows = new Map(), children = new Map();
    let count = 0, deepest = 1;
    for (const [number, node] of nodes) {
      deepest = Math.max(deepest, node.depth);
      const first = node.parent !== null && !children.has(node.parent);
      rows.set(number, first ? rows.get(node.parent) : count++);
      if (node.parent !== null) children.set(node.parent, true);
    }
    this.canvas.style.height = `${Math.min(140, 18 + 12 * count)}px`;
    const { context, width, height } = fitted(this.canvas);
    const gap = Math.min(12, (height - 14) / Math.max(1, count));
    const spot = (number) => ({
      number, x: 7 + ((width - 14) * nodes.get(number).depth) / deepest, y: 7 + gap * rows.get(number),
    });
    this.spots = [...nodes.keys()].map(spot);
    context.strokeStyle = color('soft');
    context.lineWidth = 1;
    context.beginPath();
    for (const s of this.spots) {
      const parent = nodes.get(s.number).parent;
      if (parent === null || !nodes.has(parent)) continue;
      const from = spot(parent);
      context.moveTo(from.x, from.y);
      context.lineTo(s.x, s.y);
    }
    context.stroke();
    const small = this.spots.length > 150;
    for (const s of this.spots) {
      const here = s.number === current;
      if (small && !here) continue;
      context.fillStyle = here ? color('accent') : color(nodes.get(s.number).who === 'you' ? 'dream' : 'soft');
      context.beginPath();
      context.arc(s.x, s.y, here ? 5 : 2, 0, 7);
      context.fill();
    }
    this.canvas.setAttribute('aria-label', `${count} branches, ${nodes.size} frames`);
  }
}

// Bars of what the policy may choose, or the density of a normal, for every component.
export function drawPolicy(root, policy, action) {
  while (root.children.length < policy.length) {
    const canvas = make('canvas');
    canvas.setAttribute('role', 'img');
    root.append(make('div', {}, make('p'), canvas));
  }
  while (root.children.length > policy.length) root.lastChild.remove();
  policy.forEach((choice, i) => {
    const [words, canvas] = root.children[i].children, { context, width, height } = fitted(canvas);
    const taken = action ? action[choice.key]?.[choice.index] : null;
    const alone = policy.filter((other) => other.key === choice.key).length === 1;
    const name = alone ? choice.key : `${choice.key} ${choice.index}`;
    if (choice.probs) {
      const most = Math.max(...choice.probs), best = choice.probs.indexOf(most);
      const step = width / choice.probs.length;
      choice.probs.forEach((p, k) => {
        context.fillStyle = taken !== null && Math.abs(choice.values[k] - taken) < 1e-3 ? color('accent') : color('soft');
        const tall = Math.max(1, ((height - 2) * p) / most);
        context.fillRect(k * step + 1, height - tall, Math.max(1, step - 2), tall);
      });
      words.textContent = `${name}: ${choice.values[best]} most likely, ${(100 * most).toFixed(0)}%`;
    } else {
      context.fillStyle = color('soft');
      for (let x = 0; x < width; x += 2) {
        const z = ((2 * x) / width - 1 - choice.mean) / choice.std;
        const tall = (height - 2) * Math.exp(-0.5 * z * z);
        context.fillRect(x, height - tall, 2, tall);
      }
      words.textContent = `${name}: ${say(choice.mean)} ± ${say(choice.std)}`;
    }
    canvas.setAttribute('aria-label', words.textContent);
  });
}

export function drawVectors(root, vectors) {
  root.replaceChildren(...Object.entries(vectors.dream).map(([key, numbers]) => {
    const line = (name, values) => make('tr', {}, make('th', {}, name), ...values.map((v) => make('td', {}, say(v))));
    const rows = [line(`${key}, dream`, numbers)];
    if (vectors.real) rows.push(line('real', vectors.real[key]));
    return make('div', { className: 'numbers' }, make('table', {}, ...rows));
  }));
}
