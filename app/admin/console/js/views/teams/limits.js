/** What a team may do, and spend: its plain limits, and the endpoints of its keys. */
import { h } from '../../dom.js';
import { commaList, dollarAmount, field, folded, formDialog, wholeNumber } from '../../form.js';
import { toast } from '../../status.js';
import { NO_ISOLATION, budgetOf } from '../keys/words.js';

const WINDOWS = [{ value: 'month', label: 'a month' }, { value: 'week', label: 'a week' }, { value: 'day', label: 'a day' }, { value: 'total', label: 'in total' }];

/** @param {import('../../shell.js').Context} ctx @param {object} team @param {() => void} done */
export function changeTeamLimits(ctx, team, done) {
  const plain = (kind, window) => team.limits.find((each) => each.kind === kind && each.window === window && !each.model && !each.tag_name)?.maximum ?? null;
  const budget = budgetOf(team.limits);
  const rates = [
    field({ name: 'requests_per_minute', label: 'Requests a minute', value: plain('requests', 'minute'), placeholder: 'no limit', read: wholeNumber, attributes: { autofocus: true } }),
    field({ name: 'tokens_per_minute', label: 'Tokens a minute', value: plain('tokens', 'minute'), placeholder: 'no limit', read: wholeNumber }),
    field({ name: 'concurrency', label: 'At once', value: plain('concurrency', ''), placeholder: 'no limit', read: wholeNumber }),
  ];
  const money = [
    field({ name: 'budget_usd', label: 'Budget in dollars', value: budget?.maximum_usd, placeholder: 'no budget', read: dollarAmount }),
    field({ name: 'budget_window', label: 'For', value: budget?.window ?? 'month', options: WINDOWS }),
  ];
  const endpoints = field({ name: 'endpoints', label: 'Endpoints', value: team.endpoints?.join(', '), placeholder: 'those that are on by default', hint: `Families, with commas: responses, files. ${NO_ISOLATION}`, read: commaList });
  const plainly = [...rates, endpoints];
  const all = [...plainly, ...money];
  const before = new Map(all.map((each) => [each.name, each.input.value]));
  formDialog({
    title: `Limits of ${team.name}`, fields: all, verb: 'Change limits',
    text: h('p.text-2', 'All its keys share them. An empty field takes a limit away. Narrower ones, for a model or a tag, are made in Budgets.'),
    layout: [h('div.fields.is-3', rates.map((each) => each.element)), h('div.fields.is-2', money.map((each) => each.element)), folded('Endpoints', 'what keys without their own may use', endpoints.element)],
    send: (values) => {
      const touched = (name) => all.find((each) => each.name === name).input.value !== before.get(name);
      const body = Object.fromEntries(plainly.filter((each) => touched(each.name)).map((each) => [each.name, values[each.name]]));
      if (touched('budget_usd') || touched('budget_window')) {
        const zone = budget?.time_zone ?? ctx.state.tz;
        if (values.budget_usd !== null) Object.assign(body, { budget_usd: values.budget_usd, budget_window: values.budget_window, time_zone: zone });
        else if (budget) Object.assign(body, { budget_usd: null, budget_window: budget.window, time_zone: zone });
      }
      return Object.keys(body).length ? ctx.api.patch(`teams/${encodeURIComponent(team.id)}`, body) : team;
    },
    done: () => {
      toast(`The limits of ${team.name} hold from now on.`);
      done();
    },
  });
}
