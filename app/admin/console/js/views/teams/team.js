/** One team: what it spent and whether that will last, its cost by day and key, its keys, budgets and limits. */
import { burndown } from '../../charts/burndown.js';
import { columns, keyOf } from '../../charts/columns.js';
import { dailyCost } from '../../charts/usage.js';
import { memberId } from '../../amounts.js';
import { h, put } from '../../dom.js';
import { count, day, percent, plural, short, usd, usdAxis, usdCents, usdColumn, usdLimit } from '../../format.js';
import { field, formDialog } from '../../form.js';
import { icon } from '../../icons.js';
import { forgetTeams } from '../../menu.js';
import { readAll, readUsage } from '../../pages.js';
import { empty, loader, named, panel, swatch } from '../../panel.js';
import { repeat } from '../../repeat.js';
import { toast } from '../../status.js';
import { table } from '../../table.js';
import { tiles } from '../../tiles.js';
import { today } from '../../range.js';
import { budgetBar, budgetName, budgetScope, goneBy } from '../budgets/words.js';
import { endpointsText, limitText } from '../keys/words.js';
import { changeTeamLimits } from './limits.js';

const REFRESH_MS = 60_000;
const BUDGETS_MAX = 8;

/**
 * @param {HTMLElement} root @param {import('../../shell.js').Context} ctx @param {string} id
 * @param {{isOnly: boolean}} options `isOnly`: there is no list to go back to
 */
export function renderTeam(root, ctx, id, { isOnly }) {
  const { tz } = ctx.state;
  const heading = h('h1', { tabindex: -1 }, ctx.session.team?.id === id ? ctx.session.team.name : 'Team');
  const actions = h('div.head-actions');
  const figures = tiles('Figures of the month', [{ key: 'spent', isLead: true }, { key: 'requests' }, { key: 'tokens' }, { key: 'saved' }]);
  const chartBox = panel({ title: 'Cost by day', class: 'of-8 chart-panel' });
  const keysBox = panel({ title: 'Keys', class: 'of-4', flush: true, actions: h('a', { href: ctx.state.href('keys', { team: [id] }) }, 'All its keys') });
  const budgetsBox = panel({ title: 'Budgets', flush: true, actions: h('a', { href: ctx.state.href('budgets', { team: [id] }) }, 'Open budgets') });
  const limits = h('div.panel-row');
  const keysPlace = h('div.team-keys');
  keysBox.body.append(keysPlace, limits);
  const body = h('div.team', figures.element, h('div.columns', chartBox.element, keysBox.element), budgetsBox.element);
  put(root, h('div.head', isOnly ? null : h('a.button.is-plain.is-icon', { href: ctx.state.href('teams'), 'aria-label': 'All teams' }, icon('left')), heading, actions), body);
  let chart = null;
  let team = null;

  const { load } = loader(body, {
    signal: ctx.signal, tz: () => tz,
    read: async (signal) => {
      const [one, days, keys, usage, budgets] = await Promise.all([
        ctx.api.get(`teams/${encodeURIComponent(id)}`, {}, { signal }),
        readUsage(ctx.api, 'usage', { by: 'key,day', range: 'this_month', tz, team: id }, signal),
        readAll(ctx.api, 'keys', { team: id, state: 'active' }, { signal }),
        readUsage(ctx.api, 'usage', { by: 'key', range: 'this_month', tz, team: id, sort: '-cost' }, signal),
        readAll(ctx.api, 'budgets', { team: id, tz }, { signal }),
      ]);
      return { team: one, days, keys: keys.rows, usage, budgets: budgets.rows };
    },
    draw: (data) => {
      team = data.team;
      document.title = `${team.name} · Headgate`;
      put(heading, h('span.keys-team', swatch(team.color), h('span', team.name)));
      drawActions();
      drawFigures(figures, data, tz);
      drawChart(data);
      drawKeys(keysPlace, data, ctx, dailyCost(data.days, { by: 'key', range: 'this_month', tz }).series);
      drawBudgets(budgetsBox, data, ctx);
      drawLimits(limits, team);
    },
  });
  load();
  repeat(REFRESH_MS, load, ctx.signal);
  return { refresh: load };

  function drawActions() {
    if (!ctx.may('admin')) return;
    put(actions, h('button.button', { type: 'button', onclick: rename }, 'Rename'), h('button.button', { type: 'button', onclick: () => changeTeamLimits(ctx, team, load) }, 'Change limits'));
  }

  function drawChart({ days }) {
    const month = day(today(tz), { month: 'long', year: 'numeric' });
    chartBox.setTitle(`Cost by day and key, ${month}`);
    const { series, slots } = dailyCost(days, { by: 'key', range: 'this_month', tz });
    const of = { label: `Cost by day of ${team.name}, ${month}, stacked by key`, series, slots, axis: usdAxis, value: usd, empty: 'Nothing spent yet this month',
      onOpen: (slot, part) => ctx.navigate(ctx.state.href('requests', { range: `${slot.key}..${slot.key}`, team: [id], ...(part && series.some((one) => one.id === part && one.color) ? { key: part } : {}) })) };
    if (chart) chart.update(of);
    else chart = columns(of);
    put(chartBox.body, chart.element, keyOf(slots));
  }

  function rename() {
    formDialog({
      title: `Rename ${team.name}`, verb: 'Rename team', text: h('p', 'What it has spent stays with it; its id does not change.'),
      fields: [field({ name: 'name', label: 'Name', required: true, value: team.name, attributes: { autofocus: true } })],
      send: (values) => ctx.api.patch(`teams/${encodeURIComponent(id)}`, values),
      done: (now) => {
        forgetTeams();
        toast(`The team is called ${now.name} now.`);
        load();
      },
    });
  }
}

function drawFigures(figures, { team, usage, budgets }, tz) {
  const { total } = usage;
  const cost = usdColumn(total.cost_usd);
  const own = budgets.filter((each) => !each.key && !each.model && !each.tag_name);
  const budget = own.find((each) => each.window === 'month') ?? own[0] ?? null;
  const gone = budget ? goneBy(budget, tz, Date.now()) : null;
  figures.draw('spent', {
    name: `Spent in ${day(today(tz), { month: 'long' })}`, figure: cost(total.cost_usd ?? '0'),
    beside: budget ? `${budget.window === 'month' ? '' : `${usdCents(budget.spent_usd)} `}of ${usdLimit(budget.maximum_usd)}${budget.window === 'month' ? '' : ` ${budget.window === 'total' ? 'in total' : `a ${budget.window}`}`}` : 'no budget',
    bar: budget && budgetBar(budget),
    note: gone && [gone.level === 'warn' || gone.level === 'bad' ? h('span', { class: gone.level }, gone.level === 'bad' ? '! ' : '▲ ', gone.level === 'bad' ? `${gone.text}: ${gone.note}` : `gone by ${gone.text}, ${gone.note}`) : gone.note],
  });
  figures.draw('requests', { name: 'Requests', figure: short(total.requests), title: count(total.requests), note: total.requests ? `${percent((100 * total.failed) / total.requests)} failed` : 'none yet' });
  figures.draw('tokens', { name: 'Tokens', figure: short(total.input_tokens + total.output_tokens), title: count(total.input_tokens + total.output_tokens), note: `${short(total.output_tokens)} of them output` });
  figures.draw('saved', { name: 'Saved by cache', figure: usd(total.saved_usd), note: total.unpriced ? h('span.warn', `◇ ${plural(total.unpriced, 'unpriced request')} not in any sum`) : plural(team.keys_active, 'active key') });
}

function drawKeys(place, { keys, usage }, ctx, series) {
  const colors = new Map(series.map((one) => [one.id, one.color]));
  const spent = new Map(usage.rows.map((row) => [memberId(row, 'key'), row]));
  const rows = keys.map((key) => ({ ...key, spent: spent.get(key.id) })).sort((one, other) => Number(other.spent?.cost_usd ?? 0) - Number(one.spent?.cost_usd ?? 0));
  const shown = rows.slice(0, 8);
  put(place, table({
    caption: 'Keys of the team by cost', rows: shown, id: (key) => key.id, href: (key) => ctx.state.href('keys', { team: [key.team.id], open: key.id }),
    empty: empty({ title: 'No key works yet.', text: 'Make one in Keys.' }),
    columns: [
      { key: 'key', label: 'Key', class: 'cut', cell: (key) => named(key.name, colors.get(key.id) ?? 0) },
      { key: 'requests', label: 'Requests', end: true, class: 'text-2', cell: (key) => short(key.spent?.requests ?? 0) },
      { key: 'cost', label: 'Cost', end: true, cell: (key) => usdCents(key.spent?.cost_usd ?? '0') },
    ],
    total: { key: rows.length > shown.length ? `All ${plural(rows.length, 'key')}` : plural(rows.length, 'key'), requests: short(usage.total.requests), cost: usdCents(usage.total.cost_usd) },
  }).element);
}

function drawBudgets(box, { budgets }, ctx) {
  const { tz } = ctx.state;
  put(box.body, table({
    caption: 'Budgets of the team', class: 'is-two', rows: budgets.slice(0, BUDGETS_MAX), more: budgets.length > BUDGETS_MAX && `and ${plural(budgets.length - BUDGETS_MAX, 'more budget')}`, id: (budget) => budget.id, href: (budget) => ctx.state.href('budgets', { open: budget.id }),
    empty: empty({ title: 'No budgets.', text: 'Nothing stops this team from spending.' }),
    columns: [
      { key: 'name', label: 'Budget', class: 'keys-name', cell: (budget) => [h('span.strong.keys-name-text', budgetName(budget)), h('span.line-2', budgetScope(budget))] },
      { key: 'line', label: 'Burn-down', class: 'wide-only', cell: (budget) => burndown(budget, { now: Date.now(), width: 220, height: 36 }) },
      { key: 'spent', label: 'Spent', end: true, cell: (budget) => [usdCents(budget.spent_usd), h('span.line-2', `${Math.round(Number(budget.spent_percent))}%`)] },
      { key: 'left', label: 'Left', end: true, cell: (budget) => usdCents(budget.left_usd) },
      { key: 'gone', label: 'Gone by', cell: (budget) => {
        const gone = goneBy(budget, tz, Date.now());
        return h('span', { class: gone.level === 'good' || gone.level === 'off' ? 'text-2' : gone.level }, gone.level === 'warn' && '▲ ', gone.level === 'bad' && '! ', gone.text);
      } },
    ],
  }).element);
}

function drawLimits(place, team) {
  const plain = team.limits.filter((each) => each.kind !== 'money');
  put(place, h('h3.row-title', 'Limits of the team'), plain.length === 0 ? h('p.text-2', 'No limit of its own. What its keys have still holds.') : h('dl.facts', plain.map((each) => [
    h('dt', [each.kind === 'concurrency' ? 'At once' : each.kind === 'tokens' ? 'Tokens' : 'Requests', each.model && `, ${each.model}`, each.tag_name && `, ${each.tag_name}${each.tag_value ? `=${each.tag_value}` : ''}`].filter(Boolean).join('')),
    h('dd', limitText(each), each.mode === 'observe' && h('span.text-3', ' only watched')),
  ])), h('h3.row-title', 'Endpoints'), h('p.text-2', endpointsText(team.endpoints, 'Those that are on by default.')));
}
