/** Beside it: who and what, tokens, our cache, and where else to find it. */
import { h } from '../../dom.js';
import { count } from '../../format.js';
import { copy } from '../../status.js';

/**
 * @param {import('../../shell.js').Context} ctx @param {import('./account.js').Account} account @param {?object} record
 * @returns {HTMLElement}
 */
export function rail(ctx, account, record) {
  const { told } = account;
  const fact = (name, ...value) => [h('dt', name), h('dd', value)];
  const team = record ? record.team : { id: told.team_id, name: told.team ?? told.team_id };
  const key = record ? record.key : { id: told.key_id, name: told.key ?? told.key_id };
  const tags = Object.entries(record?.tags ?? {});
  const failed = account.tries.slice(0, -1).map((each) => each.upstream);
  const who = h('section.rail-part', h('h2', 'Who and what'), h('dl.facts',
    fact('Team', h('a', { href: ctx.state.href('teams', {}, team.id) }, team.name)),
    fact('Key', h('a', { href: ctx.state.href('keys', { open: key.id }) }, key.name)),
    record?.secret_id ? fact('Secret', h('code', `${record.secret_id}-…`)) : null,
    record?.end_user ? fact('End user', record.end_user) : null,
    tags.length ? fact('Tags', tags.map(([name, value]) => [h('span.chip', `${name}=${value}`), ' '])) : null,
    fact('Model asked', record?.model_requested ?? account.decision.model ?? '–'),
    record ? fact('Model served', record.model_served ?? record.model) : null,
    record ? fact('Upstream', account.tries.length || account.cache !== 'hit' ? [h('a', { href: ctx.state.href('upstreams', { open: record.upstream }) }, record.upstream), failed.length ? h('span.text-3', ` after ${failed.join(', ')}`) : null] : h('span.text-3', 'none was asked')) : null,
    record?.service_tier ? fact('Service tier', record.service_tier) : null));
  return h('aside.panel.rail', { 'aria-label': 'About this request' }, who, tokensPart(record), cachePart(account), elsewhere(account, record));
}

function tokensPart(record) {
  if (!record) return null;
  const fact = (name, value) => [h('dt', name), h('dd', count(value))];
  return h('section.rail-part', h('h2', 'Tokens'), h('dl.facts', fact('Input', record.input_tokens), record.cached_tokens ? fact('Read from the provider’s cache', record.cached_tokens) : null,
    record.cache_write_tokens ? fact('Written to it', record.cache_write_tokens) : null, fact('Output', record.output_tokens), record.reasoning_tokens ? fact('Reasoning', record.reasoning_tokens) : null));
}

const REASONS = {
  'hosted tool': 'A request with tools is never answered from the cache, because its tools may act.',
  uses_tools: 'A request with tools is never answered from the cache, because its tools may act.',
  store: 'The provider keeps this answer, so another call is not the same thing.',
  temperature: 'Only answers that are determined are kept: those with temperature 0.',
  off: 'The cache is off for this key, or the request said so.',
  background: 'It runs in the background.',
  audio: 'Answers with sound are not kept.',
  shadow: 'The cache only measures.',
  refresh: 'The request asked for a new answer.',
  'idempotency key': 'Its Idempotency-Key was used before: the same answer again.',
};

function cachePart(account) {
  if (account.refused) return null;
  const words = { hit: 'Answered from it; nothing was sent upstream.', miss: 'Looked up; it held no answer.', joined: 'Joined a call that was in flight.', bypass: 'Not used.' }[account.cache] ?? account.cache;
  const reason = REASONS[account.cacheReason] ?? (account.cacheReason && account.cacheReason !== account.cache ? `Reason: ${account.cacheReason.replaceAll('_', ' ')}.` : '');
  return h('section.rail-part', h('h2', 'Our cache'), h('p.text-2', [words, reason].filter(Boolean).join(' ')));
}

function elsewhere(account, record) {
  const raw = (name, value) => [h('dt', name), h('dd', h('button.link.mono', { type: 'button', title: `${value}: copy`, onclick: () => copy(value, `${name} copied`) }, shortId(value)))];
  const rows = [record?.response_id && raw('Response', record.response_id), raw('Request', account.id), account.tries.length ? raw('Sent upstream as', account.told.attempts.at(-1).attempt_id) : null].filter(Boolean);
  return h('section.rail-part', h('h2', 'Find it elsewhere'), h('dl.facts', rows));
}

/** The beginning and the end of a long id. @param {string} text */
export const shortId = (text) => (text.length > 22 ? `${text.slice(0, 13)}…${text.slice(-4)}` : text);
