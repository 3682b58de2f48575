// Before the first paint, so that a page never flashes in the other theme. Not a module: modules wait for the page.
(() => {
  try {
    const kept = localStorage.getItem('headgate.theme');
    if (kept === 'light' || kept === 'dark') document.documentElement.dataset.theme = kept;
  } catch {
    // Storage is closed to this page: the system's theme it is.
  }
})();
