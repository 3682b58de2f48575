/** One request: why it did what it did, and cost what it cost. */
import { h, put } from '../dom.js';
import { exactly } from '../format.js';
import { icon } from '../icons.js';
import { empty, faultBox, loader } from '../panel.js';
import { copy } from '../status.js';
import { accountOf } from './request/account.js';
import { billPanel } from './request/billing.js';
import { limitsPanel } from './request/checks.js';
import { rail } from './request/rail.js';
import { sentenceOf } from './request/sentence.js';
import { timeline } from './request/timeline.js';
import { outcomeOf } from './requests/words.js';

async function render(root, ctx) {
  const id = ctx.state.item;
  const { tz } = ctx.state;
  const actions = h('div.head-actions');
  const body = h('div.request');
  put(root, h('div.head', h('a.button.is-plain.is-icon', { href: ctx.state.href('requests'), 'aria-label': 'All requests' }, icon('left')),
    h('h1', { tabindex: -1 }, 'Request'), h('code.request-id.text-2', id),
    h('button.button.is-plain.is-icon.is-small', { type: 'button', 'aria-label': 'Copy the id', onclick: () => copy(id, 'Id copied') }, icon('copy')), h('span.push'), actions), body);
  if (!id) {
    put(body, h('div.panel', empty({ title: 'Which request?', text: 'Open one from Requests.', action: h('a.button', { href: ctx.state.href('requests') }, 'All requests') })));
    return {};
  }
  const { load } = loader(body, {
    signal: ctx.signal, tz: () => tz,
    read: async (signal) => {
      const path = encodeURIComponent(id);
      const told = await ctx.api.get(`explain/${path}`, {}, { signal });
      // A refusal has no record.
      const record = told.kind === 'refusal' ? null : await ctx.api.get(`records/${path}`, {}, { signal });
      return { told, record };
    },
    draw: ({ told, record }) => {
      document.title = `Request ${id.slice(0, 8)} · Headgate`;
      const account = accountOf(told);
      const main = account.refused ? limitsPanel(account) : [timeline(account).element, h('div.columns', billPanel(account, tz), limitsPanel(account)), storedRecord(record)];
      put(body, verdict(account, record, tz), h('div.request-columns', h('div.request-main', main), rail(ctx, account, record)));
      drawActions(record ?? told);
    },
  });
  load();
  return {};

  function drawActions(record) {
    put(actions, record.kind !== 'refusal' && [neighbour('Newer', -1, record), neighbour('Older', 1, record)],
      h('button.button', { type: 'button', onclick: () => copy(JSON.stringify(record, null, 2), 'Record copied as JSON') }, icon('copy'), 'Copy as JSON'));
  }

  /** The next one of the same key: read when it is asked for. */
  function neighbour(word, step, record) {
    const at = record.started_at ?? record.at;
    const button = h('button.button', { type: 'button', onclick: async () => {
      button.setAttribute('aria-disabled', 'true');
      try {
        const other = await findNeighbour(ctx, id, at, step);
        if (other) ctx.navigate(ctx.state.href('request', {}, other));
        else put(button, step < 0 ? 'None newer' : 'None older');
      } catch (error) {
        if (error?.name !== 'AbortError') body.prepend(faultBox(error));
      } finally {
        button.removeAttribute('aria-disabled');
      }
    } }, word);
    return button;
  }
}

const HOUR_MS = 3_600_000;

/** The request before or after one: in the hours beside it, else none. */
async function findNeighbour(ctx, id, at, step) {
  const ms = Date.parse(at);
  const iso = (value) => new Date(value).toISOString();
  for (const hours of [1, 24, 24 * 30]) {
    const span = step > 0 ? { from: iso(ms - hours * HOUR_MS), to: iso(ms + 1) } : { from: iso(ms), to: iso(Math.min(Date.now() + 60_000, ms + hours * HOUR_MS)) };
    const rows = await neighbours(ctx, span, id, step);
    if (rows) return rows;
  }
  return null;
}

async function neighbours(ctx, span, id, step) {
  let cursor = null;
  let before = null;
  for (let page = 0; page < 20; page += 1) {
    const { data, next } = await ctx.api.get('records', { ...span, team: ctx.state.get('team'), limit: 200, cursor }, { signal: ctx.signal });
    const index = data.findIndex((row) => row.request_id === id);
    if (step > 0) return (index >= 0 ? data[index + 1] : data.find((row) => row.request_id !== id))?.request_id ?? null;
    if (index > 0) return data[index - 1].request_id;
    if (index === 0) return before;
    before = data.at(-1)?.request_id ?? before;
    if (!next) return before;
    cursor = next;
  }
  return null;
}

/** What became of it, in one sentence. */
function verdict(account, record, tz) {
  const level = account.refused || account.outcome === 'failed' || account.outcome === 'interrupted' ? 'bad' : account.outcome === 'completed' ? 'good' : 'warn';
  const word = account.refused ? 'Refused' : outcomeOf({ ...account.told, cache: account.cache, outcome: account.outcome, status: null }).text;
  const how = [exactly(account.startedAt, tz), record ? `${record.endpoint}${record.stream ? ', streamed' : ''}` : account.decision.endpoint, whoOf(account, record)].filter(Boolean);
  return h('section.panel.verdict', { 'aria-label': 'In one sentence' },
    h('span.verdict-mark', { class: `is-${level}`, 'aria-hidden': 'true' }, level === 'good' ? icon('check') : level === 'bad' ? icon('close') : '▲'),
    h('div.verdict-words', h('p.verdict-sentence', sentenceOf(account).map((part) => (part.strong ? h('b', part.text) : part.text))), h('p.note', how.join(' · '))),
    h('span.chip', { class: `is-${level}` }, [word, account.status].filter(Boolean).join(' · ')));
}

function whoOf(account, record) {
  const key = record?.key.name ?? account.told.key;
  const team = record?.team.name ?? account.told.team;
  return [key, team && `team ${team}`].filter(Boolean).join(', ');
}

function storedRecord(record) {
  const fields = Object.keys(record).length;
  return h('details.panel.stored', h('summary', icon('right'), h('h2', 'The stored record'), h('span.note', `${fields} fields, as the API and the export give them. Prompts and answers are not stored.`)),
    h('pre.code', { tabindex: 0, 'aria-label': 'The stored record as JSON' }, JSON.stringify(record, null, 2)));
}

export default { name: 'request', title: 'Request', roles: ['admin', 'viewer', 'lead'], render };
