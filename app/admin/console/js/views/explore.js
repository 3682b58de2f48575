import { head, panel } from '../panel.js';

export default {
  name: 'explore', title: 'Explore', roles: ['admin', 'viewer', 'lead'],
  async render(root, _ctx) {
    root.append(head('Explore'), panel({ title: 'Soon' }).element);
  },
};
