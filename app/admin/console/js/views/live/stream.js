/** A stream of Server-Sent Events that comes back by itself; each connection begins with a snapshot. */

const EVENTS = ['snapshot', 'started', 'progress', 'finished', 'ended', 'dropped', 'count'];
const RETRY_MS = [1000, 2000, 5000, 10_000];
/** The gateway says something every 15 s at the latest; a connection that is silent for longer is dead. */
const SILENCE_MS = 45_000;

export class Stream {
  /**
   * @param {string} address
   * @param {{onEvent: (event: string, data: object) => void, onState: (isLive: boolean, since: number) => void}} handlers
   *   `onState`: whether it is live, and since when
   */
  constructor(address, { onEvent, onState }) {
    this.address = address;
    this.onEvent = onEvent;
    this.onState = onState;
    this.failures = 0;
    this.source = null;
    this.timer = null;
    this.lastMs = 0;
    this.isLive = null;
    this.#open();
    this.watch = setInterval(() => this.#look(), 5000);
  }

  close() {
    clearInterval(this.watch);
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  #open() {
    this.source = new EventSource(this.address);
    this.lastMs = Date.now();
    for (const name of EVENTS) this.source.addEventListener(name, (message) => this.#take(name, message));
    this.source.addEventListener('ping', () => { this.lastMs = Date.now(); });
    this.source.addEventListener('error', () => this.#lost());
  }

  #take(name, message) {
    this.lastMs = Date.now();
    let data;
    try {
      data = JSON.parse(message.data);
    } catch {
      return; // A line that broke off: the next snapshot sets it right.
    }
    if (name === 'snapshot') {
      this.failures = 0;
      this.#state(true);
    }
    this.onEvent(name, data);
  }

  #lost() {
    // The browser's own retry would go on with the old id; a new connection begins with a snapshot.
    this.source?.close();
    this.source = null;
    this.#state(false);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#open(), RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)]);
    this.failures += 1;
  }

  #look() {
    if (this.source && Date.now() - this.lastMs > SILENCE_MS) this.#lost();
  }

  #state(isLive) {
    if (isLive === this.isLive) return;
    this.isLive = isLive;
    this.onState(isLive, Date.now());
  }
}
