/** Make a budget, raise one, take one away. */
import { confirm } from '../../dialog.js';
import { h } from '../../dom.js';
import { usdLimit } from '../../format.js';
import { commaList, dollarAmount, field, formDialog, wholeNumber } from '../../form.js';
import { readTeams } from '../../menu.js';
import { readAll } from '../../pages.js';
import { toast } from '../../status.js';
import { budgetName, windowWords } from './words.js';

const WINDOWS = ['month', 'week', 'day', 'total'].map((value) => ({ value, label: windowWords(value) }));

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {{done: () => void}} options
 */
export async function makeBudget(ctx, { done }) {
  let teams;
  try {
    teams = await readTeams(ctx.api);
  } catch (error) {
    toast(`The teams cannot be read: ${error.message}`);
    return;
  }
  if (teams.length === 0) {
    toast('There is no team yet. Make a team first: a budget belongs to one.');
    ctx.navigate(ctx.state.href('teams'));
    return;
  }
  const team = field({ name: 'team_id', label: 'Team', required: true, value: teams.length === 1 ? teams[0].id : '', attributes: { autofocus: true },
    options: [...(teams.length > 1 ? [{ value: '', label: 'Choose a team' }] : []), ...teams.map((each) => ({ value: each.id, label: each.name }))] });
  const key = field({ name: 'key_id', label: 'Key', options: [{ value: '', label: 'all its keys' }] });
  const model = field({ name: 'model', label: 'Only for a model', placeholder: 'every model', hint: 'A name or a pattern, such as gpt-5*' });
  const tag = field({ name: 'tag_name', label: 'Only for a tag', placeholder: 'service', hint: 'Without a value each one counts on its own' });
  const value = field({ name: 'tag_value', label: 'Its value', placeholder: 'each value' });
  const amount = field({ name: 'maximum_usd', label: 'Dollars', required: true, placeholder: '2000', attributes: { inputmode: 'decimal' }, read: dollarAmount });
  const window = field({ name: 'window', label: 'For', value: 'month', options: WINDOWS });
  const warn = field({ name: 'warn_percents', label: 'Tell people at', value: '50, 80, 95', hint: 'Percent of it; with commas', read: (text) => commaList(text).map((each) => wholeNumber(each.replace('%', ''))) });
  team.input.addEventListener('change', () => fillKeys(ctx, key, team.input.value));
  if (teams.length === 1) fillKeys(ctx, key, teams[0].id);
  const pair = (...fields) => h('div.fields.is-2', fields.map((each) => each.element));
  formDialog({
    title: 'Make a budget', fields: [team, key, amount, window, model, tag, value, warn], verb: 'Make budget',
    layout: [pair(team, key), pair(amount, window), model.element, pair(tag, value), warn.element,
      h('p.note', `Windows of days, weeks and months begin at midnight in ${ctx.state.tz}. Calls that would go beyond it are refused.`)],
    send: (values) => ctx.api.post('budgets', Object.fromEntries(Object.entries({ ...values, time_zone: ctx.state.tz }).filter(([, each]) => each !== null))),
    done: (made) => {
      toast(`Budget of ${usdLimit(made.maximum_usd)} ${windowWords(made.window)} for ${budgetName(made)}.`);
      done();
    },
  });
}

async function fillKeys(ctx, key, teamId) {
  key.input.replaceChildren(h('option', { value: '' }, 'all its keys'));
  if (!teamId) return;
  try {
    const { rows } = await readAll(ctx.api, 'keys', { team: teamId, state: 'active' }, { signal: ctx.signal });
    key.input.append(...rows.map((each) => h('option', { value: each.id }, each.name)));
  } catch (error) {
    key.complain(`The keys cannot be read: ${error.message}`);
  }
}

/** @param {import('../../shell.js').Context} ctx @param {object} budget @param {() => void} done */
export function raiseBudget(ctx, budget, done) {
  const amount = field({ name: 'maximum_usd', label: `Dollars ${windowWords(budget.window)}`, required: true, value: budget.maximum_usd, read: dollarAmount, attributes: { autofocus: true, inputmode: 'decimal' } });
  const warn = field({ name: 'warn_percents', label: 'Tell people at', value: (budget.warn_percents ?? []).join(', '), hint: 'Percent of it; with commas', read: (text) => commaList(text).map((each) => wholeNumber(each.replace('%', ''))) });
  formDialog({
    title: `Change the budget of ${budgetName(budget)}`, fields: [amount, warn], verb: 'Change budget',
    text: h('p.text-2', 'It holds at once, on every gateway. What was spent in the window still counts.'),
    send: (values) => ctx.api.patch(`budgets/${encodeURIComponent(budget.id)}`, { maximum_usd: values.maximum_usd, ...(warn.input.value === (budget.warn_percents ?? []).join(', ') ? {} : { warn_percents: values.warn_percents ?? [] }) }),
    done: (now) => {
      toast(`The budget is ${usdLimit(now.maximum_usd)} ${windowWords(budget.window)} now.`);
      done();
    },
  });
}

/** @param {import('../../shell.js').Context} ctx @param {object} budget @param {() => void} done */
export async function takeBudgetAway(ctx, budget, done) {
  const sure = await confirm({
    title: `Take away the budget of ${budgetName(budget)}?`, verb: 'Take it away', danger: true,
    text: h('p', `Nothing then stops ${budgetName(budget)} at ${usdLimit(budget.maximum_usd)} ${windowWords(budget.window)}. What was spent stays in every total.`),
  });
  if (!sure) return;
  try {
    await ctx.api.delete(`budgets/${encodeURIComponent(budget.id)}`);
    toast('The budget was taken away.');
    ctx.set({ open: null });
    done();
  } catch (error) {
    toast(`That did not work: ${error.message}`);
  }
}
