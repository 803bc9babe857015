// What the player does: keys, buttons, sliders, a pad to drag on, a gamepad, for every kind of action.

import { make } from './views.js';

const ARROWS = ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown'];
const LETTERS = [...'1234567890asdzxcqwe'];
const AXES = [['ArrowLeft', 'ArrowRight'], ['ArrowUp', 'ArrowDown'], ['a', 'd'], ['w', 's'], ['q', 'e'],
  ['z', 'x'], ['1', '2'], ['3', '4'], ['5', '6'], ['7', '8'], ['9', '0']];
const NAMES = { ArrowLeft: '←', ArrowRight: '→', ArrowUp: '↑', ArrowDown: '↓', ' ': 'Space' };
const DEAD = 0.15; // of a gamepad's axis

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// Keys of a control that no control before it has taken.
function defaults(control, taken) {
  const n = control.kind === 'discrete' ? control.counts[0] : control.size;
  const free = (keys) => keys.every((key) => !taken.has(key));
  let keys = control.kind === 'box' ? AXES.filter(free).slice(0, n).flat() : LETTERS.filter((key) => !taken.has(key)).slice(0, n);
  if (control.kind === 'discrete' && n < 5 && free(ARROWS)) {
    keys = { 2: ['ArrowLeft', 'ArrowRight'], 3: ['ArrowLeft', 'ArrowDown', 'ArrowRight'], 4: ARROWS }[n] ?? keys;
  }
  for (const key of keys) taken.add(key);
  return keys;
}

export class Actions {
  // changed: called with the action whenever it changes, and how: 'press', 'drag' or 'release'.
  constructor(root, controls, title, changed) {
    Object.assign(this, { root, controls, changed, held: [], binding: null });
    this.store = `keys ${title}`;
    let saved = {};
    try { saved = JSON.parse(localStorage.getItem(this.store)) || {}; } catch { /* none */ }
    this.keys = {};
    this.values = {};
    this.parts = {};
    root.replaceChildren();
    const taken = new Set();
    for (const control of controls) {
      const standard = defaults(control, taken);
      this.keys[control.key] = saved[control.key]?.length === standard.length ? saved[control.key] : standard;
      this.values[control.key] = [...control.rest];
      root.append(this.build(control));
    }
    this.last = this.action();
  }

  action() {
    return Object.fromEntries(this.controls.map((c) => [c.key, [...this.values[c.key]]]));
  }

  tell(how) {
    const action = this.action();
    this.paint();
    if (same(action, this.last) && how !== 'press') return;
    this.last = action;
    this.changed(action, how);
  }

  build(control) {
    const part = { buttons: [], sliders: [] }, body = make('div', { className: 'row' });
    this.parts[control.key] = part;
    const root = make('div', { className: 'action' }, make('h3', {}, control.key === 'action' ? 'Action' : `Action: ${control.key}`), body);
    if (control.kind === 'box') this.buildBox(control, part, body);
    else if (control.kind === 'multidiscrete') this.buildRows(control, part, body);
    else {
      const count = control.kind === 'discrete' ? control.counts[0] : control.size;
      for (let i = 0; i < Math.min(count, 64); i++) {
        const press = (on) => (control.kind === 'discrete' ? this.hold(control, i, on) : on && this.flip(control, i));
        part.buttons.push(this.button(`${i}`, control, i, press));
      }
      body.append(...part.buttons);
    }
    root.append(this.rebinder(control));
    return root;
  }

  button(name, control, index, press) {
    const button = make('button', { type: 'button' }, name, ' ', make('kbd', {}, this.cap(control, index)));
    button.addEventListener('pointerdown', () => press(true));
    for (const end of ['pointerup', 'pointerleave']) button.addEventListener(end, () => press(false));
    button.addEventListener('click', (event) => { if (!event.detail) { press(true); press(false); } });
    return button;
  }

  cap(control, index) {
    const key = this.keys[control.key][index];
    return key ? NAMES[key] || key : '';
  }

  buildBox(control, part, body) {
    const column = make('div');
    for (let i = 0; i < Math.min(control.size, 32); i++) {
      const slider = make('input', {
        type: 'range', min: control.low[i], max: control.high[i], step: (control.high[i] - control.low[i]) / 200,
      });
      slider.setAttribute('aria-label', `${control.key} ${i}`);
      slider.addEventListener('input', () => { this.values[control.key][i] = +slider.value; this.tell('drag'); });
      const told = make('output');
      part.sliders.push({ slider, told });
      column.append(make('div', { className: 'slider' }, ...(control.size > 1 ? [make('span', {}, `${i}`)] : []),
        make('kbd', {}, this.cap(control, 2 * i)), slider, make('kbd', {}, this.cap(control, 2 * i + 1)), told));
    }
    const centre = make('button', { type: 'button' }, 'Let go');
    centre.addEventListener('click', () => { this.values[control.key] = [...control.rest]; this.tell('release'); });
    column.append(centre);
    if (control.size >= 2) body.append(this.pad(control, part));
    body.append(column);
  }

  pad(control, part) {
    part.knob = make('i');
    const pad = make('div', { className: 'pad', title: 'Drag: the first two components' }, part.knob);
    pad.setAttribute('role', 'img');
    pad.setAttribute('aria-label', `Drag to set ${control.key} 0 and 1`);
    const set = (event) => {
      const box = pad.getBoundingClientRect();
      const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      share.forEach((s, i) => {
        const inside = Math.min(1, Math.max(0, s));
        this.values[control.key][i] = control.low[i] + inside * (control.high[i] - control.low[i]);
      });
      this.tell('drag');
    };
    pad.addEventListener('pointerdown', (event) => { pad.setPointerCapture(event.pointerId); set(event); });
    pad.addEventListener('pointermove', (event) => { if (event.buttons) set(event); });
    pad.addEventListener('pointerup', () => {
      for (const i of [0, 1]) this.values[control.key][i] = control.rest[i];
      this.tell('release');
    });
    return pad;
  }

  buildRows(control, part, body) {
    const column = make('div');
    control.counts.slice(0, 32).forEach((count, i) => {
      const row = make('div', { className: 'row' }, make('span', {}, `${i}`), make('kbd', {}, this.cap(control, i)));
      row.setAttribute('role', 'group');
      row.setAttribute('aria-label', `${control.key} ${i}`);
      const buttons = [...Array(Math.min(count, 32)).keys()].map((value) => {
        const button = make('button', { type: 'button' }, `${value}`);
        button.addEventListener('click', () => { this.values[control.key][i] = value; this.tell('press'); });
        return button;
      });
      part.buttons.push(buttons);
      row.append(...buttons);
      column.append(row);
    });
    body.append(column);
  }

  rebinder(control) {
    const list = make('select');
    list.setAttribute('aria-label', `Key of ${control.key} to change`);
    this.keys[control.key].forEach((_, i) => {
      const axis = control.kind === 'box' ? `${i >> 1} ${i % 2 ? '+' : '−'}` : `${i}`;
      list.append(make('option', { value: i }, axis));
    });
    const button = make('button', { type: 'button' }, 'Change key');
    button.addEventListener('click', () => {
      this.binding = { control, index: +list.value, button };
      button.textContent = 'press a key';
    });
    return make('details', {}, make('summary', {}, 'Keys'), make('div', { className: 'row' }, list, button));
  }

  // -- keys

  // Whether the key means something here.
  press(key, on) {
    if (this.binding && on) {
      const { control, index, button } = this.binding;
      this.binding = null;
      button.textContent = 'Change key';
      if (key === 'Escape' || key === 'Tab') return key === 'Escape';
      this.keys[control.key][index] = key;
      try { localStorage.setItem(this.store, JSON.stringify(this.keys)); } catch { /* private */ }
      const fresh = this.build(control);
      this.root.children[this.controls.indexOf(control)].replaceWith(fresh);
      this.paint();
      return true;
    }
    let found = false;
    for (const control of this.controls) {
      this.keys[control.key].forEach((bound, i) => {
        if (bound !== key) return;
        found = true;
        if (control.kind === 'discrete') this.hold(control, i, on);
        else if (control.kind === 'box') this.push(control, i, on);
        else if (on) this.flip(control, i);
      });
    }
    return found;
  }

  // The last of the choices that are held counts; with none it is that of rest.
  hold(control, index, on) {
    this.held = this.held.filter((h) => !(h.key === control.key && h.index === index));
    if (on) this.held.push({ key: control.key, index });
    const mine = this.held.filter((h) => h.key === control.key);
    this.values[control.key] = mine.length ? [mine.at(-1).index] : [...control.rest];
    this.tell(on ? 'press' : 'release');
  }

  push(control, index, on) {
    this.held = this.held.filter((h) => !(h.key === control.key && h.index === index));
    if (on) this.held.push({ key: control.key, index });
    const axis = index >> 1, has = (i) => this.held.some((h) => h.key === control.key && h.index === i);
    const sign = has(2 * axis + 1) - has(2 * axis);
    const ends = [control.low[axis], control.rest[axis], control.high[axis]];
    this.values[control.key][axis] = ends[sign + 1];
    this.tell(on ? 'press' : 'release');
  }

  flip(control, index) {
    const values = this.values[control.key];
    const count = control.kind === 'multidiscrete' ? control.counts[index] : 2;
    values[index] = (values[index] + 1) % count;
    this.tell('press');
  }

  letGo() {
    this.held = [];
    for (const control of this.controls) {
      if (control.kind === 'discrete' || control.kind === 'box') this.values[control.key] = [...control.rest];
    }
    this.tell('release');
  }

  // -- gamepad: axes are components of boxes, buttons are choices and toggles

  poll() {
    const pad = [...(navigator.getGamepads?.() || [])].find((p) => p);
    if (!pad) return;
    const axes = pad.axes.map((x) => (Math.abs(x) < DEAD ? 0 : x));
    const buttons = pad.buttons.map((b) => b.pressed);
    const before = this.before || { axes: axes.map(() => 0), buttons: buttons.map(() => false) };
    this.before = { axes, buttons };
    let axis = 0, button = 0, moved = false;
    for (const control of this.controls) {
      for (let i = 0; i < control.size; i++) {
        if (control.kind === 'box') {
          const now = axes[axis], was = before.axes[axis++];
          if (now === undefined || (now === 0 && was === 0)) continue;
          moved = moved || now !== 0;
          const end = now < 0 ? control.low[i] : control.high[i];
          this.values[control.key][i] = control.rest[i] + Math.abs(now) * (end - control.rest[i]);
        } else if (control.kind === 'discrete') {
          for (let k = 0; k < control.counts[0]; k++, button++) {
            if (buttons[button] !== undefined && buttons[button] !== before.buttons[button]) {
              this.hold(control, k, buttons[button]);
            }
          }
        } else {
          if (buttons[button] && !before.buttons[button]) this.flip(control, i);
          button++;
        }
      }
    }
    this.tell(moved ? 'drag' : 'release');
  }

  paint() {
    for (const control of this.controls) {
      const part = this.parts[control.key], values = this.values[control.key];
      part.sliders.forEach(({ slider, told }, i) => {
        slider.value = values[i];
        told.textContent = values[i].toFixed(2);
      });
      if (part.knob) {
        [['left', 0], ['top', 1]].forEach(([side, i]) => {
          const share = (values[i] - control.low[i]) / (control.high[i] - control.low[i]);
          part.knob.style[side] = `${100 * share}%`;
        });
      }
      part.buttons.forEach((button, i) => {
        if (Array.isArray(button)) button.forEach((b, k) => b.setAttribute('aria-pressed', values[i] === k));
        else button.setAttribute('aria-pressed', control.kind === 'discrete' ? values[0] === i : values[i] === 1);
      });
    }
  }
}
