/** One budget beside the list: its line in large, what is left, each value of a tag, and what can be done. */
import { burndown } from '../../charts/burndown.js';
import { h, put } from '../../dom.js';
import { drawer } from '../../drawer.js';
import { moment, percent, usdCents, usdLimit } from '../../format.js';
import { faultBox } from '../../panel.js';
import { raiseBudget, takeBudgetAway } from './make.js';
import { budgetName, budgetScope, goneBy } from './words.js';

export class BudgetDrawer {
  /**
   * @param {import('../../shell.js').Context} ctx @param {string} id
   * @param {{onClose: () => void, onChanged: () => void}} handlers
   */
  constructor(ctx, id, { onClose, onChanged }) {
    this.ctx = ctx;
    this.id = id;
    this.onClose = onClose;
    this.onChanged = onChanged;
    this.leaving = new AbortController();
    this.element = h('div.drawer-place');
    this.shown = drawer({ title: ' ', onClose });
    put(this.element, this.shown.element);
  }

  close() {
    this.leaving.abort();
    this.element.remove();
  }

  focus() {
    this.shown.focus();
  }

  /** @param {?object} budget as the list has it */
  async load(budget) {
    if (budget) {
      this.draw(budget);
      return;
    }
    const signal = AbortSignal.any([this.leaving.signal, this.ctx.signal]);
    try {
      this.draw(await this.ctx.api.get(`budgets/${encodeURIComponent(this.id)}`, { tz: this.ctx.state.tz }, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      this.shown = drawer({ title: error.status === 404 ? 'No such budget' : 'This budget cannot be read', onClose: this.onClose });
      put(this.element, this.shown.element);
      this.shown.element.append(faultBox(error, { retry: () => this.load(null) }));
    }
  }

  draw(budget) {
    const { ctx } = this;
    const { tz } = ctx.state;
    const now = Date.now();
    const hadFocus = this.element.contains(document.activeElement) && document.activeElement.matches('h2');
    const shown = drawer({ title: budgetName(budget), note: budgetScope(budget), onClose: this.onClose });
    const gone = goneBy(budget, tz, now);
    shown.part(null, h('p.figure', usdCents(budget.left_usd)), h('p.note', `left of ${usdLimit(budget.maximum_usd)}; ${usdCents(budget.spent_usd)} spent, ${percent(budget.spent_percent, 0)}`),
      h('div.budget-large', burndown(budget, { now, width: 372, height: 120 }), axis(budget, tz)));
    const fact = (name, ...value) => [h('dt', name), h('dd', value)];
    shown.part(null, h('dl.facts',
      fact('Gone by', h('span', { class: gone.level === 'warn' || gone.level === 'bad' ? gone.level : '' }, gone.level === 'warn' && '▲ ', gone.level === 'bad' && '! ', gone.text)),
      gone.note ? fact('', h('span.text-3', gone.note)) : null,
      fact('Forecast', budget.forecast_usd === null ? '–' : usdCents(budget.forecast_usd)),
      fact('Began', moment(budget.window_from, tz, { now })),
      budget.window_to ? fact('Begins anew', moment(budget.window_to, tz, { now })) : null,
      fact('Days of', budget.time_zone),
      fact('People are told at', (budget.warn_percents ?? []).length ? budget.warn_percents.map((each) => `${each}%`).join(', ') : 'what the alert says'),
      fact('When it is gone', budget.mode === 'observe' ? 'it is only told' : 'calls are refused'),
      fact('Look at', h('a', { href: ctx.state.href('explore', whose(budget)) }, 'its cost'), ', ', h('a', { href: ctx.state.href('requests', whose(budget)) }, 'its requests'))));
    if (budget.values?.length) {
      shown.part(`Each ${budget.tag_name}`, h('table.table.is-plain', h('caption', `Spent by each ${budget.tag_name}`),
        h('thead', h('tr', h('th', { scope: 'col' }, budget.tag_name), h('th.end', { scope: 'col' }, 'Spent'), h('th.end', { scope: 'col' }, 'Of it'))),
        h('tbody', budget.values.slice(0, 20).map((each) => h('tr', h('th.wrap', { scope: 'row' }, each.tag_value), h('td.end', usdCents(each.spent_usd)), h('td.end', { class: each.spent_percent >= 80 ? 'warn' : '' }, percent(each.spent_percent, 0)))))));
    }
    if (ctx.may('admin')) {
      shown.foot(h('button.button', { type: 'button', onclick: () => raiseBudget(ctx, budget, this.onChanged) }, 'Raise it'),
        h('button.button.is-danger', { type: 'button', onclick: () => takeBudgetAway(ctx, budget, this.onChanged) }, 'Take it away'));
    }
    this.shown = shown;
    put(this.element, shown.element);
    if (hadFocus) shown.focus();
  }
}

function axis(budget, tz) {
  const short = (at) => moment(at, tz).split(',')[0];
  return h('div.budget-axis.note', { 'aria-hidden': 'true' }, h('span', short(budget.window_from)), h('span', budget.window_to ? short(new Date(Date.parse(budget.window_to) - 1).toISOString()) : ''));
}

/** The filter of views that shows what the budget counts. */
function whose(budget) {
  const tag = budget.tag_name && budget.tag_value ? { [`tag.${budget.tag_name}`]: budget.tag_value } : {};
  return { ...(budget.key ? { key: budget.key.id } : { team: [budget.team.id] }), ...(budget.model && !/[*?]/.test(budget.model) ? { model: budget.model } : {}), ...tag };
}
