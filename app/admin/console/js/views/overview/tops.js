/** The ten keys and the ten models that cost most. */
import { h } from '../../dom.js';
import { count, plural, short, usdColumn } from '../../format.js';
import { empty, named, panel } from '../../panel.js';
import { table } from '../../table.js';

const isUnpriced = (row) => row.cost_usd === null || (row.unpriced > 0 && row.unpriced === row.requests);
const money = (row, cost) => (isUnpriced(row) ? h('span.warn', '◇ unpriced') : cost(row.cost_usd));

/** @param {import('../../shell.js').Context} ctx */
export function topKeys(ctx) {
  const box = panel({ title: 'Top keys', class: 'of-5', flush: true, actions: h('a', { href: ctx.state.href('keys') }, 'All keys') });
  const list = table({ caption: 'Keys by cost', columns: [] });
  box.body.append(list.element);
  return {
    element: box.element,
    draw({ data }) {
      const rows = data.top_keys;
      const most = Math.max(...rows.map((row) => Number(row.cost_usd ?? 0)), 0) || 1;
      const cost = usdColumn(data.month.spent_usd);
      list.update({
        rows, sort: '-cost', id: (row) => row.id, href: (row) => ctx.state.href('keys', { open: row.id }), empty: empty({ title: 'No key has been used this month' }),
        columns: [
          { key: 'name', label: 'Key', class: 'cut', cell: (row) => h('span.cut', { title: row.name }, row.name) },
          { key: 'team', label: 'Team', class: 'team-cell', cell: (row) => named(row.team.name, row.team.color ?? null) },
          { key: 'bar', label: h('span.hush', 'Share'), class: 'wide-only share-cell', cell: (row) => h('span.share', { style: { width: `${((Number(row.cost_usd ?? 0) / most) * 100).toFixed(1)}%` } }) },
          { key: 'cost', label: 'Cost', end: true, sorts: true, cell: (row) => money(row, cost), title: (row) => row.cost_usd },
        ],
      });
    },
  };
}

/** @param {import('../../shell.js').Context} ctx */
export function topModels(ctx) {
  const box = panel({ title: 'Top models', class: 'of-4', flush: true, actions: h('a', { href: ctx.state.href('explore', { by: 'model', range: null }) }, 'All models') });
  const list = table({ caption: 'Models by cost', columns: [] });
  box.body.append(list.element);
  return {
    element: box.element,
    draw({ data }) {
      const rows = data.top_models.map((row) => ({ ...row, name: row.name ?? row.model }));
      const cost = usdColumn(data.month.spent_usd);
      const sum = (of) => rows.reduce((total, row) => total + of(row), 0);
      const tokens = (row) => (row.tokens ?? row.input_tokens + row.output_tokens);
      const isAll = rows.length < 10;
      list.update({
        rows, sort: '-cost', id: (row) => row.name, href: (row) => ctx.state.href('explore', { by: 'team', model: row.name, range: null }), empty: empty({ title: 'No model has been called this month' }),
        columns: [
          { key: 'name', label: 'Model', class: 'cut', cell: (row) => h('span.cut', { title: row.name }, row.name) },
          { key: 'requests', label: 'Requests', end: true, class: 'text-2', cell: (row) => short(row.requests), title: (row) => count(row.requests) },
          { key: 'tokens', label: 'Tokens', end: true, class: 'text-2', cell: (row) => short(tokens(row)), title: (row) => count(tokens(row)) },
          { key: 'cost', label: 'Cost', end: true, sorts: true, cell: (row) => money(row, cost), title: (row) => row.cost_usd },
        ],
        total: isAll ? { name: plural(rows.length, 'model'), requests: short(data.requests.requests), tokens: short(sum(tokens)), cost: usdColumn(data.month.spent_usd)(data.month.spent_usd) } : null,
      });
    },
  };
}
