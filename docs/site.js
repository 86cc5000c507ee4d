// What is wider than its place fades where it continues, and scrolls by keyboard.
(() => {
  'use strict';
  const mark = (box) => {
    const more = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle('more', more);
    box.classList.toggle('end', box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
    if (more) box.tabIndex = 0;
    else box.removeAttribute('tabindex');
  };
  const boxes = () => document.querySelectorAll('.md-typeset__scrollwrap, .wide, pre.columns > code');
  addEventListener('load', () => {
    for (const box of boxes()) {
      mark(box);
      box.addEventListener('scroll', () => mark(box), { passive: true });
    }
  });
  addEventListener('resize', () => boxes().forEach(mark));
})();
