/** What happened in a request, step by step, and where each step lies on a line of time. */
import { because } from './sentence.js';

/**
 * @typedef {object} Step
 * @property {string} name
 * @property {number} fromMs since the request came
 * @property {?number} tookMs null where nobody measured it
 * @property {'ours'|'failed'|'upstream'} kind
 * @property {{text: string, bad?: boolean}[]} said
 */

/** @typedef {{x: number, width: number}} Bar in pixels */

export const BAR_MIN = 2;
const PHRASES = { 400: 'wrong request', 401: 'key not accepted', 403: 'key not accepted', 404: 'no such model', 408: 'no answer in time', 413: 'too large', 429: 'too many requests', 500: 'server error', 502: 'bad gateway', 503: 'overloaded', 504: 'no answer in time' };
const TICKS = [1, 2, 2.5, 5, 10];

/**
 * @param {import('./account.js').Account} account
 * @param {{limits: number, refusedBy: ?string, reserved: ?string, tokens: ?number, released: ?string}} told in words and
 *   figures, for the column "Said"
 * @returns {Step[]}
 */
export function stepsOf(account, told) {
  const steps = [admission(account, told)];
  if (account.refused) return steps;
  steps.push(cacheStep(account));
  return [...steps, ...upstreamSteps(account, told), recorded(account, told)];
}

function admission(account, told) {
  const count = told.limits === 1 ? '1 limit checked' : `${told.limits} limits checked`;
  const allowed = told.limits === 0 ? 'no limit applies' : `${count}, ${told.limits === 1 ? 'it allows' : 'all allow'}`;
  const reserved = told.reserved ? `; ${told.reserved} reserved` : '';
  if (account.refused) {
    const said = [account.status, account.code].filter(Boolean).join(' ');
    return { name: 'Key and limits', fromMs: 0, tookMs: null, kind: 'failed', said: [{ text: said, bad: true }] };
  }
  return { name: 'Key and limits', fromMs: 0, tookMs: null, kind: 'ours', said: [{ text: `${allowed}${reserved}` }] };
}

function cacheStep(account) {
  const words = { hit: 'answered from it', miss: 'held no answer to it', joined: 'joined a call in flight', bypass: 'passed by' };
  const reason = account.cacheReason && account.cacheReason !== account.cache ? `: ${account.cacheReason.replaceAll('_', ' ')}` : '';
  const fromCache = account.cache === 'hit' && account.tries.length === 0;
  return { name: 'Cache', fromMs: 0, tookMs: fromCache ? account.firstByteMs : null, kind: 'ours', said: [{ text: `${words[account.cache] ?? account.cache}${reason}` }] };
}

function upstreamSteps(account, told) {
  const end = account.tookMs ?? 0;
  const first = account.firstByteMs;
  if (account.tries.length === 0) return first === null ? [] : [sending(account, first, end, told)].filter((step) => step.tookMs > 0);
  const steps = [];
  let at = 0;
  for (const [index, each] of account.tries.entries()) {
    const isLast = index === account.tries.length - 1;
    const until = isLast ? (first ?? end) : each.tookMs === null ? null : at + each.tookMs;
    const tookMs = until === null ? null : Math.max(0, until - at);
    steps.push({ name: `${account.tries.length > 1 ? `Try ${each.number}: ` : 'Asked '}${each.upstream}`, fromMs: at, tookMs, ...attemptSaid(account, each, isLast) });
    if (until !== null) at = until;
  }
  if (first !== null && end > first) steps.push(sending(account, first, end, told));
  return steps;
}

function attemptSaid(account, each, isLast) {
  if (isLast && account.firstByteMs !== null && !(account.status >= 400)) return { kind: 'upstream', said: [{ text: 'first byte' }] };
  const status = each.status ?? (isLast ? account.status : null);
  const code = each.code ?? (isLast ? account.code : null);
  if (isLast && account.outcome !== 'failed' && !(account.status >= 400)) return { kind: 'upstream', said: [{ text: 'no first byte' }] };
  return {
    kind: 'failed',
    said: [{ text: status ? `${status} ${PHRASES[status] ?? because(status, code)}` : because(status, code), bad: true }, ...(each.kind === 'void' ? [{ text: ', not billed' }] : [])],
  };
}

function sending(account, first, end, told) {
  const tookMs = end - first;
  const rate = told.tokens && tookMs >= 50 ? `, ${Math.round(told.tokens / (tookMs / 1000)).toLocaleString('en-US')} a second` : '';
  const tokens = told.tokens === null ? '' : `${told.tokens.toLocaleString('en-US')} tokens${rate}`;
  const broken = account.outcome === 'disconnected' || account.outcome === 'interrupted' || account.outcome === 'cancelled';
  const own = account.tries.length === 0;
  return {
    name: account.stream ? 'Streaming to the client' : 'Answer to the client',
    fromMs: first, tookMs, kind: own ? 'ours' : 'upstream',
    said: [{ text: [tokens, broken ? 'broken off' : ''].filter(Boolean).join('; ') }],
  };
}

function recorded(account, told) {
  const text = account.costUsd === null ? 'recorded, without a price' : `cost settled${told.released ? `, ${told.released} released` : ''}`;
  return { name: 'Recorded', fromMs: account.tookMs ?? 0, tookMs: null, kind: 'ours', said: [{ text }] };
}

/**
 * @param {Step} step @param {number} wholeMs @param {number} width pixels for the whole time
 * @returns {Bar} never narrower than BAR_MIN, never beyond the end
 */
export function barOf(step, wholeMs, width) {
  const scale = wholeMs > 0 ? width / wholeMs : 0;
  const size = Math.min(width, Math.max(BAR_MIN, (step.tookMs ?? 0) * scale));
  return { x: Math.max(0, Math.min(step.fromMs * scale, width - size)), width: size };
}

/** @param {number} wholeMs @param {number} [most] @returns {number[]} round moments from 0, in milliseconds, `most` at most */
export function ticksOf(wholeMs, most = 5) {
  if (!(wholeMs > 0)) return [0];
  const least = wholeMs / most;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = TICKS.map((each) => each * power).find((each) => each >= least) ?? 10 * power;
  return Array.from({ length: Math.floor(wholeMs / step + 1e-9) + 1 }, (_, index) => index * step).filter((tick) => tick < wholeMs * 0.97 || tick === 0);
}
