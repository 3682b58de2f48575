/** One plain sentence about a request: what became of it, why, and what it cost. */
import { ownOf } from '../../amounts.js';
import { duration, nano } from '../../format.js';
import { alignedUsd } from './bill.js';
import { limitWords, ownerWords } from './limits.js';

/** @typedef {{text: string, strong?: boolean}} Part a piece of a sentence */
/** @typedef {import('./account.js').Account} Account */

const BECAUSE = {
  400: 'found the request wrong',
  401: 'did not accept its key',
  403: 'did not accept its key',
  404: 'did not know the model',
  408: 'gave no answer in time',
  409: 'was in conflict with another call',
  413: 'found the request too large',
  422: 'could not use the request',
  429: 'was too busy',
  500: 'failed',
  502: 'could not be reached',
  503: 'was overloaded',
  504: 'gave no answer in time',
};

const FAILED = {
  upstream_timeout: 'gave no answer in time',
  upstream_unreachable: 'could not be reached',
  upstream_paused: 'was paused',
  upstream_auth_failed: 'did not accept the gateway’s own key',
  upstream_invalid_response: 'sent an answer that cannot be read',
  upstream_outcome_unknown: 'was lost after the call was sent',
  upstream_disconnected: 'broke off',
  upstream_stalled: 'sent nothing more',
};

const REFUSED = {
  rate_limit_exceeded: 'a rate limit was reached',
  insufficient_quota: 'a budget is spent, or the request is larger than its limit',
  unpriced_model: 'the model has no price, and a money budget binds',
  model_not_allowed: 'the key may not use this model',
  endpoint_not_allowed: 'the key may not use this endpoint',
  model_not_found: 'nobody serves this model',
  not_found: 'the id is unknown, or another team’s',
  previous_response_not_found: 'the response to go on from is unknown, or another team’s',
  upstream_paused: 'an administrator has paused the upstream',
  overloaded: 'the gateway had too much to do',
  draining: 'the gateway was shutting down',
  ledger_unavailable: 'the ledger was away, and nothing may pass that cannot be billed',
  limits_unavailable: 'the limits could not be checked',
  body_too_large: 'the body is too large',
  idempotency_key_in_use: 'a call with the same Idempotency-Key was still running',
  idempotency_key_reused: 'its Idempotency-Key was used for another request',
};

/** As the total of the bill writes it. @param {string} text decimal dollars */
const usdExact = (text) => alignedUsd([nano(text)])[0];

const ORDINALS = ['', 'first', 'second', 'third', 'fourth', 'fifth'];

/** @param {Account} account @returns {Part[]} */
export function sentenceOf(account) {
  if (account.refused) return refusal(account);
  return [...became(account), ...cost(account)];
}

/** @param {Part[]} parts @returns {string} */
export function plain(parts) {
  return parts.map((part) => part.text).join('');
}

/** @param {?number} status @param {?string} code @returns {string} what an upstream did, as a verb */
export function because(status, code) {
  return ownOf(FAILED, code) ?? BECAUSE[status] ?? (status >= 500 ? 'failed' : 'refused the request');
}

function became(account) {
  const took = account.tookMs === null ? null : strong(duration(account.tookMs));
  if (account.cache === 'hit') return [text('Answered from the cache'), ...(took ? [text(' in '), took] : []), text('. ')];
  if (account.cache === 'joined' && account.tries.length === 0) {
    return [text('Joined a call that was in flight, and had its answer'), ...(took ? [text(' after '), took] : []), text('. ')];
  }
  switch (account.outcome) {
    case 'completed':
      return [text('Completed'), ...after(' in ', took), text(`${onTry(account)}${story(account, 'answered')}. `)];
    case 'incomplete':
      return [text('Ended early'), ...after(', after ', took), text(`: ${last(account)} stopped before the answer was whole. `)];
    case 'disconnected':
      return [text('The client left'), ...after(' after ', took), text(account.firstByteMs === null
        ? ', before the answer had begun. ' : ', before the answer was whole. ')];
    case 'cancelled':
      return [text('Cancelled'), ...after(' after ', took), text(account.code === 'key_revoked' ? ': its key was revoked. ' : '. ')];
    case 'interrupted':
      return [text('Broken off'), ...after(' after ', took), text(interrupted(account))];
    default:
      return [text('Failed'), ...after(' after ', took), text(`: ${failure(account)}. `)];
  }
}

function interrupted(account) {
  if (account.code === 'gateway_shutdown') return ': the gateway was stopped while it ran. ';
  if (account.code === 'gateway_crashed' || account.code === 'gateway_lost') return ': the gateway was lost while it ran. ';
  return `: ${failure(account)}. `;
}

function onTry(account) {
  const count = account.tries.length;
  return count > 1 ? ` on the ${ORDINALS[count] ?? `${count}th`} try` : '';
}

function story(account, verb) {
  if (account.tries.length === 0) return '';
  const before = account.tries.slice(0, -1).map((each) => {
    const told = [each.status, each.kind === 'void' ? 'not billed' : null].filter(Boolean).join(', ');
    return `${each.upstream} ${because(each.status, each.code)}${told ? ` (${told})` : ''}, then `;
  });
  return `: ${before.join('')}${last(account)} ${verb}`;
}

function failure(account) {
  if (account.tries.length === 0) return account.code ?? 'nothing was sent';
  const before = account.tries.slice(0, -1).map((each) => `${each.upstream} ${because(each.status, each.code)}, then `);
  const status = account.status === null ? '' : ` (${account.status})`;
  return `${before.join('')}${last(account)} ${because(account.status, account.code)}${status}`;
}

function cost(account) {
  if (account.cache === 'hit' || (account.cache === 'joined' && account.tries.length === 0)) {
    const saved = account.savedUsd !== null && nonZero(account.savedUsd);
    return saved ? [text('It cost nothing and saved '), strong(usdExact(account.savedUsd)), text('.')] : [text('It cost nothing.')];
  }
  if (account.costUsd === null) return [text('It has '), strong('no price'), text(' yet, so it is in no total.')];
  if (!nonZero(account.costUsd)) return [text('It cost nothing.')];
  if (account.estimated) {
    const bounds = account.lowerUsd !== null && account.upperUsd !== null && account.lowerUsd !== account.upperUsd
      ? ` an estimate: between ${usdExact(account.lowerUsd)} and ${usdExact(account.upperUsd)}.` : ' an estimate.';
    return [text('It cost '), strong(`≈ ${usdExact(account.costUsd)}`), text(`,${bounds}`)];
  }
  return [text('It cost '), strong(usdExact(account.costUsd)), text('.')];
}

function refusal(account) {
  const told = account.decision;
  const parts = [text('Refused'), text(`: ${limitReason(told) ?? ownOf(REFUSED, account.code) ?? account.code}`)];
  if (typeof told.needed === 'number' && typeof told.maximum === 'number' && told.needed > told.maximum) {
    parts.push(text(', and the request alone is larger than that, so waiting does not help'));
  } else if (typeof told.retry_after_ms === 'number') {
    parts.push(text('; it could come again after '), strong(duration(told.retry_after_ms)));
  }
  return [...parts, text('. Nothing was sent and nothing was charged.')];
}

function limitReason(told) {
  if (typeof told.limit !== 'string') return null;
  const whose = typeof told.scope === 'string' ? `the ${ownerWords(told.scope)}’s` : 'the';
  if (told.limit === 'budget_held') return `${whose} budget is held by calls in flight`;
  if (told.limit.startsWith('budget')) return `${whose} budget is spent`;
  return `${whose} limit of ${limitWords(told.limit)} was reached`;
}

function last(account) {
  return account.tries.at(-1)?.upstream ?? 'the upstream';
}

function after(word, part) {
  return part ? [text(word), part] : [];
}

function nonZero(usd) {
  return /[1-9]/.test(usd);
}

function text(words) {
  return { text: words };
}

function strong(words) {
  return { text: words, strong: true };
}
