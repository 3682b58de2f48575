/** My live requests: what runs with this key, and what has just ended. */
import { h, put } from '../dom.js';
import { address } from '../api.js';
import { head } from '../panel.js';
import { LiveBoard } from './live/board.js';

async function render(root, ctx) {
  const board = new LiveBoard(ctx, { address: address('/me/live'), hasOwners: false, href: (row) => ctx.state.href('my-requests', { open: row.request_id, range: 'last_24_hours' }) });
  put(root, head('My live requests', board.controls), h('div.live-place', board.element));
  return { refresh: () => {}, leave: () => board.close() };
}

export default { name: 'my-live', title: 'My live requests', roles: ['key'], render };
