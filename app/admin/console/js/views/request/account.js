/** What `explain` answers, told in one form: whether the request has a record or was refused. */

/**
 * @typedef {object} Try
 * @property {number} number counted from 1
 * @property {string} upstream
 * @property {string} model
 * @property {string} kind "charge", "estimate" or "void"
 * @property {?number} status what the upstream answered, where that is known
 * @property {?string} code
 * @property {?number} tookMs
 * @property {?string} costUsd null: it has no price
 * @property {?string} whyEstimate
 */

/**
 * @typedef {object} Account
 * @property {boolean} refused
 * @property {string} id
 * @property {?number} status
 * @property {?string} code
 * @property {?string} outcome
 * @property {string} cache
 * @property {?string} cacheReason
 * @property {?string} aboutCache
 * @property {?string} startedAt
 * @property {?number} firstByteMs
 * @property {?number} tookMs
 * @property {boolean} stream
 * @property {Try[]} tries
 * @property {?string} costUsd null: it has no price
 * @property {?string} lowerUsd
 * @property {?string} upperUsd
 * @property {?string} savedUsd
 * @property {boolean} estimated
 * @property {boolean} unpriced where it costs something all the same, that is what is known of it
 * @property {?number} reservedNano
 * @property {object} decision
 * @property {object} told the answer as it came
 */

/** @param {?string} from @param {?string} to ISO times @returns {?number} milliseconds between them */
export function betweenMs(from, to) {
  if (!from || !to) return null;
  return Date.parse(to) - Date.parse(from);
}

/** @param {object} told the answer of `explain/{id}` @returns {Account} */
export function accountOf(told) {
  const refused = told.kind === 'refusal';
  const decision = told.decision ?? {};
  const startedAt = told.started_at ?? told.at ?? null;
  const reserved = decision.reserved_nanousd;
  return {
    refused,
    id: told.request_id,
    status: told.status ?? null,
    code: told.error_code ?? told.code ?? null,
    outcome: refused ? 'refused' : told.outcome,
    cache: told.cache ?? 'bypass',
    cacheReason: typeof decision.cache === 'string' ? decision.cache : null,
    aboutCache: told.about_cache ?? null,
    startedAt,
    firstByteMs: betweenMs(startedAt, told.first_byte_at ?? null),
    tookMs: refused ? null : betweenMs(startedAt, told.ended_at ?? null),
    stream: told.stream === true || told.stream === 1,
    tries: (told.attempts ?? []).map(tryOf),
    costUsd: told.cost_usd ?? null,
    lowerUsd: told.cost_lower_usd ?? null,
    upperUsd: told.cost_upper_usd ?? null,
    savedUsd: told.saved_usd ?? null,
    estimated: told.estimated === true || told.estimated === 1,
    unpriced: told.unpriced === true,
    reservedNano: typeof reserved === 'number' ? reserved : null,
    decision,
    told,
  };
}

function tryOf(attempt, index) {
  return {
    number: index + 1,
    upstream: attempt.upstream,
    model: attempt.model,
    kind: attempt.kind,
    status: attempt.status ?? null,
    code: attempt.error_code ?? null,
    tookMs: attempt.took_ms ?? null,
    costUsd: attempt.cost_usd ?? null,
    whyEstimate: attempt.why_estimate ?? null,
  };
}
