/** The sentence that asks, and the chips that narrow it. */
import { h, put } from '../../dom.js';
import { icon } from '../../icons.js';
import { menu, rangePicker, readTeams, zonePicker } from '../../menu.js';
import { rangeDays } from '../../range.js';
import { editFilter } from './filters.js';
import { DIMENSIONS, MEASURES, PERIODS, wordOf } from './question.js';
import { askTag } from '../../tag.js';

const HOURS_DAYS_MAX = 14;

/** "Show [Cost] by [Key] then [nothing] per [Day] from [..] in [zone]". @param {import('../../shell.js').Context} ctx */
export function sentence(ctx) {
  const { state } = ctx;
  const by = state.get('by');
  const then = state.get('then');
  const own = [by, then].filter((one) => one.startsWith('tag.'));
  const groups = [...DIMENSIONS.filter(([value]) => value !== 'team' || ctx.may('admin', 'viewer')).map(([value, label]) => ({ value, label })), ...own.map((value) => ({ value, label: wordOf(value) })), { value: 'tag', label: 'Tag…' }];
  const pick = (name) => async (value) => {
    const chosen = value === 'tag' ? await askTag() : value;
    if (!chosen && value !== '') return;
    const clash = name === 'by' && chosen === then ? { then: null } : {};
    ctx.set({ [name]: chosen, sort: null, ...clash });
  };
  const word = (text) => h('span.word', text);
  const [from, to] = rangeDays(state.range, state.tz);
  const days = (Date.parse(to) - Date.parse(from)) / 86_400_000 + 1;
  const periods = PERIODS.filter(([value]) => value !== 'hour' || days <= HOURS_DAYS_MAX || state.get('per') === 'hour');
  return h('div.sentence',
    word('Show'), menu({ label: 'Show', value: state.get('show'), items: MEASURES.map(({ name, label }) => ({ value: name, label })), onPick: (show) => ctx.set({ show, sort: null }) }),
    word('by'), menu({ label: 'By', value: by, items: groups, onPick: pick('by') }),
    word('then'), menu({ label: 'Then by', value: then, items: [{ value: '', label: 'nothing' }, ...groups.filter((one) => one.value !== by)], onPick: pick('then') }),
    word('per'), menu({ label: 'Per', value: state.get('per'), items: periods.map(([value, label]) => ({ value, label })), onPick: (per) => ctx.set({ per }) }),
    word('from'), rangePicker(ctx, { className: 'menu-button' }), word('in'), zonePicker(ctx));
}

/** "Only where team is platform, research or support". @param {import('../../shell.js').Context} ctx */
export function chips(ctx) {
  return h('div.chips', h('span.word', 'Only where'), ctx.state.filters.map(([name, values]) => {
    const text = h('span', sayFilter(name, values));
    nameMembers(ctx, name, values).then((names) => put(text, sayFilter(name, names))).catch(() => {});
    return h('span.chip', h('button.chip-edit', { type: 'button', onclick: () => editFilter(ctx, name, values) }, text),
      h('button', { type: 'button', 'aria-label': `Take away: ${sayFilter(name, values)}`, onclick: () => ctx.set({ [name]: null }) }, icon('close', { size: 11 })));
  }), h('button.button.is-small', { type: 'button', onclick: () => editFilter(ctx, '', []) }, icon('plus'), 'Add filter'));
}

function sayFilter(name, values) {
  const isNot = name.startsWith('not.');
  const said = values.map((value) => value || 'nothing');
  const list = said.length > 4 ? `${said.slice(0, 3).join(', ')} or ${said.length - 3} more` : said.length > 1 ? `${said.slice(0, -1).join(', ')} or ${said[said.length - 1]}` : said[0];
  return `${wordOf(name.replace('not.', '')).toLowerCase()} is ${isNot ? 'not ' : ''}${list}`;
}

const keyNames = new Map();
/** Names of ids; what cannot be named stays an id. */
async function nameMembers(ctx, filter, ids) {
  const dimension = filter.replace('not.', '');
  if (dimension === 'team') {
    if (!ctx.may('admin', 'viewer')) return ids.map((id) => (id === ctx.session.team?.id ? ctx.session.team.name : id));
    const teams = await readTeams(ctx.api);
    return ids.map((id) => teams.find((team) => team.id === id)?.name ?? id);
  }
  if (dimension !== 'key') return ids;
  return Promise.all(ids.map(async (id) => {
    if (!keyNames.has(id)) {
      try {
        keyNames.set(id, (await ctx.api.get(`keys/${encodeURIComponent(id)}`, {}, { signal: ctx.signal })).name);
      } catch {
        return id;
      }
    }
    return keyNames.get(id);
  }));
}
