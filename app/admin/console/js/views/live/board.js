/** The board of what runs and what has ended: painted at most twice a second, standing still under pointer and focus. */
import { h, put } from '../../dom.js';
import { clock, count, duration, plural, short } from '../../format.js';
import { icon } from '../../icons.js';
import { empty, panel } from '../../panel.js';
import { announce } from '../../status.js';
import { table } from '../../table.js';
import { recordColumns } from '../requests/words.js';
import { Feed, slowAfterMs } from './feed.js';
import { Stream } from './stream.js';

const PAINT_MS = 500;
const TELL_MS = 10_000;
/** So long rows still stand when the pointer has left them: on its way to “14 new: show”. */
const LEAVE_MS = 600;
const SHOWN_MAX = 200;

export class LiveBoard {
  /**
   * @param {import('../../shell.js').Context} ctx
   * @param {{address: string, hasOwners: boolean, href: ?((row: object) => string), onCount?: (count: number) => void}} options
   *   `hasOwners`: team and key have columns; `href`: where a finished one leads
   */
  constructor(ctx, { address, hasOwners, href }) {
    this.ctx = ctx;
    this.hasOwners = hasOwners;
    this.href = href;
    this.feed = new Feed();
    this.isDirty = false;
    this.isPaused = false;
    this.pointed = false;
    this.lostSince = null;
    this.isConnected = false;
    this.closed = new AbortController();
    this.build();
    this.stream = new Stream(address, {
      onEvent: (event, data) => {
        this.feed.take(event, data);
        this.isDirty = true;
      },
      onState: (isLive, since) => this.connection(isLive, since),
    });
    this.painter = setInterval(() => this.tick(), PAINT_MS);
    this.teller = setInterval(() => this.tell(), TELL_MS);
    document.addEventListener('keydown', (event) => this.key(event), { signal: this.closed.signal });
  }

  close() {
    this.stream.close();
    clearInterval(this.painter);
    clearInterval(this.teller);
    clearTimeout(this.leaving);
    this.closed.abort();
  }

  build() {
    const { signal } = this.closed;
    this.pauseButton = h('button.button', { type: 'button', 'aria-pressed': 'false', onclick: () => this.pause(!this.isPaused) }, icon('pause'), 'Pause', h('kbd', 'Space'));
    this.notice = h('div.live-notice');
    this.controls = [this.notice, this.pauseButton];
    this.running = panel({ title: 'In flight', class: 'of-6', flush: true });
    this.ended = panel({ title: 'Just finished', class: 'of-6', flush: true });
    this.grid = h('div.columns.live-columns', this.running.element, this.ended.element);
    this.element = h('div.live', this.grid);
    this.grid.addEventListener('pointerenter', () => this.still(true), { signal });
    for (const place of [this.grid, this.notice]) {
      if (place === this.notice) place.addEventListener('pointerenter', () => this.feed.isHeld && this.still(true), { signal });
      place.addEventListener('pointerleave', () => this.still(false), { signal });
      place.addEventListener('focusin', () => this.settle(), { signal });
      place.addEventListener('focusout', () => setTimeout(() => this.settle()), { signal });
    }
    put(this.running.body, h('p.request-none', 'Connecting…'));
    put(this.ended.body, h('p.request-none', '\u00a0'));
  }

  still(isPointed) {
    clearTimeout(this.leaving);
    this.leaving = setTimeout(() => {
      this.pointed = isPointed;
      this.settle();
    }, isPointed ? 0 : LEAVE_MS);
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    this.pauseButton.setAttribute('aria-pressed', String(isPaused));
    put(this.pauseButton, icon(isPaused ? 'play' : 'pause'), isPaused ? 'Go on' : 'Pause', h('kbd', 'Space'));
    announce(isPaused ? 'Paused' : 'Live again');
    this.settle();
  }

  /** Rows stand still while a person points at them, is among them, or has paused. */
  settle() {
    const wanted = this.isPaused || this.pointed || this.grid.contains(document.activeElement) || (this.feed.isHeld && this.notice.contains(document.activeElement));
    if (wanted === this.feed.isHeld) return;
    if (wanted) this.feed.hold();
    else this.feed.release();
    this.paint();
  }

  key(event) {
    if (event.key !== ' ' || event.defaultPrevented || event.target.closest?.('input, textarea, select, button, summary, [role="menuitem"], [role="option"], dialog')) return;
    event.preventDefault();
    this.pause(!this.isPaused);
  }

  connection(isLive, since) {
    this.lostSince = isLive ? null : this.lostSince ?? since;
    if (!isLive && !this.isConnected) this.lostSince = since;
    this.isConnected = this.isConnected || isLive;
    this.grid.classList.toggle('is-lost', !isLive);
    announce(isLive ? 'Live' : 'Not live, reconnecting');
    // A stream cannot say that the session has ended; another call can, and leads to the sign-in page.
    if (!isLive) this.ctx.api.get('session', {}, { signal: this.ctx.signal }).catch(() => {});
    this.isDirty = true;
    this.drawNotice();
  }

  tick() {
    // Ages go on between events; a held board only says how much has come.
    if (document.visibilityState !== 'visible') return;
    if (this.feed.isHeld && !this.isDirty) return;
    this.paint();
  }

  tell() {
    if (this.lostSince !== null || !this.isConnected) return;
    announce(`${plural(this.feed.inFlight, 'request')} in flight`);
  }

  paint() {
    this.isDirty = false;
    this.drawNotice();
    if (!this.isConnected) return;
    const shown = this.feed.shown;
    if (!this.feed.isHeld || !this.runningTable) this.drawRunning(shown);
    const isNew = shown.finished[0] !== this.newest || !this.endedTable;
    if (isNew && (!this.feed.isHeld || !this.endedTable)) {
      this.newest = shown.finished[0];
      this.drawEnded(shown);
    }
    this.running.setTitle(`In flight: ${count(this.feed.inFlight)}`);
    this.ctx.shell.badge(this.hasOwners ? 'live' : 'my-live', this.feed.inFlight ? { text: String(this.feed.inFlight), say: 'in flight' } : null);
  }

  drawNotice() {
    const { tz } = this.ctx.state;
    const parts = [];
    if (this.lostSince !== null) parts.push(h('span.warn', '▲ ', this.isConnected ? `Not live since ${clock(this.lostSince, tz, { seconds: true })}, reconnecting` : 'Cannot reach the stream yet, trying again'));
    else if (this.feed.isHeld) {
      const arrived = this.feed.arrived;
      parts.push(h('span', this.isPaused ? 'Paused. ' : 'Standing still while you look. '), arrived ? h('button.link', { type: 'button', onclick: () => this.showNew() }, `${count(arrived)} new: show`) : h('span.text-3', 'Nothing new.'));
    }
    if (this.feed.isDegraded) parts.push(h('span.warn', '▲ Other processes cannot be heard: only one is shown'));
    if (this.feed.dropped) parts.push(h('span.text-3', `More came than is told here: ${count(this.feed.dropped)} have no row. Requests has them all.`));
    const text = parts.map((part) => part.textContent).join('|');
    if (text === this.noticeText) return;
    this.noticeText = text;
    const had = this.notice.contains(document.activeElement);
    put(this.notice, parts);
    if (had) this.notice.querySelector('button')?.focus();
  }

  showNew() {
    const isHeld = this.feed.isHeld;
    this.feed.release();
    this.runningTable = null;
    this.endedTable = null;
    this.paint();
    if (isHeld) this.feed.hold();
    this.drawNotice();
  }

  drawRunning({ flights }) {
    const now = Date.now();
    const { tz } = this.ctx.state;
    const slow = new Map();
    const isSlow = (row) => {
      if (!slow.has(row.model)) slow.set(row.model, slowAfterMs(this.feed.finished, row.model));
      const limit = slow.get(row.model);
      return limit !== null && now - Date.parse(row.started_at) > limit;
    };
    const name = (key, label, read, cls = '') => ({ key, label, class: `record-name ${cls}`, cell: (row) => h('span.cell-cut', { title: read(row) }, read(row) ?? '–') });
    const options = {
      caption: 'Requests in flight, oldest first', class: 'live-table', rows: flights.slice(0, SHOWN_MAX), id: (row) => row.request_id,
      empty: empty({ title: 'Nothing runs at this moment.', text: 'A request is seen here from the moment it is let in until its answer has ended.' }),
      columns: [
        { key: 'started', label: 'Started', class: 'num wide-only', cell: (row) => clock(row.started_at, tz, { seconds: true }) },
        this.hasOwners && name('team', 'Team', (row) => row.team.name, 'wide-only'),
        this.hasOwners && name('key', 'Key', (row) => row.key.name),
        name('model', 'Model', (row) => row.model),
        name('upstream', 'Upstream', (row) => row.upstream, 'wide-only'),
        { key: 'state', label: 'State', cell: (row) => h('span', { class: row.state === 'streaming' ? 'live-streaming' : 'text-3' }, row.state === 'streaming' ? 'streaming' : 'waiting') },
        { key: 'tokens', label: 'Tokens', end: true, cell: (row) => (row.output_tokens ? short(row.output_tokens) : h('span.text-3', '–')) },
        { key: 'age', label: 'Age', end: true, cell: (row) => (isSlow(row) ? h('span.warn.strong', { title: 'Longer than 99% of those that have ended' }, '▲ ', age(now, row)) : age(now, row)) },
      ].filter(Boolean),
    };
    this.runningTable = redraw(this.runningTable, this.running.body, options);
  }

  drawEnded({ finished }) {
    const { tz } = this.ctx.state;
    const names = this.hasOwners ? ['time', 'key', 'model', 'outcome', 'took', 'cost'] : ['time', 'model', 'outcome', 'tokens', 'took', 'cost'];
    const options = {
      caption: 'Requests that have just ended, newest first', class: 'live-table', rows: finished.slice(0, SHOWN_MAX), id: (row) => row.request_id, href: this.href ?? undefined,
      columns: recordColumns({ tz, names }), empty: empty({ title: 'Nothing has ended yet.', text: 'The last 200 that end stand here.' }),
    };
    this.endedTable = redraw(this.endedTable, this.ended.body, options);
  }
}

/** To a tenth of a second: what is painted twice a second has no hundredths. */
function age(now, row) {
  const ms = Math.max(0, now - Date.parse(row.started_at));
  return ms < 59_950 ? `${(ms / 1000).toFixed(1)} s` : duration(ms);
}

function redraw(known, body, options) {
  if (known) {
    known.update(options);
    return known;
  }
  const made = table(options);
  put(body, made.element);
  return made;
}
