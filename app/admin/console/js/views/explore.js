/** Any question on cost, as a sentence; its answer as a chart, as a table, as a link and as a file. */
import { columns, keyOf } from '../charts/columns.js';
import { lines } from '../charts/lines.js';
import { OTHER } from '../charts/series.js';
import { address } from '../api.js';
import { h, put } from '../dom.js';
import { clock, count, plural, short, usdColumn } from '../format.js';
import { icon } from '../icons.js';
import { popupButton, segments } from '../menu.js';
import { empty, head, loader, panel } from '../panel.js';
import { rangeDays, today } from '../range.js';
import { copy } from '../status.js';
import { exportQuery, measureOf, wordOf } from './explore/question.js';
import { chips, sentence } from './explore/controls.js';
import { readAnswer } from './explore/read.js';
import { rowsTable } from './explore/rows.js';
import { runningTotal, slotsOf } from './explore/slots.js';

const FORMATS = [['csv', 'CSV'], ['jsonl', 'JSON Lines'], ['focus', 'FOCUS, as CSV']];
const DRAWN = [{ value: 'columns', label: 'Columns' }, { value: 'lines', label: 'Lines' }, { value: 'total', label: 'Running total' }];

export default {
  name: 'explore', title: 'Explore', roles: ['admin', 'viewer', 'lead'],
  async render(root, ctx) {
    // A lead has one team: its keys tell more.
    if (ctx.session.role === 'lead' && ctx.state.get('by') === 'team') return ctx.set({ by: 'key' });
    const question = h('section.panel.question', { 'aria-label': 'The question' });
    const chartBox = panel({ flush: false, class: 'explore-chart' });
    const tableBox = panel({ title: 'The same as a table', flush: true });
    const note = h('p.note.explore-note');
    const body = h('div.explore', chartBox.element, tableBox.element, note);
    const totals = h('div.totals');
    const drawSwitch = h('span');
    const place = h('div.explore-place');
    put(chartBox.body, h('div.explore-top', totals, drawSwitch), place);
    const list = rowsTable(ctx, tableBox);
    let answer = null;
    let chart = null;

    root.append(head('Explore',
      h('button.button', { type: 'button', onclick: () => copy(location.href, 'Link copied') }, icon('copy'), 'Copy link'), exportMenu(ctx)), question, body);

    function drawQuestion() {
      put(question, sentence(ctx), chips(ctx));
      put(drawSwitch, segments({ label: 'Drawn as', items: DRAWN, value: ctx.state.get('draw'), onPick: (draw) => ctx.set({ draw }) }));
    }

    function drawChart() {
      const { state } = ctx;
      const measure = measureOf(state);
      const draw = state.get('draw');
      const slots = slotsOf(answer, state, measure);
      const label = `${measure.label} by ${wordOf(state.get('by')).toLowerCase()} per ${state.get('per')}`;
      const data = {
        label, series: answer.series, slots: draw === 'total' ? runningTotal(slots, answer.series, measure) : slots, axis: measure.axis, value: measure.value,
        onOpen: state.get('per') === 'day' ? (slot, part) => openDay(ctx, slot, part) : null, onFade: list.fade,
        empty: 'Nothing in these days',
      };
      chart = draw === 'columns' ? columns(data) : lines(data);
      put(place, chart.element, draw === 'columns' ? keyOf(slots) : legendOf(answer.series));
    }

    function drawTotals() {
      const { total } = answer;
      const cost = usdColumn(total.cost_usd);
      put(totals, [[cost(total.cost_usd), 'cost'], [count(total.requests), total.requests === 1 ? 'request' : 'requests'], [short(total.input_tokens + total.output_tokens), 'tokens'], [cost(total.saved_usd), 'saved by cache']]
        .map(([figure, word]) => h('span.total', h('span.total-figure', figure), ' ', word)), total.unpriced > 0 && h('span.total.warn', `◇ not in it: ${count(total.unpriced)}`));
    }

    const { load } = loader(body, {
      read: (signal) => readAnswer(ctx, signal),
      draw(found) {
        answer = found;
        drawTotals();
        if (found.total.requests === 0) {
          chart = null;
          put(place, empty({ title: 'No request matches', text: ctx.state.filters.length ? 'Take a filter away, or look at more days.' : 'Nothing was sent in these days. Look at more of them.' }));
        } else drawChart();
        list.draw(found, (id) => chart?.fade(id));
        put(note, noteOf(ctx, found));
      },
      signal: ctx.signal, tz: () => ctx.state.tz,
    });
    drawQuestion();
    await load();
    let asked = key(ctx.state);
    return {
      refresh() {
        drawQuestion();
        const now = key(ctx.state);
        if (now === asked && answer) {
          if (answer.total.requests) drawChart();
          list.draw(answer, (id) => chart?.fade(id));
          return;
        }
        asked = now;
        load();
      },
    };
  },
};

/** All of the state that the server is asked about: another drawing of the same figures asks nothing. */
const key = (state) => JSON.stringify([state.query(), state.get('show'), state.get('by'), state.get('then'), state.get('per'), state.get('sort')]);

function exportMenu(ctx) {
  return popupButton({
    label: 'Export these rows', className: 'button', role: 'menu', content: [icon('export'), 'Export these rows'],
    fill(popup) {
      popup.append(...FORMATS.map(([format, label]) => h('a', { role: 'menuitem', href: address('usage/export', exportQuery(ctx.state, format)), download: '' }, label)));
    },
  }).element;
}

const legendOf = (series) => h('div.chart-key', series.map((one) => h('span', h('span.swatch', { class: one.color ? `s${one.color}` : '' }), h('span.cut', one.name))));

function openDay(ctx, slot, part) {
  const filters = Object.fromEntries(ctx.state.filters.map(([name, values]) => [name, values]));
  ctx.navigate(ctx.state.href('requests', { ...filters, range: `${slot.key}..${slot.key}`, ...(part && part !== OTHER ? { [ctx.state.get('by')]: part } : {}) }));
}

function noteOf(ctx, { total, isWhole }) {
  const isRunning = rangeDays(ctx.state.range, ctx.state.tz)[1] >= today(ctx.state.tz);
  return [isWhole ? '' : h('strong.warn', '▲ The chart does not hold all of it: there are too many rows. Take fewer days, or longer periods. '), isRunning ? `Counted until ${clock(Date.now(), ctx.state.tz)} today.` : '', total.unpriced ? ` Cost leaves out ${plural(total.unpriced, 'unpriced request')}.` : '',
    total.estimated > 0 ? ` ≈ is what ${plural(total.estimated, 'request')} cost by estimate.` : '', ` Days are those of ${ctx.state.tz}. Exported as CSV or JSON Lines they are exactly these rows; FOCUS is by day, key and model.`];
}
