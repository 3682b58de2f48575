/** What happened: each step on a line of time. */
import { h, put, s } from '../../dom.js';
import { duration, usd } from '../../format.js';
import { panel } from '../../panel.js';
import { usdOf } from '../../amounts.js';
import { nano } from '../../format.js';
import { checkedLimits } from './limits.js';
import { barOf, stepsOf, ticksOf } from './waterfall.js';

const ROW = 34;
const NARROW = 200;

/** @param {import('./account.js').Account} account */
export function timeline(account) {
  const reserved = account.reservedNano === null ? null : usdOf(account.reservedNano);
  const cost = account.costUsd === null ? null : nano(account.costUsd);
  const freed = reserved !== null && cost !== null && !account.refused ? BigInt(account.reservedNano) - cost : null;
  const steps = stepsOf(account, {
    limits: checkedLimits(account).length, refusedBy: account.decision.limit ?? null,
    reserved: reserved === null ? null : usd(reserved), released: freed !== null && freed > 0n ? usd(usdOf(freed)) : null,
    tokens: account.told.output_tokens ?? null,
  });
  const whole = Math.max(account.tookMs ?? 0, ...steps.map((step) => step.fromMs + (step.tookMs ?? 0)), 1);
  const own = account.told.overhead_ms ?? null;
  const box = panel({ title: 'What happened', flush: true, actions: own === null ? null : h('span.note', `Headgate itself: ${duration(own)}`) });
  const ticks = ticksOf(whole);
  const bars = steps.map((step) => ({ step, svg: s('svg.wf-bar', { height: ROW, 'aria-hidden': 'true' }) }));
  const axis = s('svg.wf-axis', { height: 20, 'aria-hidden': 'true' });
  put(box.body, h('table.table.wf', h('caption', 'Steps of the request, in order'),
    h('thead', h('tr', h('th', { scope: 'col' }, 'Step'), h('th.wf-time.wide-only', { scope: 'col' }, h('span.hush', 'When'), axis), h('th.end', { scope: 'col' }, 'Took'), h('th.wf-said', { scope: 'col' }, 'Said'))),
    h('tbody', bars.map(({ step, svg }) => h('tr', h('th.wf-name', { scope: 'row' }, step.name), h('td.wf-time.wide-only', svg), h('td.end', step.tookMs === null ? '' : duration(step.tookMs)),
      h('td.wf-said.wrap', step.said.map((part) => h('span', { class: part.bad ? 'bad' : 'text-2' }, part.text))))))));

  function draw(width) {
    const inner = Math.max(NARROW / 2, width - 12);
    put(axis, ticks.map((tick) => s('text', { x: (tick / whole) * inner, y: 14 }, tick === 0 ? '0' : duration(tick).replace(/\.?0+ s$/, ' s'))));
    for (const { step, svg } of bars) {
      const bar = barOf(step, whole, inner);
      put(svg, ticks.map((tick) => s('line.wf-grid', { x1: (tick / whole) * inner, x2: (tick / whole) * inner, y1: 0, y2: ROW })),
        s('rect', { class: `wf-${step.kind}`, x: bar.x, width: bar.width, y: ROW / 2 - 5, height: 10, rx: bar.width > 4 ? 2 : 1 }));
    }
  }

  const cell = box.body.querySelector('thead .wf-time');
  const watch = new ResizeObserver(([entry]) => entry.contentRect.width > 0 && draw(entry.contentRect.width));
  watch.observe(cell);
  return box;
}
