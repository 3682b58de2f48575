/** The figures beside the names in the sidebar. */
import { address } from './api.js';
import { short } from './format.js';
const FIRST_MS = 1500;
const AGAIN_MS = 60_000;
/** Long enough for the other workers to have told theirs. */
const LISTEN_MS = 1500;

/**
 * What a person must act on, beside the view where it is done: of all teams, whichever one a view is narrowed to.
 * @param {import('./shell.js').Shell} shell
 * @param {object} overview as the API gives it
 */
export function showBadges(shell, { month, service: health, attention }) {
  const down = health.upstreams.filter((one) => one.state === 'down').length;
  const ailing = health.upstreams.filter((one) => one.state === 'degraded' || one.state === 'down').length;
  shell.badge('upstreams', ailing ? { text: String(ailing), level: down ? 'bad' : 'warn', say: ailing === 1 ? 'upstream is not healthy' : 'upstreams are not healthy' } : null);
  shell.badge('prices', month.unpriced ? { text: String(month.unpriced), level: 'unpriced', say: 'requests of this month without a price' } : null);
  const budget = attention.find((one) => one.href.startsWith('/console/budgets'));
  const used = /(\d+)%/.exec(budget?.title ?? '')?.[1];
  shell.badge('budgets', budget ? { text: used ? `${used}%` : '1', level: 'warn', say: 'of a budget is used' } : null);
}

/** @param {import('./shell.js').Shell} shell */
export async function readBadges(shell) {
  try {
    showBadges(shell, await shell.api.get('overview', { tz: shell.router.state.tz, show: 'team' }, { quiet: true }));
  } catch {
    // A badge that is missing is no news: the view itself says what fails.
  }
}

/** How many run now: the live feed says so at once, and is left again. */
async function showRunning(shell) {
  const leave = new AbortController();
  const timer = setTimeout(() => leave.abort(), LISTEN_MS);
  let heard = '';
  try {
    const answer = await fetch(address('live'), { headers: { accept: 'text/event-stream' }, credentials: 'same-origin', cache: 'no-store', signal: leave.signal });
    if (answer.ok) for await (const text of chunks(answer.body)) heard += text;
  } catch {
    // Left, or not to be had: what was heard counts.
  } finally {
    clearTimeout(timer);
  }
  const count = [...heard.matchAll(/^event: count\r?\ndata: (.+)$/gm)].pop();
  if (shell.router.state.view === 'live' || !count) return;
  const running = JSON.parse(count[1]).in_flight;
  shell.badge('live', running ? { text: short(running), say: 'in flight' } : null);
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}

/**
 * Keep them up to date. Overview and Live do their own while they are shown.
 * @param {import('./shell.js').Shell} shell
 * @param {() => boolean} isOver
 */
export function followBadges(shell, isOver) {
  async function read() {
    if (isOver()) return;
    const { view } = shell.router.state;
    if (document.visibilityState === 'visible') {
      if (view !== 'live') await showRunning(shell);
      if (view !== 'overview') await readBadges(shell);
    }
    setTimeout(read, AGAIN_MS);
  }
  setTimeout(read, FIRST_MS);
}
