(() => {
  'use strict';
  // Names of files and classes come from anywhere: they go into the page as text only.
{% include 'theme.js' %}

  const percent = (share) => `${(100 * share).toFixed(share < 0.001 ? 3 : 1)} %`;

  const chosenModel = () => document.getElementById('model')?.value;

  const ask = async (file, model) => {
    const query = model ? `?model=${encodeURIComponent(model)}` : '';
    const body = new FormData();
    body.append('image', file);
    const response = await fetch(`predict${query}`, { method: 'POST', body });
    const answer = await response.json();
    if (answer.error) throw new Error(answer.error);
    return answer;
  };

  const boxOn = (box) => {
    const [x, y, w, h] = box.map((share) => 100 * share);
    const mark = make('i');
    Object.assign(mark.style, {
      left: `${x - w / 2}%`, top: `${y - h / 2}%`, width: `${w}%`, height: `${h}%`,
    });
    return mark;
  };

  const row = ({ class: name, probability }) => {
    const filled = make('i');
    filled.style.width = `${100 * probability}%`;
    const bar = make('span', { className: 'bar', ariaHidden: 'true' }, filled);
    return make('li', {}, make('span', { textContent: name }),
      make('b', { textContent: percent(probability) }), bar);
  };

  const show = async (file) => {
    const model = chosenModel();
    const address = URL.createObjectURL(file);
    const image = make('img', { src: address, alt: '' });
    const seen = make('div', { className: 'seen' }, image);
    const list = make('ol', {}, make('li', { textContent: 'computing ...' }));
    const answer = make('section', { className: 'answer' },
      make('h2', { textContent: [file.name || 'image', model].filter(Boolean).join(' by ') }), seen, list);
    document.getElementById('answers').prepend(answer);
    try {
      const found = await ask(file, model);
      list.replaceChildren(...found.predictions.map(row));
      if (found.box) seen.append(boxOn(found.box));
    } catch (error) {
      seen.remove();
      list.replaceWith(make('p', { className: 'failed', textContent: error.message }));
    }
  };

  const drop = document.getElementById('drop');
  const chosenFiles = document.getElementById('files');
  chosenFiles.addEventListener('change', () => {
    [...chosenFiles.files].forEach(show);
    chosenFiles.value = '';
  });
  for (const name of ['dragenter', 'dragover']) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
  }
  document.addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) drop.classList.remove('over');
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    [...event.dataTransfer.files].forEach(show);
  });
  document.addEventListener('paste', (event) => [...event.clipboardData.files].forEach(show));
})();
