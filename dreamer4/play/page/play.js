// The page: one connection, what it says and hears.

import { Actions } from './actions.js';
import { $, Curves, Panes, Tree, drawImage, drawPolicy, drawVectors, make } from './views.js';

const game = { nodes: new Map(), newest: new Map(), current: 0, playing: false, acts: 'you', player: false, wasPlayer: true, other: 'sample' };
const panes = new Panes($('panes')), curves = new Curves($('curves'));
const tree = new Tree($('tree'), (number) => send('goto', { node: number }));
const ALONE = 'this branch is only dreamt, the env cannot go back: F begins a new episode of both';
const PATIENCE = 2000; // ms that a step is waited for
let waiting = 0, socket = null, actions = null, wait = 500, first = 0, latencies = [], drawn = 0, newest = null;

// -- connection

function connect() {
  const url = new URL('play', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  url.search = location.search;
  socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    wait = 500;
    document.body.dataset.connected = 'true';
    alert('');
    if (game.wasPlayer) send('claim');
  };
  socket.onmessage = (event) => {
    if (typeof event.data === 'string') hear(JSON.parse(event.data));
    else hear(unpack(event.data));
  };
  socket.onclose = () => {
    document.body.dataset.connected = 'false';
    game.wasPlayer = game.player || game.wasPlayer;
    alert('The connection is lost; trying again.');
    setTimeout(connect, wait);
    wait = Math.min(5000, 1.7 * wait);
  };
}

function send(type, fields = {}) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, ...fields }));
}

function unpack(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  for (const image of header.images) {
    image.pixels = new Uint8Array(data, at, 3 * image.width * image.height);
    at += image.pixels.length;
  }
  return header;
}

const heard = {
  hello: greet,
  tree: (said) => {
    game.nodes = new Map();
    game.newest = new Map();
    for (const [number, parent, who, depth] of said.nodes) add(number, parent, who, depth, said.stats[number] || {});
    game.place = said.place;
  },
  frame: (said) => { newest = said; take(said); },
  seat,
  who: (said) => { game.acts = said.who; paintWho(); },
  playing: (said) => { game.playing = said.playing; paintPlaying(); },
  error: (said) => alert(said.text),
  note: (said) => alert(said.text),
  saved: (said) => {
    const link = said.film ? make('a', { href: `films/${said.film}${location.search}`, download: said.film }, said.film) : '';
    $('saved').replaceChildren(`Saved: ${said.text} `, link);
  },
  starts: strip,
  episode: moments,
};

function hear(said) {
  heard[said.type]?.(said);
}

function alert(text) {
  $('alert').textContent = text;
  $('alert').hidden = !text;
  clearTimeout(alert.timer);
  if (text && document.body.dataset.connected === 'true') alert.timer = setTimeout(() => alert(''), 6000);
}

function add(number, parent, who, depth, stats) {
  game.nodes.set(number, { parent, who, stats, depth });
  if (parent !== null) game.newest.set(parent, number);
}

// Let the frames go that the server no longer keeps; what followed them hangs at the start.
function forget(oldest) {
  for (const [number, node] of game.nodes) {
    if (number && number < oldest) {
      game.nodes.delete(number);
      game.newest.delete(number);
    } else if (node.parent && node.parent < oldest) {
      node.parent = 0;
      game.newest.set(0, number);
    }
  }
}

function pathOf(number) {
  const path = [];
  for (let at = number; at !== null && game.nodes.has(at); at = game.nodes.get(at).parent) path.push(at);
  return path.reverse();
}

// -- what is heard

function greet(said) {
  game.hello = said;
  document.title = said.title;
  $('title').textContent = said.title;
  $('begin').hidden = !said.frames;
  if (!actions || actions.title !== said.title) {
    actions = new Actions($('actions'), said.controls, said.title, act);
    actions.title = said.title;
    actions.paint();
  }
  const steps = [0];
  for (let k = 1; k <= said.levels; k *= 2) steps.push(k);
  $('steps').replaceChildren(...steps.map((k) => make('option', { value: k }, k || `as trained (${said.steps})`)));
  for (const name of ['steps', 'noise']) $(name).parentElement.hidden = !said.denoises;
  for (const name of ['steps', 'samples', 'seed']) $(name).value = said.settings[name];
  $('mean').value = `${said.settings.mean}`;
  $('noise').value = said.settings.noise ?? '';
  $('auto').checked = said.settings.auto;
  $('auto').parentElement.hidden = !said.env;
  if (said.frames && !$('strip').children.length) send('starts', { first });
}

function take(said) {
  if (!game.nodes.has(said.node)) add(said.node, said.parent, said.who, said.depth, said.stats);
  else game.nodes.get(said.node).stats = said.stats;
  if (said.oldest > game.oldest) forget(said.oldest);
  game.oldest = said.oldest;
  game.current = said.node;
  waiting = 0;
  Object.assign(game, { playing: said.playing, acts: said.acts });
  if (said.sent !== null && game.player) {
    latencies.push(performance.now() - said.sent);
    if (latencies.length > 300) latencies.shift();
  }
  document.body.dataset.frame = said.node;
  document.body.dataset.depth = said.depth;
  document.body.dataset.frames = +(document.body.dataset.frames || 0) + 1;
  if (!drawn) drawn = requestAnimationFrame(draw);
}

// Frames may come faster than the screen shows them.
function draw() {
  drawn = 0;
  const said = newest;
  const names = said.images.filter((i) => i.pane === 'dream').map((i) => i.key);
  panes.draw(said.images, names);
  cameras(names);
  drawVectors($('vectors'), said.vectors);
  const path = pathOf(said.node);
  curves.draw(path.map((number) => game.nodes.get(number).stats));
  tree.draw(game.nodes, said.node);
  drawPolicy($('policy'), said.policy, said.action);
  $('policy-words').hidden = !said.policy.length;
  $('beside').hidden = !said.vectors.real;
  $('depth').textContent = said.depth;
  $('rewind').max = line(said.node).length - 1;
  $('rewind').value = path.length - 1;
  const [p50, p95] = [50, 95].map((q) => percentile(latencies, q));
  $('pace').textContent = (said.fps ? `${said.fps} frames/s · ` : '') + `step ${said.p50} ms, p95 ${said.p95} ms` +
    (latencies.length ? ` · key to picture ${p50.toFixed(0)} ms, p95 ${p95.toFixed(0)} ms` : '');
  $('where').textContent = where(said);
  $('forgotten').textContent = said.forgotten && game.hello?.denoises
    ? `The model sees the last ${game.hello.context} frames; ${said.forgotten} are forgotten.` : '';
  if (document.activeElement !== $('speed')) $('speed').value = `${said.speed}`;
  paintPlaying();
  paintWho();
  ends();
}

function where(said) {
  const parts = said.task ? [said.task] : [];
  if (!said.depth && said.parent === null && game.player) parts.push('Space plays; an action key makes a step');
  if (game.place) parts.push(`from frame ${game.place.frame} of episode ${game.place.episode} of the replay`);
  if (said.over) {
    const how = said.terminal ? 'terminal' : 'by a time limit';
    const next = game.hello?.settings.auto && !game.place ? '; the next step begins another' : '';
    parts.push(`the real episode ended here, ${how}${next}`);
  }
  if (!said.vectors.real) parts.push(game.place || !game.hello?.env ? 'the dream is alone' : ALONE);
  return parts.join('; ');
}

function percentile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((q / 100) * sorted.length))] ?? 0;
}

// From the start through a frame to where it was played on from there, by the newest child of each.
function line(number) {
  const path = pathOf(number);
  for (let at = game.newest.get(number); at !== undefined; at = game.newest.get(at)) path.push(at);
  return path;
}

function ends() {
  const parents = new Set([...game.nodes.values()].map((n) => n.parent));
  const all = [...game.nodes].filter(([number]) => !parents.has(number)), leaves = all.slice(-8);
  const key = leaves.map(([n]) => n).join() + game.current;
  if (ends.key === key) return;
  ends.key = key;
  $('branches').replaceChildren(...(leaves.length < 2 ? [] : leaves.map(([number, node], i) => {
    const button = make('button', { type: 'button' }, `Branch ${all.length - leaves.length + i + 1}, ${node.depth} steps`);
    button.setAttribute('aria-pressed', number === game.current);
    button.addEventListener('click', () => send('goto', { node: number }));
    return button;
  })));
}

function cameras(names) {
  const root = $('cameras');
  if (root.dataset.names === names.join()) return;
  root.dataset.names = names.join();
  root.replaceChildren(...(names.length < 2 ? [] : names.map((key) => {
    const box = make('input', { type: 'checkbox', checked: true });
    box.addEventListener('change', () => {
      panes.hidden[box.checked ? 'delete' : 'add'](key);
      draw();
    });
    return make('label', {}, box, key);
  })));
}

function seat(said) {
  game.player = said.player;
  if (said.player) game.wasPlayer = true;
  document.body.dataset.player = said.player;
  document.body.dataset.viewers = said.viewers;
  for (const id of ['play', 'settings', 'keeping', 'begin']) $(id).disabled = !said.player;
  $('rewind').disabled = !said.player;
  $('claim').hidden = said.player || !said.free;
  $('record').checked = said.recording;
  const others = said.viewers === 1 ? '' : `; ${said.viewers} pages look on`;
  $('seat').textContent = (said.player ? 'You play' : said.free ? 'Nobody plays' : 'You watch') + others;
}

function strip(said) {
  first = said.first;
  $('strip-where').textContent = said.total ? `episodes ${first} to ${first + said.episodes.length - 1} of ${said.total}` : '';
  $('strip').replaceChildren(...said.episodes.map((episode) => {
    const images = said.images.filter((i) => i.pane.startsWith(`${episode.episode}:`));
    const pictures = images.map((image) => { const c = make('canvas'); drawImage(c, image); return c; });
    const score = episode.score === null ? '' : `, return ${episode.score.toFixed(1)}`;
    const button = make('button', { type: 'button' }, make('span', { className: 'shots' }, ...pictures),
      make('b', {}, `Episode ${episode.episode}`), `${episode.task ? `${episode.task}, ` : ''}${episode.length} frames${score}`);
    button.addEventListener('click', () => {
      $('episode').value = episode.episode;
      send('frames', { episode: episode.episode });
    });
    return button;
  }));
}

// The frames of an episode that was chosen, to begin at one of them.
function moments(said) {
  $('moments-name').textContent = `Frames of episode ${said.episode}`;
  $('moments').replaceChildren(...said.frames.map((frame) => {
    const image = said.images.find((i) => i.pane === `${said.episode}:${frame}`), shot = make('canvas');
    if (image) drawImage(shot, image);
    const button = make('button', { type: 'button' }, ...(image ? [shot] : []), `frame ${frame}`);
    button.addEventListener('click', () => {
      $('frame').value = frame;
      send('begin', { episode: said.episode, frame });
    });
    return button;
  }));
  for (const button of $('strip').children) {
    button.setAttribute('aria-pressed', button.querySelector('b').textContent === `Episode ${said.episode}`);
  }
}

// -- what is said

// A press takes over and, while nothing plays, makes a step; moving a slider takes over; letting go
// does neither.
function act(action, how) {
  if (!game.player) return;
  if (game.acts !== 'you' && how === 'release') return;
  if (game.acts !== 'you') who('you');
  send('act', { action, sent: performance.now() });
  if (how === 'press' && !game.playing && $('onkey').checked && performance.now() > waiting) {
    waiting = performance.now() + PATIENCE; // keys that come faster than steps do not pile up
    send('step');
  }
}

function who(name) {
  if (name !== 'you') game.other = name;
  game.acts = name;
  send('who', { who: name });
  paintWho();
}

function toggle() {
  game.playing = !game.playing;
  send(game.playing ? 'play' : 'pause');
  paintPlaying();
}

function back() {
  const parent = game.nodes.get(game.current)?.parent;
  send('pause');
  if (parent !== null && parent !== undefined) send('goto', { node: parent });
}

const COMMANDS = {
  ' ': toggle,
  '.': () => send('step'),
  ',': back,
  t: () => who(game.acts === 'you' ? game.other : 'you'),
  r: () => send('restart'),
  f: () => send('fresh'),
};

function paintPlaying() {
  $('toggle-name').textContent = game.playing ? 'Pause' : 'Play';
  document.body.dataset.playing = game.playing;
}

function paintWho() {
  for (const input of document.querySelectorAll('input[name=who]')) input.checked = input.value === game.acts;
  document.querySelector('input[value=recorded]').disabled = !game.place;
  $('take-name').textContent = game.acts === 'you' ? 'Hand over' : 'Take over';
  document.body.dataset.acts = game.acts;
}

function settings() {
  const noise = $('noise').value;
  send('settings', {
    steps: +$('steps').value, mean: $('mean').value === 'true', noise: noise === '' ? null : +noise,
    samples: +$('samples').value, seed: +$('seed').value, auto: $('auto').checked,
  });
}

const typing = (target) => target.matches?.('input[type=number], input[type=text], select');

function key(event, on) {
  // who has typed a number plays on
  if (on && typing(event.target) && ['Enter', 'Escape'].includes(event.key)) event.target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.repeat) {
    if (actions?.controls.some((c) => actions.keys[c.key].includes(name))) event.preventDefault();
    return;
  }
  if (!game.player) return;
  if (actions?.press(name, on)) return event.preventDefault();
  // buttons have their own use of the space bar
  if (on && COMMANDS[name] && !(name === ' ' && event.target.matches?.('button, summary, input'))) {
    event.preventDefault();
    COMMANDS[name]();
  }
}

addEventListener('keydown', (event) => key(event, true));
addEventListener('keyup', (event) => key(event, false));
addEventListener('blur', () => actions?.letGo());
addEventListener('resize', () => newest && !drawn && (drawn = requestAnimationFrame(draw)));

const clicks = {
  toggle, step: COMMANDS['.'], back, restart: COMMANDS.r, fresh: COMMANDS.f, take: COMMANDS.t,
  claim: () => send('claim'),
  'begin-there': () => send('begin', { episode: +$('episode').value, frame: +$('frame').value }),
  'save-rows': () => send('save', { what: 'rows' }),
  'save-gif': () => send('save', { what: 'gif' }),
  'save-mp4': () => send('save', { what: 'mp4' }),
  earlier: () => send('starts', { first: Math.max(0, first - 12) }),
  later: () => send('starts', { first: first + 12 }),
};
for (const [id, does] of Object.entries(clicks)) $(id).addEventListener('click', does);
for (const id of ['steps', 'mean', 'noise', 'samples', 'seed', 'auto']) $(id).addEventListener('change', settings);
$('speed').addEventListener('change', () => send('speed', { value: +$('speed').value }));
// keys are of the game again once something is chosen
for (const list of document.querySelectorAll('select')) list.addEventListener('change', () => list.blur());
$('record').addEventListener('change', () => send('record', { on: $('record').checked }));
$('scale').addEventListener('change', () => { panes.scale(+$('scale').value); });
$('rewind').addEventListener('input', () => {
  send('pause');
  send('goto', { node: line(game.current)[+$('rewind').value] ?? 0 });
});
for (const input of document.querySelectorAll('input[name=who]')) input.addEventListener('change', () => who(input.value));
setInterval(() => actions && game.player && actions.poll(), 16);
setInterval(() => {
  if (game.player && latencies.length > 9) send('latency', { p50: percentile(latencies, 50), p95: percentile(latencies, 95) });
}, 10000);

connect();
