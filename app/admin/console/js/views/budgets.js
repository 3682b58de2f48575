/** Budgets: which one ends early? */
import { h, put, s as svg } from '../dom.js';
import { burndown } from '../charts/burndown.js';
import { percent, usdCents, usdLimit } from '../format.js';
import { icon } from '../icons.js';
import { teamFilter, zonePicker } from '../menu.js';
import { moreThan, readAll } from '../pages.js';
import { empty, head, loader, panel } from '../panel.js';
import { repeat } from '../repeat.js';
import { table } from '../table.js';
import { BudgetDrawer } from './budgets/drawer.js';
import { makeBudget } from './budgets/make.js';
import { budgetName, budgetScope, byGone, fullestOf, goneBy } from './budgets/words.js';

const REFRESH_MS = 60_000;

async function render(root, ctx) {
  const isAdmin = ctx.may('admin');
  const box = panel({ flush: true });
  const place = h('div.with-drawer', box.element);
  const controls = h('div', { style: { display: 'contents' } });
  put(root, head('Budgets', controls), place);
  let list = null;
  let drawer = null;
  let data = null;
  let more = null;
  let wasDrawn = false;
  let asked = question();

  function question() {
    return JSON.stringify([ctx.state.get('team'), ctx.state.tz]);
  }

  function drawHead() {
    put(controls, teamFilter(ctx), zonePicker(ctx, { what: 'Days in', className: 'menu-button is-note' }),
      isAdmin && h('button.button.is-primary', { type: 'button', onclick: () => makeBudget(ctx, { done: load }) }, icon('plus'), 'Make a budget'));
  }

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => readAll(ctx.api, 'budgets', { team: ctx.state.get('team'), tz: ctx.state.tz }, { signal }),
    draw: (read) => {
      data = read.rows;
      more = moreThan(read);
      draw();
    },
  });

  function draw() {
    const open = ctx.state.get('open');
    const sort = ctx.state.get('sort', 'gone');
    const options = {
      caption: 'Budgets, what is gone first on top', class: 'is-two budgets-table', rows: sorted(data, sort), more, id: (budget) => budget.id, selected: open, sort,
      onSort: (to) => ctx.set({ sort: to === 'gone' ? null : to }), onOpen: (budget) => ctx.set({ open: budget.id === open ? null : budget.id }),
      columns: columnsOf(ctx), empty: ctx.state.list('team').length ? empty({ title: 'No budget in what is chosen.', text: 'Only the budgets of some teams are looked at.',
        action: h('a.button', { href: ctx.state.with({ team: null, open: null }) }, 'Show every budget') }) : empty({ title: 'No budgets yet.', text: 'A budget says how much a team, a key, a model or a tag may spend in a day, a week, a month or in total. People are told before it is gone; then calls are refused.',
        action: isAdmin ? h('button.button', { type: 'button', onclick: () => makeBudget(ctx, { done: load }) }, 'Make a budget') : null }),
    };
    if (list) list.update(options);
    else {
      list = table(options);
      put(box.body, list.element, h('p.note.table-note', h('span.burn-key', burnKey('actual'), 'spent'), h('span.burn-key', burnKey('pace'), 'even pace'), h('span.burn-key', burnKey('ahead'), 'forecast'), h('span.burn-key', burnKey('limit'), 'limit')));
    }
    box.body.querySelector('.table-note').hidden = data.length === 0;
    showDrawer(open);
    wasDrawn = true;
  }

  function showDrawer(id) {
    if (drawer && drawer.id !== id) {
      drawer.close();
      drawer = null;
    }
    place.classList.toggle('is-open', Boolean(id));
    if (!id) return;
    const budget = data.find((each) => each.id === id) ?? null;
    if (!drawer) {
      drawer = new BudgetDrawer(ctx, id, { onClose: close, onChanged: load });
      place.append(drawer.element);
      drawer.load(budget);
      if (wasDrawn) drawer.focus();
    } else drawer.load(budget);
  }

  function close() {
    const id = ctx.state.get('open');
    ctx.set({ open: null });
    list?.rowOf(id)?.querySelector('.row-open')?.focus();
  }

  drawHead();
  load();
  repeat(REFRESH_MS, load, ctx.signal);
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
    leave: () => drawer?.close(),
  };
}

function sorted(rows, sort) {
  const number = (name) => (one, other) => Number(one[name] ?? 0) - Number(other[name] ?? 0);
  const by = { gone: byGone, name: (one, other) => budgetName(one).localeCompare(budgetName(other), 'en', { numeric: true }), spent: number('spent_usd'), left: number('left_usd') }[sort.replace('-', '')] ?? byGone;
  const found = [...rows].sort(by);
  return sort.startsWith('-') ? found.reverse() : found;
}

function columnsOf(ctx) {
  const { tz } = ctx.state;
  const now = Date.now();
  return [
    { key: 'name', label: 'Budget', sorts: true, class: 'keys-name', cell: (budget) => [h('span.strong.keys-name-text', { title: budgetName(budget) }, budgetName(budget)), h('span.line-2', budgetScope(budget))] },
    { key: 'line', label: 'Burn-down', class: 'budgets-line', cell: (budget) => burndown(budget, { now, width: 220, height: 38 }) },
    { key: 'spent', label: 'Spent', end: true, sorts: true, cell: (budget) => {
      const most = fullestOf(budget);
      return most ? [usdCents(most.spent_usd), h('span.line-2', `most: ${most.tag_value}, ${percent(most.spent_percent, 0)}`)] : [usdCents(budget.spent_usd), h('span.line-2', percent(budget.spent_percent, 0))];
    } },
    { key: 'left', label: 'Left', end: true, sorts: true, class: 'budgets-left', cell: (budget) => [fullestOf(budget) ? h('span.text-3', 'of each its own') : usdCents(budget.left_usd), budget.forecast_usd !== null && h('span.line-2', `forecast ${usdLimit(String(Math.round(Number(budget.forecast_usd))))}`)] },
    { key: 'gone', label: 'Gone by', sorts: true, class: 'budgets-gone', cell: (budget) => goneCell(goneBy(budget, tz, now)) },
  ];
}

function goneCell({ text, note, level }) {
  const sign = { warn: '▲ ', bad: '! ' }[level] ?? '';
  return [h('span', { class: level === 'warn' || level === 'bad' ? `${level} strong` : 'text-2' }, sign && h('span', { 'aria-hidden': 'true' }, sign), text), h('span.line-2', note)];
}

/** A piece of each line, for the key below the table. */
const burnKey = (kind) => svg('svg.burn', { viewBox: '0 0 22 8', width: 22, height: 8, 'aria-hidden': 'true' }, svg(`path.${kind}`, { d: 'M0 4H22' }));

export default { name: 'budgets', title: 'Budgets', roles: ['admin', 'viewer', 'lead'], render };
