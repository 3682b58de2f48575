/** My requests: those of this key alone, with what is kept of each in a drawer. */
import { h, put } from '../dom.js';
import { drawer } from '../drawer.js';
import { count, duration, exactly, usdExact } from '../format.js';
import { icon } from '../icons.js';
import { menu, rangePicker, zonePicker } from '../menu.js';
import { empty, head, loader, panel } from '../panel.js';
import { afterPause } from '../repeat.js';
import { rangeLabel, rangeQuery } from '../range.js';
import { copy } from '../status.js';
import { table } from '../table.js';
import { OUTCOME_ITEMS, outcomeCell, recordColumns } from './requests/words.js';

const PAGE = 100;

async function render(root, ctx) {
  const box = panel({ flush: true });
  const place = h('div.with-drawer', box.element);
  const controls = h('div', { style: { display: 'contents' } });
  const placeholder = 'Find by id, response id, end user or tag=value';
  const search = afterPause(300, (text) => ctx.set({ q: text || null, cursor: null, open: null }));
  const find = h('input.input', { type: 'search', placeholder, 'aria-label': placeholder, value: ctx.state.get('q'), oninput: (event) => search(event.target.value.trim()) });
  put(root, head('My requests', h('div.find.is-wide', icon('explore'), find), controls), place);
  let list = null;
  let data = null;
  let asked = question();

  function query() {
    return { ...rangeQuery(ctx.state.range), tz: ctx.state.tz, q: ctx.state.get('q'), outcome: ctx.state.get('outcome'), cursor: ctx.state.get('cursor'), limit: PAGE };
  }

  function question() {
    return JSON.stringify(query());
  }

  function drawHead() {
    put(controls, rangePicker(ctx), menu({ label: 'Outcome', what: 'Outcome', className: 'menu-button grow', items: OUTCOME_ITEMS, value: ctx.state.get('outcome'), onPick: (value) => ctx.set({ outcome: value || null, cursor: null, open: null }) }),
      zonePicker(ctx, { what: 'Times in', className: 'menu-button is-note' }));
  }

  const { load } = loader(box.element, {
    signal: ctx.signal, tz: () => ctx.state.tz,
    read: (signal) => ctx.api.get('/me/records', query(), { signal }),
    draw: (read) => {
      data = read;
      draw();
    },
  });

  function draw() {
    const open = ctx.state.get('open');
    const options = {
      caption: 'My requests, newest first', class: 'records-table', rows: data.data, id: (row) => row.request_id, selected: open, onOpen: (row) => ctx.set({ open: row.request_id === open ? null : row.request_id }),
      columns: recordColumns({ tz: ctx.state.tz, dated: !/today|yesterday/.test(ctx.state.range), names: ['time', 'model', 'outcome', 'tokens', 'first', 'took', 'cost'] }),
      empty: empty({ title: ctx.state.get('q') || ctx.state.get('outcome') ? 'No request is found by that.' : 'No requests in these days.', text: `Looked in: ${rangeLabel(ctx.state.range).toLowerCase()}.` }),
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
    drawDrawer(data.data.find((row) => row.request_id === open) ?? null);
  }

  function drawDrawer(row) {
    const had = place.querySelector('.drawer');
    if (had?.dataset.id === row?.request_id && row) return;
    had?.remove();
    place.classList.toggle('is-open', Boolean(row));
    if (!row) return;
    const shown = drawer({ title: 'Request', note: exactly(row.started_at, ctx.state.tz), onClose: () => {
      ctx.set({ open: null });
      list.rowOf(row.request_id)?.querySelector('.row-open')?.focus();
    } });
    shown.element.dataset.id = row.request_id;
    const fact = (name, ...value) => [h('dt', name), h('dd', value)];
    const id = (name, value) => value && fact(name, h('button.link.mono', { type: 'button', title: 'Copy', onclick: () => copy(value, `${name} copied`) }, value));
    const tags = Object.entries(row.tags ?? {});
    shown.part(null, h('dl.facts', fact('Outcome', outcomeCell(row)), row.error_code ? fact('Error', h('code', row.error_code)) : null, fact('Status', row.status ?? 'no answer'), fact('Endpoint', row.endpoint, row.stream && ', streamed'),
      fact('First byte', duration(row.first_byte_ms)), fact('Took', duration(row.took_ms)), fact('Our cache', row.cache)));
    shown.part('Cost', h('dl.facts', fact('Input', count(row.input_tokens)), row.cached_tokens ? fact('of it cached', count(row.cached_tokens)) : null, fact('Output', count(row.output_tokens)), row.reasoning_tokens ? fact('of it reasoning', count(row.reasoning_tokens)) : null,
      fact('Cost', row.cost_usd === null ? h('span.warn', '◇ unpriced') : [row.estimated && '≈ ', h('b', usdExact(row.cost_usd))])));
    shown.part('Who and what', h('dl.facts', fact('Model asked', row.model_requested), fact('Model served', row.model_served ?? row.model), fact('Upstream', row.upstream), row.end_user ? fact('End user', row.end_user) : null,
      tags.length ? fact('Tags', tags.map(([name, value]) => [h('span.chip', `${name}=${value}`), ' '])) : null, id('Request', row.request_id), id('Response', row.response_id)));
    place.append(shown.element);
    if (document.activeElement?.matches?.('.row-open')) shown.focus();
  }

  drawHead();
  load();
  return {
    refresh: () => {
      if (document.activeElement !== find) find.value = ctx.state.get('q');
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

export default { name: 'my-requests', title: 'My requests', roles: ['key'], render };
