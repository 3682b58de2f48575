/** The admin API, and `/me` for a plain key. */

const ROOT = '/admin/api/v1/';
const TIMEOUT_MS = 20_000;

/** What went wrong with a call, in words a person can act on. */
export class ApiError extends Error {
  /** @param {{message: string, code: string, status: number, requestId?: string|null, param?: string|null}} of */
  constructor({ message, code, status, requestId = null, param = null }) {
    super(message);
    this.name = 'ApiError';
    this.code = code;
    this.status = status;
    this.requestId = requestId;
    this.param = param;
  }

  /** Whether the caller may not, rather than cannot. */
  get isForbidden() { return this.status === 403; }
}

/**
 * The address of a resource: below the admin API, or from the root where `path` begins with a slash.
 * @param {string} path
 * @param {Record<string, any> | URLSearchParams} [query] null, undefined and '' are left out; an array is joined by commas
 */
export function address(path, query = {}) {
  const search = query instanceof URLSearchParams ? query : new URLSearchParams();
  if (!(query instanceof URLSearchParams)) {
    for (const [name, value] of Object.entries(query)) {
      const text = Array.isArray(value) ? value.join(',') : value;
      if (text !== null && text !== undefined && text !== '' && text !== false) search.set(name, String(text));
    }
  }
  const tail = search.size ? `?${readable(search)}` : '';
  return `${path.startsWith('/') ? path : ROOT + path}${tail}`;
}

/** Commas, colons and slashes need no escape in a query: addresses stay readable. */
export const readable = (search) => search.toString().replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%2F', '/');

export class Api {
  constructor() {
    /** @type {string|null} */
    this.csrf = null;
    /** Called once where the session has ended. */
    this.onSignedOut = () => {};
  }

  get(path, query, options) { return this.call('GET', path, { query, ...options }); }

  post(path, body = {}, options) { return this.call('POST', path, { body, ...options }); }

  patch(path, body, options) { return this.call('PATCH', path, { body, ...options }); }

  delete(path, options) { return this.call('DELETE', path, options); }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{query?: object, body?: any, signal?: AbortSignal, timeoutMs?: number, quiet?: boolean}} [options]
   *   `quiet`: a 401 is an answer like any other, and does not lead to the sign-in page
   * @returns {Promise<any>} the body; null where there is none
   * @throws {ApiError} and AbortError where `signal` was aborted
   */
  async call(method, path, { query, body, signal, timeoutMs = TIMEOUT_MS, quiet = false } = {}) {
    const timeout = AbortSignal.timeout(timeoutMs);
    const headers = { accept: 'application/json' };
    if (method !== 'GET' && this.csrf) headers['x-headgate-csrf'] = this.csrf;
    if (body !== undefined) headers['content-type'] = 'application/json';
    let answer;
    try {
      answer = (method === 'GET' && (await takeEarly(address(path, query)))) || await fetch(address(path, query), {
        method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: 'same-origin',
        cache: 'no-store', signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      if (timeout.aborted) throw new ApiError({ message: `Headgate did not answer within ${timeoutMs / 1000} seconds.`, code: 'timeout', status: 0 });
      throw new ApiError({ message: 'Headgate cannot be reached. Check your network, or whether it runs.', code: 'unreachable', status: 0 });
    }
    if (answer.ok) return answer.status === 204 ? null : readJson(answer, signal);
    const error = await faultOf(answer);
    if (answer.status === 401 && !quiet) this.onSignedOut();
    throw error;
  }
}

/** The answer to a question that was asked before the modules were here; once, and only where there is one. */
async function takeEarly(at) {
  const early = window.headgateEarly?.get(at);
  window.headgateEarly?.delete(at);
  try {
    return await early;
  } catch {
    return null;
  }
}

async function readJson(answer, signal) {
  try {
    const text = await answer.text();
    return text ? JSON.parse(text) : null;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError({ message: 'The answer of Headgate broke off or is no JSON.', code: 'bad_answer', status: answer.status });
  }
}

async function faultOf(answer) {
  const requestId = answer.headers.get('x-headgate-request-id');
  let body = null;
  try {
    body = (await answer.json()).error;
  } catch {
    // Not ours: a proxy between may answer in its own words.
  }
  return new ApiError({
    message: body?.message ?? `The answer was ${answer.status}.`, code: body?.code ?? body?.type ?? `http_${answer.status}`,
    status: answer.status, requestId, param: body?.param ?? null,
  });
}
