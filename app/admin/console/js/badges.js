/** The figures beside the names in the sidebar. */
const FIRST_MS = 1500;
const AGAIN_MS = 60_000;

/**
 * What a person must act on, beside the view where it is done.
 * @param {import('./shell.js').Shell} shell
 * @param {object} overview as the API gives it
 */
export function showBadges(shell, { month, service: health, attention }) {
  const down = health.upstreams.filter((one) => one.state === 'down').length;
  const ailing = health.upstreams.filter((one) => one.state === 'degraded' || one.state === 'down').length;
  shell.badge('upstreams', ailing ? { text: String(ailing), level: down ? 'bad' : 'warn', say: ailing === 1 ? 'upstream is not healthy' : 'upstreams are not healthy' } : null);
  shell.badge('prices', month.unpriced ? { text: String(month.unpriced), level: 'unpriced', say: 'requests without a price' } : null);
  const budget = attention.find((one) => one.href.startsWith('/console/budgets'));
  const used = /(\d+)%/.exec(budget?.title ?? '')?.[1];
  shell.badge('budgets', budget ? { text: used ? `${used}%` : '1', level: 'warn', say: 'of a budget is used' } : null);
  const running = health.upstreams.reduce((sum, one) => sum + (one.in_flight ?? 0), 0);
  shell.badge('live', running ? { text: String(running), say: 'in flight' } : null);
}

/**
 * Keep them up to date while another view than Overview is shown, which does it itself.
 * @param {import('./shell.js').Shell} shell
 * @param {() => boolean} isOver
 */
export function followBadges(shell, isOver) {
  async function read() {
    if (isOver()) return;
    if (document.visibilityState === 'visible' && shell.router.state.view !== 'overview') {
      try {
        showBadges(shell, await shell.api.get('overview', { tz: shell.router.state.tz, show: 'team' }, { quiet: true }));
      } catch {
        // A badge that is missing is no news: the view itself says what fails.
      }
    }
    setTimeout(read, AGAIN_MS);
  }
  setTimeout(read, FIRST_MS);
}
