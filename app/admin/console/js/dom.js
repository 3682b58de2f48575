/** Elements. Text only ever goes in as text: there is no way here to make markup of a string. */

const SVG = 'http://www.w3.org/2000/svg';
/** Addresses a link may have: of this site, or a plain web page. */
const SAFE_HREF = /^(\/(?!\/)|\?|#|https?:\/\/)/;

/**
 * @typedef {Node | string | number | null | undefined | false | Child[]} Child
 * @typedef {Record<string, any>} Attributes `class`, `on…` (a function), `style` (an object), `data` (an object), the rest
 *   as attributes; null, undefined and false leave an attribute out, true sets it empty.
 */

/**
 * An HTML element: `h('a.side-link', {href: '/'}, 'Overview')`.
 * @param {string} tag name, with classes after dots
 * @param {Attributes | Child} [attributes]
 * @param {...Child} children
 * @returns {any}
 */
export function h(tag, attributes, ...children) {
  const [name, ...classes] = tag.split('.');
  return fill(document.createElement(name), classes, attributes, children);
}

/** The same for SVG. @param {string} tag @param {Attributes | Child} [attributes] @param {...Child} children @returns {any} */
export function s(tag, attributes, ...children) {
  const [name, ...classes] = tag.split('.');
  return fill(document.createElementNS(SVG, name), classes, attributes, children);
}

function fill(element, classes, attributes, children) {
  if (isChild(attributes)) {
    children.unshift(attributes);
    attributes = {};
  }
  if (classes.length) element.setAttribute('class', classes.join(' '));
  for (const [name, value] of Object.entries(attributes ?? {})) set(element, name, value);
  append(element, children);
  return element;
}

const isChild = (value) => value instanceof Node || Array.isArray(value) || typeof value === 'string' || typeof value === 'number';

/** One attribute, as `h` takes it. */
export function set(element, name, value) {
  if (name.startsWith('on') && typeof value === 'function') element.addEventListener(name.slice(2), value);
  else if (name === 'class') for (const one of String(value || '').split(' ').filter(Boolean)) element.classList.add(one);
  else if (name === 'style') for (const [key, of] of Object.entries(value)) element.style.setProperty(key, of);
  else if (name === 'data') for (const [key, of] of Object.entries(value)) element.dataset[key] = of;
  else if (name === 'value' && 'value' in element) element.value = value ?? '';
  else if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (name === 'href' && element instanceof HTMLAnchorElement && !SAFE_HREF.test(value)) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? '' : String(value));
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put `children` in the place of all that is in `element`. */
export function put(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

let made = 0;
/** An id that no other element has. @param {string} stem */
export const uniqueId = (stem) => `${stem}-${++made}`;

/** A word only a screen reader says. @param {string} text */
export const hush = (text) => h('span.hush', text);
