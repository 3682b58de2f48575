/** Who is signed in, and the page where one signs in. */
import { ApiError } from './api.js';
import { h, put, uniqueId } from './dom.js';
import { icon } from './icons.js';

/**
 * @typedef {object} Session
 * @property {'token'|'key'|'sso'} kind
 * @property {'admin'|'viewer'|'lead'|'key'} role
 * @property {string} name
 * @property {{id: string, name: string}|null} team
 * @property {string} csrf
 * @property {string|null} expires_at
 * @property {string} version
 */

const ROLES = { admin: 'Administrator', viewer: 'Viewer', lead: 'Team lead', key: 'Model key' };

/** "Administrator", "Team lead of support". @param {Session} session */
export function roleOf(session) {
  const role = ROLES[session.role] ?? session.role;
  return session.role === 'lead' && session.team ? `${role} of ${session.team.name}` : role;
}

/**
 * The session of this browser, or null where nobody is signed in.
 * @param {import('./api.js').Api} api
 * @returns {Promise<Session|null>}
 */
export async function readSession(api) {
  try {
    return remember(api, await api.get('session', {}, { quiet: true }));
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      forget();
      return null;
    }
    throw error;
  }
}

function forget() {
  try {
    localStorage.removeItem('headgate.people');
  } catch {
    // It was never kept.
  }
}

function remember(api, session) {
  api.csrf = session.csrf;
  try {
    // Not who it is: whether the next visit may ask for Overview at once.
    localStorage.setItem('headgate.people', session.role === 'admin' || session.role === 'viewer' ? 'yes' : 'no');
  } catch {
    // Then it asks a moment later.
  }
  return session;
}

/** End the session. The page is loaded anew, so that nothing that was read stays in memory. @param {import('./api.js').Api} api */
export async function signOut(api) {
  await api.delete('session', { quiet: true }).catch((error) => {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
  });
  location.assign('/');
}

/**
 * The page with one field.
 * @param {HTMLElement} root
 * @param {import('./api.js').Api} api
 * @param {{onSession: (session: Session) => void, reason?: string}} options `reason`: a sentence on why one is here again
 */
export function showSignIn(root, api, { onSession, reason = '' }) {
  const id = uniqueId('credential');
  const fault = h('p.fault', { id: `${id}-fault`, role: 'alert' });
  const field = h('input.input.mono', {
    id, name: 'credential', type: 'password', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false',
    required: true, 'aria-describedby': `${id}-fault`, placeholder: 'hg-admin-… or sk-hg-…',
  });
  const button = h('button.button.is-primary', { type: 'submit' }, 'Sign in');
  const sso = h('div.alternative', { hidden: true },
    h('a.button', { href: '/admin/api/v1/sso/login', target: '_self', rel: 'external' }, 'Sign in with your company account'));

  async function submit(event) {
    event.preventDefault();
    const credential = field.value.trim();
    if (!credential) return complain('Paste an admin token or a key first.');
    button.setAttribute('aria-disabled', 'true');
    put(fault);
    field.removeAttribute('aria-invalid');
    try {
      const session = await api.post('session', { credential }, { quiet: true });
      field.value = '';
      onSession(remember(api, session));
    } catch (error) {
      complain(wordsFor(error));
    } finally {
      button.removeAttribute('aria-disabled');
    }
  }

  function complain(text) {
    put(fault, text);
    field.setAttribute('aria-invalid', 'true');
    field.focus();
    field.select();
  }

  put(root, h('main.signin', h('div.signin-card',
    h('div.brand', icon('logo'), 'Headgate'),
    h('form.panel', { onsubmit: submit, novalidate: true, method: 'post', action: '/' },
      h('h1', 'Sign in'),
      reason && h('p.text-2', reason),
      h('div.field', h('label', { for: id }, 'Admin token or key'), field, fault),
      button, sso),
    h('p.note', 'The first start leaves an admin token in first-run.json of the data directory. With a key one sees what that key has used and may use.'))));
  document.title = 'Sign in · Headgate';
  field.focus();
  offerSso(api, sso);
}

/** Where the company's provider is set up, one may also sign in there. */
async function offerSso(api, place) {
  try {
    place.hidden = !(await api.get('sso', {}, { quiet: true })).enabled;
  } catch {
    // Then the one field is left, which needs no provider.
    place.hidden = true;
  }
}

function wordsFor(error) {
  if (!(error instanceof ApiError)) return 'Something went wrong in this page. Reload it.';
  if (error.status === 401) return 'That token or key is not known here, or it was revoked. Check that all of it was copied.';
  if (error.status === 429) return 'Too many wrong tokens from your address. Wait a minute, then try again.';
  return `${error.message}${error.requestId ? ` (request ${error.requestId})` : ''}`;
}
