/** How the service did in the last 24 hours, and each upstream. */
import { sparkline } from '../../charts/sparkline.js';
import { h, put } from '../../dom.js';
import { clock, day, duration, percent } from '../../format.js';
import { mark } from '../../icons.js';
import { empty, panel } from '../../panel.js';
import { today } from '../../range.js';
import { table } from '../../table.js';

const STATES = { healthy: ['good', 'Healthy'], degraded: ['warn', 'Degraded'], down: ['bad', 'Down'], paused: ['off', 'Paused'], off: ['off', 'Off'] };
const DAY_MS = 86_400_000;

/** @param {import('../../shell.js').Context} ctx */
export function service(ctx) {
  const box = panel({ title: 'Service, last 24 hours', class: 'of-3 service-panel', flush: true, actions: h('a', { href: ctx.state.href('upstreams') }, 'All upstreams') });
  const tiles = h('div.service-tiles');
  const list = table({ caption: 'Upstreams in the last 24 hours', columns: [] });
  box.body.append(tiles, list.element);
  return {
    element: box.element,
    draw({ data, tz }) {
      const { service: health } = data;
      put(tiles, [['Failed', percent(health.failed_percent), 'failed_percent'], ['First byte, p95', duration(health.first_byte_p95_ms), 'first_byte_p95_ms'], ['Overhead, p95', duration(health.overhead_p95_ms), 'overhead_p95_ms']]
        .map(([name, text, field]) => h('div', h('p.note', name), h('p.service-figure', text), sparkline(health.series.map((one) => one[field]), { width: 104, height: 26 }))));
      list.update({
        rows: health.upstreams, id: (row) => row.name, class: 'is-two', href: (row) => ctx.state.href('upstreams', { open: row.name }),
        empty: empty({ title: 'No upstream has been used', text: 'Upstreams are named in the configuration file.' }),
        columns: [
          { key: 'name', label: 'Upstream', class: 'cut', cell: (row) => stateOf(row, data.until, tz) },
          { key: 'failed', label: 'Failed', end: true, class: 'spark-cell', cell: (row) => h('span.state', sparkline(row.series.map((one) => one.failed_percent), { width: 62, height: 20, level: { degraded: 'warn', down: 'bad' }[row.state] ?? 'plain' }), percent(row.failed_percent, 1)) },
          { key: 'first', label: 'First byte p95', end: true, cell: (row) => duration(row.first_byte_p95_ms) },
        ],
      });
    },
  };
}

/** Shape, word and colour; since when, where it is not well. */
function stateOf(row, until, tz) {
  const [level, word] = STATES[row.state] ?? ['off', row.state];
  const isRecent = row.since && Date.parse(until) - Date.parse(row.since) < DAY_MS;
  const since = level === 'good' || !row.since ? '' : ` since ${isRecent ? clock(row.since, tz) : day(today(tz, Date.parse(row.since)), { day: 'numeric', month: 'short' })}`;
  return h('span.upstream', mark(level, 10), h('span.cut', h('span.cut', { title: row.name }, row.name), h('span.line-2', word + since)));
}
