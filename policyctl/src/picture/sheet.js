// The grid of a page: a table whose namespaces and workloads open and fold, and which is walked with the arrow keys.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const { rows, groups, looks } = data;
  const cells = new Uint32Array(rows.length * rows.length);
  for (let run = 0, at = 0; run < data.runs.length; run += 2) {
    cells.fill(data.runs[run], at, at += data.runs[run + 1]);
  }
  const sheet = document.getElementById('sheet');
  const said = document.getElementById('said');
  const list = document.getElementById('list');
  const look = (row, column) => looks[cells[row * rows.length + column]];
  const isSeen = (row) => {
    for (let above = rows[row].parent; above !== null; above = rows[above].parent) {
      if (!rows[above].open) return false;
    }
    return !rows[row].open;
  };
  const words = (row, column) => `${rows[row].name} to ${rows[column].name}: ${look(row, column)[2]}`;

  // what has the focus, by line and place: lines 0 and 1 are heads, and so are places 0 and 1
  let places = [];
  let current = null;

  const make = (name, attributes, text) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) element.setAttribute(key, value);
    }
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // a head of a namespace opens and folds all of it, one of a workload that workload, one of a pod folds it back
  const folds = (row, isGroup) => {
    if (isGroup) return rows[groups[rows[row].group].root].children.length > 1 ? groups[rows[row].group].root : null;
    if (rows[row].children.length > 0) return row;
    const above = rows[row].parent;
    return above !== null && rows[above].parent !== null ? above : null;
  };

  const head = (row, isGroup, scope, isFirst, span) => {
    const group = groups[rows[row].group];
    const fold = folds(row, isGroup);
    const root = rows[row].parent === null;
    const label = isGroup ? group.name : root ? rows[row].holds : rows[row].label;
    const more = !isGroup && !root && rows[row].holds ? `, ${rows[row].holds}` : '';
    const open = fold !== null && rows[fold].open;
    const classes = [isGroup ? 'group' : 'unit', group.outside && isGroup ? 'outside' : '', isFirst ? 'first' : '',
      !isGroup && root ? 'holds' : ''];
    const th = make('th', {
      class: classes.filter(Boolean).join(' '), scope, tabindex: -1, title: isGroup ? group.name : rows[row].name + more,
      'aria-label': isGroup ? (group.outside ? '' : 'namespace ') + group.name : rows[row].name + more,
      'aria-expanded': fold === null || (!isGroup && root) ? null : String(open),
      [scope.startsWith('row') ? 'rowspan' : 'colspan']: span > 1 ? span : null,
    });
    const inner = make('span', {}, label);
    if (isGroup && fold !== null) inner.append(make('span', { class: 'fold', 'aria-hidden': 'true' }, open ? ' \u2212' : ' +'));
    if (!isGroup && fold !== null && !root) {
      inner.append(make('span', { class: 'fold', 'aria-hidden': 'true' }, open ? ' \u2212' : ' +'));
    }
    th.append(inner);
    th.target = { fold: fold === null && root ? row : fold };
    return th;
  };

  const draw = () => {
    const seen = rows.map((_, row) => row).filter(isSeen);
    const begins = (place) => place === 0 || rows[seen[place]].group !== rows[seen[place - 1]].group;
    const span = (place) => seen.filter((row) => rows[row].group === rows[seen[place]].group).length;
    const table = make('table', {
      role: 'grid', 'aria-label': `${data.title}: a row for each client, a column for each server`,
      'aria-rowcount': seen.length + 2, 'aria-colcount': seen.length + 2,
    });
    places = [[], []];
    const top = table.createTHead();
    const [groupLine, unitLine] = [top.insertRow(), top.insertRow()];
    groupLine.append(make('td', { colspan: 2, rowspan: 2 }, 'from \u2193  to \u2192'));
    for (const line of [0, 1]) places[line][0] = places[line][1] = null;
    let group;
    seen.forEach((row, place) => {
      if (begins(place)) groupLine.append(group = head(row, true, 'colgroup', true, span(place)));
      const unit = head(row, false, 'col', begins(place), 1);
      unitLine.append(unit);
      places[0].push(group);
      places[1].push(unit);
    });
    const body = table.createTBody();
    seen.forEach((row, line) => {
      const tr = body.insertRow();
      if (begins(line)) {
        tr.className = 'first';
        tr.append(group = head(row, true, 'rowgroup', false, span(line)));
      }
      const unit = head(row, false, 'row', false, 1);
      tr.append(unit);
      const own = [group, unit];
      seen.forEach((column, place) => {
        const [kind, mark] = look(row, column);
        const td = make('td', { class: kind + (begins(place) ? ' first' : ''), tabindex: -1, 'aria-label': words(row, column) }, mark);
        td.target = { row, column };
        tr.append(td);
        own.push(td);
      });
      places.push(own);
    });
    sheet.replaceChildren(table);
    tell(seen);
    return table;
  };

  // what can be read in print, where nothing can be pointed at
  const tell = (seen) => {
    const table = make('table', {});
    const first = table.createTHead().insertRow();
    for (const name of ['from', 'to', '']) first.append(make('th', { scope: 'col' }, name));
    const body = table.createTBody();
    for (const row of seen) {
      for (const column of seen) {
        if (!['part', 'some', 'opened', 'closed', 'both'].includes(look(row, column)[0])) continue;
        const tr = body.insertRow();
        for (const text of [rows[row].name, rows[column].name, look(row, column)[2]]) tr.insertCell().textContent = text;
      }
    }
    list.replaceChildren(make('h2', {}, 'What the marked cells say'), table);
    list.hidden = body.rows.length === 0;
  };

  const show = (element) => {
    for (const marked of sheet.querySelectorAll('.at')) marked.classList.remove('at');
    const target = element.target;
    if (target.row === undefined) {
      said.textContent = element.getAttribute('aria-label') + (target.fold === null ? '' : '. Enter opens or folds it.');
      return;
    }
    said.textContent = words(target.row, target.column);
    const [line, place] = find(element);
    for (const head of [places[0][place], places[1][place], places[line][0], places[line][1]]) head.classList.add('at');
  };

  const find = (element) => {
    for (let line = 0; line < places.length; line += 1) {
      const place = places[line].indexOf(element);
      if (place >= 0) return [line, place];
    }
    return [2, 2];
  };

  const focus = (element) => {
    if (current) current.tabIndex = -1;
    current = element;
    current.tabIndex = 0;
    current.focus();
  };

  const move = (lines, columns) => {
    let [line, place] = find(current);
    const from = current;
    for (;;) {
      line += lines;
      place += columns;
      const next = places[line] && places[line][place];
      if (!next) return;
      // a head that spans several lines is one
      if (next !== from) return focus(next);
    }
  };

  const change = (opened, isOpen) => {
    if (opened === null || opened.length === 0) return;
    const [line, place] = find(current);
    for (const row of opened) {
      if (rows[row].children.length === 0) continue;
      rows[row].open = isOpen;
      // folded within when it is opened again
      if (!isOpen) rows[row].children.forEach((child) => { rows[child].open = false; });
    }
    draw();
    const nearest = (all, index) => all[Math.min(index, all.length - 1)];
    current = null;
    focus(nearest(nearest(places, line), place) || places[2][2]);
  };

  const act = (element) => {
    const target = element.target;
    if (target.row === undefined) {
      if (target.fold !== null) change([target.fold], !rows[target.fold].open);
      return;
    }
    change([...new Set([target.row, target.column])].filter((row) => rows[row].children.length > 0), true);
  };

  const keys = {
    ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0), ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1),
    Home: () => focus(places[find(current)[0]].find(Boolean)), End: () => focus(places[find(current)[0]].at(-1)),
    PageUp: () => focus(places[2][find(current)[1]]), PageDown: () => focus(places.at(-1)[find(current)[1]]),
    Enter: () => act(current), ' ': () => act(current),
    '+': () => change(groups.map((group) => group.root), true), '-': () => change(groups.map((group) => group.root), false),
  };
  sheet.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || !current) return;
    event.preventDefault();
    keys[event.key]();
  });
  const cellOf = (event) => event.target.closest && event.target.closest('[tabindex]');
  sheet.addEventListener('focusin', (event) => {
    const element = cellOf(event);
    if (!element) return;
    if (current && current !== element) current.tabIndex = -1;
    current = element;
    current.tabIndex = 0;
    show(element);
  });
  sheet.addEventListener('click', (event) => {
    const element = cellOf(event);
    if (!element) return;
    focus(element);
    act(element);
  });
  sheet.addEventListener('mouseover', (event) => {
    const element = cellOf(event);
    if (element) show(element);
  });

  draw();
  current = places[2] ? places[2][2] : null;
  if (current) current.tabIndex = 0;
  said.textContent = 'Point at a cell, or walk the grid with the arrow keys.';
})();
