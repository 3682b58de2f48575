/** Do something again and again while a page is looked at. */

/**
 * @param {number} everyMs
 * @param {() => any} act
 * @param {AbortSignal} signal ends it
 */
export function repeat(everyMs, act, signal) {
  if (signal.aborted) return;
  const timer = setInterval(() => document.visibilityState === 'visible' && act(), everyMs);
  const seen = () => document.visibilityState === 'visible' && act();
  document.addEventListener('visibilitychange', seen);
  signal.addEventListener('abort', () => {
    clearInterval(timer);
    document.removeEventListener('visibilitychange', seen);
  }, { once: true });
}

/**
 * Call `act` once typing has paused.
 * @param {number} waitMs @param {(text: string) => void} act @returns {(text: string) => void}
 */
export function afterPause(waitMs, act) {
  let timer = null;
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(text), waitMs);
  };
}
