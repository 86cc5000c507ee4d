(() => {
  'use strict';
  // Everything on the page can be read without this: it sorts, filters, enlarges and switches.
  // Text of the page goes back into it as text only, never as markup.
{% include 'theme.js' %}
  const count = (n) => n.toLocaleString('en-US');

  // The contents name the section that is read.
  const links = all('nav a');
  if ('IntersectionObserver' in window) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        const id = entry.target.getAttribute('aria-labelledby');
        for (const link of links) {
          if (link.getAttribute('href') === `#${id}`) link.setAttribute('aria-current', 'true');
          else link.removeAttribute('aria-current');
        }
      }
    }, { rootMargin: '0px 0px -75% 0px' });
    all('main > section').forEach((section) => watcher.observe(section));
  }

  // What is wider than its place says so, and scrolls by keyboard.
  const scrollers = all('.scroll');
  const cue = (box) => {
    const more = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle('more', more);
    box.classList.toggle('end', box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
    if (more) {
      const what = box.closest('figure')?.querySelector('figcaption b')?.textContent;
      box.tabIndex = 0;
      box.setAttribute('role', 'group');
      box.setAttribute('aria-label', `${what || 'Table'} scrolls sideways`);
    } else {
      for (const name of ['tabindex', 'role', 'aria-label']) box.removeAttribute(name);
    }
  };
  for (const box of scrollers) {
    box.addEventListener('scroll', () => cue(box), { passive: true });
    box.prepend(make('span', { className: 'cue', textContent: 'Scroll sideways \u2192' }));
  }
  const cues = () => scrollers.forEach(cue);
  addEventListener('resize', cues);
  addEventListener('load', cues);
  all('details').forEach((part) => part.addEventListener('toggle', cues));

  // Tables: sorted by a click on a heading, filtered by words, long ones unfolded on demand.
  const number = (text) => {
    const found = text.replace(/[,\u00a0 ]/g, '').match(/^[<>\u2265+]*(-?\d+(\.\d+)?(e-?\d+)?)/);
    return found ? Number(found[1]) : null;
  };
  const compare = (column, down) => (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].textContent.trim());
    const unknown = (x === '\u2013') - (y === '\u2013');
    if (unknown) return unknown;
    const [p, q] = [number(x), number(y)];
    const order = p !== null && q !== null ? p - q : x.localeCompare(y, undefined, { numeric: true });
    return down ? -order : order;
  };
  for (const table of all('table.sortable')) {
    const body = table.tBodies[0];
    const box = table.closest('.scroll');
    const folded = box.nextElementSibling?.matches('details.rest') ? box.nextElementSibling : null;
    const first = body.rows.length;
    if (folded) {
      body.append(...folded.querySelector('tbody').rows);
      folded.remove();
    }
    let whole = !folded;
    const words = make('input', { type: 'search', size: 18 });
    const tools = make('div', { className: 'tools' });
    const state = make('span');
    state.setAttribute('role', 'status');
    const button = make('button', { type: 'button', textContent: `Show all ${count(body.rows.length)}` });
    const show = () => {
      const text = words.value.trim().toLowerCase();
      let shown = 0;
      [...body.rows].forEach((row, i) => {
        const hit = row.textContent.toLowerCase().includes(text);
        row.hidden = !(hit && (whole || text || i < first));
        shown += !row.hidden;
      });
      state.textContent = shown < body.rows.length ? `${count(shown)} of ${count(body.rows.length)} rows` : '';
      button.hidden = whole || Boolean(text);
      cues();
    };
    button.addEventListener('click', () => { whole = true; show(); });
    words.addEventListener('input', show);
    if (body.rows.length > 8) tools.append(make('label', {}, 'Filter rows ', words));
    tools.append(button, state);
    box.before(tools);
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const sorter = make('button', { type: 'button' }, ...head.childNodes);
      head.replaceChildren(sorter);
      sorter.addEventListener('click', () => {
        const down = head.getAttribute('aria-sort') === 'ascending';
        for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        body.append(...[...body.rows].sort(compare(column, down)));
        show();
      });
    });
    show();
  }

  // The gallery.
  const galleries = all('.gallery').map((gallery) => {
    const form = gallery.querySelector('form');
    const grid = gallery.querySelector('.thumbnails');
    const figures = all('figure', grid);
    let pair = null;
    const value = (name) => form.elements[name]?.value ?? '';
    const show = () => {
      const [kind, order] = [value('kind'), value('order')];
      const index = value('class');
      let shown = 0;
      for (const figure of figures) {
        const { true: truth, pred } = figure.dataset;
        figure.hidden = Boolean(
          (kind && figure.dataset.kind !== kind)
          || (index && !`${truth} ${pred}`.split(' ').includes(index))
          || (pair && (truth !== pair[0] || pred !== pair[1])));
        shown += !figure.hidden;
      }
      const [key, sign] = [order.replace('-', ''), order.startsWith('-') ? -1 : 1];
      grid.append(...[...figures].sort((a, b) => (
        order ? sign * (a.dataset[key] - b.dataset[key]) : figures.indexOf(a) - figures.indexOf(b))));
      const names = (i) => form.querySelector(`[name=class] [value='${Number(i)}']`)?.textContent;
      const which = pair ? `, true ${names(pair[0])}, predicted ${names(pair[1])}` : '';
      form.querySelector('[role=status]').textContent = `${shown} of ${figures.length} ${figures.length === 1 ? 'image' : 'images'}${which}`;
    };
    form.hidden = false;
    form.addEventListener('submit', (event) => event.preventDefault());
    form.addEventListener('change', () => { pair = null; show(); });
    form.addEventListener('reset', () => { pair = null; setTimeout(show); });
    show();
    return {
      // Images of a pair of classes, or all of one class.
      pick(chosen, index) {
        form.reset();
        setTimeout(() => {
          pair = chosen;
          if (index) form.elements.class.value = index;
          show();
          gallery.scrollIntoView();
          form.querySelector('button').focus({ preventScroll: true });
        });
      },
    };
  });
  document.addEventListener('click', (event) => {
    const link = event.target.closest('a[href^="#p"]');
    const pair = link?.getAttribute('href').match(/^#p(\d+)-(\d+)$/);
    if (!galleries.length || !pair) return;
    event.preventDefault();
    galleries.at(-1).pick(link.dataset.class ? null : [pair[1], pair[2]], link.dataset.class);
  });

  // Confusion matrices: the value below the pointer or the focus, in words.
  for (const table of all('.matrix table')) {
    const readout = make('p', { className: 'readout', textContent: 'Point at a cell to read it.' });
    readout.setAttribute('role', 'status');
    table.closest('.scroll').before(readout);
    const read = (event) => {
      const cell = event.target.closest('td');
      if (!cell) return;
      all('.on', table).forEach((head) => head.classList.remove('on'));
      const [row, column] = [cell.parentElement.cells[0], table.tHead.rows[0].cells[cell.cellIndex]];
      row.classList.add('on');
      column.classList.add('on');
      readout.textContent = cell.title || `true ${row.title}, predicted ${column.title}: none`;
    };
    for (const name of ['mouseover', 'focusin', 'click']) table.addEventListener(name, read);
  }

  // Images: enlarged by a click.
  const picture = make('img');
  const words = make('p');
  const close = make('button', { type: 'button', textContent: 'Close' });
  const whole = make('button', { type: 'button', textContent: 'Actual size' });
  const dialog = make('dialog', {}, make('div', { className: 'tools' }, close, whole), picture, words);
  dialog.setAttribute('aria-label', 'Enlarged image');
  document.body.append(dialog);
  close.addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  whole.addEventListener('click', () => {
    picture.classList.toggle('fit');
    whole.textContent = picture.classList.contains('fit') ? 'Actual size' : 'Fit';
  });
  for (const image of all('figure img')) {
    const button = make('button', { type: 'button', className: 'zoom' });
    button.setAttribute('aria-label', `Enlarge: ${image.alt}`);
    image.replaceWith(button);
    button.append(image);
    button.style.maxWidth = image.closest('.plot') ? `${image.getAttribute('width')}px` : '';
    button.addEventListener('click', () => {
      picture.src = image.src;
      picture.alt = image.alt;
      picture.className = image.naturalHeight > image.naturalWidth ? 'fit tall' : 'fit';
      words.textContent = image.closest('figure').querySelector('figcaption')?.innerText ?? '';
      whole.textContent = 'Actual size';
      dialog.showModal();
    });
  }
  cues();
})();
