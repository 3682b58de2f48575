/** The start of the console: who is signed in, then the shell, then a view. */
import { Api } from './api.js';
import { readSession, showSignIn } from './session.js';
import { Shell } from './shell.js';
import { h, put } from './dom.js';
import { faultBox } from './panel.js';

const root = document.getElementById('app');
const api = new Api();
let shell = null;

function signIn(reason = '') {
  shell?.close();
  shell = null;
  showSignIn(root, api, { onSession: open, reason });
}

function open(session) {
  api.onSignedOut = () => signIn('Your session has ended. Sign in again; you come back to this page.');
  shell = new Shell(root, api, session);
}

async function start() {
  put(root);
  try {
    const session = await readSession(api);
    if (session) open(session);
    else signIn();
  } catch (error) {
    put(root, h('main.signin', h('div.signin-card', h('h1', 'Headgate'), faultBox(error, { retry: start }))));
  }
}

start();
