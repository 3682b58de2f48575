// Before the modules are read, and not one itself: the theme, so that a page never flashes in the other one, and the
// first questions to the server, so that their answers are on the way while the modules are.
(() => {
  const here = document.currentScript;
  const kept = (name) => {
    try {
      return localStorage.getItem(`headgate.${name}`);
    } catch {
      return null; // Storage is closed to this page: the system's theme, and no question early.
    }
  };

  /** Answers on their way, by address; `api.js` takes each once. */
  const early = new Map();
  window.headgateEarly = early;
  const ask = (address) => {
    const answer = fetch(address, { headers: { accept: 'application/json' }, credentials: 'same-origin', cache: 'no-store', signal: AbortSignal.timeout(20_000) });
    answer.catch(() => {}); // It fails where it is taken.
    early.set(address, answer);
  };
  const askOverview = () => {
    const given = new URLSearchParams(location.search);
    // The zone of the last visit first: the browser's own takes longer to find out than all the rest of this.
    const zone = given.get('tz') ?? kept('zone') ?? kept('own-zone') ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
    const query = new URLSearchParams({ tz: zone });
    if (given.get('team')) query.set('team', given.get('team'));
    query.set('show', given.get('by') ?? 'team');
    ask(`/admin/api/v1/overview?${query.toString().replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%2F', '/')}`);
  };

  ask('/admin/api/v1/session');
  // The first look into storage waits for another process: the session is asked for before.
  if (location.pathname === '/' && kept('people') === 'yes') askOverview();
  const theme = kept('theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  for (const name of here.dataset.modules.split(' ')) {
    const link = document.createElement('link');
    link.rel = 'modulepreload';
    link.href = new URL(`../${name}`, here.src).href;
    document.head.append(link);
  }
  // The first question for a zone takes longer than a hundred after it: now, while all else is on its way.
  try {
    localStorage.setItem('headgate.own-zone', Intl.DateTimeFormat().resolvedOptions().timeZone);
  } catch {
    // Then the next visit finds it out again.
  }
})();
