/** Live: what runs now, and what has just ended. */
import { h, put } from '../dom.js';
import { address } from '../api.js';
import { teamFilter } from '../menu.js';
import { head } from '../panel.js';
import { LiveBoard } from './live/board.js';

async function render(root, ctx) {
  // A lead sees its own team; another's, in an address that it was given, would not be let through.
  if (ctx.session.role === 'lead' && ctx.state.get('team')) return ctx.set({ team: null });
  const place = h('div.live-place');
  let board = null;
  let asked = null;

  function open() {
    asked = ctx.state.get('team');
    board?.close();
    board = new LiveBoard(ctx, { address: address('live', { team: asked }), hasOwners: true, href: (row) => ctx.state.href('request', {}, row.request_id) });
    put(place, board.element);
    const [notice, pause] = board.controls;
    put(buttons, notice, teamFilter(ctx), pause);
  }

  const buttons = h('div', { style: { display: 'contents' } });
  put(root, head('Live', buttons), place);
  open();
  return {
    refresh: () => {
      if (ctx.state.get('team') !== asked) open();
    },
    leave: () => board.close(),
  };
}

export default { name: 'live', title: 'Live', roles: ['admin', 'viewer', 'lead'], render };
