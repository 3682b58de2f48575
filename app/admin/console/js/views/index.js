/** Every view: its name in addresses, its title, who may see it, where it stands in the sidebar. Each is loaded when it is first shown. */

/**
 * @typedef {object} Entry
 * @property {string} name as in `/console/{name}`; `overview` is `/`
 * @property {string} title
 * @property {string[]} roles
 * @property {string} icon
 * @property {string|null} group the sidebar's heading; null for a view that is reached from another
 * @property {string} [under] the view that is marked in the sidebar while this one is shown
 * @property {() => Promise<{default: {name: string, title: string, roles: string[], render: Function}}>} load
 */

const PEOPLE = ['admin', 'viewer', 'lead'];
const ALL = ['admin', 'viewer'];
const KEY = ['key'];

/** @type {Entry[]} */
export const VIEWS = [
  { name: 'overview', title: 'Overview', roles: PEOPLE, icon: 'overview', group: 'Spend', load: () => import('./overview.js') },
  { name: 'explore', title: 'Explore', roles: PEOPLE, icon: 'explore', group: 'Spend', load: () => import('./explore.js') },
  { name: 'budgets', title: 'Budgets', roles: PEOPLE, icon: 'budgets', group: 'Spend', load: () => import('./budgets.js') },
  { name: 'keys', title: 'Keys', roles: PEOPLE, icon: 'keys', group: 'Access', load: () => import('./keys.js') },
  { name: 'teams', title: 'Teams', roles: PEOPLE, icon: 'teams', group: 'Access', load: () => import('./teams.js') },
  { name: 'tokens', title: 'Admin tokens', roles: ['admin'], icon: 'me', group: 'Access', load: () => import('./tokens.js') },
  { name: 'live', title: 'Live', roles: PEOPLE, icon: 'live', group: 'Traffic', load: () => import('./live.js') },
  { name: 'requests', title: 'Requests', roles: PEOPLE, icon: 'requests', group: 'Traffic', load: () => import('./requests.js') },
  { name: 'request', title: 'Request', roles: PEOPLE, icon: 'requests', group: null, under: 'requests', load: () => import('./request.js') },
  { name: 'upstreams', title: 'Upstreams', roles: PEOPLE, icon: 'upstreams', group: 'Gateway', load: () => import('./upstreams.js') },
  { name: 'prices', title: 'Prices', roles: ALL, icon: 'prices', group: 'Gateway', load: () => import('./prices.js') },
  { name: 'alerts', title: 'Alerts', roles: ALL, icon: 'alerts', group: 'Gateway', load: () => import('./alerts.js') },
  { name: 'audit', title: 'Audit', roles: ALL, icon: 'audit', group: 'Gateway', load: () => import('./audit.js') },
  { name: 'me', title: 'Me', roles: KEY, icon: 'me', group: 'This key', load: () => import('./me.js') },
  { name: 'my-requests', title: 'My requests', roles: KEY, icon: 'requests', group: 'This key', load: () => import('./my-requests.js') },
  { name: 'my-live', title: 'My live requests', roles: KEY, icon: 'live', group: 'This key', load: () => import('./my-live.js') },
];

/** The sidebar of a role: what it may not see is not there. @param {import('../session.js').Session} session */
export function groupsFor(session) {
  const groups = new Map();
  for (const view of VIEWS) {
    if (!view.group || !view.roles.includes(session.role)) continue;
    groups.set(view.group, [...(groups.get(view.group) ?? []), view]);
  }
  return [...groups].map(([title, views]) => ({ title, views }));
}

/** Where a role starts. @param {import('../session.js').Session} session */
export const homeOf = (session) => (session.role === 'key' ? 'me' : 'overview');
