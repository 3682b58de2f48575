/** Upstreams: who is healthy? */
import { h, put } from '../dom.js';
import { sparkline } from '../charts/sparkline.js';
import { confirm } from '../dialog.js';
import { clock, count, duration, moment, percent, plural } from '../format.js';
import { mark } from '../icons.js';
import { empty, head, loader, panel } from '../panel.js';
import { repeat } from '../repeat.js';
import { toast } from '../status.js';
import { table } from '../table.js';

const REFRESH_MS = 10_000;
const STATES = { healthy: ['good', 'Healthy'], degraded: ['warn', 'Degraded'], down: ['bad', 'Down'], paused: ['off', 'Paused'], off: ['off', 'Off'] };
const ORDER = ['down', 'degraded', 'paused', 'healthy', 'off'];

async function render(root, ctx) {
  const box = panel({ flush: true });
  put(root, head('Upstreams', h('span.note', 'The last 24 hours')), box.element);
  const probes = new Map();
  let list = null;
  let rows = [];

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => ctx.api.get('upstreams', {}, { signal }),
    draw: ({ data }) => {
      rows = [...data].sort((one, other) => ORDER.indexOf(one.state) - ORDER.indexOf(other.state) || sumOf(other) - sumOf(one));
      draw();
    },
  });

  function draw() {
    const { tz } = ctx.state;
    const mayProbe = ctx.may('admin');
    const ailing = rows.filter((row) => row.state === 'degraded' || row.state === 'down');
    ctx.shell.badge('upstreams', ailing.length ? { text: String(ailing.length), level: ailing.some((row) => row.state === 'down') ? 'bad' : 'warn', say: 'not healthy' } : null);
    const options = {
      caption: 'Upstreams, the worst on top', class: 'is-two upstreams-table', rows, id: (row) => row.name, selected: ctx.state.get('open'),
      empty: empty({ title: 'No upstreams.', text: 'They are named in the configuration file under “upstreams”.' }),
      columns: [
        { key: 'name', label: 'Upstream', class: 'keys-name', cell: (row) => [h('span.strong.keys-name-text', { title: row.name }, row.name), h('span.line-2.cell-cut', row.host ?? row.kind)] },
        { key: 'state', label: 'State', cell: (row) => stateCell(row, tz) },
        { key: 'line', label: 'Requests an hour', class: 'wide-only upstreams-line', cell: (row) => row.state !== 'off' && sparkline(row.hours.map((each) => each.requests), { width: 120, height: 28, label: `Requests an hour: ${plural(sumOf(row), 'request')} in 24 hours` }) },
        { key: 'failing', label: 'Failed an hour', class: 'wide-only upstreams-line', cell: (row) => row.state !== 'off' && sparkline(row.hours.map((each) => (each.requests ? (100 * each.failed) / each.requests : 0)), { width: 120, height: 28, level: { degraded: 'warn', down: 'bad' }[row.state] ?? 'plain', label: `Failed in percent, hour by hour; now ${percent(row.failed_percent)}` }) },
        { key: 'failed', label: 'Failed', end: true, cell: (row) => h('span', { class: row.state === 'down' ? 'bad' : row.state === 'degraded' ? 'warn' : '' }, percent(row.failed_percent)) },
        { key: 'first', label: 'First byte p95', end: true, class: 'wide-only', cell: (row) => duration(row.first_byte_p95_ms) },
        { key: 'flight', label: 'In flight', end: true, cell: (row) => count(row.in_flight) },
        { key: 'models', label: 'Models', class: 'wide-only upstreams-models', cell: (row) => h('span.cell-cut.text-2', { title: row.models.join(', ') }, row.models.join(', ') || '–') },
        mayProbe && { key: 'act', label: h('span.hush', 'Actions'), end: true, cell: (row) => (row.state === 'off' ? '' : [h('span.upstreams-acts', pauseButton(row), probeButton(row)), probeSaid(row)]) },
      ].filter(Boolean),
    };
    if (list) list.update(options);
    else {
      list = table(options);
      put(box.body, list.element, h('p.note.table-note', 'An upstream is degraded where 3% or more of at least 20 requests failed in the last quarter of an hour and what runs of the next, and down where the last try to connect failed. Nothing new is sent to one that is paused. One that has no key in the configuration is off.'));
    }
  }

  function probeButton(row) {
    const told = probes.get(row.name);
    return h('button.button.is-small', { type: 'button', 'aria-label': `Probe ${row.name}`, 'aria-disabled': told === 'asking' ? 'true' : null, onclick: () => told !== 'asking' && probe(row.name) }, told === 'asking' ? 'Asking…' : 'Probe');
  }

  function probeSaid(row) {
    const told = probes.get(row.name);
    return told && told !== 'asking' && h('span.line-2.probe-said', { role: 'status', class: told.ok ? 'good' : 'bad' }, told.ok ? `answered in ${duration(told.took_ms)}` : told.error ?? `answered ${told.status}`);
  }

  function pauseButton(row) {
    const isPaused = row.state === 'paused';
    const verb = isPaused ? 'Resume' : 'Pause';
    return h('button.button.is-small', { type: 'button', 'aria-label': `${verb} ${row.name}`, onclick: () => setPaused(row, !isPaused) }, verb);
  }

  async function setPaused(row, isPaused) {
    if (isPaused && !await confirm({ title: `Pause ${row.name}?`, verb: 'Pause it', danger: true, text: [h('p', 'Nothing new is sent there, until somebody resumes it. What runs comes to its end.'), h('p', whatIsRefused(row))] })) return;
    try {
      await ctx.api.post(`upstreams/${encodeURIComponent(row.name)}/${isPaused ? 'pause' : 'resume'}`, {});
      toast(isPaused ? `${row.name} is paused.` : `${row.name} is called again.`);
    } catch (error) {
      toast(`That did not work: ${error.message}`);
    }
    load();
  }

  /** Of the models that lead there, those that lead to no other upstream that is called. */
  function whatIsRefused(row) {
    const others = new Set(rows.filter((each) => each !== row && each.state !== 'off' && each.state !== 'paused').flatMap((each) => each.models));
    const alone = row.models.filter((name) => !others.has(name));
    if (!alone.length) return 'Other upstreams serve all of its models.';
    return `No other upstream serves ${alone.slice(0, 3).join(', ')}${alone.length > 3 ? ` and ${alone.length - 3} more` : ''}: requests for that are refused.`;
  }

  async function probe(name) {
    probes.set(name, 'asking');
    draw();
    try {
      probes.set(name, await ctx.api.post(`upstreams/${encodeURIComponent(name)}/probe`, {}, { timeoutMs: 60_000 }));
    } catch (error) {
      probes.set(name, { ok: false, error: error.message });
    }
    if (!ctx.signal.aborted) draw();
  }

  load();
  repeat(REFRESH_MS, load, ctx.signal);
  return { refresh: draw };
}

const sumOf = (row) => row.hours.reduce((sum, each) => sum + each.requests, 0);

function stateCell(row, tz) {
  const [level, word] = STATES[row.state] ?? ['off', row.state];
  return [h('span.state', mark(level), h('span', { class: level === 'warn' || level === 'bad' ? `${level} strong` : '' }, word)), h('span.line-2', sinceOf(row, tz)), h('span.line-2', leftAlone(row))];
}

/** What the process that answers makes of it. */
function leftAlone(row) {
  if (row.state === 'paused') return '';
  if (row.circuit === 'open') return 'fails, is left alone';
  if (row.circuit === 'half-open') return 'is being tried again';
  return row.resting ? 'asked to be called later' : '';
}

function sinceOf(row, tz) {
  if (row.paused) return `${pastOf(row.since, tz)}, by ${row.paused.by}`;
  if (!row.since) return row.state === 'off' ? 'it has no key' : '';
  return pastOf(row.since, tz);
}

function pastOf(since, tz) {
  const minutes = Math.floor((Date.now() - Date.parse(since)) / 60_000);
  if (minutes < 1) return 'just now';
  if (minutes < 60) return `for ${minutes} min`;
  return minutes < 1440 ? `since ${clock(since, tz)}` : `since ${moment(since, tz)}`;
}

export default { name: 'upstreams', title: 'Upstreams', roles: ['admin', 'viewer', 'lead'], render };
