/** Audit: who changed what? */
import { address } from '../api.js';
import { h, put } from '../dom.js';
import { drawer } from '../drawer.js';
import { exactly, moment } from '../format.js';
import { icon } from '../icons.js';
import { menu, rangePicker, zonePicker } from '../menu.js';
import { empty, head, loader, panel } from '../panel.js';
import { addDays, rangeDays } from '../range.js';
import { startOfDay } from '../zone.js';
import { table } from '../table.js';
import { changesOf, objectName, sentence } from './audit/words.js';

const PAGE = 100;
const KINDS = ['key', 'team', 'limit', 'token', 'price', 'upstream', 'alert_rule', 'alert_target'];

async function render(root, ctx) {
  const box = panel({ flush: true });
  const place = h('div.with-drawer', box.element);
  const controls = h('div', { style: { display: 'contents' } });
  put(root, head('Audit', controls), place);
  /** Who has changed something, as far as was seen: an id and a name. @type {Map<string, string>} */
  const people = new Map();
  let list = null;
  let data = null;
  let asked = question();

  function query() {
    const [from, to] = rangeDays(ctx.state.range, ctx.state.tz);
    return { actor: ctx.state.get('actor'), object_kind: ctx.state.get('kind'), object_id: ctx.state.get('object'), from: moment0(from), to: moment0(addDays(to, 1)) };
  }

  /** The first moment of a day, as the API takes it. */
  function moment0(date) {
    return new Date(startOfDay(date, ctx.state.tz)).toISOString();
  }

  function question() {
    return JSON.stringify([query(), ctx.state.get('cursor')]);
  }

  function drawHead() {
    const actor = ctx.state.get('actor');
    if (actor && !people.has(actor)) people.set(actor, actor);
    put(controls, rangePicker(ctx),
      menu({ label: 'Who', what: 'Who', className: 'menu-button grow', value: actor, finds: people.size > 8, items: [{ value: '', label: 'anybody' }, ...[...people].map(([value, label]) => ({ value, label }))], onPick: (id) => ctx.set({ actor: id || null, cursor: null, open: null }) }),
      menu({ label: 'What was changed', what: 'Of', className: 'menu-button grow', value: ctx.state.get('kind'), items: [{ value: '', label: 'anything' }, ...KINDS.map((value) => ({ value, label: value.replaceAll('_', ' ') }))], onPick: (kind) => ctx.set({ kind: kind || null, cursor: null, open: null }) }),
      zonePicker(ctx, { what: 'Times in', className: 'menu-button is-note' }),
      h('a.button', { href: address('audit/export', { format: 'csv', ...query() }), download: '' }, icon('export'), 'Export'));
  }

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => ctx.api.get('audit', { ...query(), limit: PAGE, cursor: ctx.state.get('cursor') }, { signal }),
    draw: (read) => {
      data = read;
      const known = people.size;
      for (const row of read.data) people.set(row.actor.id || row.actor.kind, row.actor.name || row.actor.kind);
      if (people.size !== known) drawHead();
      draw();
    },
  });

  function draw() {
    const { tz } = ctx.state;
    const open = ctx.state.get('open');
    const options = {
      caption: 'Changes, newest first', class: 'audit-table', rows: data.data, id: (row) => row.id, selected: open, onOpen: (row) => ctx.set({ open: row.id === open ? null : row.id }),
      empty: empty({ title: 'No changes.', text: 'Whatever is made, changed or taken away here, by the API or by a command, is written down in the same breath, and never changed afterwards.' }),
      columns: [
        { key: 'at', label: 'Time', class: 'num audit-time', cell: (row) => moment(row.at, tz), title: (row) => exactly(row.at, tz) },
        { key: 'who', label: 'Who', class: 'record-name', cell: (row) => h('span.cell-cut', { title: row.actor.name }, row.actor.name || row.actor.kind) },
        { key: 'did', label: 'Did', cell: (row) => sentence(row.action) },
        { key: 'object', label: 'To', class: 'record-name audit-to', cell: (row) => h('span.cell-cut', { title: objectName(row) }, h('span.strong', objectName(row)), h('span.text-3', ` ${row.object.kind.replaceAll('_', ' ')}`)) },
        { key: 'change', label: 'Before and after', class: 'wide-only audit-change', cell: (row) => h('span.cell-cut', changesOf(row).slice(0, 3).map((each, index) => [index > 0 && '; ', h('span.text-3', `${each.name} `), each.before !== null && h('span.was', each.before), each.before !== null && each.after !== null && ' → ', each.after])) },
        { key: 'peer', label: 'From', class: 'wide-only num text-2', cell: (row) => row.peer || '–' },
      ],
      onNext: data.next ? () => {
        ctx.set({ cursor: data.next, open: null }, { push: true });
        scrollTo(0, 0);
      } : null,
    };
    if (list) list.update(options);
    else {
      list = table(options);
      put(box.body, list.element);
    }
    drawDrawer(data.data.find((row) => row.id === open) ?? null);
  }

  function drawDrawer(row) {
    const had = place.querySelector('.drawer');
    const isOther = had?.dataset.id !== row?.id;
    if (!isOther) return;
    had?.remove();
    place.classList.toggle('is-open', Boolean(row));
    if (!row) return;
    const shown = drawer({ title: `${sentence(row.action)} ${objectName(row)}`, note: `${exactly(row.at, ctx.state.tz)} · ${row.actor.name || row.actor.kind}`, onClose: () => {
      ctx.set({ open: null });
      list.rowOf(row.id)?.querySelector('.row-open')?.focus();
    } });
    shown.element.dataset.id = row.id;
    const changes = changesOf(row);
    shown.part('Before and after', changes.length === 0 ? h('p.text-2', 'Nothing but that it happened.') : h('table.table.is-plain.audit-values', h('caption', 'Values before and after'),
      h('thead', h('tr', h('th', { scope: 'col' }, 'What'), h('th', { scope: 'col' }, 'Before'), h('th', { scope: 'col' }, 'After'))),
      h('tbody', changes.map((each) => h('tr', h('th.wrap', { scope: 'row' }, each.name), h('td.wrap.text-2', each.before ?? '–'), h('td.wrap', each.after ?? '–'))))));
    const fact = (name, value) => value && [h('dt', name), h('dd', value)];
    shown.part(null, h('dl.facts', fact('Action', h('code', row.action)), fact('Who', [row.actor.kind, row.actor.id].filter(Boolean).join(' ')), fact('Object', [row.object.kind, row.object.id].join(' ')), fact('From', row.peer), fact('Entry', h('code', row.id)),
      fact('Look at', h('a', { href: ctx.state.href('audit', { object: row.object.id }) }, 'all that was done to it'))));
    place.append(shown.element);
    if (had || document.activeElement?.matches?.('.row-open')) shown.focus();
  }

  drawHead();
  load();
  return {
    refresh: () => {
      if (question() === asked) {
        if (data) draw();
        return;
      }
      asked = question();
      drawHead();
      load();
    },
  };
}

export default { name: 'audit', title: 'Audit', roles: ['admin', 'viewer'], render };
