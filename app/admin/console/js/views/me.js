/** Me: what a plain key has left, has spent and may do. No other key is ever named here. */
import { columns, keyOf } from '../charts/columns.js';
import { dailyCost } from '../charts/usage.js';
import { h, put } from '../dom.js';
import { count, day, moment, percent, plural, short, usd, usdAxis, usdColumn } from '../format.js';
import { icon, mark } from '../icons.js';
import { rangePicker, segments, zonePicker } from '../menu.js';
import { readUsage } from '../pages.js';
import { empty, loader, named, panel } from '../panel.js';
import { rangeLabel, today } from '../range.js';
import { repeat } from '../repeat.js';
import { copy } from '../status.js';
import { table } from '../table.js';
import { tiles } from '../tiles.js';
import { memberName } from '../amounts.js';
import { endpointsText } from './keys/words.js';
import { goneAt, leadOf, shareOf } from './me/left.js';
import { modelFor, snippetsOf } from './me/snippets.js';
import { recordColumns } from './requests/words.js';

const REFRESH_MS = 15_000;
const MODELS_MAX = 8;
const TAGS_MAX = 4;
const TILES = [['requests', 'Requests'], ['tokens', 'Tokens'], ['concurrency', 'At once']];

async function render(root, ctx) {
  const title = h('h1', { tabindex: -1 }, ctx.session.name);
  const about = h('div.me-about');
  const controls = h('div.head-actions');
  const figures = tiles('What is left', [{ key: 'lead', isLead: true }, ...TILES.map(([key]) => ({ key }))]);
  const chartBox = panel({ title: 'Cost by day', class: 'of-8 chart-panel' });
  const byBox = panel({ title: 'By model', class: 'of-4', flush: true });
  const latestBox = panel({ title: 'Latest requests', class: 'of-8', flush: true, actions: h('a', { href: ctx.state.href('my-requests') }, 'All my requests') });
  const useBox = panel({ title: 'Use this key', class: 'of-4' });
  const body = h('div.me', figures.element, h('div.columns', chartBox.element, byBox.element), h('div.columns', latestBox.element, useBox.element));
  put(root, h('div.head', title, about, h('span.push'), controls), body);
  const by = h('span');
  chartBox.element.querySelector('.panel-head').append(by);
  let chart = null;
  let snippet = 'Python';

  const { load } = loader(body, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: async (signal) => {
      const range = ctx.state.query();
      const [me, limits, latest] = await Promise.all([ctx.api.get('/me', {}, { signal }), ctx.api.get('/me/limits', {}, { signal }), ctx.api.get('/me/records', { limit: 50, range: 'last_30_days' }, { signal })]);
      const tag = tagOf(latest.data);
      const show = ctx.state.get('show', 'model') === 'tag' && tag ? `tag.${tag}` : 'model';
      const [days, models, tags] = await Promise.all([
        readUsage(ctx.api, '/me/usage', { ...range, by: `${show},day` }, signal),
        readUsage(ctx.api, '/me/usage', { ...range, by: 'model', sort: '-cost' }, signal),
        tag ? readUsage(ctx.api, '/me/usage', { ...range, by: `tag.${tag}`, sort: '-cost' }, signal) : null,
      ]);
      return { me, limits: limits.data, latest: latest.data, days, models, tags, tag, show };
    },
    draw: (data) => {
      drawHead(data);
      drawFigures(figures, data, ctx.state.tz);
      drawChart(data);
      drawModels(byBox, data, colorsOf(data, ctx));
      drawLatest(latestBox, data, ctx);
      drawUse(data);
    },
  });

  function drawHead({ me }) {
    const isGood = me.state === 'active';
    put(title, me.key.name);
    put(about, h('code.text-2', `sk-hg-${me.secret_id ?? me.key.id}-…`), h('span.chip', { class: isGood ? 'is-good' : 'is-bad' }, mark(isGood ? 'good' : 'bad', 9), me.state.charAt(0).toUpperCase() + me.state.slice(1)));
  }

  function drawControls() {
    put(controls, zonePicker(ctx, { what: 'Days in', className: 'menu-button is-note' }), rangePicker(ctx));
  }

  function drawChart({ days, show, tag }) {
    const name = ctx.state.range === 'this_month' ? day(today(ctx.state.tz), { month: 'long', year: 'numeric' }) : rangeLabel(ctx.state.range).toLowerCase();
    chartBox.setTitle(`Cost by day, ${name}`);
    put(by, tag && segments({ label: 'Stacked by', value: show === 'model' ? 'model' : 'tag', items: [{ value: 'model', label: 'Model' }, { value: 'tag', label: `Tag ${tag}` }], onPick: (value) => ctx.set({ show: value === 'model' ? null : value }) }));
    const { series, slots } = dailyCost(days, { by: show, range: ctx.state.range, tz: ctx.state.tz });
    const of = { label: `Cost by day, ${name}, stacked by ${show === 'model' ? 'model' : tag}`, series, slots, axis: usdAxis, value: usd, empty: 'Nothing spent in these days', onOpen: (slot) => ctx.navigate(ctx.state.href('my-requests', { range: `${slot.key}..${slot.key}` })) };
    if (chart) chart.update(of);
    else chart = columns(of);
    put(chartBox.body, chart.element, keyOf(slots));
  }

  function drawUse({ me, models, latest }) {
    const base = me.base_url ?? `${location.origin}/v1`;
    const all = snippetsOf(base, modelFor(me.models ?? [latest[0]?.model_requested ?? memberName(models.rows[0] ?? {}, 'model')].filter(Boolean)));
    const place = h('pre.code.me-code', { tabindex: 0 });
    const show = () => put(place, all.find((each) => each.name === snippet).text);
    show();
    const fact = (name, ...value) => [h('dt', name), h('dd', value)];
    put(useBox.body, h('div.me-use', segments({ label: 'Language', value: snippet, items: all.map(({ name }) => ({ value: name, label: name })), onPick: (value) => {
      snippet = value;
      show();
    } }), h('button.button.is-small.is-plain', { type: 'button', onclick: () => copy(place.textContent, 'Program copied') }, icon('copy'), 'Copy')), place,
    h('dl.facts.me-facts', fact('Models', me.models?.length ? me.models.join(', ') : 'every model'), fact('Endpoints', endpointsText(me.families, 'the default ones')), fact('Ends', me.expires_at ? moment(me.expires_at, ctx.state.tz) : 'never')));
  }

  drawControls();
  load();
  repeat(REFRESH_MS, () => body.querySelector('.chart-card:not([hidden])') || load(), ctx.signal);
  return {
    refresh: () => {
      drawControls();
      load();
    },
  };
}

/** The tag that most of the latest requests bring. */
function tagOf(rows) {
  const counts = new Map();
  for (const name of rows.flatMap((row) => Object.keys(row.tags ?? {}))) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1])[0]?.[0] ?? null;
}

/** A model's colour as the chart has it. */
function colorsOf({ days, show }, ctx) {
  if (show !== 'model') return new Map();
  return new Map(dailyCost(days, { by: 'model', range: ctx.state.range, tz: ctx.state.tz }).series.map((one) => [one.id, one.color]));
}

function drawFigures(figures, { limits, me, models }, tz) {
  const now = Date.now();
  const budgets = limits.filter((each) => each.kind === 'money').sort((one, other) => (goneAt(one, now) ?? Infinity) - (goneAt(other, now) ?? Infinity) || shareOf(other) - shareOf(one));
  const cost = usdColumn(models.total.cost_usd);
  if (budgets.length) {
    const lead = leadOf(budgets[0], me.team?.name, tz, now);
    const level = lead.level === 'good' ? '' : `is-${lead.level}`;
    figures.draw('lead', { name: lead.name, figure: lead.figure, beside: lead.beside, bar: bar(shareOf(budgets[0]), level), note: lead.note && h('span', { class: lead.level === 'good' ? '' : lead.level }, lead.level === 'warn' && '▲ ', lead.level === 'bad' && '! ', lead.note) });
  } else figures.draw('lead', { name: 'Spent in these days', figure: cost(models.total.cost_usd ?? '0'), beside: 'no budget', note: 'Nothing but the rate limits beside stops calls.' });
  for (const [kind, word] of TILES) {
    const found = limits.filter((each) => each.kind === kind).sort((one, other) => shareOf(other) - shareOf(one))[0];
    const when = { minute: 'this minute', hour: 'this hour', day: 'this day' }[found?.window] ?? '';
    if (!found) figures.draw(kind, { name: word, figure: 'no limit', note: '\u00a0' });
    else {
      const share = shareOf(found);
      figures.draw(kind, { name: [word, when].filter(Boolean).join(' '), figure: [short(found.used), h('span.figure-of', ` of ${shortLimit(found.maximum)}`)], bar: bar(share, share >= 1 ? 'is-bad' : share >= 0.8 ? 'is-warn' : ''), note: `${short(found.left)} left${found.scope === 'key' ? '' : ', for the team'}` });
    }
  }
}

const shortLimit = (value) => short(value).replace(/\.0(?=\D)/, '');

const bar = (share, level) => h('div.bar', { 'aria-hidden': 'true' }, h('i', { class: level, style: { width: percent(100 * share, 1) } }));

/** What a short table leaves out is said. */
const moreWords = (rows, max, word) => (rows.length > max ? `and ${plural(rows.length - max, `more ${word}`)}` : null);

function drawModels(box, { models, tags, tag }, colors) {
  const { total } = models;
  const cost = usdColumn(total.cost_usd);
  const tokens = (row) => short(row.input_tokens + row.output_tokens);
  const parts = [table({
    caption: 'Cost by model', rows: models.rows.slice(0, MODELS_MAX), more: moreWords(models.rows, MODELS_MAX, 'model'), id: (row) => memberName(row, 'model'), sort: '-cost',
    empty: empty({ title: 'Nothing in these days.', text: 'Choose other days, or send a first request.' }),
    columns: [
      { key: 'model', label: 'Model', class: 'cut', cell: (row) => named(memberName(row, 'model'), colors.get(memberName(row, 'model')) ?? 0) },
      { key: 'requests', label: 'Requests', end: true, class: 'text-2', cell: (row) => short(row.requests) },
      { key: 'tokens', label: 'Tokens', end: true, class: 'text-2', cell: tokens },
      { key: 'cost', label: 'Cost', end: true, sorts: true, cell: (row) => (row.unpriced === row.requests && row.requests > 0 ? h('span.warn', '◇ unpriced') : cost(row.cost_usd)) },
    ],
    total: { model: 'Total', requests: short(total.requests), tokens: tokens(total), cost: cost(total.cost_usd) },
    notes: [...(Number(total.estimated_usd) > 0 ? [[['of it estimated'], null, null, `≈ ${cost(total.estimated_usd)}`]] : []), [['saved by the cache'], null, null, cost(total.saved_usd)], ...(total.unpriced ? [[[h('span.warn', '◇ not in it')], null, null, h('span.warn', `${count(total.unpriced)} unpriced`)]] : [])],
  }).element];
  if (tags && tags.rows.length) {
    parts.push(h('div.me-tags', table({
      caption: `Cost by the tag ${tag}`, rows: tags.rows.slice(0, TAGS_MAX), more: moreWords(tags.rows, TAGS_MAX, 'value'), id: (row) => memberName(row, `tag.${tag}`) || ' ',
      columns: [
        { key: 'tag', label: 'Tag', class: 'cut', cell: (row) => h('span.cut', { class: memberName(row, `tag.${tag}`) ? '' : 'text-2' }, memberName(row, `tag.${tag}`) ? `${tag}=${memberName(row, `tag.${tag}`)}` : 'no tag') },
        { key: 'requests', label: 'Requests', end: true, class: 'text-2', cell: (row) => short(row.requests) },
        { key: 'cost', label: 'Cost', end: true, cell: (row) => cost(row.cost_usd) },
      ],
    }).element));
  }
  put(box.body, parts);
}

function drawLatest(box, { latest }, ctx) {
  put(box.body, table({
    caption: 'Latest requests', rows: latest.slice(0, 10), id: (row) => row.request_id, href: (row) => ctx.state.href('my-requests', { open: row.request_id }),
    columns: recordColumns({ tz: ctx.state.tz, names: ['time', 'model', 'outcome', 'tokens', 'took', 'cost'] }),
    empty: empty({ title: 'No requests yet.', text: 'The program beside sends a first one.' }),
  }).element);
}

export default { name: 'me', title: 'Me', roles: ['key'], render };
