/** Make a key: name and team, the rest folded; then its secret, once. */
import { h } from '../../dom.js';
import { commaList, dollarAmount, endOfDay, field, folded, formDialog, tagPairs, wholeNumber } from '../../form.js';
import { readTeams } from '../../menu.js';
import { toast } from '../../status.js';
import { reveal } from './reveal.js';
import { NO_ISOLATION } from './words.js';

const WINDOWS = [{ value: 'month', label: 'a month' }, { value: 'week', label: 'a week' }, { value: 'day', label: 'a day' }, { value: 'total', label: 'in total' }];

/**
 * The fields that a key and a change of it share.
 * @param {{tz: string, values?: object}} of `values`: what they hold at first
 */
export function keyFields({ tz, values = {} }) {
  const limits = [
    field({ name: 'requests_per_minute', label: 'Requests a minute', value: values.requests_per_minute, placeholder: 'no limit', attributes: { inputmode: 'numeric' }, read: wholeNumber }),
    field({ name: 'tokens_per_minute', label: 'Tokens a minute', value: values.tokens_per_minute, placeholder: 'no limit', read: wholeNumber }),
    field({ name: 'concurrency', label: 'At once', value: values.concurrency, placeholder: 'no limit', attributes: { inputmode: 'numeric' }, read: wholeNumber }),
  ];
  const models = field({ name: 'models', label: 'Models', value: values.models, placeholder: 'every model', hint: 'Names or patterns, with commas: gpt-5*, o4-mini', read: commaList });
  const endpoints = field({ name: 'endpoints', label: 'Endpoints', value: values.endpoints, placeholder: 'those of the team', hint: `Families, with commas: responses, files. ${NO_ISOLATION}`, read: commaList });
  const budget = [
    field({ name: 'budget_usd', label: 'Budget in dollars', value: values.budget_usd, placeholder: 'no own budget', attributes: { inputmode: 'decimal' }, read: dollarAmount }),
    field({ name: 'budget_window', label: 'For', value: values.budget_window ?? 'month', options: WINDOWS }),
  ];
  const owner = field({ name: 'owner', label: 'Owner', value: values.owner, placeholder: 'who to ask about it' });
  const tags = field({ name: 'tags', label: 'Tags', value: values.tags, placeholder: 'service=chat, env=prod', hint: 'Label every request of this key', read: tagPairs });
  const expires = field({ name: 'expires_at', label: 'Stops after', type: 'date', value: values.expires_at, hint: `The end of that day, ${tz}`, read: (text) => endOfDay(text, tz) });
  return {
    all: [owner, ...limits, models, endpoints, ...budget, expires, tags],
    layout: () => [
      folded('Limits', 'requests, tokens, at once', h('div.fields.is-3', limits.map((each) => each.element))),
      folded('Models and endpoints', 'what it may use', models.element, endpoints.element),
      folded('Budget', 'money it may spend', h('div.fields.is-2', budget.map((each) => each.element))),
      folded('Expiry, owner and tags', '', h('div.fields.is-2', expires.element, owner.element), tags.element),
    ],
  };
}

/** What is sent: a budget's window only with a budget. @param {object} values */
export function bodyOf(values, tz) {
  const { budget_window: window, ...body } = values;
  if (body.budget_usd !== null && body.budget_usd !== undefined) return { ...body, budget_window: window, time_zone: tz };
  return body;
}

/** @param {object} values @returns {object} without what was not given */
const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));

/**
 * @param {import('../../shell.js').Context} ctx
 * @param {{onMade: (key: object) => void, teamId?: ?string}} options
 */
export async function makeKey(ctx, { onMade, teamId = null }) {
  const { tz } = ctx.state;
  let teams;
  try {
    teams = ctx.session.team ? [ctx.session.team] : await readTeams(ctx.api);
  } catch (error) {
    toast(`The teams cannot be read: ${error.message}`);
    return;
  }
  if (teams.length === 0) {
    toast('There is no team yet. Make a team first: a key belongs to one.');
    ctx.navigate(ctx.state.href('teams'));
    return;
  }
  const name = field({ name: 'name', label: 'Name', required: true, placeholder: 'support-bot', hint: 'What it is for. No other key of the team has it.', attributes: { autofocus: true, maxlength: 200 } });
  const team = field({ name: 'team_id', label: 'Team', required: true, value: teamId ?? (teams.length === 1 ? teams[0].id : ''),
    options: [...(teams.length > 1 ? [{ value: '', label: 'Choose a team' }] : []), ...teams.map((each) => ({ value: each.id, label: each.name }))] });
  const more = keyFields({ tz });
  formDialog({
    title: 'Make a key', fields: [name, team, ...more.all], layout: [name.element, team.element, more.layout()], verb: 'Make key',
    send: (values) => ctx.api.post('keys', given(bodyOf(values, tz))),
    done: (key) => {
      const { id } = key;
      reveal(ctx, key, { title: `The key ${key.name}` });
      onMade({ id });
    },
  });
}
