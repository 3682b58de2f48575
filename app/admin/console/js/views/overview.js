import { head, panel } from '../panel.js';

export default {
  name: 'overview', title: 'Overview', roles: ['admin', 'viewer', 'lead'],
  async render(root, _ctx) {
    root.append(head('Overview'), panel({ title: 'Soon' }).element);
  },
};
