/** Prices: what is a token worth? What has no price stands first. */
import { h, put } from '../dom.js';
import { readBadges } from '../badges.js';
import { confirm } from '../dialog.js';
import { day, moment, plural, short } from '../format.js';
import { icon } from '../icons.js';
import { readAll } from '../pages.js';
import { empty, head, loader, panel } from '../panel.js';
import { toast } from '../status.js';
import { table } from '../table.js';
import { dollars } from './request/bill.js';
import { repriceDialog } from './prices/reprice.js';
import { setPrice } from './prices/set.js';

const SOURCES = { override: 'set here', file: 'configuration file', list: 'list', unpriced: '' };

async function render(root, ctx) {
  const isAdmin = ctx.may('admin');
  const unpricedBox = panel({ title: 'Without a price, last 30 days', flush: true });
  const box = panel({ title: 'Prices in force', flush: true });
  unpricedBox.element.hidden = true;
  put(root, head('Prices', isAdmin && h('button.button', { type: 'button', onclick: () => repriceDialog(ctx, { rows, done: again }) }, icon('again'), 'Reprice'),
    isAdmin && h('button.button.is-primary', { type: 'button', onclick: () => setPrice(ctx, { rows, done: again }) }, icon('plus'), 'Set a price')), unpricedBox.element, box.element);
  let rows = [];
  let unpricedList = null;
  let list = null;

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => readAll(ctx.api, 'prices', {}, { signal }),
    draw: (read) => {
      rows = read.rows;
      const without = rows.filter((row) => row.source === 'unpriced');
      const priced = rows.filter((row) => row.source !== 'unpriced').sort((one, other) => (other.requests_30_days ?? 0) - (one.requests_30_days ?? 0) || one.model.localeCompare(other.model));
      unpricedBox.element.hidden = without.length === 0;
      unpricedList = redraw(unpricedList, unpricedBox.body, {
        caption: 'Models without a price', class: 'unpriced-table', rows: without, id: (row) => `${row.model}@${row.upstream}`,
        columns: [
          { key: 'model', label: 'Model', class: 'keys-name', cell: (row) => [h('span.price-model', h('span.warn', { 'aria-hidden': 'true' }, '◇'), h('span.strong.cell-cut', { title: row.model }, row.model)), h('span.phone-only', h('span.line-2', row.upstream ?? 'any upstream'))] },
          { key: 'upstream', label: 'Upstream', cell: (row) => row.upstream ?? 'any' },
          { key: 'requests', label: 'Not in any total', end: true, cell: (row) => h('span.warn', plural(row.unpriced, 'request')) },
          isAdmin && { key: 'act', label: h('span.hush', 'Actions'), end: true, cell: (row) => h('button.button.is-small', { type: 'button', 'aria-label': `Set a price of ${row.model}`, onclick: () => setPrice(ctx, { rows, row, done: again }) }, 'Set a price') },
        ].filter(Boolean),
      });
      list = redraw(list, box.body, {
        caption: 'Prices in dollars for a million tokens', class: 'prices-table', rows: priced, id: (row) => row.id ?? `${row.model}@${row.upstream}`, columns: columnsOf(ctx, isAdmin, { rows: () => rows, load: again, take }),
        empty: empty({ title: 'No model was used in the last 30 days.', text: 'Prices come from the list that ships with Headgate, from the configuration file, or are set here. What is set here wins.' }),
      });
    },
  });

  /** Something was changed here: what it is worth, and what the sidebar says. */
  function again() {
    load();
    readBadges(ctx.shell);
  }

  async function take(row) {
    const sure = await confirm({ title: `Take away the price of ${row.model}?`, verb: 'Take it away', danger: true, text: h('p', 'What it has priced stays as it is. From now on the file or the list says what it costs, else it has no price.') });
    if (!sure) return;
    try {
      await ctx.api.delete(`prices/${encodeURIComponent(row.id)}`);
      toast(`The price of ${row.model} was taken away.`);
    } catch (error) {
      toast(`That did not work: ${error.message}`);
    }
    again();
  }

  await load();
  return { refresh: () => {} };
}

function columnsOf(ctx, isAdmin, { rows, load, take }) {
  const { tz } = ctx.state;
  const price = (name) => (row) => (row[name] === null || row[name] === undefined ? h('span.text-3', '–') : dollars(row[name]));
  return [
    { key: 'model', label: 'Model', class: 'keys-name', cell: (row) => [h('span.strong.keys-name-text', { title: row.model }, row.model), h('span.narrow-only', h('span.line-2', row.upstream ?? 'any upstream'))] },
    { key: 'upstream', label: 'Upstream', class: 'wide-only', cell: (row) => row.upstream ?? h('span.text-3', 'any') },
    { key: 'in', label: 'In, for 1M', end: true, cell: price('input_per_mtok_usd') },
    { key: 'cached', label: 'Cached', end: true, class: 'wide-only', cell: price('cached_input_per_mtok_usd') },
    { key: 'out', label: 'Out', end: true, cell: price('output_per_mtok_usd') },
    { key: 'source', label: 'Source', class: 'wide-only prices-source', cell: (row) => [row.source === 'override' && row.id ? h('span.chip.is-accent', SOURCES.override) : h('span.text-2.cell-cut', { title: row.version }, row.source === 'list' && row.version ? `list, ${row.version.split(' ')[0]}` : row.source === 'override' ? SOURCES.file : SOURCES[row.source] ?? row.source)] },
    { key: 'from', label: 'From', class: 'wide-only', cell: (row) => fromText(row, tz) },
    { key: 'requests', label: 'Requests, 30 days', end: true, class: 'wide-only', cell: (row) => [row.unpriced > 0 && h('span.warn', { title: `${plural(row.unpriced, 'request')} still without a price: reprice` }, `◇ ${row.unpriced} of `), short(row.requests_30_days)] },
    isAdmin && { key: 'act', label: h('span.hush', 'Actions'), end: true, class: 'prices-acts', cell: (row) => [
      h('button.link', { type: 'button', 'aria-label': `Change the price of ${row.model}`, onclick: () => setPrice(ctx, { rows: rows(), row, done: again }) }, 'Change'),
      row.id && row.source === 'override' && [' ', h('button.link.bad', { type: 'button', 'aria-label': `Take away the price of ${row.model}`, onclick: () => take(row) }, 'Take away')]] },
  ].filter(Boolean);
}

/** A date of the file has no zone; a moment has. */
function fromText(row, tz) {
  if (!row.effective_from) return h('span.text-3', '–');
  return row.effective_from.length === 10 ? day(row.effective_from, { day: 'numeric', month: 'short', year: 'numeric' }) : moment(row.effective_from, tz).split(',')[0];
}

function redraw(known, body, options) {
  if (known) {
    known.update(options);
    return known;
  }
  const made = table(options);
  put(body, made.element);
  return made;
}

export default { name: 'prices', title: 'Prices', roles: ['admin', 'viewer'], render };
