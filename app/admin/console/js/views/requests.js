/** Requests: where is that call? Newest first, by pages of a hundred. */
import { h, put } from '../dom.js';
import { address } from '../api.js';
import { icon } from '../icons.js';
import { menu, rangePicker, teamFilter, zonePicker } from '../menu.js';
import { empty, head, loader, panel } from '../panel.js';
import { afterPause } from '../repeat.js';
import { table } from '../table.js';
import { rangeLabel } from '../range.js';
import { OUTCOME_ITEMS, recordColumns } from './requests/words.js';

const PAGE = 100;
const COLUMNS = ['time', 'team', 'key', 'model', 'outcome', 'tokens', 'first', 'took', 'cost'];

async function render(root, ctx) {
  const box = panel({ flush: true });
  const controls = h('div', { style: { display: 'contents' } });
  const chips = h('div.only-where', { hidden: true });
  const placeholder = 'Find by id, response id, end user or tag=value';
  const search = afterPause(300, (text) => ctx.set({ q: text || null, cursor: null }));
  const find = h('input.input', { type: 'search', placeholder, 'aria-label': placeholder, value: ctx.state.get('q'), oninput: (event) => search(event.target.value.trim()) });
  put(root, head('Requests', h('div.find.is-wide', icon('explore'), find), controls), chips, box.element);
  const note = h('p.note.table-note', { hidden: true });
  let list = null;
  let names = new Map();

  function drawHead() {
    const outcome = ctx.state.get('outcome');
    put(controls, rangePicker(ctx), teamFilter(ctx),
      menu({ label: 'Outcome', what: 'Outcome', className: 'menu-button grow', items: OUTCOME_ITEMS, value: outcome, onPick: (value) => ctx.set({ outcome: value || null, cursor: null }) }),
      zonePicker(ctx, { what: 'Times in', className: 'menu-button is-note' }),
      h('a.button', { href: address('records/export', { format: 'csv', ...asked() }), download: '' }, icon('export'), 'Export'));
    drawChips();
  }

  function asked() {
    return ctx.state.query({ q: ctx.state.get('q'), outcome: ctx.state.get('outcome') });
  }

  /** Filters that have no menu here: a day's part that was opened, a key that was followed. */
  function drawChips() {
    const others = ctx.state.filters.filter(([name]) => name !== 'team');
    chips.hidden = others.length === 0;
    put(chips, h('span.text-3', 'Only where'), others.map(([name, values]) => h('span.chip', words(name, values.map((each) => names.get(each) ?? each)),
      h('button', { type: 'button', 'aria-label': `Take away: ${words(name, values)}`, onclick: () => ctx.set({ [name]: null, cursor: null }) }, icon('close', { size: 12 })))));
  }

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => ctx.api.get('records', { ...asked(), limit: PAGE, cursor: ctx.state.get('cursor') }, { signal }),
    draw: ({ data, next }) => {
      names = new Map(data.flatMap((row) => [[row.key.id, row.key.name], [row.team.id, row.team.name]]));
      drawChips();
      const options = {
        caption: 'Requests, newest first', class: 'records-table', rows: data, id: (row) => row.request_id, columns: recordColumns({ tz: ctx.state.tz, dated: !/today|yesterday/.test(ctx.state.range), names: COLUMNS }),
        href: (row) => ctx.state.href('request', {}, row.request_id), empty: nothing(),
        onNext: next ? () => {
          ctx.set({ cursor: next }, { push: true });
          scrollTo(0, 0);
        } : null,
      };
      if (list) list.update(options);
      else {
        list = table(options);
        put(box.body, list.element, note);
      }
      note.hidden = data.length === 0;
      put(note, ctx.state.get('cursor') ? h('a', { href: ctx.state.with({ cursor: null }) }, 'Newest again') : `${rangeLabel(ctx.state.range)}, newest first. Prompts and answers are not stored.`);
    },
  });

  function nothing() {
    if (ctx.state.get('q') || ctx.state.filters.length || ctx.state.get('outcome')) {
      return empty({ title: 'No request is found by that.', text: `Looked in: ${rangeLabel(ctx.state.range).toLowerCase()}. An id is found whole, not by a part of it.`,
        action: h('a.button', { href: ctx.state.href('requests', { team: null }) }, 'Take the filters away') });
    }
    return empty({ title: 'No requests yet.', text: 'Make a key, then send this:', code: `curl ${location.origin}/v1/responses \\\n  -H "Authorization: Bearer $HEADGATE_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '{"model":"gpt-5-mini","input":"Hello"}'`,
      action: ctx.may('admin', 'lead') ? h('a.button', { href: ctx.state.href('keys') }, 'Make a key') : null });
  }

  drawHead();
  load();
  return {
    refresh: () => {
      if (document.activeElement !== find) find.value = ctx.state.get('q');
      drawHead();
      load();
    },
  };
}

function words(name, values) {
  const not = name.startsWith('not.');
  const of = name.replace(/^not\./, '').replace(/^tag\./, '');
  return `${of} is ${not ? 'not ' : ''}${values.join(' or ')}`;
}

export default { name: 'requests', title: 'Requests', roles: ['admin', 'viewer', 'lead'], render };
