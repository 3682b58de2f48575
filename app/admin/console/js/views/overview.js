/** Are we fine this month? Money, what needs a person, cost by day, who spends it, and how the service does. */
import { readBadges, showBadges } from '../badges.js';
import { clock } from '../format.js';
import { icon } from '../icons.js';
import { h, put } from '../dom.js';
import { popupButton, oneTeam, zonePicker } from '../menu.js';
import { head, loader } from '../panel.js';
import { RANGES } from '../range.js';
import { toast } from '../status.js';
import { drawAttention } from './overview/attention.js';
import { days } from './overview/days.js';
import { figures } from './overview/figures.js';
import { service } from './overview/service.js';
import { topKeys, topModels } from './overview/tops.js';

const AGAIN_MS = 60_000;

export default {
  name: 'overview', title: 'Overview', roles: ['admin', 'viewer', 'lead'],
  async render(root, ctx) {
    // A lead has one team: its keys tell more.
    if (ctx.session.role === 'lead' && ctx.state.get('by') === 'team') return ctx.set({ by: 'key' });
    // Another's, in an address that it was given, is not there for it.
    if (ctx.session.role === 'lead' && ctx.state.get('team')) return ctx.set({ team: null });
    if (ctx.state.list('team').length > 1) {
      toast('Overview shows one team or all of them. Explore shows any number.');
      return ctx.set({ team: null });
    }
    const controls = h('div', { style: { display: 'contents' } });
    const parts = { figures: figures(ctx), days: days(ctx), keys: topKeys(ctx), models: topModels(ctx), service: service(ctx) };
    const attention = h('section.panel.attention', { 'aria-label': 'Needs a person', hidden: true });
    const body = h('div.overview', parts.figures.element, attention,
      h('div.columns.overview-days', parts.days.chart, parts.days.legend),
      h('div.columns.overview-tops', parts.keys.element, parts.models.element, parts.service.element));
    root.append(head('Overview', controls), body);

    function drawHead() {
      put(controls, monthPicker(ctx), oneTeam(ctx), zonePicker(ctx, { what: 'Days in', className: 'menu-button is-note' }));
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
        if (ctx.state.get('team')) readBadges(ctx.shell);
        else showBadges(ctx.shell, data);
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
