// Before the modules are read, and not one itself: the theme, so that a page never flashes in the other one, and the
// first questions to the server, so that their answers are on the way while the modules are.
(() => {
  const kept = (name) => {
    try {
      return localStorage.getItem(`headgate.${name}`);
    } catch {
      return null; // Storage is closed to this page: the system's theme, and no question early.
    }
  };
  const theme = kept('theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;

  /** Answers on their way, by address; `api.js` takes each once. */
  const early = new Map();
  window.headgateEarly = early;
  const ask = (address) => {
    const answer = fetch(address, { headers: { accept: 'application/json' }, credentials: 'same-origin', cache: 'no-store', signal: AbortSignal.timeout(20_000) });
    answer.catch(() => {}); // It fails where it is taken.
    early.set(address, answer);
  };
  ask('/admin/api/v1/session');
  if (location.pathname !== '/' || kept('people') !== 'yes') return;
  const given = new URLSearchParams(location.search);
  const query = new URLSearchParams({ tz: given.get('tz') ?? kept('zone') ?? Intl.DateTimeFormat().resolvedOptions().timeZone });
  if (given.get('team')) query.set('team', given.get('team'));
  query.set('show', given.get('by') ?? 'team');
  ask(`/admin/api/v1/overview?${query.toString().replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%2F', '/')}`);
})();
