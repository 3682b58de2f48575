/** Are we fine this month? Money, what needs a person, cost by day, who spends it, and how the service does. */
import { clock } from '../format.js';
import { icon } from '../icons.js';
import { h, put } from '../dom.js';
import { popupButton, teamFilter, zonePicker } from '../menu.js';
import { head, loader } from '../panel.js';
import { RANGES } from '../range.js';
import { drawAttention } from './overview/attention.js';
import { days } from './overview/days.js';
import { figures } from './overview/figures.js';
import { service } from './overview/service.js';
import { topKeys, topModels } from './overview/tops.js';

const AGAIN_MS = 60_000;

export default {
  name: 'overview', title: 'Overview', roles: ['admin', 'viewer', 'lead'],
  async render(root, ctx) {
    const controls = h('div', { style: { display: 'contents' } });
    const parts = { figures: figures(), days: days(ctx), keys: topKeys(ctx), models: topModels(ctx), service: service(ctx) };
    const attention = h('section.panel.attention', { 'aria-label': 'Needs a person', hidden: true });
    const body = h('div.overview', parts.figures.element, attention,
      h('div.columns.overview-days', parts.days.chart, parts.days.legend),
      h('div.columns.overview-tops', parts.keys.element, parts.models.element, parts.service.element));
    root.append(head('Overview', controls), body);

    function drawHead() {
      put(controls, monthPicker(ctx), teamFilter(ctx), zonePicker(ctx, { what: 'Days in', className: 'menu-button is-note' }));
    }

    const { load } = loader(body, {
      read: (signal) => ctx.api.get('overview', { tz: ctx.state.tz, team: ctx.state.get('team'), show: ctx.state.get('by') }, { signal }),
      draw(data) {
        const context = { data, tz: data.time_zone, until: `until ${clock(data.until, data.time_zone)}` };
        parts.figures.draw(context);
        drawAttention(attention, data.attention);
        parts.days.draw(context);
        parts.keys.draw(context);
        parts.models.draw(context);
        parts.service.draw(context);
        drawBadges(ctx.shell, data);
      },
      signal: ctx.signal, tz: () => ctx.state.tz,
    });
    drawHead();
    const timer = setInterval(() => document.visibilityState === 'visible' && !body.querySelector('.chart-card:not([hidden])') && load(), AGAIN_MS);
    await load();
    return {
      refresh() {
        drawHead();
        load();
      },
      leave: () => clearInterval(timer),
    };
  },
};

/** This view is of this month; any other range is a question for Explore. */
function monthPicker(ctx) {
  return popupButton({
    label: 'Range: This month', className: 'menu-button grow', role: 'menu', content: [h('span.cut', 'This month'), icon('down')],
    fill(popup) {
      popup.append(h('a', { role: 'menuitem', href: ctx.state.href('overview', { range: null }), 'aria-current': 'true' }, 'This month'), h('p.popup-title', 'In Explore'),
        RANGES.filter(([name]) => name !== 'this_month').map(([name, label]) => h('a', { role: 'menuitem', href: ctx.state.href('explore', { range: name, by: ctx.state.get('by') }) }, label)));
    },
  }).element;
}

/** What a person must act on, beside the view where it is done. */
function drawBadges(shell, { month, service: health, attention }) {
  const down = health.upstreams.filter((one) => one.state === 'down').length;
  const ailing = health.upstreams.filter((one) => one.state === 'degraded' || one.state === 'down').length;
  shell.badge('upstreams', ailing ? { text: String(ailing), level: down ? 'bad' : 'warn', say: ailing === 1 ? 'upstream is not healthy' : 'upstreams are not healthy' } : null);
  shell.badge('prices', month.unpriced ? { text: String(month.unpriced), level: 'unpriced', say: 'requests without a price' } : null);
  const budget = attention.find((one) => one.href.startsWith('/console/budgets'));
  const used = /(\d+)%/.exec(budget?.title ?? '')?.[1];
  shell.badge('budgets', budget ? { text: used ? `${used}%` : '1', level: 'warn', say: 'of a budget is used' } : null);
  const running = health.upstreams.reduce((sum, one) => sum + (one.in_flight ?? 0), 0);
  shell.badge('live', running ? { text: String(running), say: 'in flight' } : null);
}
