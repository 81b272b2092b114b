// The picture of a page: its cards are walked with the arrow keys, and tell who may enter them and where they may go.
'use strict';
(() => {
  const { cards, lines } = JSON.parse(document.getElementById('data').textContent);
  const drawing = document.getElementById('drawing');
  const said = document.getElementById('said');
  const list = document.getElementById('list');
  const nodes = [...drawing.querySelectorAll('.node')];
  const links = [...drawing.querySelectorAll('.link')].map((link) => ({
    link, from: link.dataset.from.split(' ').map(Number), to: Number(link.dataset.to),
  }));
  const numberOf = (node) => Number(node.dataset.card);
  let current = nodes[0] || null;

  const make = (name, text) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const tableOf = (rows) => {
    const table = make('table');
    table.className = 'details';
    for (const [who, what] of rows) {
      const tr = table.insertRow();
      const th = make('th', what);
      th.scope = 'row';
      tr.append(th, make('td', who));
    }
    return table;
  };

  const into = (card) => lines.filter((line) => line.to === card).map((line) => [line.names.join(', '), line.what]);
  const outOf = (card) => lines.filter((line) => line.from.includes(card)).map((line) => [cards[line.to].name, line.what]);

  const tell = (card) => {
    const parts = [make('h2', cards[card].name)];
    const traits = [cards[card].protected ? 'some connections to it are refused by its own policies' : 'its own policies refuse nobody',
      cards[card].restricted ? 'its egress is restricted' : 'its egress is not restricted'];
    if (cards[card].anywhere) traits.push(`it may go anywhere at ${cards[card].anywhere}`);
    parts.push(make('p', `${traits.join('; ')}.`));
    for (const [title, rows] of [['May enter', into(card)], ['May go to', outOf(card)]]) {
      if (rows.length > 0) parts.push(make('h2', title), tableOf(rows));
    }
    return parts;
  };

  const show = (card) => {
    const near = new Set([card]);
    for (const { link, from, to } of links) {
      const own = card === null || to === card || from.includes(card);
      link.classList.toggle('dimmed', !own);
      if (own) [to, ...from].forEach((other) => near.add(other));
    }
    for (const node of nodes) node.classList.toggle('dimmed', card !== null && !near.has(numberOf(node)));
    drawing.classList.toggle('one', card !== null);
  };

  const focus = (node) => {
    if (current) current.setAttribute('tabindex', '-1');
    current = node;
    current.setAttribute('tabindex', '0');
    current.focus();
  };

  // the nearest card in a direction; what is straight ahead is nearer than what is beside
  const nearest = (dx, dy) => {
    const from = current.getBoundingClientRect();
    let best = null;
    let least = Infinity;
    for (const node of nodes) {
      const to = node.getBoundingClientRect();
      const x = to.x - from.x;
      const y = to.y - from.y;
      const along = x * dx + y * dy;
      if (node === current || along <= 0) continue;
      const across = Math.abs(x * dy) + Math.abs(y * dx);
      if (dy !== 0 && across > 5) continue;
      if (along + 3 * across < least) [best, least] = [node, along + 3 * across];
    }
    return best;
  };

  const move = (dx, dy) => {
    const next = nearest(dx, dy);
    if (next) focus(next);
  };
  const open = () => said.replaceChildren(...tell(numberOf(current)));
  const keys = {
    ArrowUp: () => move(0, -1), ArrowDown: () => move(0, 1), ArrowLeft: () => move(-1, 0), ArrowRight: () => move(1, 0),
    Home: () => focus(nodes[0]), End: () => focus(nodes.at(-1)), Enter: open, ' ': open,
    Escape: () => { show(null); said.replaceChildren(); },
  };
  drawing.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || !current) return;
    event.preventDefault();
    keys[event.key]();
  });
  drawing.addEventListener('focusin', (event) => {
    const node = event.target.closest('.node');
    if (!node) return;
    if (current && current !== node) current.setAttribute('tabindex', '-1');
    current = node;
    node.setAttribute('tabindex', '0');
    show(numberOf(node));
  });
  drawing.addEventListener('focusout', () => show(null));
  drawing.addEventListener('click', (event) => {
    const node = event.target.closest('.node');
    if (!node) return;
    focus(node);
    open();
  });

  if (current) current.setAttribute('tabindex', '0');
  // in print nothing can be pointed at
  const all = lines.map((line) => [`${line.names.join(', ')} to ${cards[line.to].name}`, line.what]);
  list.append(make('h2', 'All lines'), tableOf(all));
})();
