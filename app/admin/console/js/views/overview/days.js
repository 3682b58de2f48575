/** Cost by day, and the legend that is a table. */
import { columns, keyOf } from '../../charts/columns.js';
import { OTHER, bySeries, seriesOf } from '../../charts/series.js';
import { h, put } from '../../dom.js';
import { change, day, percent, plural, usd, usdAxis, usdColumn } from '../../format.js';
import { segments } from '../../menu.js';
import { empty, named, panel } from '../../panel.js';
import { today } from '../../range.js';
import { askTag } from '../../tag.js';
import { table } from '../../table.js';

const WORDS = { team: 'Team', model: 'Model', key: 'Key' };

/** @param {import('../../shell.js').Context} ctx */
export function days(ctx) {
  const isLead = ctx.session.role === 'lead';
  const chartBox = panel({ title: 'Cost by day', class: 'of-8 chart-panel' });
  const legendBox = panel({ title: 'By team', class: 'of-4 legend-panel', flush: true, actions: h('a', { href: '#' }, 'Open in Explore') });
  const switchPlace = h('span');
  chartBox.element.querySelector('.panel-head').append(switchPlace);
  let chart = null;
  let legend = null;

  function drawSwitch() {
    const by = ctx.state.get('by');
    const kind = by.startsWith('tag.') ? 'tag' : by;
    const items = Object.entries(WORDS).filter(([value]) => !(isLead && value === 'team')).map(([value, label]) => ({ value, label }));
    put(switchPlace, segments({ label: 'Stacked by', value: kind, items: [...items, { value: 'tag', label: by.startsWith('tag.') ? `Tag ${by.slice(4)}` : 'Tag' }],
      onPick: async (value) => {
        const chosen = value === 'tag' ? await askTag() : value;
        if (chosen) ctx.set({ by: chosen });
        drawSwitch();
      } }));
  }

  function draw({ data, tz, until }) {
    const by = ctx.state.get('by');
    const word = by.startsWith('tag.') ? by.slice(4) : WORDS[by] ?? by;
    const members = data.legend.map((one) => ({ ...one, id: one.is_other ? OTHER : one.id, size: Number(one.cost_usd ?? 0) }));
    const { series, of } = seriesOf(members);
    const from = today(tz, Date.parse(data.month.from));
    const month = day(from, { month: 'long', year: 'numeric' });
    chartBox.setTitle(`Cost by day, ${month}`);
    legendBox.setTitle(`By ${word.toLowerCase()}`);
    legendBox.element.querySelector('.panel-head a').setAttribute('href', ctx.state.href('explore', { by, range: null }));
    drawSwitch();
    if (data.requests.requests === 0) {
      chart = null;
      legend = null;
      put(chartBox.body, firstSteps(ctx));
      put(legendBox.body, empty({ title: 'Nothing spent', text: 'What each one costs will stand here.' }));
      return;
    }
    const slots = slotsOf(data, tz, until, of);
    const label = `Cost by day, ${month}, stacked by ${word.toLowerCase()}`;
    if (!chart) {
      chart = columns({ label, series, slots, axis: usdAxis, value: usd, onOpen: (slot, part) => openDay(ctx, by, slot, part), onFade: fadeRows, empty: 'Nothing spent yet this month' });
    } else chart.update({ label, series, slots, onOpen: (slot, part) => openDay(ctx, by, slot, part) });
    put(chartBox.body, chart.element, keyOf(slots));
    drawLegend(data, word, legendRows(members, series, of), by);
  }

  function drawLegend(data, word, rows, by) {
    const cost = usdColumn(data.month.spent_usd);
    const before = day(monthBefore(today(data.time_zone, Date.parse(data.month.from))), { month: 'short' });
    const options = {
      caption: `Cost by ${word.toLowerCase()}`, id: (row) => row.id, rows, sort: '-cost',
      onOpen: (row) => row.id !== OTHER && filterBy(ctx, by, row.id),
      columns: [
        { key: 'name', label: word, class: 'cut', cell: (row) => named(row.name, row.color) },
        { key: 'cost', label: 'Cost', end: true, sorts: true, cell: (row) => (row.isUnpriced ? h('span.warn', '◇ unpriced') : cost(row.cost_usd)) },
        { key: 'share', label: 'Share', end: true, class: 'text-2', cell: (row) => percent(row.share_percent, 1) },
        { key: 'change', label: `vs ${before}`, end: true, class: 'text-2 wide-only', cell: (row) => change(row.change_percent) },
      ],
      total: { name: 'Total', cost: cost(data.month.spent_usd), share: '100%', change: change(data.month.change_percent) },
      notes: notesOf(data.month),
    };
    if (!legend) {
      legend = table(options);
      put(legendBox.body, legend.element);
      for (const [event, find] of [['pointerover', (e) => e.target.closest('tbody tr')], ['focusin', (e) => e.target.closest('tbody tr')], ['pointerleave', () => null], ['focusout', () => null]]) {
        legend.element.addEventListener(event, (e) => chart?.fade(find(e)?.dataset.id ?? null));
      }
    } else legend.update(options);
  }

  function fadeRows(id) {
    for (const row of legend?.element.querySelectorAll('tbody tr') ?? []) row.classList.toggle('is-faded', id !== null && row.dataset.id !== id);
  }

  drawSwitch();
  return { chart: chartBox.element, legend: legendBox.element, draw };
}

function slotsOf(data, tz, until, of) {
  const now = today(tz, Date.parse(data.until));
  return data.days.map((one) => ({
    key: one.day, label: String(Number(one.day.slice(8, 10))), title: day(one.day),
    values: bySeries(Object.entries(one.parts).map(([id, text]) => [id, Number(text)]), of),
    total: usd(one.cost_usd), unpriced: one.unpriced, forecast: one.forecast_usd === null ? null : Number(one.forecast_usd),
    isNow: one.day === now, isFuture: one.day > now, until: one.day === now ? until : undefined,
  }));
}

/** By cost; what is not shown by name is one row. */
function legendRows(legend, series, of) {
  const shown = new Map(series.map((one) => [one.id, one]));
  const rows = legend.filter((one) => of(one.id) !== OTHER).map((one) => ({ ...one, color: shown.get(one.id).color, isUnpriced: one.cost_usd === null }));
  const rest = legend.filter((one) => of(one.id) === OTHER);
  if (rest.length) {
    const sum = (field) => rest.reduce((total, one) => total + Number(one[field] ?? 0), 0);
    rows.push({ id: OTHER, name: shown.get(OTHER).name, color: 0, cost_usd: sum('cost_usd'), share_percent: sum('share_percent'), change_percent: null });
  }
  return rows;
}

function notesOf(month) {
  const notes = [];
  if (Number(month.estimated_usd) > 0) notes.push(['of it estimated', `≈ ${usd(month.estimated_usd)}`, '', '']);
  if (month.unpriced) notes.push([h('span.warn', '◇ not in it'), h('span.warn', plural(month.unpriced, 'unpriced request'))]);
  return notes;
}

/** One day's requests, of one part where one is meant. */
function openDay(ctx, by, slot, part) {
  const filter = part && part !== OTHER ? { [by]: part } : {};
  ctx.navigate(ctx.state.href('requests', { range: `${slot.key}..${slot.key}`, ...filter }));
}

function filterBy(ctx, by, id) {
  if (by === 'team') ctx.set({ team: [id], by: 'key' });
  else ctx.navigate(ctx.state.href('explore', { by: by === 'key' ? 'model' : 'key', [by]: id, range: null }));
}

function monthBefore(from) {
  const date = new Date(`${from.slice(0, 10)}T12:00:00Z`);
  date.setUTCDate(0);
  return date.toISOString().slice(0, 10);
}

function firstSteps(ctx) {
  const code = `curl ${location.origin}/v1/responses \\\n  -H "Authorization: Bearer $HEADGATE_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '{"model": "gpt-5.6", "input": "Hello"}'`;
  return empty({ title: 'No requests yet. Make a key, then send this:', code, action: ctx.may('admin', 'lead') ? h('a.button.is-primary', { href: ctx.state.href('keys') }, 'Make a key') : null });
}
