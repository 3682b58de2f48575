/** The same as a table: what is exported, row for row. */
import { h } from '../../dom.js';
import { count, percent, plural, short, usd, usdColumn } from '../../format.js';
import { popupButton } from '../../menu.js';
import { empty, named } from '../../panel.js';
import { table } from '../../table.js';
import { toast } from '../../status.js';
import { manyOf, measureOf, memberOf, nameOf, wordOf } from './question.js';
import { readMore } from './read.js';

/** What can be left out. Estimated and unpriced cannot: a total says what it holds. */
const OPTIONAL = [['requests', 'Requests'], ['failed', 'Failed'], ['input_tokens', 'Input'], ['cached_tokens', 'Cached'], ['output_tokens', 'Output'], ['reasoning_tokens', 'Reasoning'], ['share', 'Share'], ['each', 'Per request'], ['saved', 'Saved']];
const HIDDEN = 'failed';
const FIRST = ['cost', 'share', 'requests'];

/** @param {import('../../shell.js').Context} ctx @param {{element: HTMLElement, body: HTMLElement}} box */
export function rowsTable(ctx, box) {
  const list = table({ caption: 'The same as a table', columns: [], onSort: (sort) => ctx.set({ sort }) });
  box.body.append(list.element);
  box.element.querySelector('.panel-head').append(columnMenu(ctx));
  let fadeChart = () => {};
  for (const [event, find] of [['pointerover', (e) => e.target.closest('tbody tr')?.row], ['focusin', (e) => e.target.closest('tbody tr')?.row], ['pointerleave', () => null], ['focusout', () => null]]) {
    list.element.addEventListener(event, (e) => fadeChart(find(e)?.series ?? null));
  }

  function draw(answer, fade) {
    fadeChart = fade;
    const colors = new Map(answer.series.map((one) => [one.id, one.color]));
    const by = ctx.state.get('by');
    const rows = answer.rows.map((row) => {
      const series = answer.of(memberOf(row, by));
      return { ...row, series, color: colors.get(series) ?? 0 };
    });
    list.update({
      rows, columns: columnsOf(ctx, answer), sort: ctx.state.get('sort') || `-${measureOf(ctx.state).name}`, total: totalOf(ctx, answer),
      onOpen: (row) => ctx.set({ [by]: [memberOf(row, by)], by: by === 'key' ? 'model' : 'key', then: null, sort: null }, { push: true }),
      empty: empty({ title: 'No rows' }),
      onNext: answer.next ? async () => {
        try {
          const more = await readMore(ctx, answer.next);
          Object.assign(answer, { rows: [...answer.rows, ...more.rows], next: more.next });
          draw(answer, fade);
        } catch (error) {
          if (error.name !== 'AbortError') toast(error.message);
        }
      } : null,
    });
  }

  return { draw, fade: (id) => {
    for (const line of list.element.querySelectorAll('tbody tr')) line.classList.toggle('is-faded', id !== null && line.row?.series !== id);
  } };
}

const hiddenOf = (ctx) => new Set(ctx.state.get('hide', HIDDEN).split(','));

function columnsOf(ctx, answer) {
  const { groups } = answer;
  const [first, second] = groups;
  const cost = usdColumn(answer.total.cost_usd);
  const whole = Number(answer.total.cost_usd);
  const isUnpriced = (row) => row.unpriced > 0 && row.unpriced === row.requests;
  const tokens = (key, label, cls = 'text-2') => ({ key, label, end: true, sorts: true, class: cls, cell: (row) => short(row[key]), title: (row) => count(row[key]) });
  const all = [
    { key: first, label: wordOf(first), sorts: true, class: 'name-cell', cell: (row) => named(nameOf(row, first), row.color) },
    second && { key: second, label: wordOf(second), sorts: true, class: 'name-cell', cell: (row) => h('span.cut', { title: nameOf(row, second) }, nameOf(row, second)) },
    groups.includes('key') && !groups.includes('team') && { key: 'team', label: 'Team', sorts: true, class: 'text-2 name-cell', cell: (row) => row.team },
    { key: 'requests', label: 'Requests', end: true, sorts: true, cell: (row) => count(row.requests) },
    { key: 'failed', label: 'Failed', end: true, sorts: true, class: 'text-2', cell: (row) => count(row.failed) },
    tokens('input_tokens', 'Input', ''), tokens('cached_tokens', 'Cached'), tokens('output_tokens', 'Output', ''), tokens('reasoning_tokens', 'Reasoning'),
    { key: 'cost', label: 'Cost', end: true, sorts: true, cell: (row) => (isUnpriced(row) ? h('span.warn', '◇ unpriced') : cost(row.cost_usd)), title: (row) => `$${row.cost_usd}` },
    { key: 'share', label: 'Share', end: true, class: 'text-2', cell: (row) => (whole > 0 ? percent((Number(row.cost_usd) / whole) * 100, 1) : '–') },
    { key: 'each', label: 'Per request', end: true, class: 'text-2', cell: (row) => each(row) },
    { key: 'estimated', label: 'Of it estimated', end: true, class: 'text-2', cell: (row) => estimated(row) },
    { key: 'unpriced', label: 'Unpriced', end: true, sorts: true, class: 'text-2', cell: (row) => unpriced(row) },
    { key: 'saved', label: 'Saved', end: true, sorts: true, class: 'text-2', cell: (row) => cost(row.saved_usd) },
  ];
  const hidden = hiddenOf(ctx);
  const shown = all.filter((column) => column && !hidden.has(column.key));
  if (!matchMedia('(max-width: 819px)').matches) return shown;
  // On a phone the sums stand beside the names; the rest is a swipe away.
  const isFirst = (column) => groups.includes(column.key) || FIRST.includes(column.key);
  return [...shown.filter((column) => groups.includes(column.key)), ...FIRST.map((key) => shown.find((column) => column.key === key)).filter(Boolean), ...shown.filter((column) => !isFirst(column))];
}

const each = (row) => (row.requests > row.unpriced ? usd((Number(row.cost_usd) / (row.requests - row.unpriced)).toFixed(9)) : '–');
const estimated = (row) => (Number(row.estimated_usd) > 0 ? `≈ ${usd(row.estimated_usd)}` : '–');
const unpriced = (row) => (row.unpriced ? h('span.warn', `◇ ${count(row.unpriced)}`) : '0');

function totalOf(ctx, answer) {
  const [first] = answer.groups;
  const { total } = answer;
  const cost = usdColumn(total.cost_usd);
  const rows = answer.groups.length > 1 ? plural(answer.rows.length, 'row') : plural(answer.rows.length, manyOf(first).replace(/s$/, ''), manyOf(first));
  return {
    [first]: answer.next ? `All ${answer.groups.length > 1 ? 'rows' : manyOf(first)}` : rows,
    requests: count(total.requests), failed: count(total.failed), input_tokens: short(total.input_tokens), cached_tokens: short(total.cached_tokens), output_tokens: short(total.output_tokens),
    reasoning_tokens: short(total.reasoning_tokens), cost: cost(total.cost_usd), share: '100%', each: each(total), estimated: estimated(total), unpriced: unpriced(total), saved: cost(total.saved_usd),
  };
}

function columnMenu(ctx) {
  return popupButton({
    label: 'Choose columns', className: 'button is-small', content: 'Choose columns',
    fill(popup) {
      const hidden = hiddenOf(ctx);
      popup.append(h('div', OPTIONAL.map(([key, label]) => h('label.choice', h('input', { type: 'checkbox', checked: !hidden.has(key), onchange: (event) => {
        if (event.target.checked) hidden.delete(key);
        else hidden.add(key);
        const hide = [...hidden].filter(Boolean).sort().join(',');
        ctx.set({ hide: hide === HIDDEN ? null : hide || 'none' });
      } }), label))), h('p.popup-part.note', 'Cost, what of it is estimated, and what has no price are always shown.'));
    },
  }).element;
}
